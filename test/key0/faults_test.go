package key0

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// W1: the client's `accepted` chooses among our offers, and changes none of them.
func forgedAccepted(t *testing.T, s *shop) {
	b := s.payer(t)
	what := body{"planId": "premium", "requestId": name()}
	_, offer := s.ask(t, b, what)
	cheap, poor := offer, b
	cheap.Accepts = append([]x402.Requirements(nil), offer.Accepts...)
	for how, change := range map[string]func(*x402.Requirements){
		"a cheaper price":  func(r *x402.Requirements) { r.Amount = "1" },
		"to oneself":       func(r *x402.Requirements) { r.PayTo = poor.Account.Address.Hex() },
		"in another asset": func(r *x402.Requirements) { r.Asset = "0x000000000000000000000000000000000000dEaD" },
		"all of it": func(r *x402.Requirements) {
			r.Amount, r.PayTo = "1", poor.Account.Address.Hex()
		},
	} {
		forged := offer.Accepts[0]
		forged.Raw = nil
		change(&forged)
		cheap.Accepts[0] = forged
		s.spent(t, 0, func() {
			refused(t, s.post(t, b, what, x402.HeaderSignature, b.Sign(cheap, 0)), http.StatusPaymentRequired, "PAYMENT_FAILED")
		})
		route := body{"routeId": "weather-query", "resource": call("GET", "/api/weather/oslo")}
		calls := s.Upstream.Calls()
		if a := s.post(t, b, route, x402.HeaderSignature, b.Sign(cheap, 0)); a.Status != http.StatusPaymentRequired || s.Upstream.Calls() != calls {
			t.Errorf("%s, on a route: %d %s", how, a.Status, a.Body)
		}
	}
}

// W3: a payment for one plan buys no other, whatever challenge or request id comes with it.
func planUpgrade(t *testing.T, s *shop) {
	b := s.payer(t)
	id := name()
	_, offer := s.ask(t, b, body{"planId": "basic", "requestId": id})
	header := b.Sign(offer, 0)
	s.spent(t, 0, func() {
		refused(t, s.post(t, b, body{"planId": "premium", "requestId": id}, x402.HeaderSignature, header), http.StatusPaymentRequired, "PAYMENT_FAILED")
		refused(t, s.post(t, b, body{"planId": "premium", "requestId": id}), http.StatusConflict, "INVALID_REQUEST")
		// Another resource under the same name is another request, too: what is in the grant is what was asked for.
		refused(t, s.post(t, b, body{"planId": "basic", "requestId": id, "resourceId": "other"}, x402.HeaderSignature, header), http.StatusConflict, "INVALID_REQUEST")
	})
	g, _ := s.wantGrant(t, b, body{"planId": "basic", "requestId": id})
	if g.PlanID != "basic" {
		t.Errorf("the grant is %+v", g)
	}
}

// W5 and W6: a route's id opens its own method and path, and no other host; with nothing of ours attached.
func foreignPaths(t *testing.T, s *shop) {
	b := s.payer(t)
	_, offer := s.ask(t, b, body{"routeId": "weather-query", "resource": call("GET", "/api/weather/oslo")})
	calls := s.Upstream.Calls()
	for _, at := range []body{
		call("DELETE", "/dear/admin?x=1"), call("GET", "/dear/admin"), call("POST", "/api/weather/oslo"), call("GET", "/api/weather/"),
		call("GET", "/api/weather/a/b"), call("GET", "/api/weather/.."), call("GET", "/api/weather/%2e%2e"), call("GET", "/api/weather/a%2fb"),
		call("GET", "/api/weather/..%2f..%2fdear"), call("GET", "//api/weather/oslo"), call("GET", "/api/weather/oslo/"), call("GET", "/api//weather/oslo"),
		call("GET", "@evil.example.com:80/x"), call("GET", ".evil.example.com/"), call("GET", "http://evil.example.com/api/weather/oslo"),
		call("GET", "//evil.example.com/api/weather/oslo"), call("GET", "/api/weather/oslo#x"), call("GET", "api/weather/oslo"),
		call("GET", "/api/weather/a\\..\\..\\dear"), call("GET", "/x402/access"), call("GET", "/api/weather/a\r\nX: y"), call("GET", " /api/weather/oslo"),
	} {
		for _, paid := range []bool{false, true} {
			var header []string
			if paid {
				header = []string{x402.HeaderSignature, b.Sign(offer, 0)}
			}
			s.spent(t, 0, func() {
				refused(t, s.post(t, b, body{"routeId": "weather-query", "resource": at}, header...), http.StatusBadRequest, "ROUTE_MISMATCH")
			})
		}
	}
	// An entry that its seller has put under the wrong price is refused, too, and not sold for that.
	s.spent(t, 0, func() {
		refused(t, s.post(t, b, body{"routeId": "cheap-but-dear", "resource": call("GET", "/dear/report")}, x402.HeaderSignature, b.Sign(offer, 0)), http.StatusConflict, "ROUTE_MISMATCH")
	})
	if got := s.Upstream.Calls(); got != calls {
		t.Errorf("the upstream was called %d times", got-calls)
	}
}

