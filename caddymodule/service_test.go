package caddymodule_test

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

func decoded[T any](t *testing.T, a rig.Answer) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.Body), &v); err != nil {
		t.Fatalf("%d %s: %v", a.Status, a.Body, err)
	}
	return v
}

// healthAnswer is what a health check says.
type healthAnswer struct {
	Status    string            `json:"status"`
	Ledger    string            `json:"ledger"`
	Networks  map[string]string `json:"networks"`
	Payments  map[string]int    `json:"payments"`
	Attention []string          `json:"attention"`
}

// Which paths are the service's, with which methods; all else passes on, and is paid for.
func TestServicePaths(t *testing.T) {
	r := rig.New(t, rig.Options{Site: "x402 $0.01\nx402_service\nhandle_errors {\nrespond \"error {err.status_code}\"\n}\nreverse_proxy {upstream}"})
	b := rig.NewBuyer(t, 1)
	for _, tc := range []struct {
		method, path string
		status       int
		mime         string
	}{
		{"GET", "/.well-known/jwks.json", 200, "application/jwk-set+json"},
		{"HEAD", "/.well-known/jwks.json", 200, "application/jwk-set+json"},
		{"GET", "/.well-known/jwks.json?x=y", 200, "application/jwk-set+json"},
		{"GET", "/health", 200, "application/json"},
		{"HEAD", "/health", 200, "application/json"},
		{"GET", "/%68ealth", 200, "application/json"},
		{"GET", "/x402/payments/pay_nobody", 404, "application/json"},
		{"HEAD", "/x402/payments/pay_nobody", 404, "application/json"},
		{"GET", "/x402/payments/../../health", 404, "application/json"},
		{"GET", "/x402/payments/' or 1=1 --", 404, "application/json"},
		{"OPTIONS", "/health", 204, ""},
		{"OPTIONS", "/x402/payments/pay_nobody", 204, ""},
		{"POST", "/health", 405, ""},
		{"PUT", "/.well-known/jwks.json", 405, ""},
		{"DELETE", "/x402/payments/pay_nobody", 405, ""},
		{"BREW", "/health", 405, ""},
		// Not the service's.
		{"GET", "/health/", 402, ""},
		{"GET", "/Health", 402, ""},
		{"GET", "//health", 402, ""},
		{"GET", "/healthy", 402, ""},
		{"GET", "/x402/payments", 402, ""},
		{"GET", "/x402/payments/", 402, ""},
		{"GET", "/.well-known/jwks.json/x", 402, ""},
		{"GET", "/.well-known/", 402, ""},
		{"POST", "/other", 402, ""},
	} {
		a := b.Do(t.Context(), tc.method, r.URL(strings.ReplaceAll(tc.path, " ", "%20")), "")
		if a.Err != nil || a.Status != tc.status {
			t.Errorf("%s %s is answered %d %v %s", tc.method, tc.path, a.Status, a.Err, a.Body)
		}
		if tc.mime != "" && a.Header.Get("Content-Type") != tc.mime {
			t.Errorf("%s %s has the type %s", tc.method, tc.path, a.Header.Get("Content-Type"))
		}
		if tc.method == "HEAD" && a.Body != "" {
			t.Errorf("HEAD %s has a body: %s", tc.path, a.Body)
		}
		if tc.status == 405 && (a.Header.Get("Allow") != "GET, HEAD, OPTIONS" || a.Body != "error 405") {
			t.Errorf("%s %s allows %q: %s", tc.method, tc.path, a.Header.Get("Allow"), a.Body)
		}
		if tc.status < 300 && a.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s %s can't be read by pages", tc.method, tc.path)
		}
	}
	if r.Upstream.Calls() != 0 || r.Earned() != 0 {
		t.Errorf("the upstream was called %d times", r.Upstream.Calls())
	}
}

