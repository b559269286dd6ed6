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

// search looks for secrets.
type search struct {
	needles map[string]string // parts of them in every form that they may be written in, with what they are of
	texts   map[string]string // where is looked, with what stands there
}

// secret adds one: what begins all secrets of its kind is left out.
func (s *search) secret(what, text string, begin int) {
	if len(text) < begin+24 {
		panic(what + " is none")
	}
	text = text[begin:]
	for at := 0; at+16 <= len(text); at += 16 { // in pieces, as a database's pages may cut a text anywhere
		s.piece(what, text[at:at+16])
	}
	s.piece(what, text[len(text)-16:])
}

// bytes adds one that is not text.
func (s *search) bytes(what string, b []byte) {
	s.secret(what, hex.EncodeToString(b), 0)
	s.secret(what, base64.RawStdEncoding.EncodeToString(b), 0)
	s.secret(what, base64.RawURLEncoding.EncodeToString(b), 0)
	s.piece(what, string(b))
}

func (s *search) piece(what, text string) {
	s.needles[text] = what
	for before := range 3 { // in base64 it depends on what is before it
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			encoded := e.EncodeToString([]byte(strings.Repeat("x", before) + text))
			s.needles[encoded[4:len(encoded)-4]] = what
		}
	}
}

func (s *search) in(text string) string {
	for needle, what := range s.needles {
		if strings.Contains(text, needle) {
			return what
		}
	}
	return ""
}

// files adds those of a folder, but some that have secrets, and that nobody but their owner may read.
func (s *search) files(t testing.TB, dir string, keepers ...string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if slices.Contains(keepers, path) {
			if info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s may be read by others: %s", path, info.Mode())
			}
			return nil
		}
		text, err := os.ReadFile(path)
		s.texts[path] = string(text)
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

var jwt = regexp.MustCompile(`eyJ[\w-]+\.[\w-]+\.[\w-]{40,}`)

