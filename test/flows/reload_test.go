package flows

import (
	"io"
	"net/http"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
)

// What was begun under one flow goes on as it was begun when the price has another one by now.
func TestReloadWithAnotherFlow(t *testing.T) {
	const app = "settle_timeout 2s\n interval 200ms\n hold_ttl 2s"
	t.Run("held, of an unknown outcome", func(t *testing.T) {
		s := open(t, rig.Options{Site: heldSite, App: app})
		b := rig.NewBuyer(t, 1)
		s.serve(func(w http.ResponseWriter, _ *http.Request) {
			s.Chain.Stall()
			_, _ = io.WriteString(w, "the secret")
		})
		a, signed := s.pay(b, http.MethodGet, "/x", "")
		if a.Status != http.StatusServiceUnavailable {
			t.Fatalf("%d %v %s", a.Status, a.Header, a.Body)
		}
		s.Load(rig.Options{App: app})
		s.serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
		s.Chain.Resume()
		a = s.insist(b, http.MethodGet, "/x", "", signed)
		if r := receipt(t, a); a.Status != http.StatusNotFound || r == nil || !r.Success || a.Header.Get("X-Payment-Status") != "refund_pending" {
			t.Errorf("%d %v %s", a.Status, a.Header, a.Body) // with the flow authorization a "not found" costs nothing
		}
	})
	t.Run("owed", func(t *testing.T) {
		s := open(t, rig.Options{Site: deferredSite, App: app + "\n credit $0.50 $5"})
		b := rig.NewBuyer(t, 1)
		signed := b.Sign(b.Offer(s.URL("/x")), 0)
		s.Chain.Stall()
		id := s.owed("the first", s.again(b, http.MethodGet, "/x", "", signed))
		s.Load(rig.Options{App: app})
		if flow := b.Offer(s.URL("/x")).Accepts[0].Extra.PaymentFlow; flow != "upfront" {
			t.Errorf("the offer announces %q by now", flow)
		}
		s.Chain.Resume()
		s.settled(b, id)
		s.saw("after the reload", 1, cent)
	})
}
