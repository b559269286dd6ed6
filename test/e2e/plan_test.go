package e2e

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

const passes = `
	x402 /plans/* {
		price $0.01
		plan day $0.10 {
			ttl 24h
		}
		plan blink $0.05 {
			ttl 1s
		}
	}
	x402_service
	reverse_proxy {upstream}
`

// countedRPC is a chain endpoint that counts what it is asked.
func countedRPC(t *testing.T, target string) (address string, asked *atomic.Int64) {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	asked = new(atomic.Int64)
	proxy := httputil.NewSingleHostReverseProxy(u)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, asked
}

// A pass is bought at the resource, its token comes with the answer, and opens the whole set of routes from then on:
// without the chain. A Caddy that can't ask the ledger what was revoked, and never could, takes no token.
func TestPlanBoughtAtTheResource(t *testing.T) {
	r := rig.New(t, rig.Options{})
	endpoint, asked := countedRPC(t, r.Chain.URL())
	o := rig.Options{Site: passes, RPC: endpoint, App: "interval 100ms"}
	r.Load(o)
	b := rig.NewBuyer(t, 1)
	offer := b.Offer(r.URL("/plans/x"))
	if len(offer.Accepts) != 3 || offer.Accepts[0].Extra.Plan != "" || offer.Accepts[1].Extra.Plan != "blink" || offer.Accepts[2].Extra.Plan != "day" {
		t.Fatalf("the price of a request comes first, then plans by rising price: %+v", offer.Accepts)
	}
	w := watch(r)
	token, a, _ := buyPlan(t, b, r.URL("/plans/x"), "day")
	w.seen(t, "buying", 1, 10*cent)
	wantGrant(t, a, token)
	wantPlanUpstream(t, r, b, "buying")

	// From here on nobody is asked: the payment is final, so whatever asks the chain now, asks because of a request.
	waitFor(t, func() bool {
		n := asked.Load()
		time.Sleep(time.Second)
		return asked.Load() == n
	})
	before := asked.Load()
	for _, path := range []string{"/plans/x", "/plans/y?z=1", "/plans/deep/er"} {
		got := b.Get(r.URL(path), bearer(token)...)
		if got.Status != http.StatusOK {
			t.Errorf("%s: %d %s", path, got.Status, got.Body)
		}
		if got.Header.Get("X-Access-Token") != "" || got.Header.Get(x402.HeaderResponse) != "" {
			t.Errorf("%s: a receipt for nothing: %v", path, got.Header)
		}
		w.seen(t, path, 1, 0)
		wantPlanUpstream(t, r, b, path)
	}
	for _, method := range []string{http.MethodPost, http.MethodDelete, http.MethodHead} {
		if got := b.Do(t.Context(), method, r.URL("/plans/x"), "", bearer(token)...); got.Status != http.StatusOK {
			t.Errorf("%s: %d %s", method, got.Status, got.Body)
		}
		w.seen(t, method, 1, 0)
	}
	if n := asked.Load() - before; n != 0 {
		t.Errorf("the chain was asked %d times", n)
	}

	broken := strings.Replace(r.Caddyfile(o), r.Dir+"/ledger.db", "/proc/nowhere/ledger.db", 1)
	loadText(t, broken)
	waitFor(t, func() bool { return b.Get(r.URL("/plans/x")).Err == nil }) // a reload may close a connection that was just opened
	if got := b.Get(r.URL("/plans/x"), bearer(token)...); got.Status != http.StatusServiceUnavailable || !strings.Contains(got.Body, "revocations_unknown") {
		t.Errorf("without the ledger: %d %s", got.Status, got.Body)
	}
	putOff(t, b.Get(r.URL("/plans/x"), x402.HeaderSignature, b.Sign(offer, 0)))
	w.nothing(t, "without the ledger")
}

