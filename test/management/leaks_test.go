package management

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

var jwt = regexp.MustCompile(`eyJ[\w-]+\.[\w-]+\.[\w-]{40,}`)

// leakage is the test: a shop whose secrets are all known, and where they must not be.
type leakage struct {
	*office
	*search
	logs     string // the folder of the logs
	receiver *httptest.Server
	answered chan string // the paths at which the receiver was asked
	asked    chan string // the headers that the upstream was asked with
	seen     int

	me                    apiKey // may do everything
	consumer, ended, last string
	shown                 apiKey
	good, bad             leakHook
}

type leakHook struct{ ID, SigningSecret string }

// Every kind of secret that there is, by every way that makes or uses it: nothing that is written down, logged, answered or told of the configuration has one,
// but the answer that made it and the two files that keep keys.
func TestManagementLeaksNothing(t *testing.T) {
	l := newLeakage(t)
	l.makeAll()
	l.sellToConsumer()
	l.sealAnew()
	l.refuse()
	l.showAll()
	l.searchAll()
}

func newLeakage(t *testing.T) *leakage {
	l := &leakage{
		search: &search{map[string]string{}, map[string]string{}}, logs: t.TempDir(),
		answered: make(chan string, 100), asked: make(chan string, 100),
	}
	pair := func(name string, account int) {
		key := crypto.FromECDSA(devnet.Developer(account).Key)
		t.Setenv(name, hex.EncodeToString(key))
		l.bytes(name, key)
	}
	pair("LEAK_GAS", 0)
	pair("LEAK_REFUND", 1)
	configured, seal := webhooks.NewSecret(), rand.Text()+rand.Text()
	t.Setenv("LEAK_HOOK", configured)
	t.Setenv("LEAK_SEAL", seal)
	l.secret("a configured endpoint's secret", configured, len(webhooks.SecretPrefix))
	l.secret("a configured sealing key", seal, 0)
	l.receiver = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case l.answered <- r.URL.Path:
		default:
		}
		if r.URL.Path == "/bad" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	to := func(name string) string {
		return "output file " + filepath.Join(l.logs, name) + "\n format x402_redact\n"
	}
	l.office = newOffice(t, func(r *rig.Options) {
		r.Site = "log {\n" + to("access.log") + "}\n" + strings.Replace(r.Site, "name shop", "name shop\n api_keys", 1)
		r.Settler, r.Refund = "wallet {env.LEAK_GAS}", "refund {env.LEAK_REFUND}"
		upstream := r.Upstream
		r.Upstream = func(w http.ResponseWriter, q *http.Request) {
			select {
			case l.asked <- fmt.Sprint(q.Header):
			default:
			}
			upstream(w, q)
		}
		r.App = "webhooks {\n allow_private\n }\nwebhook " + l.receiver.URL + "/configured {\n secret {env.LEAK_HOOK}\n }\n"
	})
	t.Cleanup(l.receiver.Close) // before the rig looks for what is left behind
	t.Setenv("RIG_LOG_LEVEL", "DEBUG")
	l.edit = func(text string) string { return strings.Replace(text, "output stderr\n", to("caddy.log"), 1) }
	l.reload()
	return l
}

func (l *leakage) see(where, text string) {
	l.seen++
	l.texts[fmt.Sprintf("%d: %s", l.seen, where)] = text
}

// keySecret takes the secret of an API key out of an answer.
func (l *leakage) keySecret(what, secret string) string {
	l.t.Helper()
	if !strings.HasPrefix(secret, "sk_test_") {
		l.t.Fatalf("%s has no secret: %q", what, secret)
	}
	l.secret(what, secret, 14)
	return secret
}

// twice makes the same call twice: what was told once is not told again.
func (l *leakage) twice(what, path, body string) string {
	l.t.Helper()
	first := l.ops(l.me.Secret, http.MethodPost, path, body, "Idempotency-Key", what)
	second := l.ops(l.me.Secret, http.MethodPost, path, body, "Idempotency-Key", what)
	if first.Status >= 300 || second.Status != first.Status || second.Header.Get("Idempotency-Replayed") != "true" {
		l.t.Fatalf("%s: %d %s, %d %s", what, first.Status, first.Body, second.Status, second.Body)
	}
	l.see(what+", again", second.Body)
	return first.Body
}

func (l *leakage) askAdmin(method, path, body string) rig.Answer {
	a := rig.NewBuyer(l.t, 1).Do(l.t.Context(), method, "http://"+l.admin+path, body, "Content-Type", "application/json")
	l.see(method+" "+path+" of the admin endpoint", a.Body)
	return a
}

