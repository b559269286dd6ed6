package e2e

import (
	"net"
	"net/http"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// A stranger who sends signatures that nothing stands behind is slowed down before the chain is asked again; whoever pays from
// elsewhere does not notice.
func TestStrangerIsSlowedDown(t *testing.T) {
	r := rig.New(t, rig.Options{})
	stranger := rig.NewBuyer(t, 5000) // has no money
	offer := stranger.Offer(r.URL("/x"))
	count := map[int]int{}
	for range 60 {
		a := stranger.Get(r.URL("/x"), x402.HeaderSignature, stranger.Sign(offer, 0))
		count[a.Status]++
		if a.Status == http.StatusTooManyRequests && a.Header.Get("Retry-After") == "" {
			t.Error("a 429 without Retry-After")
		}
	}
	if count[http.StatusPaymentRequired] < 32 || count[http.StatusTooManyRequests] == 0 || len(count) != 2 {
		t.Errorf("answers by status: %v", count)
	}
	if a := stranger.Get(r.URL("/x")); a.Status != http.StatusPaymentRequired {
		t.Errorf("the offer: %d", a.Status)
	}
	payer := rig.NewBuyer(t, 1)
	payer.HTTP = &http.Client{Transport: &http.Transport{
		DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext, DisableKeepAlives: true,
	}}
	if a, _ := payer.Buy(r.URL("/x")); a.Status != http.StatusOK {
		t.Errorf("a payer from elsewhere: %d %s", a.Status, a.Body)
	}
}