// The published keys are public, and the assertion that the upstream gets names one of them.
func TestServiceJWKS(t *testing.T) {
	r := rig.New(t, rig.Options{})
	b := rig.NewBuyer(t, 1)
	a := b.Get(r.URL("/.well-known/jwks.json"))
	set := decoded[struct {
		Keys []map[string]any `json:"keys"`
	}](t, a)
	if len(set.Keys) != 1 || set.Keys[0]["kty"] != "OKP" || set.Keys[0]["crv"] != "Ed25519" || set.Keys[0]["d"] != nil {
		t.Fatalf("the keys are %s", a.Body)
	}
	if a.Header.Get("Cache-Control") != "public, max-age=300" {
		t.Errorf("the keys are cached by %q", a.Header.Get("Cache-Control"))
	}
	b.Buy(r.URL("/x"))
	assertion := r.Upstream.Last().Header.Get("X-Payment-Token")
	if kid, _ := set.Keys[0]["kid"].(string); kid == "" || headerOf(t, assertion)["kid"] != kid {
		t.Errorf("the assertion is signed by %v, the key is %s", headerOf(t, assertion), kid)
	}
}

// A shared secret is not published, and neither is a private key.
func TestServiceJWKSOfASecret(t *testing.T) {
	setSecrets(t)
	r := rig.New(t, rig.Options{App: "token_key {env.T_TOKEN}"})
	a := rig.NewBuyer(t, 1).Get(r.URL("/.well-known/jwks.json"))
	if a.Status != http.StatusOK || strings.ReplaceAll(a.Body, " ", "") != `{"keys":[]}` {
		t.Errorf("%d %s", a.Status, a.Body)
	}
}

func headerOf(t *testing.T, jwt string) map[string]any {
	t.Helper()
	head, _, _ := strings.Cut(jwt, ".")
	var v map[string]any
	if err := x402.DecodeHeader(strings.NewReplacer("-", "+", "_", "/").Replace(head), 1<<12, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// Health asks the chain and the ledger, and says in public what is wrong, not why.
func TestServiceHealth(t *testing.T) {
	chain, err := devnet.Start(t.Context(), devnet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = chain.Close() })
	proxy := settlementtest.NewProxy(t, chain.URL())
	r := rig.New(t, rig.Options{RPC: proxy.URL(), Upstream: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }})
	b := rig.NewBuyer(t, 1)
	well := b.Get(r.URL("/health"))
	h := decoded[healthAnswer](t, well)
	if well.Status != http.StatusOK || h.Status != "ok" || h.Ledger != "ok" || h.Networks["eip155:84532"] != "ok" || len(h.Networks) != 1 || len(h.Attention) != 0 {
		t.Errorf("%d %+v", well.Status, h)
	}
	if well.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("health is cached by %q", well.Header.Get("Cache-Control"))
	}
	if a, _ := b.Buy(r.URL("/x")); a.Status != http.StatusInternalServerError {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	until(t, "what is to be refunded is not told", func() bool {
		h = decoded[healthAnswer](t, b.Get(r.URL("/health")))
		return h.Payments["REFUND_PENDING"] == 1 && slices.Equal(h.Attention, []string{"REFUND_PENDING"}) && h.Status == "ok"
	})
	proxy.FailAll(http.StatusBadGateway)
	var ill rig.Answer
	until(t, "a chain that does not answer is well", func() bool {
		ill = b.Get(r.URL("/health"))
		return ill.Status == http.StatusServiceUnavailable
	})
	h = decoded[healthAnswer](t, ill)
	if h.Status != "unavailable" || h.Networks["eip155:84532"] != "unavailable" || h.Ledger != "ok" {
		t.Errorf("%+v", h)
	}
	if strings.Contains(ill.Body, proxy.URL()[7:]) || strings.Contains(ill.Body, "502") {
		t.Errorf("health tells strangers why: %s", ill.Body)
	}
	if a := b.Do(t.Context(), http.MethodHead, r.URL("/health"), ""); a.Status != http.StatusServiceUnavailable {
		t.Errorf("HEAD is answered %d", a.Status)
	}
	proxy.SetFault(nil)
	until(t, "health does not come back", func() bool { return b.Get(r.URL("/health")).Status == http.StatusOK })
}