// makeAll makes keys and endpoints.
func (l *leakage) makeAll() {
	t := l.t
	l.me = l.key("--mode", "test", "--scopes", strings.Join(apikey.Names(apikey.Scopes()), ","))
	l.keySecret("the first key", l.me.Secret)
	l.shown = decode[apiKey](t, l.twice("a key", "/v1/api-keys", `{"label":"x","scopes":["access","payments:read"]}`))
	l.consumer = l.keySecret("a consumer's key", l.shown.Secret)
	turned := decode[struct{ Successor apiKey }](t, l.twice("a successor", "/v1/api-keys/"+l.shown.ID+"/rotate", `{"overlapSeconds":3600}`))
	l.ended = l.keySecret("a successor", turned.Successor.Secret)
	leaked := decode[struct{ Successor apiKey }](t, l.twice("one that had leaked", "/v1/api-keys/"+turned.Successor.ID+"/rotate", `{"overlapSeconds":0}`))
	l.last = l.keySecret("the successor of one that had leaked", leaked.Successor.Secret)
	l.good = decode[leakHook](t, l.twice("an endpoint", "/v1/webhooks", `{"url":"`+l.receiver.URL+`/good"}`))
	l.bad = decode[leakHook](t, l.twice("a bad endpoint", "/v1/webhooks", `{"url":"`+l.receiver.URL+`/bad","compatibility":true}`))
	newer := decode[leakHook](t, l.twice("its new secret", "/v1/webhooks/"+l.good.ID+"/rotate-secret", `{}`))
	for _, h := range []leakHook{l.good, l.bad, newer} {
		l.secret("the secret of an endpoint", h.SigningSecret, len(webhooks.SecretPrefix))
	}
}

// sellToConsumer has the shop sell, to a consumer who is known by its key too, and waits until all endpoints were told.
func (l *leakage) sellToConsumer() {
	t := l.t
	l.sell()
	buyer := rig.NewBuyer(t, 4)
	offer := buyer.Offer(l.URL("/weather"))
	for i := range offer.Accepts {
		header := buyer.Sign(offer, i)
		l.secret("a payment header", header, len(header)/2) // it ends with what was signed
		a := buyer.Get(l.URL("/weather"), "PAYMENT-SIGNATURE", header, "X-Api-Key", l.consumer, "Authorization", "Bearer "+l.consumer)
		if a.Status != http.StatusOK {
			t.Fatalf("buying: %d %s", a.Status, a.Body)
		}
		for _, values := range a.Header {
			for _, token := range jwt.FindAllString(strings.Join(values, " "), -1) {
				l.secret("an access token", token, strings.LastIndex(token, "."))
			}
		}
	}
	if !slices.Contains(sorted(l.needles), "an access token") {
		t.Fatal("no token came")
	}
	for _, path := range []string{"/good", "/bad", "/configured"} {
		deadline := time.After(time.Minute)
		for came := ""; came != path; {
			select {
			case came = <-l.answered:
			case <-deadline:
				t.Fatalf("nothing comes at %s", path)
			}
		}
	}
	for n := len(l.asked); n > 0; n-- { // nobody buys any more
		l.see("what the upstream is asked", <-l.asked)
	}
}

// sealAnew gives the configuration a sealing key, by which everything is sealed anew, and rotates the keys of tokens.
func (l *leakage) sealAnew() {
	t := l.t
	l.options.App = strings.Replace(l.options.App, "webhooks {\n", "webhooks {\n key {env.LEAK_SEAL}\n", 1)
	l.reload()
	if a := l.ops(l.me.Secret, http.MethodPost, "/v1/webhooks/"+l.good.ID+"/probe", ""); a.Status != http.StatusOK {
		t.Errorf("a probe: %d %s", a.Status, a.Body)
	}
	if a := l.askAdmin(http.MethodPost, "/x402/keys/rotate", `{}`); a.Status != http.StatusOK {
		t.Errorf("rotating the keys of tokens: %d %s", a.Status, a.Body)
	}
	type deed struct{ Operation, Actor, Outcome string }
	deeds := decode[list[deed]](t, l.ops(l.me.Secret, http.MethodGet, "/v1/audit?limit=100", "").Body)
	if !slices.Contains(deeds.Data, deed{"rotateTokenKey", "admin", "done"}) {
		t.Errorf("the audit does not say who has rotated the keys of tokens: %+v", deeds.Data)
	}
}