// Every kind of secret that there is, by every way that makes or uses it: nothing that is written down, logged, answered or told of the configuration has one,
// but the answer that made it and the two files that keep keys.
func TestManagementLeaksNothing(t *testing.T) {
	s := &search{map[string]string{}, map[string]string{}}
	logs := t.TempDir()
	pair := func(name string, account int) {
		key := crypto.FromECDSA(devnet.Developer(account).Key)
		t.Setenv(name, hex.EncodeToString(key))
		s.bytes(name, key)
	}
	pair("LEAK_GAS", 0)
	pair("LEAK_REFUND", 1)
	configured, seal := webhooks.NewSecret(), rand.Text()+rand.Text()
	t.Setenv("LEAK_HOOK", configured)
	t.Setenv("LEAK_SEAL", seal)
	s.secret("a configured endpoint's secret", configured, len(webhooks.SecretPrefix))
	s.secret("a configured sealing key", seal, 0)

	answered := make(chan string, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case answered <- r.URL.Path:
		default:
		}
		if r.URL.Path == "/bad" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer receiver.Close()
	asked := make(chan string, 100)
	to := func(name string) string {
		return "output file " + filepath.Join(logs, name) + "\n format x402_redact\n"
	}
	sealing := "webhooks {\n allow_private\n }\n"
	o := newOffice(t, func(r *rig.Options) {
		r.Site = "log {\n" + to("access.log") + "}\n" + strings.Replace(r.Site, "name shop", "name shop\n api_keys", 1)
		r.Settler, r.Refund = "wallet {env.LEAK_GAS}", "refund {env.LEAK_REFUND}"
		upstream := r.Upstream
		r.Upstream = func(w http.ResponseWriter, q *http.Request) {
			select {
			case asked <- fmt.Sprint(q.Header):
			default:
			}
			upstream(w, q)
		}
		r.App = sealing + "webhook " + receiver.URL + "/configured {\n secret {env.LEAK_HOOK}\n }\n"
	})
	t.Setenv("RIG_LOG_LEVEL", "DEBUG")
	o.edit = func(text string) string { return strings.Replace(text, "output stderr\n", to("caddy.log"), 1) }
	o.reload()
	n := 0
	see := func(where, text string) {
		n++
		s.texts[fmt.Sprintf("%d: %s", n, where)] = text
	}
	// key takes the secret of an API key out of an answer.
	key := func(what, secret string) string {
		t.Helper()
		if !strings.HasPrefix(secret, "sk_test_") {
			t.Fatalf("%s has no secret: %q", what, secret)
		}
		s.secret(what, secret, 14)
		return secret
	}
	me := o.key("--mode", "test", "--scopes", strings.Join(apikey.Names(apikey.Scopes()), ","))
	key("the first key", me.Secret)
	again := func(what, path, body string) string { // the same call twice: what was told once is not told again
		t.Helper()
		first := o.ops(me.Secret, http.MethodPost, path, body, "Idempotency-Key", what)
		second := o.ops(me.Secret, http.MethodPost, path, body, "Idempotency-Key", what)
		if first.Status >= 300 || second.Status != first.Status || second.Header.Get("Idempotency-Replayed") != "true" {
			t.Fatalf("%s: %d %s, %d %s", what, first.Status, first.Body, second.Status, second.Body)
		}
		see(what+", again", second.Body)
		return first.Body
	}
	type hook struct{ ID, SigningSecret string }
	made := decode[apiKey](t, again("a key", "/v1/api-keys", `{"label":"x","scopes":["access","payments:read"]}`))
	consumer := key("a consumer's key", made.Secret)
	turned := decode[struct{ Successor apiKey }](t, again("a successor", "/v1/api-keys/"+made.ID+"/rotate", `{"overlapSeconds":3600}`))
	key("a successor", turned.Successor.Secret)
	leaked := decode[struct{ Successor apiKey }](t, again("one that had leaked", "/v1/api-keys/"+turned.Successor.ID+"/rotate", `{"overlapSeconds":0}`))
	last := key("the successor of one that had leaked", leaked.Successor.Secret)
	good := decode[hook](t, again("an endpoint", "/v1/webhooks", `{"url":"`+receiver.URL+`/good"}`))
	bad := decode[hook](t, again("a bad endpoint", "/v1/webhooks", `{"url":"`+receiver.URL+`/bad","compatibility":true}`))
	newer := decode[hook](t, again("its new secret", "/v1/webhooks/"+good.ID+"/rotate-secret", `{}`))
	for _, h := range []hook{good, bad, newer} {
		s.secret("the secret of an endpoint", h.SigningSecret, len(webhooks.SecretPrefix))
	}

	// The shop sells, and a consumer is known by its key.
	o.sell()
	buyer := rig.NewBuyer(t, 4)
	offer := buyer.Offer(o.URL("/weather"))
	for i := range offer.Accepts {
		header := buyer.Sign(offer, i)
		s.secret("a payment header", header, len(header)/2) // it ends with what was signed
		a := buyer.Get(o.URL("/weather"), "PAYMENT-SIGNATURE", header, "X-Api-Key", consumer, "Authorization", "Bearer "+consumer)
		if a.Status != http.StatusOK {
			t.Fatalf("buying: %d %s", a.Status, a.Body)
		}
		for _, values := range a.Header {
			for _, token := range jwt.FindAllString(strings.Join(values, " "), -1) {
				s.secret("an access token", token, strings.LastIndex(token, "."))
			}
		}
	}
	if !slices.Contains(sorted(s.needles), "an access token") {
		t.Fatal("no token came")
	}
	for _, path := range []string{"/good", "/bad", "/configured"} {
		deadline := time.After(20 * time.Second)
		for came := ""; came != path; {
			select {
			case came = <-answered:
			case <-deadline:
				t.Fatalf("nothing comes at %s", path)
			}
		}
	}

	for n := len(asked); n > 0; n-- { // nobody buys any more
		see("what the upstream is asked", <-asked)
	}

	// The configuration has a sealing key now, and everything is sealed anew.

	o.options.App = strings.Replace(o.options.App, "webhooks {\n", "webhooks {\n key {env.LEAK_SEAL}\n", 1)
	o.reload()
	if a := o.ops(me.Secret, http.MethodPost, "/v1/webhooks/"+good.ID+"/probe", ""); a.Status != http.StatusOK {
		t.Errorf("a probe: %d %s", a.Status, a.Body)
	}
	admin := func(method, path, body string) rig.Answer {
		a := rig.NewBuyer(t, 1).Do(t.Context(), method, "http://"+o.admin+path, body, "Content-Type", "application/json")
		see(method+" "+path+" of the admin endpoint", a.Body)
		return a
	}
	if a := admin(http.MethodPost, "/x402/keys/rotate", `{}`); a.Status != http.StatusOK {
		t.Errorf("rotating the keys of tokens: %d %s", a.Status, a.Body)
	}
	type deed struct{ Operation, Actor, Outcome string }
	deeds := decode[list[deed]](t, o.ops(me.Secret, http.MethodGet, "/v1/audit?limit=100", "").Body)
	if !slices.Contains(deeds.Data, deed{"rotateTokenKey", "admin", "done"}) {
		t.Errorf("the audit does not say who has rotated the keys of tokens: %+v", deeds.Data)
	}

	// What is refused, in both forms.
	unknown, err := apikey.NewSecret(rand.Reader, apikey.Test)
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string]string{"unknown": unknown.Reveal(), "cut off": me.Secret[:40], "expired": turned.Successor.Secret, "a consumer's": last} {
		for _, accept := range []string{"application/json", "application/problem+json"} {
			a := o.ops(secret, http.MethodPost, "/v1/webhooks", `{"url":"https://example.com/","secret":"`+bad.SigningSecret+`"}`, "Accept", accept)
			if a.Status < 400 {
				t.Errorf("%s: %d %s", name, a.Status, a.Body)
			}
			see(name, a.Body+fmt.Sprint(a.Header))
		}
	}
	for _, body := range []string{`{"label":"` + me.Secret + me.Secret + `","scopes":["access"]}`, `{"label":"x","scopes":["` + me.Secret + `"`, `{"label":{"x":"` + me.Secret + `"},"scopes":["access"]}`} {
		a := o.ops(me.Secret, http.MethodPost, "/v1/api-keys", body, "Idempotency-Key", "bad")
		if a.Status != http.StatusBadRequest {
			t.Errorf("%d %s", a.Status, a.Body)
		}
		see("a bad body", a.Body)
	}

	// Everything that is shown.
	for _, path := range []string{
		"/v1/api-keys", "/v1/api-keys/" + made.ID, "/v1/api-keys/usage", "/v1/webhooks", "/v1/webhooks/" + good.ID, "/v1/webhooks/" + bad.ID + "/deliveries", "/v1/audit",
		"/v1/audit/export", "/v1/settings", "/v1/wallets", "/v1/token-keys", "/v1/plans", "/v1/tokens", "/v1/payments", "/v1/payments/export", "/v1/refunds",
		"/v1/refunds/plan", "/openapi.json", "/docs",
	} {
		for where, a := range map[string]rig.Answer{
			"with a key": o.ops(me.Secret, http.MethodGet, path, ""), "admin": admin(http.MethodGet, "/x402"+path, ""),
		} {
			if a.Status != http.StatusOK && a.Status != http.StatusForbidden {
				t.Errorf("%s, %s: %d %s", path, where, a.Status, a.Body)
			}
			see(path+" "+where, a.Body+fmt.Sprint(a.Header))
		}
	}
	for _, path := range []string{"/config/", "/x402/", "/x402/keys", "/x402/payments", "/x402/payments/states", "/x402/audit", "/x402/audit/verify", "/metrics"} {
		if a := admin(http.MethodGet, path, ""); a.Status != http.StatusOK {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}
	for _, args := range [][]string{{"apikeys", "list"}, {"webhooks", "list"}, {"keys", "list"}} {
		code, out, errOut := o.x402(args...)
		if code != 0 {
			t.Errorf("%v: %d %s", args, code, errOut)
		}
		see(strings.Join(args, " "), out+errOut)
	}

	// What is in the two files that keep keys is nowhere else.
	keepers := filepath.Join(o.Dir, "storage", "x402", "keys")
	ring, sealer := filepath.Join(keepers, "token.pem"), filepath.Join(keepers, "webhooks.key")
	text, err := os.ReadFile(sealer)
	if err != nil {
		t.Fatal(err)
	}
	s.secret("the sealing key of the storage", strings.TrimSpace(string(text)), 0)
	text, err = os.ReadFile(ring)
	if err != nil {
		t.Fatal(err)
	}
	keys := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if _, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			s.bytes("a key of tokens", block.Bytes[len(block.Bytes)-32:])
			keys++
		}
	}
	if keys < 2 {
		t.Errorf("%d keys of tokens are in %s", keys, ring)
	}
	s.files(t, o.Dir, ring, sealer)
	s.files(t, logs)
	for where, text := range s.texts {
		if what := s.in(text); what != "" {
			t.Errorf("%s: in %s", what, where)
		}
	}

	// The search finds what is there.
	if what := s.in(base64.StdEncoding.EncodeToString([]byte(`{"secret":"` + me.Secret + `"}`))); what != "the first key" {
		t.Errorf("a secret in base64 is not found: %q", what)
	}
	all := ""
	for path, text := range s.texts {
		if strings.HasPrefix(path, o.Dir) || strings.HasPrefix(path, logs) {
			all += text
		}
	}
	for _, there := range []string{made.ID, good.ID, "REDACTED", "an operator's call", "/ops/v1/webhooks", "Idempotency-Key", "received request"} {
		if !strings.Contains(all, there) {
			t.Errorf("%q is not in what was looked through", there)
		}
	}
}

func sorted(m map[string]string) (values []string) {
	for _, v := range m {
		values = append(values, v)
	}
	slices.Sort(values)
	return slices.Compact(values)
}
