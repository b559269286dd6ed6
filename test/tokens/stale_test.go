package tokens

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/test/service"
)

// While the ledger can't be reached, the holders of a plan are served for max_stale and not longer, and again as soon as it answers.
// A Caddy that has never heard of revocations takes no token at all.
func TestLedgerOutOfReach(t *testing.T) {
	redis, err := service.StartRedis(t.Context(), service.RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := redis.Stop(); err != nil {
			t.Error(err)
		}
	})
	const maxStale = 4 * time.Second
	o := rig.Options{Site: shop, Store: "redis " + redis.URL(), App: "max_stale 4s"}
	r := rig.New(t, o)
	b := rig.NewBuyer(t, 1)
	a, _ := b.Buy(r.URL("/plans/x"))
	token := a.Header.Get("X-Access-Token")
	if a.Status != http.StatusOK || token == "" {
		t.Fatalf("buying: %d %s", a.Status, a.Body)
	}
	ask := func() rig.Answer { return b.Get(r.URL("/plans/x"), bearer(token)...) }
	if err := redis.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	var last time.Time
	for time.Since(killed) < 2*maxStale {
		asked := time.Now()
		a := ask()
		switch {
		case a.Status == http.StatusOK:
			last = asked
		case time.Since(killed) < maxStale/2: // when it was last heard of revocations depends on how busy the machine is
			t.Fatalf("refused after %s: %d %s", time.Since(killed), a.Status, a.Body)
		case a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || !strings.Contains(a.Body, "revocations_unknown"):
			t.Fatalf("after max_stale: %d %v %s", a.Status, a.Header, a.Body)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if served := last.Sub(killed); served > maxStale+slack || served < maxStale/2 {
		t.Errorf("served for %s without the ledger, want %s", served, maxStale)
	}
	calls := r.Upstream.Calls()
	if a := ask(); a.Status != http.StatusServiceUnavailable || r.Upstream.Calls() != calls {
		t.Errorf("still: %d, and the upstream was asked", a.Status)
	}
	if err := redis.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	for ask().Status != http.StatusOK {
		if time.Since(begun) > time.Minute {
			t.Fatal("refused though the ledger is back")
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("served for %s without the ledger, and again %s after it was back", last.Sub(killed), time.Since(begun))
}
