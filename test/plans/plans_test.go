package plans

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// A counted pass opens as many requests as it says, the one that bought it among them. What the upstream fails to answer costs
// nothing; a "not found" is an answer. When it is used up the client is told so, and offered another.
func TestCountedPass(t *testing.T) {
	s := newShop(t)
	b := rig.NewBuyer(t, 1)
	if o := b.Offer(s.URL("/api/x")); len(o.Accepts) != 2 || o.Accepts[1].Extra.PlanRequests != 10 || o.Accepts[0].Extra.PlanRequests != 0 {
		t.Errorf("offered: %+v", o.Accepts)
	}
	token, header := s.buy(b, "/api/x", "ten")
	for i := range 4 {
		a := b.Get(s.URL("/api/y"), bearer(token)...)
		want(t, "by the token", a, http.StatusOK, "")
		if n := left(a, "requests"); n != 8-i {
			t.Errorf("request %d: %d are left: %v", i+2, n, a.Header.Values("RateLimit"))
		}
		if policy := a.Header.Get("RateLimit-Policy"); policy != `"requests";q=10;w=3600` {
			t.Errorf("policy %s", policy)
		}
	}
	for range 3 { // in vain
		want(t, "a failing upstream", b.Get(s.URL("/api/y?status=503"), bearer(token)...), http.StatusServiceUnavailable, "")
	}
	want(t, "not found", b.Get(s.URL("/api/y?status=404"), bearer(token)...), http.StatusNotFound, "")
	want(t, "by the header that bought it", b.Get(s.URL("/api/x"), x402.HeaderSignature, header), http.StatusOK, "")
	// Whoever is started again counts on.
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	s.Load(rig.Options{Site: site})
	b.HTTP.CloseIdleConnections()
	for i := range 3 {
		want(t, "after a reload", b.Get(s.URL("/api/z"), bearer(token)...), http.StatusOK, "")
		if i == 2 && s.calls.Load() != 10 {
			t.Errorf("the upstream has answered %d requests", s.calls.Load())
		}
	}
	for range 3 {
		a := b.Get(s.URL("/api/y"), bearer(token)...)
		want(t, "used up", a, http.StatusPaymentRequired, "plan_used_up")
	}
	want(t, "used up, by its header", b.Get(s.URL("/api/x"), x402.HeaderSignature, header), http.StatusPaymentRequired, "plan_used_up")
	if s.calls.Load() != 10 || s.Earned() != 5*cent {
		t.Errorf("%d requests for %d units", s.calls.Load(), s.Earned())
	}
	// A payment beside the token that opens nothing any more.
	a := b.Get(s.URL("/api/y"), append(bearer(token), x402.HeaderSignature, s.sign(b, "/api/y", ""))...)
	want(t, "a payment", a, http.StatusOK, "")
	if s.Earned() != 6*cent || a.Header.Get("X-Access-Token") != "" {
		t.Errorf("%d units were paid: %v", s.Earned(), a.Header)
	}
}

// A stock client signs each request anew. It is served under what it has bought until that is used up, by whatever it signs for, and
// then pays for what it signs: another pass, or the request.
func TestStockClientUnderACountedPass(t *testing.T) {
	s := newShop(t)
	b := rig.NewBuyer(t, 1)
	first, _ := s.buy(b, "/api/x", "ten")
	for i := range 9 {
		path := []string{"/api/x", "/api/y"}[i%2]
		a := b.Get(s.URL(path), x402.HeaderSignature, s.sign(b, path, []string{"", "ten"}[i%2]))
		want(t, "a fresh signature", a, http.StatusOK, "")
		if a.Header.Get("X-Access-Token") != first {
			t.Errorf("request %d was not served under the pass", i+2)
		}
	}
	if s.Earned() != 5*cent {
		t.Fatalf("%d units were paid", s.Earned())
	}
	second, _ := s.buy(b, "/api/x", "ten")
	if second == first || s.Earned() != 10*cent {
		t.Errorf("the second pass: the same token %v, %d units paid", second == first, s.Earned())
	}
	want(t, "the first pass", b.Get(s.URL("/api/x"), bearer(first)...), http.StatusPaymentRequired, "plan_used_up")
	for range 9 {
		want(t, "the second pass", b.Get(s.URL("/api/x"), x402.HeaderSignature, s.sign(b, "/api/x", "")), http.StatusOK, "")
	}
	a := b.Get(s.URL("/api/x"), x402.HeaderSignature, s.sign(b, "/api/x", ""))
	want(t, "nothing is left", a, http.StatusOK, "")
	if s.Earned() != 11*cent || s.calls.Load() != 21 || a.Header.Get("X-Access-Token") != "" {
		t.Errorf("%d units for %d requests", s.Earned(), s.calls.Load())
	}
}

