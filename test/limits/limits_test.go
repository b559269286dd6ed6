package limits

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// The fifth item of the going-live checklist: a payer has its limit over two processes that share a ledger; what is more is answered 429, says in whole
// seconds when to come back, and leaves the authorization unused on chain, so that it pays where there is no limit any more.
func TestChecklist5RateLimits(t *testing.T) {
	o := rig.Options{Site: site(limits)}
	r := rig.New(t, o)
	o.RPC = r.Chain.URL()
	addr := rig.FreeAddr(t)
	second := rig.NewProcess(t, r.Dir, "second", addr, rig.Caddyfile(o, r.Dir, addr, r.Upstream.Addr()))
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	b := rig.NewBuyer(t, 1)
	urls := []string{r.URL("/weather"), "http://" + addr + "/weather"}
	for i := range 3 {
		a, _ := b.Buy(urls[i%2])
		if a.Err != nil || a.Status != http.StatusOK || !strings.HasPrefix(a.Header.Get("RateLimit"), fmt.Sprintf(`"payer";r=%d;t=`, 2-i)) {
			t.Fatalf("payment %d: %d %v %v %s", i, a.Status, a.Err, a.Header, a.Body)
		}
	}
	offer := b.Offer(urls[0])
	auth, sig := b.Authorize(offer.Accepts[0])
	header := rig.Encode(t, offer.Pay(offer.Accepts[0], &auth, sig))
	for _, url := range urls {
		limitedBy(t, url, b.Get(url, x402.HeaderSignature, header), "payer", 3)
	}
	if used(t, r, &auth) || r.Earned() != 30_000 || r.Upstream.Calls() != 3 {
		t.Errorf("a refused payment was used: %v; earned %d with %d calls", used(t, r, &auth), r.Earned(), r.Upstream.Calls())
	}
	if a, _ := rig.NewBuyer(t, 2).Buy(urls[1]); a.Status != http.StatusOK {
		t.Errorf("another payer: %d %s", a.Status, a.Body)
	}
	o.Site = site("")
	r.Load(o)
	var a rig.Answer
	soon(func() bool { // the connection may still be one to the configuration before
		a = rig.NewBuyer(t, 1).Get(r.URL("/weather"), x402.HeaderSignature, header)
		return a.Err == nil && a.Status != http.StatusTooManyRequests
	})
	if a.Status != http.StatusOK || !used(t, r, &auth) || r.Earned() != 50_000 {
		t.Errorf("without a limit: %d %v %s; earned %d", a.Status, a.Err, a.Body, r.Earned())
	}
}

// A consumer's key gives it a name and a limit of its own, pays for nothing, and goes no further than the gate.
func TestConsumers(t *testing.T) {
	r := rig.New(t, rig.Options{Site: site(limits)})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/weather")
	offer := b.Offer(url) // opens the ledger
	id, secret := newKey(t, r, apikey.Access)
	_, reader := newKey(t, r, apikey.PaymentsRead)
	if a := b.Get(url, "X-Api-Key", secret); a.Status != http.StatusPaymentRequired || a.Header.Get("X-Seen-Key") != id {
		t.Errorf("a key pays for nothing: %d %v", a.Status, a.Header)
	}
	a := b.Get(url, "Authorization", "Bearer "+secret, "X-Payment-Consumer", "ak_forged", x402.HeaderSignature, b.Sign(offer, 0))
	seen := r.Upstream.Last()
	if a.Status != http.StatusOK || seen == nil || seen.Header.Get("X-Payment-Consumer") != id || strings.Contains(fmt.Sprint(seen.Header), secret) {
		t.Fatalf("%d %s; the upstream got %v", a.Status, a.Body, seen)
	}
	if a.Header.Get("X-Seen-Key") != id {
		t.Errorf("the placeholder says %q", a.Header.Get("X-Seen-Key"))
	}
	for name, want := range map[string]struct {
		key, network, code string
		status             int
	}{
		"another scope":   {reader, "", "apikey.scope_insufficient", http.StatusForbidden},
		"another network": {"", "mainnet", "network_locked", http.StatusForbidden},
	} {
		var header []string
		if want.key != "" {
			header = append(header, "X-Api-Key", want.key)
		}
		if want.network != "" {
			header = append(header, "X-Network", want.network)
		}
		if a := b.Get(url, header...); a.Status != want.status || !strings.Contains(a.Body, want.code) {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	for range 2 {
		if a := b.Get(url, "X-Api-Key", secret); a.Status != http.StatusPaymentRequired {
			t.Errorf("%d %s", a.Status, a.Body)
		}
	}
	limitedBy(t, "the key", b.Get(url, "X-Api-Key", secret, x402.HeaderSignature, b.Sign(offer, 0)), "key", 4)
	if a := b.Get(url); a.Status != http.StatusPaymentRequired {
		t.Errorf("without a key: %d %s", a.Status, a.Body)
	}
	revoke(t, r, id)
	soon(func() bool {
		a = b.Get(url, "X-Api-Key", secret)
		return a.Status == http.StatusUnauthorized
	})
	if a.Status != http.StatusUnauthorized || !strings.Contains(a.Body, "apikey.revoked") {
		t.Errorf("a revoked key: %d %s", a.Status, a.Body)
	}
	if r.Earned() != 10_000 || r.Upstream.Calls() != 1 {
		t.Errorf("earned %d with %d calls", r.Earned(), r.Upstream.Calls())
	}
}

// The management API has limits of its own: for calls with a key, and for keys that are none.
func TestManagementLimits(t *testing.T) {
	r := rig.New(t, rig.Options{Site: site(limits)})
	b := rig.NewBuyer(t, 1)
	b.Offer(r.URL("/")) // opens the ledger
	_, first := newKey(t, r, apikey.PaymentsRead)
	_, second := newKey(t, r, apikey.PaymentsRead)
	ask := func(secret string) rig.Answer {
		return b.Get(r.URL("/ops/v1/payments"), "Authorization", "Bearer "+secret, "X-Network", "testnet")
	}
	for i := range 3 {
		if a := ask(first); a.Status != http.StatusOK || !strings.HasPrefix(a.Header.Get("RateLimit"), fmt.Sprintf(`"key";r=%d;t=`, 2-i)) {
			t.Errorf("call %d: %d %v %s", i, a.Status, a.Header, a.Body)
		}
	}
	limitedBy(t, "one too many", ask(first), "key", 3)
	if a := ask(second); a.Status != http.StatusOK {
		t.Errorf("another key: %d %s", a.Status, a.Body)
	}
	for range 2 {
		if a := ask("sk_test_guess"); a.Status != http.StatusUnauthorized {
			t.Errorf("a guess: %d %s", a.Status, a.Body)
		}
	}
	limitedBy(t, "a good key among guesses", ask(second), "refused", 2)
	if a := b.Get(r.URL("/weather")); a.Status != http.StatusPaymentRequired {
		t.Errorf("the shop: %d %s", a.Status, a.Body)
	}
}
