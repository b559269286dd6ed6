package e2e

import (
	"net/http"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// A request is answered 402, paid for on a real chain, and reaches the upstream once with who paid.
func TestFirstPaidRequest(t *testing.T) {
	r := rig.New(t, rig.Options{})
	b := rig.NewBuyer(t, 1)
	answer, header := b.Buy(r.URL("/weather?city=berlin"))
	if answer.Err != nil || answer.Status != http.StatusOK {
		t.Fatalf("paid request: %d %v %s %v", answer.Status, answer.Err, answer.Body, answer.Header)
	}
	if r.Upstream.Calls() != 1 || r.Earned() != 10_000 {
		t.Fatalf("upstream calls %d, earned %d", r.Upstream.Calls(), r.Earned())
	}
	if got := b.Offer(r.URL("/weather?city=berlin")).Resource.URL; got != r.URL("/weather?city=berlin") {
		t.Errorf("the offer is for %s", got)
	}
	last := r.Upstream.Last()
	if got := last.Header.Get("X-Payment-Payer"); got != b.Account.Address.Hex() {
		t.Errorf("the upstream was told that %q paid", got)
	}
	if last.Header.Get(x402.HeaderSignature) != "" {
		t.Error("the upstream got the payment header")
	}
	var s x402.SettlementResponse
	if err := x402.DecodeHeader(answer.Header.Get(x402.HeaderResponse), 1<<16, &s); err != nil || !s.Success || s.Transaction == "" {
		t.Errorf("PAYMENT-RESPONSE: %+v, %v", s, err)
	}
	if again := b.Get(r.URL("/weather?city=berlin"), x402.HeaderSignature, header); again.Status != http.StatusPaymentRequired {
		t.Errorf("a replay was answered %d", again.Status)
	}
	if r.Upstream.Calls() != 1 || r.Earned() != 10_000 {
		t.Errorf("after a replay: upstream calls %d, earned %d", r.Upstream.Calls(), r.Earned())
	}
}