// Prepaid credit is drawn down by what each route costs; what is too little for a dear one does for a cheap one.
func TestPrepaidCredit(t *testing.T) {
	s := newShop(t)
	b := rig.NewBuyer(t, 1)
	if o := b.Offer(s.URL("/credit/dear/x")); o.Accepts[1].Extra.PlanCredit != "80000" {
		t.Errorf("offered: %+v", o.Accepts)
	}
	token, _ := s.buy(b, "/credit/dear/x", "fund") // 6 cents are left
	ask := func(path string, status int, credit int) {
		t.Helper()
		a := b.Get(s.URL(path), bearer(token)...)
		want(t, path, a, status, "plan_used_up")
		if n := left(a, "credit"); status == http.StatusOK && n != credit*cent {
			t.Errorf("%s: %d are left: %v", path, n, a.Header.Values("RateLimit"))
		}
	}
	ask("/credit/cheap/x", http.StatusOK, 5)
	ask("/credit/dear/x", http.StatusOK, 3)
	ask("/credit/dear/x?status=500", http.StatusInternalServerError, 3)
	ask("/credit/dear/x", http.StatusOK, 1)
	ask("/credit/dear/x", http.StatusPaymentRequired, 0)
	ask("/credit/cheap/x", http.StatusOK, 0)
	ask("/credit/cheap/x", http.StatusPaymentRequired, 0)
	if s.calls.Load() != 5 || s.Earned() != 7*cent {
		t.Errorf("%d requests for %d units", s.calls.Load(), s.Earned())
	}
	want(t, "a free route", b.Get(s.URL("/credit/about")), http.StatusOK, "")
	want(t, "what has no price", b.Get(s.URL("/credit/else"), bearer(token)...), http.StatusForbidden, "")
}

// A price that demands a tier is opened by plans of that tier; a plan for some methods is neither offered nor good for others.
func TestTiersAndMethods(t *testing.T) {
	s := newShop(t)
	b := rig.NewBuyer(t, 1)
	if o := b.Offer(s.URL("/tiers/gold/x")); option(o, "plain") >= 0 || option(o, "golden") < 0 {
		t.Errorf("the gold route offers %+v", o.Accepts)
	}
	post := rig.Offered(t, b.Do(t.Context(), http.MethodPost, s.URL("/tiers/x"), ""))
	if option(post, "golden") >= 0 || option(post, "plain") < 0 {
		t.Errorf("a POST is offered %+v", post.Accepts)
	}
	plain, _ := s.buy(b, "/tiers/x", "plain")
	want(t, "plain for gold", b.Get(s.URL("/tiers/gold/x"), bearer(plain)...), http.StatusPaymentRequired, "token_invalid")
	gold := rig.NewBuyer(t, 2)
	token, _ := s.buy(gold, "/tiers/gold/x", "golden")
	for _, path := range []string{"/tiers/gold/x", "/tiers/x"} {
		want(t, path, gold.Get(s.URL(path), bearer(token)...), http.StatusOK, "")
		want(t, path, gold.Do(t.Context(), http.MethodHead, s.URL(path), "", bearer(token)...), http.StatusOK, "")
		if a := gold.Do(t.Context(), http.MethodPost, s.URL(path), "", bearer(token)...); a.Status != http.StatusPaymentRequired {
			t.Errorf("POST %s: %d", path, a.Status)
		}
	}
	// By a fresh signature as well.
	a := gold.Get(s.URL("/tiers/gold/y"), x402.HeaderSignature, s.sign(gold, "/tiers/gold/y", ""))
	want(t, "a fresh signature", a, http.StatusOK, "")
	a = b.Get(s.URL("/tiers/gold/y"), x402.HeaderSignature, s.sign(b, "/tiers/gold/y", ""))
	want(t, "a fresh signature of the holder of the plain plan", a, http.StatusOK, "")
	if s.Earned() != (2+4+5)*cent {
		t.Errorf("%d units were paid", s.Earned())
	}
}