// wantGrant checks that an answer says the token in both places, with what it is good for.
func wantGrant(t *testing.T, a rig.Answer, token string) {
	t.Helper()
	var s x402.SettlementResponse
	if err := x402.DecodeHeader(a.Header.Get(x402.HeaderResponse), 1<<16, &s); err != nil || !s.Success || s.Transaction == "" {
		t.Fatalf("the receipt: %+v %v", s, err)
	}
	var grant struct {
		Info struct {
			Token, Plan string
			ExpiresAt   int64
		}
	}
	if err := json.Unmarshal(s.Extensions["access-token"], &grant); err != nil {
		t.Fatalf("the receipt's extensions: %v, %v", s.Extensions, err)
	}
	left := time.Until(time.Unix(grant.Info.ExpiresAt, 0))
	if grant.Info.Token != token || grant.Info.Plan != "day" || left > 24*time.Hour || left < 23*time.Hour {
		t.Errorf("the receipt grants %+v, the header %s", grant.Info, token)
	}
}

// wantPlanUpstream checks what the upstream was told about the holder of the plan.
func wantPlanUpstream(t *testing.T, r *rig.Rig, b *rig.Buyer, what string) {
	t.Helper()
	h := r.Upstream.Last().Header
	if h.Get("X-Payment-Plan") != "day" || h.Get("X-Payment-Payer") != b.Account.Address.Hex() || h.Get("X-Payment-Amount") != "100000" {
		t.Errorf("%s: the upstream was told %v", what, h)
	}
	signed := h.Get("X-Payment-Token")
	if h.Get("Authorization") != "Bearer "+signed {
		t.Errorf("%s: the upstream got %q as authorization", what, h.Get("Authorization"))
	}
	claims := decodePart(t, strings.Split(signed, ".")[1])
	if claims["sub"] != b.Account.Address.Hex() || claims["aud"].([]any)[0] != "x402-upstream" || claims["jti"] != h.Get("X-Payment-Id") {
		t.Errorf("%s: the assertion says %v", what, claims)
	}
}

// The answer with the token may be lost: the same header gives the same token again, and a fresh signature of the plan's
// owner is served under the plan. Neither costs anything.
func TestPlanAgain(t *testing.T) {
	r := rig.New(t, rig.Options{Site: passes})
	b := rig.NewBuyer(t, 1)
	token, _, header := buyPlan(t, b, r.URL("/plans/x"), "day")
	w := watch(r)
	again := b.Get(r.URL("/plans/x"), x402.HeaderSignature, header)
	if again.Status != http.StatusOK || again.Header.Get("X-Access-Token") != token {
		t.Errorf("the same header: %d, the same token: %v", again.Status, again.Header.Get("X-Access-Token") == token)
	}
	w.seen(t, "the same header", 1, 0)
	refused(t, "the same header elsewhere", b.Get(r.URL("/plans/y"), x402.HeaderSignature, header), x402.ReasonNonceUsed)
	w.nothing(t, "the same header elsewhere")

	for i, name := range []string{"the price of a request", "another plan", "the same plan"} {
		offer := b.Offer(r.URL("/plans/y"))
		fresh := b.Sign(offer, i)
		got := b.Get(r.URL("/plans/y"), x402.HeaderSignature, fresh)
		if got.Status != http.StatusOK || r.Upstream.Last().Header.Get("X-Payment-Plan") != "day" {
			t.Errorf("a fresh signature for %s: %d %s", name, got.Status, got.Body)
		}
		w.seen(t, "a fresh signature for "+name, 1, 0)
	}
	// Somebody else's is somebody else's.
	other := rig.NewBuyer(t, 2)
	if a, _ := other.Buy(r.URL("/plans/x")); a.Status != http.StatusOK {
		t.Errorf("another payer: %d %s", a.Status, a.Body)
	}
	w.seen(t, "another payer", 1, cent)
}

