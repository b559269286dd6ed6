package finality

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
	"github.com/caddy-x402/caddy-x402/test/facilitator"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

func flow(name string) string { return strings.Replace(site, "%FLOW", name, 1) }

// flows are those in which a request waits for its payment.
var flows = []string{"upfront", "authorization"}

// What is dear is served when its payment has three confirmations; what is cheap, and came at the same time, at once.
func TestConfirmationsByPrice(t *testing.T) {
	for _, name := range flows {
		t.Run(name, func(t *testing.T) {
			s := open(t, rig.Options{Site: flow(name), App: three})
			first, other, third := rig.NewBuyer(t, 1), rig.NewBuyer(t, 2), rig.NewBuyer(t, 3)
			much := s.begin(first, http.MethodGet, "/dear/1", first.Sign(first.Offer(s.URL("/dear/1")), 0))
			s.sent(1)
			more := s.begin(third, http.MethodPost, "/dear/2", third.Sign(third.Offer(s.URL("/dear/2")), 0))
			little := s.begin(other, http.MethodGet, "/cheap", other.Sign(other.Offer(s.URL("/cheap")), 0))
			s.sent(2) // the second one carries both that came later, or one of them
			s.until("all are sent", func() bool { s.commit(1); return s.Earned() == 2*dear+cent })
			s.paid("the cheap one", <-little, 1)
			s.commit(2)
			s.paid("the first dear one", <-much, 3)
			s.paid("the second dear one", <-more, 3)
			s.saw("all", 3, 2*dear+cent)
		})
	}
}

// The request of a dear payment waits, and nothing of it goes out; a cheap one that comes later goes through with the same wallet.
func TestWaitingHoldsUpNobody(t *testing.T) {
	s := open(t, rig.Options{Site: flow("upfront"), App: three})
	b, other := rig.NewBuyer(t, 1), rig.NewBuyer(t, 2)
	much := s.begin(b, http.MethodGet, "/dear/1", b.Sign(b.Offer(s.URL("/dear/1")), 0))
	s.sent(1)
	s.commit(1)
	s.waits("one confirmation", much)
	s.saw("one confirmation", 0, dear)
	little := s.begin(other, http.MethodGet, "/cheap", other.Sign(other.Offer(s.URL("/cheap")), 0))
	s.sent(1)
	s.commit(1)
	s.paid("the cheap one", <-little, 1)
	s.waits("two confirmations", much)
	s.commit(1)
	s.paid("the dear one", <-much, 3)
	s.saw("both", 2, dear+cent)
}

// A request that waited as long as it may is answered 503 with a time to come back. The same header is served when the payment is
// confirmed, whatever has become of its validity, and of who was there to see it.
func TestServedWhenItComesBack(t *testing.T) {
	for _, name := range flows {
		t.Run(name, func(t *testing.T) {
			s := open(t, rig.Options{Site: flow(name), App: three + "\n settle_timeout 2s"})
			b := rig.NewBuyer(t, 1)
			signed := b.Sign(b.Offer(s.URL("/dear/x")), 0)
			done := s.begin(b, http.MethodGet, "/dear/x", signed)
			s.sent(1)
			s.commit(1)
			id, after := s.putOff("one confirmation", <-done)
			if after < 2 || after > 60 {
				t.Errorf("come back after %d s", after)
			}
			s.putOff("again", <-s.begin(b, http.MethodGet, "/dear/x", signed))
			if got := s.state(id); got != "SETTLING" {
				t.Errorf("it is %s", got)
			}
			s.must(s.Chain.AdvanceTime(2 * time.Hour)) // a block; no authorization is valid any more
			s.commit(1)
			s.becomes(id, "PAID")
			s.paid("when it comes back", <-s.begin(b, http.MethodGet, "/dear/x", signed), 3)
			calls := 1
			if name == "authorization" {
				calls = 2 // the first answer was thrown away
			}
			s.saw("all", calls, dear)
		})
	}
}

// Who has to wait for long is told so.
func TestRetryAfterTellsHowLong(t *testing.T) {
	s := open(t, rig.Options{Site: flow("upfront"), App: "finality 20 above $0.99\n settle_timeout 4s"})
	b := rig.NewBuyer(t, 1)
	s.must(s.Chain.AdvanceTime(2 * time.Second))
	signed := b.Sign(b.Offer(s.URL("/dear/x")), 0)
	done := s.begin(b, http.MethodGet, "/dear/x", signed)
	s.sent(1)
	s.commit(1)
	if _, after := s.putOff("it waits", <-done); after < 15 || after > 60 {
		t.Errorf("19 blocks of 2 s are missing, and it says: come back after %d s", after)
	}
}

