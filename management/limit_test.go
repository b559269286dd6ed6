package management_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/management/apikey"
)

func limitedTo(key, refused uint64) func(*management.Config) {
	return func(c *management.Config) {
		c.Limits = management.Limits{
			Key: management.Limit{Requests: key, Window: time.Minute}, Refused: management.Limit{Requests: refused, Window: time.Hour},
		}
	}
}

// Each key has its own calls, which are counted whatever comes of them, over all instances; the answer says how many are left, and when
// there are more. What is refused has changed nothing, and may be sent again with its Idempotency-Key.
func TestCallsByKey(t *testing.T) {
	o := newOffice(t, limitedTo(3, 10))
	other, err := management.New(o.config) // another instance
	if err != nil {
		t.Fatal(err)
	}
	_, live := o.key(apikey.Live, 0)
	_, second := o.key(apikey.Live, 0)
	body, once := `{"label":"x","scopes":["access"]}`, []string{"Idempotency-Key", "k"}
	for i, h := range []http.Handler{o.remote, other, o.remote} {
		a := ask(t, h, http.MethodGet, "/v1/payments", "", "Authorization", "Bearer "+live, "X-Network", []string{"mainnet", "testnet", ""}[i])
		left := fmt.Sprintf(`"key";r=%d;t=60`, 2-i)
		if a.status == http.StatusTooManyRequests || a.header.Get("RateLimit") != left || a.header.Get("RateLimit-Policy") != `"key";q=3;w=60` {
			t.Errorf("call %d: %d %v", i, a.status, a.header)
		}
	}
	o.pass(1500 * time.Millisecond)
	a := o.live(live, http.MethodPost, "/v1/api-keys", body, once...)
	if statusAndCode(a) != "429 rate_limit.exceeded" || a.header.Get("Retry-After") != "59" || a.header.Get("RateLimit") != `"key";r=0;t=58` {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	if a = o.live(live, http.MethodGet, "/v1/payments", "", "Accept", "application/problem+json"); a.header.Get("Content-Type") != "application/problem+json" ||
		!strings.Contains(a.body, `"retryable":true`) || !strings.Contains(a.body, `"status":429`) {
		t.Errorf("as a problem: %d %v %s", a.status, a.header, a.body)
	}
	if a = o.live(second, http.MethodGet, "/v1/payments", ""); a.status != http.StatusOK {
		t.Errorf("another key: %d %s", a.status, a.body)
	}
	if a = ask(t, o.local, http.MethodGet, "/x402/v1/payments", ""); a.status != http.StatusOK || a.header.Get("RateLimit") != "" {
		t.Errorf("who sits at the machine: %d %v", a.status, a.header)
	}
	o.pass(58500 * time.Millisecond)
	if a = o.live(live, http.MethodPost, "/v1/api-keys", body, once...); a.status != http.StatusCreated || a.header.Get("RateLimit") != `"key";r=2;t=60` {
		t.Errorf("in the next window: %d %v %s", a.status, a.header, a.body)
	}
}

// An address has its calls, whatever keys it shows; a call counts by address and by key. Who observes hears of what was refused, and by what.
func TestCallsByAddress(t *testing.T) {
	var heard []string
	o := newOffice(t, limitedTo(2, 10), func(c *management.Config) {
		c.Limits.Client = management.Limit{Requests: 4, Window: time.Hour}
		c.Limited = func(limit string) { heard = append(heard, limit) }
		c.Client = func(r *http.Request) string { return r.Header.Get("From") }
	})
	_, first := o.key(apikey.Live, 0)
	_, second := o.key(apikey.Live, 0)
	for i, tc := range []struct{ secret, from, want, limits string }{
		{first, "192.0.2.1", "200", `"client";r=3;t=3600, "key";r=1;t=60`},
		{first, "192.0.2.1", "200", `"client";r=2;t=3600, "key";r=0;t=60`},
		{first, "192.0.2.1", "429 rate_limit.exceeded", `"client";r=1;t=3600, "key";r=0;t=60`},
		{second, "192.0.2.1", "200", `"client";r=0;t=3600, "key";r=1;t=60`},
		{second, "192.0.2.1", "429 rate_limit.exceeded", `"client";r=0;t=3600`},
		{second, "192.0.2.2", "200", `"client";r=3;t=3600, "key";r=0;t=60`},
	} {
		a := o.live(tc.secret, http.MethodGet, "/v1/payments", "", "From", tc.from)
		if got := strings.Join(a.header.Values("RateLimit"), ", "); statusAndCode(a) != tc.want && fmt.Sprint(a.status) != tc.want || got != tc.limits {
			t.Errorf("call %d: %d %s, RateLimit %s", i, a.status, a.body, got)
		}
	}
	if got := strings.Join(heard, " "); got != "key client" {
		t.Errorf("heard of %q", got)
	}
}

// Guesses at keys are few, over all instances; then no key from that address is looked at, a good one neither, until the window ends. Of IPv6
// an address is its /64. Other addresses, and calls without a key, which cost nothing, have nothing to do with it.
func TestRefusedKeys(t *testing.T) {
	o := newOffice(t, limitedTo(1000, 4))
	other, err := management.New(o.config)
	if err != nil {
		t.Fatal(err)
	}
	_, live := o.key(apikey.Live, 0)
	_, unknown := newOffice(t).key(apikey.Live, 0)
	from := func(h http.Handler, address, secret string) answer {
		t.Helper()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/payments", nil)
		r.RemoteAddr = address
		r.Header.Set("X-Network", "mainnet")
		if secret != "" {
			r.Header.Set("Authorization", "Bearer "+secret)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return answer{w.Code, w.Result().Header, w.Body.String()}
	}
	const here, neighbour = "[2001:db8:1:2::1]:4711", "[2001:db8:1:3::1]:4711"
	for i, h := range []http.Handler{o.remote, other, o.remote, other} {
		address := fmt.Sprintf("[2001:db8:1:2::%d]:4711", i+1)
		secret := []string{unknown, "sk_live_x"}[i/2]
		if a := from(h, address, secret); statusAndCode(a) != "401 apikey.invalid" || a.header.Get("RateLimit") != fmt.Sprintf(`"refused";r=%d;t=3600`, 3-i) {
			t.Errorf("guess %d: %d %v %s", i, a.status, a.header, a.body)
		}
		if a := from(h, address, ""); statusAndCode(a) != "401 auth.missing_token" || a.header.Get("RateLimit") != "" {
			t.Errorf("without a key: %d %v", a.status, a.header)
		}
	}
	for name, h := range map[string]http.Handler{"one": o.remote, "another": other} {
		for _, secret := range []string{live, unknown, "sk_live_x"} {
			if a := from(h, here, secret); statusAndCode(a) != "429 rate_limit.exceeded" || a.header.Get("Retry-After") != "3600" {
				t.Errorf("%s instance: %d %v %s", name, a.status, a.header, a.body)
			}
		}
		if a := from(h, neighbour, live); a.status != http.StatusOK {
			t.Errorf("a neighbour: %d %s", a.status, a.body)
		}
	}
	o.pass(time.Hour)
	if a := from(o.remote, here, live); a.status != http.StatusOK {
		t.Errorf("in the next window: %d %s", a.status, a.body)
	}
	var e management.Envelope
	if a := from(o.remote, here, unknown); json.Unmarshal([]byte(a.body), &e) != nil || e.Error.Code != management.CodeKeyInvalid {
		t.Errorf("%d %s", a.status, a.body)
	}
}