// refuse asks for what is refused, in both forms of errors.
func (l *leakage) refuse() {
	t := l.t
	unknown, err := apikey.NewSecret(rand.Reader, apikey.Test)
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string]string{"unknown": unknown.Reveal(), "cut off": l.me.Secret[:40], "expired": l.ended, "a consumer's": l.last} {
		for _, accept := range []string{"application/json", "application/problem+json"} {
			a := l.ops(secret, http.MethodPost, "/v1/webhooks", `{"url":"https://example.com/","secret":"`+l.bad.SigningSecret+`"}`, "Accept", accept)
			if a.Status < 400 {
				t.Errorf("%s: %d %s", name, a.Status, a.Body)
			}
			l.see(name, a.Body+fmt.Sprint(a.Header))
		}
	}
	mine := l.me.Secret
	for _, body := range []string{`{"label":"` + mine + mine + `","scopes":["access"]}`, `{"label":"x","scopes":["` + mine + `"`, `{"label":{"x":"` + mine + `"},"scopes":["access"]}`} {
		a := l.ops(mine, http.MethodPost, "/v1/api-keys", body, "Idempotency-Key", "bad")
		if a.Status != http.StatusBadRequest {
			t.Errorf("%d %s", a.Status, a.Body)
		}
		l.see("a bad body", a.Body)
	}
}

// showAll asks for everything that is shown.
func (l *leakage) showAll() {
	t := l.t
	for _, path := range []string{
		"/v1/api-keys", "/v1/api-keys/" + l.shown.ID, "/v1/api-keys/usage", "/v1/webhooks", "/v1/webhooks/" + l.good.ID, "/v1/webhooks/" + l.bad.ID + "/deliveries",
		"/v1/audit", "/v1/audit/export", "/v1/settings", "/v1/wallets", "/v1/token-keys", "/v1/plans", "/v1/tokens", "/v1/payments", "/v1/payments/export", "/v1/refunds",
		"/v1/refunds/plan", "/openapi.json", "/docs",
	} {
		for where, a := range map[string]rig.Answer{
			"with a key": l.ops(l.me.Secret, http.MethodGet, path, ""), "admin": l.askAdmin(http.MethodGet, "/x402"+path, ""),
		} {
			if a.Status != http.StatusOK && a.Status != http.StatusForbidden {
				t.Errorf("%s, %s: %d %s", path, where, a.Status, a.Body)
			}
			l.see(path+" "+where, a.Body+fmt.Sprint(a.Header))
		}
	}
	for _, path := range []string{"/config/", "/x402/", "/x402/keys", "/x402/payments", "/x402/payments/states", "/x402/audit", "/x402/audit/verify", "/metrics"} {
		if a := l.askAdmin(http.MethodGet, path, ""); a.Status != http.StatusOK {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}
	for _, args := range [][]string{{"apikeys", "list"}, {"webhooks", "list"}, {"keys", "list"}} {
		code, out, errOut := l.x402(args...)
		if code != 0 {
			t.Errorf("%v: %d %s", args, code, errOut)
		}
		l.see(strings.Join(args, " "), out+errOut)
	}
}

// searchAll looks for all secrets everywhere; what is in the two files that keep keys is nowhere else.
func (l *leakage) searchAll() {
	t := l.t
	keepers := filepath.Join(l.Dir, "storage", "x402", "keys")
	ring, sealer := filepath.Join(keepers, "token.pem"), filepath.Join(keepers, "webhooks.key")
	text, err := os.ReadFile(sealer)
	if err != nil {
		t.Fatal(err)
	}
	l.secret("the sealing key of the storage", strings.TrimSpace(string(text)), 0)
	if text, err = os.ReadFile(ring); err != nil {
		t.Fatal(err)
	}
	keys := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if _, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			l.bytes("a key of tokens", block.Bytes[len(block.Bytes)-32:])
			keys++
		}
	}
	if keys < 2 {
		t.Errorf("%d keys of tokens are in %s", keys, ring)
	}
	l.files(t, l.Dir, ring, sealer)
	l.files(t, l.logs)
	for where, text := range l.texts {
		if what := l.in(text); what != "" {
			t.Errorf("%s: in %s", what, where)
		}
	}
	l.finds()
}

// finds makes sure that the search finds what is there, and that there was something to search.
func (l *leakage) finds() {
	t := l.t
	if what := l.in(base64.StdEncoding.EncodeToString([]byte(`{"secret":"` + l.me.Secret + `"}`))); what != "the first key" {
		t.Errorf("a secret in base64 is not found: %q", what)
	}
	all := ""
	for path, text := range l.texts {
		if strings.HasPrefix(path, l.Dir) || strings.HasPrefix(path, l.logs) {
			all += text
		}
	}
	for _, there := range []string{l.shown.ID, l.good.ID, "REDACTED", "an operator's call", "/ops/v1/webhooks", "Idempotency-Key", "received request"} {
		if !strings.Contains(all, there) {
			t.Errorf("%q is not in what was looked through", there)
		}
	}
}