// `safe` waits until the chain says so.
func TestSafe(t *testing.T) {
	s := open(t, rig.Options{Site: flow("upfront"), App: "finality safe above $0.99", SafeLag: 4})
	b := rig.NewBuyer(t, 1)
	done := s.begin(b, http.MethodGet, "/dear/x", b.Sign(b.Offer(s.URL("/dear/x")), 0))
	s.sent(1)
	s.commit(4)
	s.waits("not safe", done)
	s.commit(1)
	s.paid("safe", <-done, 5)
	s.saw("safe", 1, dear)
}

// A node that is short of breath, and says nothing of safe blocks for a while, makes no block safe.
func TestSafeOfANodeOutOfBreath(t *testing.T) {
	o := rig.Options{Site: flow("upfront"), App: "finality safe above $0.99", SafeLag: 140}
	s := open(t, o)
	node := settlementtest.NewProxy(t, s.Chain.URL())
	o.RPC = node.URL()
	s.Load(o)
	b := rig.NewBuyer(t, 1)
	done := s.begin(b, http.MethodGet, "/dear/x", b.Sign(b.Offer(s.URL("/dear/x")), 0))
	s.sent(1)
	s.commit(1)
	s.waits("not safe", done)
	node.Refuse(func(_, params string) string {
		if params == `["safe",false]` {
			return "rate limit exceeded"
		}
		return ""
	})
	s.commit(135)
	time.Sleep(5 * time.Second) // it is looked at now and then
	s.waits("nobody says that it is safe", done)
	node.Refuse(nil)
	s.commit(5)
	s.paid("safe", <-done, 141)
	s.saw("safe", 1, dear)
}

// With deferred the answer does not wait; what is owed is settled when it is confirmed.
func TestDeferredIsSettledWhenConfirmed(t *testing.T) {
	s := open(t, rig.Options{Site: flow("deferred"), App: three + "\n credit $5 $50"})
	b := rig.NewBuyer(t, 1)
	a := <-s.begin(b, http.MethodGet, "/dear/x", b.Sign(b.Offer(s.URL("/dear/x")), 0))
	id := a.Header.Get("X-Payment-Id")
	if a.Status != http.StatusOK || a.Header.Get("X-Payment-Status") != "owed" {
		t.Fatalf("%d %v %s", a.Status, a.Header, a.Body)
	}
	s.sent(1)
	s.commit(2)
	s.must(s.Chain.Reorganize(2, true))
	time.Sleep(400 * time.Millisecond)
	if got := s.state(id); got != "OWED" {
		t.Errorf("it is %s", got)
	}
	s.sent(1) // again
	s.commit(2)
	time.Sleep(400 * time.Millisecond)
	if got := s.state(id); got != "OWED" {
		t.Errorf("with two confirmations it is %s", got)
	}
	s.commit(1)
	s.becomes(id, "DELIVERED")
	s.saw("settled", 1, dear)
}

// A reorganization that takes a payment back before it is confirmed is noticed: it is settled again, and served once.
func TestReorganizedBeforeItIsConfirmed(t *testing.T) {
	for _, name := range flows {
		for _, forget := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", forgotten"}[forget], func(t *testing.T) {
				s := open(t, rig.Options{Site: flow(name), App: three})
				b := rig.NewBuyer(t, 1)
				done := s.begin(b, http.MethodPost, "/dear/x", b.Sign(b.Offer(s.URL("/dear/x")), 0))
				s.sent(1)
				s.commit(2)
				s.waits("two confirmations", done)
				s.must(s.Chain.Reorganize(2, forget))
				s.waits("taken back", done)
				if s.Earned() != 0 {
					t.Fatal("it was not taken back")
				}
				s.sent(1)
				s.commit(2)
				s.waits("two confirmations again", done)
				s.commit(1)
				s.paid("confirmed", <-done, 3)
				s.saw("confirmed", 1, dear)
			})
		}
	}
}

