package key0

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

type forecast struct {
	City, Condition, TxHash, Payer, Units string
	TempF                                 int
}

func (s *shop) wantResource(t *testing.T, b *rig.Buyer, what body) (resource, rig.Answer) {
	t.Helper()
	a, _ := s.buy(t, b, what)
	if a.Err != nil || a.Status != http.StatusOK {
		t.Fatalf("calling %v: %d %v %s", what, a.Status, a.Err, a.Body)
	}
	r := decode[resource](t, a)
	if r.Type != "ResourceResponse" {
		t.Fatalf("the answer is %s", a.Body)
	}
	return r, a
}

func gatewayProxy(t *testing.T, s *shop) {
	b := s.payer(t)
	s.spent(t, 0, func() {
		// A free route, at its address and by its id: Key0 fails at the latter (1.5).
		if a := b.Get(s.URL("/api/status")); a.Status != http.StatusOK || !strings.Contains(a.Body, `"ok"`) {
			t.Errorf("the free route: %d %s", a.Status, a.Body)
		}
		a := s.post(t, b, body{"routeId": "status", "resource": call("GET", "/api/status")})
		if r := decode[resource](t, a); a.Status != http.StatusOK || r.Resource.Status != http.StatusOK || r.TxHash != "" || !strings.Contains(string(r.Resource.Body), `"ok"`) {
			t.Errorf("the free route, by its id: %d %s", a.Status, a.Body)
		}
	})
	// The upstream is told who paid, by headers that no client can forge, and by a signed assertion in place of Key0's shared token.
	what := body{"routeId": "weather-query", "requestId": name(), "resource": call("GET", "/api/weather/tokyo?units=metric")}
	s.spent(t, weatherPrice, func() {
		_, offer := s.ask(t, b, what)
		a := s.post(t, b, what, x402.HeaderSignature, b.Sign(offer, 0), "X-Payment-Payer", "0xforged", "X-Payment-Transaction", "0xforged")
		r := decode[resource](t, a)
		f := new(forecast)
		if err := json.Unmarshal(r.Resource.Body, f); err != nil || f.City != "tokyo" || f.Units != "metric" || f.TxHash != r.TxHash || f.Payer != b.Account.Address.Hex() {
			t.Errorf("%d %s, %v", a.Status, a.Body, err)
		}
	})
	up := s.Upstream.Last()
	if up.Header.Get(x402.HeaderSignature) != "" || up.Header.Get("X-Payment-Token") == "" || up.URL.RawQuery != "units=metric" {
		t.Errorf("the upstream got %s %v", up.URL, up.Header)
	}
}

