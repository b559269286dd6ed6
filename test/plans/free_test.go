package plans

import (
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// So many requests of each key are free, however many come at once, and whatever the upstream fails to answer; then they pay.
func TestFreeTier(t *testing.T) {
	s := newShop(t)
	b := rig.NewBuyer(t, 1)
	url := s.URL("/few/x")
	want(t, "a failing upstream", b.Get(url+"?status=500", "X-Key", "one"), http.StatusInternalServerError, "")
	var free, paid atomic.Int64
	var wg sync.WaitGroup
	for range 60 {
		wg.Go(func() {
			switch a := b.Get(url, "X-Key", "one"); a.Status {
			case http.StatusOK:
				free.Add(1)
				if a.Header.Get("RateLimit-Policy") != `"free-tier";q=20;w=86400` {
					t.Errorf("%v", a.Header)
				}
			case http.StatusPaymentRequired:
				paid.Add(1)
			default:
				t.Errorf("%d %v %s", a.Status, a.Err, a.Body)
			}
		})
	}
	wg.Wait()
	if free.Load() != 20 || paid.Load() != 40 {
		t.Errorf("%d were free, %d not", free.Load(), paid.Load())
	}
	a := b.Get(url, "X-Key", "one")
	want(t, "used up", a, http.StatusPaymentRequired, "Payment required")
	if left(a, "free-tier") != 0 {
		t.Errorf("%v", a.Header)
	}
	want(t, "another", b.Get(url, "X-Key", "two"), http.StatusOK, "")
	if h := s.Upstream.Last().Header; h.Get("X-Payment-Id") != "" || h.Get("X-Payment-Token") != "" {
		t.Errorf("the upstream was told of a payment: %v", h)
	}
	// A Host may have any port, and still be the site's.
	want(t, "by another port", b.Get(url, "X-Key", "one", "Host", "127.0.0.1:1"), http.StatusPaymentRequired, "Payment required")
	want(t, "nobody", b.Get(url), http.StatusPaymentRequired, "Payment required")
	// Who pays uses nothing up.
	o := b.Offer(url)
	want(t, "a payment", b.Get(url, "X-Key", "two", x402.HeaderSignature, b.Sign(o, 0)), http.StatusOK, "")
	if a := b.Get(url, "X-Key", "two"); left(a, "free-tier") != 18 {
		t.Errorf("%d %v", a.Status, a.Header)
	}
	if s.Earned() != cent {
		t.Errorf("%d units were paid", s.Earned())
	}
	// Whoever is started again counts on.
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	s.Load(rig.Options{Site: site})
	b.HTTP.CloseIdleConnections()
	want(t, "used up, after a reload", b.Get(url, "X-Key", "one"), http.StatusPaymentRequired, "Payment required")
}

// A free plan is given for a signature over nothing, once to each payer, and to so many of one address.
func TestFreePlan(t *testing.T) {
	s := newShop(t)
	b := rig.NewBuyer(t, 1)
	o := b.Offer(s.URL("/trial/x"))
	if i := option(o, "trial"); i != len(o.Accepts)-1 || o.Accepts[i].Amount != "0" {
		t.Fatalf("offered: %+v", o.Accepts)
	}
	token, header := s.buy(b, "/trial/x", "trial")
	if h := s.Upstream.Last().Header; h.Get("X-Payment-Plan") != "trial" || h.Get("X-Payment-Amount") != "0" ||
		h.Get("X-Payment-Payer") != b.Account.Address.Hex() {
		t.Errorf("the upstream was told %v", h)
	}
	want(t, "by the token", b.Get(s.URL("/trial/y"), bearer(token)...), http.StatusOK, "")
	want(t, "by the signature", b.Get(s.URL("/trial/y"), x402.HeaderSignature, header), http.StatusOK, "")
	want(t, "used up", b.Get(s.URL("/trial/y"), bearer(token)...), http.StatusPaymentRequired, "plan_used_up")
	fresh := s.sign(b, "/trial/x", "trial")
	want(t, "another trial", b.Get(s.URL("/trial/y"), x402.HeaderSignature, fresh), http.StatusPaymentRequired, "plan_used_up")
	want(t, "by another port", b.Get(s.URL("/trial/y"), x402.HeaderSignature, fresh, "Host", "127.0.0.1:1"), http.StatusPaymentRequired, "plan_used_up")
	for i := 2; i < 9; i++ {
		other := rig.NewBuyer(t, i)
		a := other.Get(s.URL("/trial/x"), x402.HeaderSignature, s.sign(other, "/trial/x", "trial"))
		if i <= 5 {
			want(t, "payer "+strconv.Itoa(i), a, http.StatusOK, "")
		} else {
			want(t, "payer "+strconv.Itoa(i), a, http.StatusPaymentRequired, "free_plan_limit")
		}
	}
	// Nobody's signature is worth nothing.
	forged := b.Sign(o, option(o, "trial"), func(a *x402.Authorization) { a.From = rig.NewBuyer(t, 20).Account.Address })
	if a := b.Get(s.URL("/trial/x"), x402.HeaderSignature, forged); a.Status != http.StatusPaymentRequired {
		t.Errorf("a forged signature: %d %s", a.Status, a.Body)
	}
	want(t, "a payment", b.Get(s.URL("/trial/x"), x402.HeaderSignature, s.sign(b, "/trial/x", "")), http.StatusOK, "")
	if s.Earned() != cent || s.calls.Load() != 8 {
		t.Errorf("%d units for %d requests", s.Earned(), s.calls.Load())
	}
	// Signatures over nothing cost nobody anything but us, who ask the chain about each.
	limited := rig.Answer{}
	for i := 0; i < 64 && limited.Status != http.StatusTooManyRequests; i++ {
		limited = b.Get(s.URL("/trial/y"), x402.HeaderSignature, fresh)
	}
	if limited.Status != http.StatusTooManyRequests {
		t.Errorf("again and again: %d %s", limited.Status, limited.Body)
	}
}
