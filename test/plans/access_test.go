package plans

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// order asks for a plan by its id, and signs for it.
func (s *shop) order(b *rig.Buyer, plan string) (rig.Answer, string) {
	s.t.Helper()
	post := func(header ...string) rig.Answer {
		return b.Do(s.t.Context(), http.MethodPost, s.URL("/x402/access"), `{"planId":"`+plan+`"}`, header...)
	}
	a := post(x402.HeaderSignature, b.Sign(rig.Offered(s.t, post()), 0))
	var g struct{ AccessToken string }
	if a.Status == http.StatusOK && (json.Unmarshal([]byte(a.Body), &g) != nil || g.AccessToken == "") {
		s.t.Errorf("the grant of %s: %s", plan, a.Body)
	}
	return a, g.AccessToken
}

// What is bought by its id is the same plan. The grant uses nothing up, and is given again to its payer until nothing is left; then the
// payer buys another one.
func TestBoughtByItsID(t *testing.T) {
	s := newShop(t)
	b := rig.NewBuyer(t, 1)
	a, first := s.order(b, "ten")
	want(t, "ten", a, http.StatusOK, "")
	if _, again := s.order(b, "ten"); again != first || s.Earned() != 5*cent {
		t.Errorf("the same token: %v; %d units were paid", again == first, s.Earned())
	}
	for range 10 {
		want(t, "by the grant's token", b.Get(s.URL("/api/x"), bearer(first)...), http.StatusOK, "")
	}
	want(t, "used up", b.Get(s.URL("/api/x"), bearer(first)...), http.StatusPaymentRequired, "plan_used_up")
	if _, second := s.order(b, "ten"); second == first || second == "" || s.Earned() != 10*cent {
		t.Errorf("the same token: %v; %d units were paid", second == first, s.Earned())
	}

	a, trial := s.order(b, "trial")
	want(t, "trial", a, http.StatusOK, "")
	for range 3 {
		want(t, "by the trial's token", b.Get(s.URL("/trial/x"), bearer(trial)...), http.StatusOK, "")
	}
	want(t, "used up", b.Get(s.URL("/trial/x"), bearer(trial)...), http.StatusPaymentRequired, "plan_used_up")
	if a, _ := s.order(b, "trial"); a.Status != http.StatusPaymentRequired || s.Earned() != 10*cent {
		t.Errorf("another trial: %d %s; %d units were paid", a.Status, a.Body, s.Earned())
	}
}