// W12: what was paid and not served is resumed by the same header, and costs nothing more.
func resumed(t *testing.T, s *shop) {
	for what, kind := range map[string]body{
		"AccessGrant":      {"planId": "premium"},
		"ResourceResponse": {"routeId": "weather-query", "resource": call("GET", "/api/weather/lima")},
	} {
		b := s.payer(t)
		kind["requestId"] = name()
		_, offer := s.ask(t, b, kind)
		header := b.Sign(offer, 0)
		raw, _ := json.Marshal(kind)
		price := uint64(weatherPrice)
		if what == "AccessGrant" {
			price = premiumPrice
		}
		s.spent(t, price, func() {
			s.Chain.Stall()
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			left := b.Do(ctx, http.MethodPost, s.URL("/x402/access"), string(raw), x402.HeaderSignature, header)
			cancel()
			s.Chain.Resume()
			if left.Err == nil {
				t.Fatalf("%s: nobody waited for the chain: %d %s", what, left.Status, left.Body)
			}
			var a rig.Answer
			eventually(t, what, func() bool {
				a = s.post(t, b, kind, x402.HeaderSignature, header)
				return a.Status == http.StatusOK
			})
			if !strings.Contains(a.Body, `"type":"`+what+`"`) {
				t.Errorf("%s: %s", what, a.Body)
			}
		})
	}
}

// W14: a route that is paid without asking first has a record like any other. W18: of one request id is one challenge, however many ask.
func oneChallenge(t *testing.T, s *shop) {
	b := s.payer(t)
	route := body{"routeId": "weather-query", "resource": call("GET", "/api/weather/cairo")}
	a := s.post(t, b, route, x402.HeaderSignature, b.Sign(b.Offer(s.URL("/api/weather/cairo")), 0))
	if r := decode[resource](t, a); a.Status != http.StatusOK || s.status(t, r.PaymentID).State != "DELIVERED" {
		t.Errorf("paid without asking: %d %s", a.Status, a.Body)
	}
	what := body{"planId": "basic", "requestId": name()}
	ids := make([]string, 16)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			r, _ := s.ask(t, rig.NewBuyer(t, 0), what)
			ids[i] = r.ChallengeID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Fatalf("the challenges are %v", ids)
		}
	}
}

// A client of x402 that knows nothing of request ids sends the offer's extensions back, and is known by these.
func stockClient(t *testing.T, s *shop) {
	b := s.payer(t)
	r, offer := s.ask(t, b, body{"planId": "basic"})
	g := decode[grant](t, s.post(t, b, body{"planId": "basic"}, x402.HeaderSignature, b.Sign(offer, 0)))
	if g.RequestID != r.RequestID || g.ChallengeID != r.ChallengeID || r.RequestID == "" {
		t.Errorf("the grant %+v is not for %+v", g, r)
	}
	// One that is bought here is the one that is bought at the resource: both are paid once.
	s.spent(t, 0, func() {
		_, offer := s.ask(t, b, body{"planId": "basic"})
		if again := decode[grant](t, s.post(t, b, body{"planId": "basic"}, x402.HeaderSignature, b.Sign(offer, 0))); again.AccessToken != g.AccessToken {
			t.Errorf("a second grant: %+v", again)
		}
		if a, _ := b.Buy(s.URL("/api/resource/1")); a.Status != http.StatusOK || a.Header.Get("X-Access-Token") != g.AccessToken {
			t.Errorf("at the resource: %d %s", a.Status, a.Body)
		}
	})
}