// A token whose time is over opens nothing and says so; its owner pays anew.
func TestExpiredToken(t *testing.T) {
	r := rig.New(t, rig.Options{Site: passes})
	b := rig.NewBuyer(t, 1)
	token, _, header := buyPlan(t, b, r.URL("/plans/x"), "blink")
	w := watch(r)
	var a rig.Answer
	waitFor(t, func() bool { // clocks of two instances may differ by some seconds, so it takes as long
		a = b.Get(r.URL("/plans/x"), bearer(token)...)
		return a.Status != http.StatusOK
	})
	refused(t, "expired", a, "token_expired")
	w.calls = r.Upstream.Calls()
	refused(t, "the header that bought it", b.Get(r.URL("/plans/x"), x402.HeaderSignature, header), "plan_over")
	refused(t, "expired, and again", b.Get(r.URL("/plans/x"), bearer(token)...), "token_expired")
	w.nothing(t, "expired")
	offer := b.Offer(r.URL("/plans/x"))
	paid := b.Get(r.URL("/plans/x"), append(bearer(token), x402.HeaderSignature, b.Sign(offer, 0))...)
	if paid.Status != http.StatusOK || r.Upstream.Last().Header.Get("X-Payment-Plan") != "" {
		t.Errorf("a payment beside the expired token: %d %s", paid.Status, paid.Body)
	}
	if got := r.Upstream.Last().Header.Get("Authorization"); got == "Bearer "+token {
		t.Error("the upstream got the expired token")
	}
	w.seen(t, "a payment beside the expired token", 1, cent)
}

// The client's own credentials for the upstream pass untouched, with a payment; the upstream finds ours in X-Payment-Token.
func TestOwnAuthorizationIsKept(t *testing.T) {
	r := rig.New(t, rig.Options{Site: passes})
	foreign := "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
	for i, own := range []string{"Basic dXNlcjpwYXNz", "Bearer sk_live_12345", "Bearer " + foreign, "AWS4-HMAC-SHA256 Credential=x"} {
		b := rig.NewBuyer(t, 10+i)
		for _, option := range []int{0, 2} { // a request, then a plan
			header := b.Sign(b.Offer(r.URL("/plans/x")), option)
			a := b.Get(r.URL("/plans/x"), "Authorization", own, x402.HeaderSignature, header)
			h := r.Upstream.Last().Header
			if a.Status != http.StatusOK || h.Get("Authorization") != own || h.Get("X-Payment-Token") == "" {
				t.Errorf("%s: %d %s, the upstream got %q", own, a.Status, a.Body, h.Get("Authorization"))
			}
		}
		if a := b.Get(r.URL("/plans/x"), "Authorization", own); a.Status != http.StatusPaymentRequired {
			t.Errorf("%s alone: %d", own, a.Status)
		}
	}
}

// Who buys a pass while the upstream is dead has bought it all the same: the error comes with the receipt and the token.
func TestPlanBoughtOfDeadUpstream(t *testing.T) {
	dead := atomic.Bool{}
	dead.Store(true)
	r := rig.New(t, rig.Options{Site: passes, Upstream: func(http.ResponseWriter, *http.Request) {
		if dead.Load() {
			panic(http.ErrAbortHandler)
		}
	}})
	b := rig.NewBuyer(t, 1)
	w := watch(r)
	header := b.Sign(b.Offer(r.URL("/plans/x")), 2)
	a := b.Get(r.URL("/plans/x"), x402.HeaderSignature, header)
	token := a.Header.Get("X-Access-Token")
	if a.Status != http.StatusBadGateway || token == "" {
		t.Fatalf("%d %v", a.Status, a.Header)
	}
	wantGrant(t, a, token)
	dead.Store(false)
	if got := b.Get(r.URL("/plans/x"), bearer(token)...); got.Status != http.StatusOK || got.Header.Get("X-Access-Token") != "" {
		t.Errorf("by the token: %d %v", got.Status, got.Header)
	}
	w.calls = r.Upstream.Calls() // proxies may ask a dead upstream more than once
	w.seen(t, "once", 0, 10*cent)
}