// However many ask for health, the chain is asked once a second.
func TestServiceHealthIsCheap(t *testing.T) {
	chain, err := devnet.Start(t.Context(), devnet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = chain.Close() })
	proxy := settlementtest.NewProxy(t, chain.URL())
	r := rig.New(t, rig.Options{RPC: proxy.URL()})
	b := rig.NewBuyer(t, 1)
	b.Get(r.URL("/health"))
	before := proxy.Count("eth_getBalance")
	const checks = 300
	for range checks {
		b.Get(r.URL("/health"))
	}
	if n := proxy.Count("eth_getBalance") - before; n > checks/10 {
		t.Errorf("%d checks asked the chain %d times", checks, n)
	}
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 1200 { // a minute: the machine may be busy
		if done() {
			return
		}
		<-tick.C
	}
	t.Fatal(what)
}

// A payment's status is for whoever knows its id; it tells no token and no payer.
func TestServicePayments(t *testing.T) {
	r := rig.New(t, rig.Options{Site: "x402 $0.01 {\nplan day $1 {\nttl 1h\n}\n}\nx402_service\nreverse_proxy {upstream}"})
	b := rig.NewBuyer(t, 1)
	paid, _ := b.Buy(r.URL("/x"))
	o := b.Offer(r.URL("/x"))
	plan := b.Get(r.URL("/x"), x402.HeaderSignature, b.Sign(o, 1))
	for name, a := range map[string]rig.Answer{"10000": paid, "1000000": plan} {
		id := a.Header.Get("X-Payment-Id")
		got := b.Get(r.URL("/x402/payments/" + id))
		s := decoded[paywall.Status](t, got)
		want := paywall.Status{
			Payment: id, State: "DELIVERED", Network: "eip155:84532", Asset: devnet.TokenAddress.Hex(), Amount: name, PayTo: rig.PayTo.Hex(),
			Transaction: receipt(t, a).Transaction, CreatedAt: s.CreatedAt, UpdatedAt: s.UpdatedAt,
		}
		if got.Status != http.StatusOK || s != want || s.CreatedAt.IsZero() || s.UpdatedAt.Before(s.CreatedAt) {
			t.Errorf("%d %s\nwant %+v", got.Status, got.Body, want)
		}
		if got.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("a status is cached by %q", got.Header.Get("Cache-Control"))
		}
		for _, secret := range []string{b.Account.Address.Hex(), plan.Header.Get("X-Access-Token")} {
			if strings.Contains(strings.ToLower(got.Body), strings.ToLower(secret)) {
				t.Errorf("a status tells %s", secret)
			}
		}
		if wrong := b.Get(r.URL("/x402/payments/" + strings.ToUpper(id))); wrong.Status != http.StatusNotFound {
			t.Errorf("an id in capitals is answered %d", wrong.Status)
		}
	}
	nobody := decoded[map[string]string](t, b.Get(r.URL("/x402/payments/pay_nobody")))
	if nobody["code"] != "payment_not_found" || nobody["detail"] == "" {
		t.Errorf("%v", nobody)
	}
}

// A ledger that can't be opened makes health say so, and the status of payments unknown rather than absent.
func TestServiceWithoutALedger(t *testing.T) {
	r := rig.New(t, rig.Options{})
	if err := load(t, strings.Replace(r.Caddyfile(rig.Options{}), filepath.Join(r.Dir, "ledger.db"), "/dev/null/ledger.db", 1)); err != nil {
		t.Fatal(err)
	}
	b := rig.NewBuyer(t, 1)
	a := b.Get(r.URL("/health"))
	if h := decoded[healthAnswer](t, a); a.Status != http.StatusServiceUnavailable || h.Ledger != "unavailable" || h.Networks["eip155:84532"] != "ok" {
		t.Errorf("%d %+v", a.Status, h)
	}
	if a := b.Get(r.URL("/x402/payments/pay_nobody")); a.Status != http.StatusServiceUnavailable {
		t.Errorf("a status is answered %d", a.Status)
	}
	if a := b.Get(r.URL("/.well-known/jwks.json")); a.Status != http.StatusOK {
		t.Errorf("the keys are answered %d", a.Status)
	}
	if a := buy(t, b, r.URL("/x")); a.Status != http.StatusServiceUnavailable || r.Upstream.Calls() != 0 {
		t.Errorf("a payment is answered %d", a.Status)
	}
}
