package issuers

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/MicahParks/jwkset"
	"github.com/caddyserver/caddy/v2"
	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

const (
	cent   = 10_000
	secret = "s3cret-of-the-issuer"
	words  = "the backend's own words about customer 4711"
)

// backend is the seller's endpoint that issues credentials: a new one each time that it is asked, as one does that heeds no key.
type backend struct {
	*httptest.Server
	mu     sync.Mutex
	fail   int // how many of the next questions fail
	status int
	asked  []question
	custom bool
}

type question struct {
	header http.Header
	body   map[string]any
}

func newBackend(t *testing.T) *backend {
	t.Helper()
	b := &backend{status: http.StatusInternalServerError}
	b.Server = httptest.NewServer(http.HandlerFunc(b.serve))
	t.Cleanup(b.Close)
	return b
}

func (b *backend) serve(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/oauth") {
		if id, s, ok := r.BasicAuth(); !ok || id != "shop" || s != secret {
			http.Error(w, words, http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"of-oauth","token_type":"Bearer","expires_in":3600}`)
		return
	}
	var q question
	q.header = r.Header.Clone()
	_ = json.NewDecoder(r.Body).Decode(&q.body)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, q)
	switch {
	case b.fail > 0:
		b.fail--
		http.Error(w, words, b.status)
	case b.custom:
		_, _ = fmt.Fprintf(w, `{"user": "u%d", "password": "p-%v"}`, len(b.asked), q.body["requestId"])
	default:
		_, _ = fmt.Fprintf(w, `{"token":"credential-%d-%v","expiresAt":1}`, len(b.asked), q.body["requestId"])
	}
}

// next makes the next n questions fail.
func (b *backend) next(n, status int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail, b.status = n, status
}

func (b *backend) questions() []question {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]question(nil), b.asked...)
}

// site sells a plan whose credential comes from the endpoint.
func site(url, issuer string) string {
	return fmt.Sprintf(`
	x402 /paid/* {
		price $0.01
		plan day $0.10 {
			ttl 24h
			issuer %s/issue {
				%s
			}
		}
	}
	x402_service
	reverse_proxy {upstream}
`, url, issuer)
}

// logged adds a log of everything to a rig's configuration.
func logged(t *testing.T) (global string, read func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "caddy.log")
	return fmt.Sprintf("log everything {\nlevel DEBUG\noutput file %s\nformat x402_redact\n}\n", path), func() string {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
}

// given is what an answer gives out.
func given(t *testing.T, a rig.Answer) string {
	t.Helper()
	var s x402.SettlementResponse
	if err := x402.DecodeHeader(a.Header.Get(x402.HeaderResponse), 1<<16, &s); err != nil || !s.Success {
		t.Fatalf("%d %s: %+v %v", a.Status, a.Body, s, err)
	}
	var grant struct{ Info struct{ Token string } }
	if raw := s.Extensions["access-token"]; raw != nil {
		if err := json.Unmarshal(raw, &grant); err != nil {
			t.Fatal(err)
		}
	}
	return grant.Info.Token
}

// The contract of ISSUE_TOKEN_API, each way to prove who asks, and what becomes of a credential: the same header gets the same, byte for byte, also
// of a Caddy that has started anew; it opens the gate; and it is in no log and no ledger.
func TestCredentialOfTheSeller(t *testing.T) {
	b := newBackend(t)
	global, logs := logged(t)
	proofs := map[string]string{
		"bearer": "auth bearer " + secret,
		"header": "auth header X-Internal-Auth " + secret,
		"jwt":    "auth jwt https://issuer.example",
		"oauth2": "auth oauth2 " + b.URL + "/oauth/token shop " + secret,
	}
	r := rig.New(t, rig.Options{Site: site(b.URL, proofs["bearer"]), Global: global})
	buyer := rig.NewBuyer(t, 1)
	offer := buyer.Offer(r.URL("/paid/x"))
	if len(offer.Accepts) != 2 || offer.Accepts[1].Extra.Plan != "day" {
		t.Fatalf("offered %+v", offer.Accepts)
	}
	header := buyer.Sign(offer, 1)
	bought := buyer.Get(r.URL("/paid/x"), x402.HeaderSignature, header)
	credential := given(t, bought)
	if bought.Status != http.StatusOK || credential == "" || bought.Header.Get("X-Access-Token") != credential {
		t.Fatalf("%d %q %v", bought.Status, credential, bought.Header)
	}
	q := b.questions()[0]
	id := bought.Header.Get("X-Payment-Id")
	for name, want := range map[string]any{
		"requestId": id, "challengeId": id, "resourceId": "default", "planId": "day", "unitAmount": "$0.10", "walletAddress": buyer.Account.Address.Hex(),
		"amount": "100000", "network": "eip155:84532", "ttlSeconds": 86400.0,
	} {
		if q.body[name] != want {
			t.Errorf("the issuer was told %s = %v, want %v", name, q.body[name], want)
		}
	}
	if tx, _ := q.body["txHash"].(string); len(tx) != 66 || q.header.Get("Idempotency-Key") != id || q.header.Get("Authorization") != "Bearer "+secret {
		t.Errorf("the issuer was asked %v with %v", q.body, q.header)
	}

	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	r.Load(rig.Options{Site: site(b.URL, proofs["bearer"]), Global: global})
	again := buyer.Get(r.URL("/paid/x"), x402.HeaderSignature, header)
	if given(t, again) != credential || again.Header.Get("X-Access-Token") != credential {
		t.Errorf("given again: %q", given(t, again))
	}
	if a := buyer.Get(r.URL("/paid/y"), "Authorization", "Bearer "+credential); a.Status != http.StatusOK ||
		r.Upstream.Last().Header.Get("Authorization") != "Bearer "+credential || r.Upstream.Last().Header.Get("X-Payment-Plan") != "day" {
		t.Errorf("by the credential: %d, the upstream got %v", a.Status, r.Upstream.Last().Header)
	}
	if n := len(b.questions()); n != 1 || r.Earned() != 10*cent {
		t.Errorf("asked %d times, earned %d", n, r.Earned())
	}
	for i, name := range []string{"header", "jwt", "oauth2"} {
		r.Load(rig.Options{Site: site(b.URL, proofs[name]), Global: global})
		a, _ := buyPlan(r, rig.NewBuyer(t, 2+i))
		if a.Status != http.StatusOK || given(t, a) == "" {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
		h := b.questions()[1+i].header
		switch name {
		case "header":
			if h.Get("X-Internal-Auth") != secret || h.Get("Authorization") != "" {
				t.Errorf("%s: asked with %v", name, h)
			}
		case "jwt":
			verifyService(t, r, strings.TrimPrefix(h.Get("Authorization"), "Bearer "))
		case "oauth2":
			if h.Get("Authorization") != "Bearer of-oauth" {
				t.Errorf("%s: asked with %v", name, h)
			}
		}
	}
	hidden(t, r, logs(), credential, secret, "of-oauth")
}

func buyPlan(r *rig.Rig, b *rig.Buyer) (rig.Answer, string) {
	header := b.Sign(b.Offer(r.URL("/paid/x")), 1)
	return b.Get(r.URL("/paid/x"), x402.HeaderSignature, header), header
}

// verifyService does what an endpoint does with `auth jwt`: it knows the paywall's JWKS, and nothing else.
func verifyService(t *testing.T, r *rig.Rig, signed string) {
	t.Helper()
	var set jwkset.JWKSMarshal
	if err := json.Unmarshal([]byte(rig.NewBuyer(t, 9).Get(r.URL("/.well-known/jwks.json")).Body), &set); err != nil {
		t.Fatal(err)
	}
	store, err := set.ToStorage()
	if err != nil {
		t.Fatal(err)
	}
	tok, err := jwt.Parse(signed, func(tok *jwt.Token) (any, error) {
		kid, _ := tok.Header["kid"].(string)
		k, err := store.KeyRead(t.Context(), kid)
		if err != nil {
			return nil, err
		}
		return k.Key().(crypto.PublicKey), nil
	}, jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithAudience("https://issuer.example"), jwt.WithExpirationRequired())
	if err != nil || tok.Header["typ"] != "x402-service+jwt" {
		t.Errorf("the issuer can't verify %q: %v", signed, err)
	}
	// It opens nothing here.
	if a := rig.NewBuyer(t, 9).Get(r.URL("/paid/x"), "Authorization", "Bearer "+signed); a.Status != http.StatusPaymentRequired {
		t.Errorf("a service's token opens the gate: %d", a.Status)
	}
}

// hidden looks for secrets in what was logged, and in the ledger's files.
func hidden(t *testing.T, r *rig.Rig, logs string, secrets ...string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(r.Dir, "ledger.db*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	places := map[string]string{"the log": logs}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		places[name] = string(raw)
	}
	for where, text := range places {
		for _, s := range secrets {
			if strings.Contains(text, s) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(s))) {
				at := strings.Index(text, s)
				t.Errorf("%s holds %s: …%s…", where, s, text[max(0, at-300):min(len(text), at+100)])
			}
		}
	}
}

// While the endpoint fails the payment is PAID, and told as such; the same header gets what it has paid for as soon as that can be had. The
// endpoint's words reach nobody. What is not had in time goes back, and is not given out any more.
func TestEndpointThatFails(t *testing.T) {
	b := newBackend(t)
	global, logs := logged(t)
	o := rig.Options{Site: site(b.URL, "timeout 500ms\nretries 1"), Global: global, App: "min_age 20s\ninterval 200ms"}
	r := rig.New(t, o)
	buyer := rig.NewBuyer(t, 1)
	b.next(2, http.StatusServiceUnavailable)
	a, header := buyPlan(r, buyer)
	wantUnissued(t, r, a, http.StatusBadGateway, "TOKEN_ISSUE_FAILED")
	if n := len(b.questions()); n != 2 || b.questions()[0].header.Get("Idempotency-Key") != b.questions()[1].header.Get("Idempotency-Key") {
		t.Errorf("the issuer was asked %d times: %v", n, b.questions())
	}
	b.next(1, http.StatusForbidden)
	a = buyer.Get(r.URL("/paid/x"), x402.HeaderSignature, header)
	wantUnissued(t, r, a, http.StatusBadGateway, "TOKEN_ISSUE_FAILED")
	a = buyer.Get(r.URL("/paid/x"), x402.HeaderSignature, header)
	if a.Status != http.StatusOK || !strings.HasPrefix(given(t, a), "credential-4-") {
		t.Errorf("once it answers: %d %q", a.Status, given(t, a))
	}
	if r.Earned() != 10*cent {
		t.Errorf("earned %d", r.Earned())
	}

	// Now it does not answer in time, until the payment is held for refund.
	o.App = "min_age 5s\ninterval 200ms"
	r.Load(o)
	b.mu.Lock() // whoever asks waits
	late := rig.NewBuyer(t, 2)
	a, header = buyPlan(r, late)
	b.mu.Unlock()
	wantUnissued(t, r, a, http.StatusGatewayTimeout, "TOKEN_ISSUE_TIMEOUT")
	id := a.Header.Get("X-Payment-Id")
	waitFor(t, func() bool {
		return strings.Contains(late.Get(r.URL("/x402/payments/"+id)).Body, "REFUND_PENDING")
	})
	a = late.Get(r.URL("/paid/x"), x402.HeaderSignature, header)
	if a.Status != http.StatusPaymentRequired || a.Header.Get("X-Access-Token") != "" || a.Header.Get("X-Payment-Status") != "refund_pending" {
		t.Errorf("held for refund: %d %v", a.Status, a.Header)
	}
	if text := logs(); strings.Contains(text, "4711") || !strings.Contains(text, "TOKEN_ISSUE_TIMEOUT") {
		t.Error("the log tells the endpoint's words, or not that it did not answer")
	}
	if got := r.TryLoad(rig.Options{Site: site(b.URL, ""), App: "min_age 30s"}); got == nil || !strings.Contains(got.Error(), "min_age 30s") {
		t.Errorf("an issuer that is slower than refunds: %v", got)
	}
}

func wantUnissued(t *testing.T, r *rig.Rig, a rig.Answer, status int, code string) {
	t.Helper()
	if a.Status != status || !strings.Contains(a.Body, `"code":"`+code+`"`) || strings.Contains(a.Body, "4711") || a.Header.Get("Retry-After") == "" ||
		a.Header.Get("X-Payment-Status") != "paid" || a.Header.Get("X-Access-Token") != "" || given(t, a) != "" {
		t.Fatalf("%d %v %s", a.Status, a.Header, a.Body)
	}
	state := rig.NewBuyer(t, 9).Get(r.URL("/x402/payments/" + a.Header.Get("X-Payment-Id")))
	if !strings.Contains(state.Body, `"PAID"`) {
		t.Errorf("its state is %s", state.Body)
	}
}

// An answer without a token is the credential as a whole, which no header can carry.
func TestCredentialThatIsJSON(t *testing.T) {
	b := newBackend(t)
	b.custom = true
	r := rig.New(t, rig.Options{Site: site(b.URL, "field user x")})
	buyer := rig.NewBuyer(t, 1)
	a, header := buyPlan(r, buyer)
	want := fmt.Sprintf(`{"user":"u1","password":"p-%s"}`, a.Header.Get("X-Payment-Id"))
	if given(t, a) != want || a.Header.Get("X-Access-Token") != "" || b.questions()[0].body["user"] != "x" {
		t.Errorf("%d %q %v", a.Status, given(t, a), a.Header)
	}
	if got := given(t, buyer.Get(r.URL("/paid/x"), x402.HeaderSignature, header)); got != want {
		t.Errorf("given again: %q", got)
	}
}