// A page of another site can have a browser post a text here, with the visitor's cookies and without asking first. What is called by its id
// would come to the upstream as another method, as JSON and without an Origin, which is how upstreams know such requests.
func crossSite(t *testing.T, s *shop) {
	b := s.payer(t)
	raw, _ := json.Marshal(body{"routeId": "status", "resource": call("GET", "/api/status")})
	post := func(header ...string) rig.Answer {
		return b.Do(t.Context(), http.MethodPost, s.URL("/x402/access"), string(raw), header...)
	}
	calls := s.Upstream.Calls()
	for _, kind := range []string{"text/plain", "text/plain; charset=application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""} {
		for _, browser := range [][]string{{"Origin", "https://evil.example"}, {"Cookie", "session=1"}, {"Sec-Fetch-Site", "cross-site"}} {
			header := browser
			if kind != "" {
				header = append([]string{"Content-Type", kind}, browser...)
			}
			refused(t, post(header...), http.StatusUnsupportedMediaType, "INVALID_REQUEST")
		}
	}
	if s.Upstream.Calls() != calls {
		t.Error("the upstream was called")
	}
	for _, header := range [][]string{{}, {"Content-Type", "text/plain"}, {"Content-Type", "application/json; charset=utf-8", "Origin", "https://page.example", "Cookie", "session=1"}} {
		if a := post(header...); a.Status != http.StatusOK {
			t.Errorf("%v: %d %s", header, a.Status, a.Body)
		}
	}
}

// Strangers who begin to send long requests, and never end, take so much of memory and no more; short ones are read meanwhile.
func longRequests(t *testing.T, s *shop) {
	const long, most = 1 << 20, 64
	var stalled []net.Conn
	defer func() {
		for _, c := range stalled {
			_ = c.Close()
		}
	}()
	for range most + 8 { // some may be slow to come
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		stalled = append(stalled, c)
		if _, err := fmt.Fprintf(c, "POST /x402/access HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n{", s.Addr, long); err != nil {
			t.Fatal(err)
		}
	}
	b := s.payer(t)
	length := func(n int) rig.Answer { return s.post(t, b, body{"planId": "none", "text": strings.Repeat("x", n)}) }
	var a rig.Answer
	eventually(t, "the limit", func() bool {
		a = length(20 << 10)
		return a.Status != http.StatusNotFound
	})
	refused(t, a, http.StatusServiceUnavailable, "INTERNAL_ERROR")
	if a.Header.Get("Retry-After") == "" {
		t.Error("nobody is told when to come back")
	}
	refused(t, length(0), http.StatusNotFound, "TIER_NOT_FOUND")
	for _, c := range stalled {
		_ = c.Close()
	}
	stalled = nil
	eventually(t, "room", func() bool { return length(20<<10).Status == http.StatusNotFound })
}

// W35: who asks for much and pays nothing is slowed down, and Web pages may pay as elsewhere.
func strangers(t *testing.T, s *shop) {
	b := rig.NewBuyer(t, 0)
	pre := b.Do(t.Context(), http.MethodOptions, s.URL("/x402/access"), "", "Origin", "https://page.example", "Access-Control-Request-Method", "POST",
		"Access-Control-Request-Headers", "payment-signature, content-type")
	allowed := strings.ToLower(pre.Header.Get("Access-Control-Allow-Headers"))
	if pre.Status != http.StatusNoContent || !strings.Contains(allowed, "payment-signature") || pre.Header.Get("Access-Control-Allow-Methods") != "POST" {
		t.Errorf("a preflight: %d %v", pre.Status, pre.Header)
	}
	limited := rig.Answer{}
	for range 400 {
		limited = s.post(t, b, body{"planId": "basic"})
		if limited.Status != http.StatusPaymentRequired {
			break
		}
		if exposed := limited.Header.Get("Access-Control-Expose-Headers"); !strings.Contains(exposed, "PAYMENT-REQUIRED") || limited.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Fatalf("a page can't read %v", limited.Header)
		}
	}
	refused(t, limited, http.StatusTooManyRequests, "RATE_LIMITED")
	if limited.Header.Get("Retry-After") == "" {
		t.Error("nobody is told when to come back")
	}
}