// A browser gets the token as a cookie that no script and no other host can read; the upstream does not get it.
func TestCookie(t *testing.T) {
	s := newShop(t)
	b := rig.NewBuyer(t, 1)
	a := b.Get(s.URL("/web/x"), x402.HeaderSignature, s.sign(b, "/web/x", "day"))
	want(t, "buying", a, http.StatusOK, "")
	res := http.Response{Header: a.Header}
	i := slices.IndexFunc(res.Cookies(), func(c *http.Cookie) bool { return strings.HasPrefix(c.Name, "__Host-x402-") })
	if i < 0 {
		t.Fatalf("cookies: %v", a.Header.Values("Set-Cookie"))
	}
	c := res.Cookies()[i]
	if !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" || c.SameSite != http.SameSiteLaxMode || c.Value != a.Header.Get("X-Access-Token") {
		t.Errorf("cookie %v", c)
	}
	ask := func(header ...string) rig.Answer { return b.Get(s.URL("/web/y"), header...) }
	mine := c.Name + "=" + c.Value
	want(t, "by the cookie", ask("Cookie", "a=1; "+mine+"; b=2", "Authorization", "Basic eDp5"), http.StatusOK, "")
	h := s.Upstream.Last().Header
	if h.Get("Cookie") != "a=1; b=2" || h.Get("Authorization") != "Basic eDp5" || h.Get("X-Payment-Plan") != "day" {
		t.Errorf("the upstream got %v", h)
	}
	want(t, "by the cookie alone", ask("Cookie", mine), http.StatusOK, "")
	if h := s.Upstream.Last().Header; h["Cookie"] != nil || !strings.HasPrefix(h.Get("Authorization"), "Bearer ") {
		t.Errorf("the upstream got %v", h)
	}
	if a := b.Get(s.URL("/web/open"), "Cookie", "a=1; "+mine); a.Status != http.StatusOK || s.Upstream.Last().Header.Get("Cookie") != "a=1" {
		t.Errorf("where nothing is paid: %d, and the upstream got %v", a.Status, s.Upstream.Last().Header)
	}
	forged := []byte(mine)
	if at := &forged[len(forged)-10]; *at == 'A' {
		*at = 'B'
	} else {
		*at = 'A'
	}
	want(t, "a forged one", ask("Cookie", string(forged)), http.StatusPaymentRequired, "token_invalid")
	want(t, "elsewhere", b.Get(s.URL("/api/y"), "Cookie", mine), http.StatusPaymentRequired, "Payment required")
	want(t, "one more", ask("Cookie", mine), http.StatusOK, "")
	want(t, "the last", ask("Cookie", mine), http.StatusOK, "")
	want(t, "used up", ask("Cookie", mine), http.StatusPaymentRequired, "plan_used_up")
}

// A plan whose credit does not do for the request that buys it is not offered there, and can't be bought: its buyer would pay and get nothing.
func TestCreditThatIsTooSmall(t *testing.T) {
	s := newShop(t)
	b := rig.NewBuyer(t, 1)
	if o := b.Offer(s.URL("/fund/dear")); option(o, "small") >= 0 || len(o.Accepts) != 1 {
		t.Errorf("offered: %+v", o.Accepts)
	}
	want(t, "bought all the same", b.Get(s.URL("/fund/dear"), x402.HeaderSignature, s.sign(b, "/fund/cheap", "small")),
		http.StatusPaymentRequired, x402.ReasonNoMatchingRequirements)
	if s.Earned() != 0 {
		t.Errorf("%d units were paid for nothing", s.Earned())
	}
	token, _ := s.buy(b, "/fund/cheap", "small")
	want(t, "what is dear", b.Get(s.URL("/fund/dear"), bearer(token)...), http.StatusPaymentRequired, "plan_used_up")
	want(t, "what is cheap", b.Get(s.URL("/fund/cheap"), bearer(token)...), http.StatusOK, "")
}

// Routes and plans of one price: a signature that was claimed for one opens no other.
func TestEqualPrices(t *testing.T) {
	s := newShop(t)
	b := rig.NewBuyer(t, 1)
	_, header := s.buy(b, "/api/x", "ten")
	want(t, "a plan's signature for a request", b.Get(s.URL("/other/x"), x402.HeaderSignature, header), http.StatusPaymentRequired, x402.ReasonNonceUsed)
	header = s.sign(b, "/other/x", "")
	want(t, "a request", b.Get(s.URL("/other/x"), x402.HeaderSignature, header), http.StatusOK, "")
	c := rig.NewBuyer(t, 2)
	header = s.sign(c, "/other/x", "")
	want(t, "a request", c.Get(s.URL("/other/x"), x402.HeaderSignature, header), http.StatusOK, "")
	want(t, "its signature for a plan", c.Get(s.URL("/api/x"), x402.HeaderSignature, header), http.StatusPaymentRequired, x402.ReasonNonceUsed)
	if s.Earned() != 15*cent || s.calls.Load() != 3 {
		t.Errorf("%d units for %d requests", s.Earned(), s.calls.Load())
	}
}