func pprStandalone(t *testing.T, s *shop) {
	b := s.payer(t)
	what := body{"routeId": "weather-query", "requestId": name(), "resource": call("GET", "/api/weather/london")}
	r, offer := s.ask(t, b, what)
	if at := s.status(t, r.ChallengeID); !strings.HasPrefix(r.ChallengeID, "route-") || at.State != "PENDING" || at.RouteID != "weather-query" || at.Amount != "10000" {
		t.Errorf("the challenge %s is %+v", r.ChallengeID, at)
	}
	header := b.Sign(offer, 0)
	a := s.post(t, b, what, x402.HeaderSignature, header)
	got := decode[resource](t, a)
	f := new(forecast)
	if err := json.Unmarshal(got.Resource.Body, f); err != nil || a.Status != http.StatusOK || got.RouteID != "weather-query" || got.ChallengeID != r.ChallengeID ||
		got.RequestID != r.RequestID || f.City != "london" || f.TempF == 0 || f.Condition == "" {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	if !strings.Contains(got.ExplorerURL, "sepolia") || !strings.HasSuffix(got.ExplorerURL, got.TxHash) || len(got.TxHash) != 66 || a.Header.Get(x402.HeaderResponse) == "" {
		t.Errorf("the receipt is %s", a.Body)
	}
	if got.AccessToken != nil || got.TokenType != nil || got.ResourceEndpoint != nil || a.Header.Get("X-Access-Token") != "" {
		t.Errorf("a route gives a token: %s", a.Body)
	}
	if at := s.status(t, r.ChallengeID); at.State != "DELIVERED" {
		t.Errorf("the challenge is %+v", at)
	}
	s.spent(t, jokePrice, func() {
		if j, _ := s.wantResource(t, b, body{"routeId": "joke-of-the-day", "resource": call("GET", "/api/joke")}); !strings.Contains(string(j.Resource.Body), "402") {
			t.Errorf("the joke is %s", j.Resource.Body)
		}
	})
	refused(t, s.post(t, b, body{"routeId": "weather-query"}), http.StatusBadRequest, "RESOURCE_REQUIRED")
	refused(t, s.post(t, b, body{"routeId": "weather-query", "resource": body{"method": "GET"}}), http.StatusBadRequest, "MISSING_RESOURCE_FIELD")
	s.spent(t, 0, func() {
		// The same authorization for another thing is refused; for the same thing, under its request id, it gets the same answer again.
		other := body{"routeId": "weather-query", "requestId": name(), "resource": call("GET", "/api/weather/paris")}
		refused(t, s.post(t, b, other, x402.HeaderSignature, header), http.StatusConflict, "INVALID_REQUEST")
		refused(t, s.post(t, b, other, x402.HeaderSignature, withoutEcho(t, header)), http.StatusPaymentRequired, "PAYMENT_FAILED")
		calls := s.Upstream.Calls()
		again := decode[resource](t, s.post(t, b, what, x402.HeaderSignature, header))
		if string(again.Resource.Body) != string(got.Resource.Body) || s.Upstream.Calls() != calls {
			t.Errorf("again: %+v, and %d calls", again, s.Upstream.Calls()-calls)
		}
		// A DELIVERED route of Key0 is charged again when its client signs anew.
		_, offer := s.ask(t, b, what)
		fresh := s.post(t, b, what, x402.HeaderSignature, b.Sign(offer, 0))
		if r := decode[resource](t, fresh); fresh.Status != http.StatusOK || r.TxHash != got.TxHash || s.Upstream.Calls() != calls {
			t.Errorf("with a fresh signature: %d %s", fresh.Status, fresh.Body)
		}
	})
}

func pprFailures(t *testing.T, s *shop) {
	b := s.payer(t)
	// The upstream's own error passes within; what was paid for it is held for refund at once, where Key0's record stays PAID until a
	// cron finds it.
	r, a := s.wantResource(t, b, body{"routeId": "fail", "requestId": name(), "resource": call("GET", "/api/fail")})
	if r.Resource.Status != http.StatusInternalServerError || a.Header.Get("X-Payment-Status") != "refund_pending" {
		t.Errorf("%s %v", a.Body, a.Header)
	}
	if at := s.status(t, r.ChallengeID); at.State != "REFUND_PENDING" {
		t.Errorf("the challenge is %+v", at)
	}
	// One that does not answer is an error of ours.
	a, _ = s.buy(t, b, body{"routeId": "drop", "requestId": name(), "resource": call("GET", "/api/drop")})
	refused(t, a, http.StatusBadGateway, "PROXY_ERROR")
	told := decode[resource](t, a)
	if at := s.status(t, told.ChallengeID); at.State != "REFUND_PENDING" || len(told.TxHash) != 66 {
		t.Errorf("the challenge of %s is %+v", a.Body, at)
	}
}

func pprEmbedded(t *testing.T, s *shop) {
	b := s.payer(t)
	offer := b.Offer(s.URL("/api/weather/rome"))
	if o := offer.Accepts[0]; o.Scheme != "exact" || o.Network != "eip155:84532" || o.Amount != "10000" || o.PayTo != rig.PayTo.Hex() {
		t.Errorf("the offer is %+v", o)
	}
	header := b.Sign(offer, 0)
	a := b.Get(s.URL("/api/weather/rome"), x402.HeaderSignature, header)
	f := decode[forecast](t, a)
	if a.Status != http.StatusOK || f.City != "rome" || len(f.TxHash) != 66 || a.Header.Get("X-Access-Token") != "" {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if at := s.status(t, a.Header.Get("X-Payment-Id")); at.State != "DELIVERED" { // Key0's has an id that begins with ppr-
		t.Errorf("the payment is %+v", at)
	}
	if joke, _ := b.Buy(s.URL("/api/joke")); joke.Status != http.StatusOK {
		t.Errorf("the joke: %d %s", joke.Status, joke.Body)
	}
	if again := b.Get(s.URL("/api/weather/rome"), x402.HeaderSignature, header); again.Status != http.StatusPaymentRequired {
		t.Errorf("the same authorization: %d %s", again.Status, again.Body)
	}
}

func bodies(t *testing.T, s *shop) {
	b := s.payer(t)
	r, _ := s.wantResource(t, b, body{"routeId": "echo", "resource": call("POST", "/api/echo/x", map[string]any{"a": 1})})
	up := s.Upstream.Last()
	if r.Resource.Status != http.StatusOK || up.Method != http.MethodPost || up.ContentLength != int64(len(`{"a":1}`)) || up.Header.Get("Content-Type") != "application/json" {
		t.Errorf("the upstream got %s %s %d %v", up.Method, up.URL, up.ContentLength, up.Header)
	}
	r, _ = s.wantResource(t, b, body{"routeId": "binary", "resource": call("GET", "/api/binary")})
	if string(r.Resource.Body) != `"AP8B"` || r.Resource.Encoding != "base64" {
		t.Errorf("bytes come back as %s", r.Resource.Body)
	}
	// What is too long to be wrapped is not half of an answer: it was not delivered.
	a, _ := s.buy(t, b, body{"routeId": "binary", "requestId": name(), "resource": call("GET", "/api/binary?mebibytes")})
	refused(t, a, http.StatusBadGateway, "PROXY_ERROR")
	if at := s.status(t, decode[resource](t, a).ChallengeID); at.State != "REFUND_PENDING" {
		t.Errorf("the challenge is %+v", at)
	}
	if a, _ := b.Buy(s.URL("/api/binary?mebibytes")); a.Status != http.StatusOK || len(a.Body) != 9<<20+3 {
		t.Errorf("at its own address: %d, %d bytes", a.Status, len(a.Body))
	}
}