// If the payer uses the time to move its money away, nothing is delivered, and nothing charged.
func TestReorganizedAndSpent(t *testing.T) {
	for _, name := range flows {
		t.Run(name, func(t *testing.T) {
			s := open(t, rig.Options{Site: flow(name), App: three})
			b := rig.NewBuyer(t, 1)
			done := s.begin(b, http.MethodGet, "/dear/x", b.Sign(b.Offer(s.URL("/dear/x")), 0))
			s.sent(1)
			s.commit(1)
			s.waits("one confirmation", done)
			s.must(s.Chain.Reorganize(1, true))
			s.spend(b)
			s.until("the money is gone", func() bool { s.commit(1); return s.Balance(b.Account.Address).IsZero() })
			var a rig.Answer
			s.until("the answer", func() bool {
				select {
				case a = <-done:
					return true
				default:
					s.commit(1)
					time.Sleep(100 * time.Millisecond)
					return false
				}
			})
			if a.Status != http.StatusPaymentRequired || a.Header.Get("X-Payment-Id") == "" || strings.Contains(a.Body, "/dear/x was") {
				t.Fatalf("%d %v %s", a.Status, a.Header, a.Body)
			}
			if got := s.state(a.Header.Get("X-Payment-Id")); got != "FAILED" {
				t.Errorf("it is %s", got)
			}
			if s.Earned() != 0 {
				t.Errorf("earned %d", s.Earned())
			}
		})
	}
}

// A reorganization that goes deeper than what was demanded is noticed by the reconciler: what was served is settled again.
func TestReorganizedAfterItWasServed(t *testing.T) {
	for _, forget := range []bool{false, true} {
		t.Run(map[bool]string{false: "waiting", true: "forgotten"}[forget], func(t *testing.T) {
			s := open(t, rig.Options{Site: flow("upfront"), App: three})
			s.commit(4)
			b := rig.NewBuyer(t, 1)
			done := s.begin(b, http.MethodGet, "/dear/x", b.Sign(b.Offer(s.URL("/dear/x")), 0))
			s.sent(1)
			s.commit(3)
			id := s.paid("confirmed", <-done, 3)
			s.must(s.Chain.Reorganize(4, forget))
			if s.Earned() != 0 {
				t.Fatal("it was not taken back")
			}
			s.sent(1)
			s.commit(1)
			s.saw("settled again", 1, dear)
			if got := s.state(id); got != "DELIVERED" {
				t.Errorf("it is %s", got)
			}
		})
	}
}

// If it can't be settled again, since the payer has moved its money away, nothing can be done about that payment; but the wallet goes on.
func TestReorganizedAfterItWasServedAndSpent(t *testing.T) {
	s := open(t, rig.Options{Site: flow("upfront"), App: three})
	s.commit(4)
	b, other := rig.NewBuyer(t, 1), rig.NewBuyer(t, 2)
	done := s.begin(b, http.MethodGet, "/dear/x", b.Sign(b.Offer(s.URL("/dear/x")), 0))
	s.sent(1)
	s.commit(3)
	id := s.paid("confirmed", <-done, 3)
	s.must(s.Chain.Reorganize(3, true))
	s.spend(b)
	s.until("the money is gone", func() bool { s.commit(1); return s.Balance(b.Account.Address).IsZero() })
	little := s.begin(other, http.MethodGet, "/cheap", other.Sign(other.Offer(s.URL("/cheap")), 0))
	s.until("the next payment", func() bool { s.commit(1); time.Sleep(50 * time.Millisecond); return s.Earned() == cent })
	s.paid("the next payment", <-little, 1)
	if got := s.state(id); got != "DELIVERED" {
		t.Errorf("it is %s", got)
	}
	s.saw("the next payment", 2, cent)
}

// Whoever makes the transfer, and however far it is trusted, it is on the chain that confirmations are counted.
func TestConfirmationsOfFacilitators(t *testing.T) {
	for _, block := range []string{"", "trust_facilitator"} {
		t.Run(block, func(t *testing.T) {
			o := rig.Options{Site: flow("upfront"), App: three}
			s := open(t, o)
			f := facilitator.New(t, s.Chain.URL(), devnet.Developer(3).Key)
			o.Settler = "facilitator " + f.URL() + " {\n" + block + "\n}"
			s.Load(o)
			b, other := rig.NewBuyer(t, 1), rig.NewBuyer(t, 2)
			much := s.begin(b, http.MethodGet, "/dear/1", b.Sign(b.Offer(s.URL("/dear/1")), 0))
			little := s.begin(other, http.MethodGet, "/cheap", other.Sign(other.Offer(s.URL("/cheap")), 0))
			s.sent(2)
			s.commit(1)
			s.paid("the cheap one", <-little, 1)
			s.commit(1)
			s.waits("two confirmations", much)
			s.must(s.Chain.Reorganize(2, false))
			s.waits("taken back", much)
			s.commit(2)
			s.waits("two confirmations again", much)
			s.commit(1)
			s.paid("the dear one", <-much, 3)
			s.saw("both", 2, dear+cent)
			if n := len(f.Requests("/settle")); n != 2 {
				t.Errorf("%d requests to /settle", n)
			}
		})
	}
}
