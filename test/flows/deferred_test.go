package flows

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// deferredSite sells everything by the flow deferred.
const deferredSite = `
	x402 $0.01 {
		flow deferred
	}
	x402_service
	reverse_proxy {upstream}
`

// owed checks that an answer was served before it was paid, and gives the payment's id.
func (s *shop) owed(what string, a rig.Answer) string {
	s.t.Helper()
	r := receipt(s.t, a)
	if a.Err != nil || a.Status != http.StatusOK || r == nil || !r.Success || r.Transaction != "" || a.Header.Get("X-Payment-Status") != "owed" {
		s.t.Fatalf("%s: %d %v %v %.200s", what, a.Status, a.Err, a.Header, a.Body)
	}
	return a.Header.Get("X-Payment-Id")
}

// settled waits until an owed payment is settled.
func (s *shop) settled(b *rig.Buyer, id string) {
	s.t.Helper()
	waitFor(s.t, "the settlement of what is owed", func() bool { return s.state(b, id) == "DELIVERED" })
}

// Who is good for it is served at once, and pays afterwards.
func TestServedAtOnce(t *testing.T) {
	s := open(t, rig.Options{Site: deferredSite, App: "credit $0.50 $5"})
	s.serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Told", "["+r.Header.Get("X-Payment-Transaction")+"] "+r.Header.Get("X-Payment-Payer"))
		_, _ = io.WriteString(w, "answer")
	})
	for i, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
		b := rig.NewBuyer(t, i)
		offer := b.Offer(s.URL("/x"))
		if flow := offer.Accepts[0].Extra.PaymentFlow; flow != "" {
			t.Errorf("the offer announces the flow %q", flow)
		}
		signed := b.Sign(offer, 0)
		s.Chain.Stall() // nothing can be settled
		a := s.again(b, method, "/x", "", signed)
		id := s.owed(method, a)
		if a.Header.Get("X-Told") != "[] "+b.Account.Address.Hex() {
			t.Errorf("%s: the upstream was told %q", method, a.Header.Get("X-Told"))
		}
		if got := s.state(b, id); got != "OWED" {
			t.Errorf("%s: the payment is %s", method, got)
		}
		s.saw(method+", before", i+1, uint64(i)*cent)
		s.Chain.Resume()
		s.settled(b, id)
		if a := s.again(b, method, "/x", "", signed); a.Status != http.StatusPaymentRequired {
			t.Errorf("%s: a replay was answered %d", method, a.Status)
		}
		s.saw(method, i+1, uint64(i+1)*cent)
	}
}

// What the upstream refuses costs nothing.
func TestDeferredErrorsCostNothing(t *testing.T) {
	s := open(t, rig.Options{Site: deferredSite, App: "credit $0.02 $0.02"})
	b := rig.NewBuyer(t, 1)
	calls := 0
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		for _, status := range []int{400, 404, 500} {
			s.serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
			a, _ := s.pay(b, method, "/x", "")
			s.free(fmt.Sprint(method, " ", status), b, a, status)
			calls++
		}
	}
	s.serve(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	broken, _ := s.pay(b, http.MethodPost, "/x", "")
	s.free("no answer", b, broken, http.StatusBadGateway)
	calls++
	s.saw("errors", calls, 0)
	s.serve(rig.Echo)
	a, _ := s.pay(b, http.MethodGet, "/x", "")
	s.settled(b, s.owed("nothing is outstanding", a))
}

// Who owes as much as it may pays up front, and so does everybody when as much is owed in all as may be.
func TestCredit(t *testing.T) {
	s := open(t, rig.Options{Site: deferredSite, App: "credit $0.04 $0.06\n settle_timeout 2s\n interval 100ms\n hold_ttl 2s"})
	first, second, third := rig.NewBuyer(t, 1), rig.NewBuyer(t, 2), rig.NewBuyer(t, 3)
	signed := map[*rig.Buyer][]string{}
	for _, b := range []*rig.Buyer{first, second, third} {
		for range 6 {
			signed[b] = append(signed[b], b.Sign(b.Offer(s.URL("/x")), 0))
		}
	}
	s.Chain.Stall()
	take := func(b *rig.Buyer) rig.Answer {
		header := signed[b][0]
		signed[b] = signed[b][1:]
		return s.again(b, http.MethodGet, "/x", "", header)
	}
	lent := func(b *rig.Buyer) (n int) {
		for range 5 {
			a := take(b)
			if a.Header.Get("X-Payment-Status") != "owed" {
				if a.Status != http.StatusServiceUnavailable { // the chain stalls: nothing can be paid up front
					t.Errorf("over the bound: %d %v %s", a.Status, a.Header, a.Body)
				}
				return n
			}
			n++
		}
		return n
	}
	if n := lent(first); n != 4 {
		t.Errorf("the first payer was lent to %d times", n)
	}
	if n := lent(second) + lent(third); n != 2 {
		t.Errorf("the others were lent to %d times", n)
	}
	s.saw("on credit", 6, 0)
	s.Chain.Resume()
	waitFor(t, "the settlement of all that is owed", func() bool { return s.Earned() >= uint64(s.Upstream.Calls())*cent })
}

// Copies of one request are served once; one payer's many requests at once stay within its bound, and all are served and paid.
func TestDeferredAtOnce(t *testing.T) {
	s := open(t, rig.Options{Site: deferredSite, App: "credit $0.05 $5"})
	b := rig.NewBuyer(t, 1)
	signed := b.Sign(b.Offer(s.URL("/x")), 0)
	var wg sync.WaitGroup
	copies := make([]rig.Answer, 20)
	for i := range copies {
		wg.Go(func() { copies[i] = s.again(b, http.MethodPost, "/x", "", signed) })
	}
	wg.Wait()
	served := 0
	for _, a := range copies {
		if a.Status == http.StatusOK {
			served++
		}
	}
	if served != 1 || s.Upstream.Calls() != 1 {
		t.Errorf("%d copies were served, by %d calls", served, s.Upstream.Calls())
	}
	answers := make([]rig.Answer, 20)
	for i := range answers {
		header := b.Sign(b.Offer(s.URL("/y")), 0)
		wg.Go(func() { answers[i] = s.again(b, http.MethodGet, "/y", "", header) })
	}
	wg.Wait()
	for i, a := range answers {
		if a.Status != http.StatusOK {
			t.Errorf("request %d: %d %s", i, a.Status, a.Body)
		}
	}
	waitFor(t, "the payment of all", func() bool { return s.Earned() == 21*cent })
	s.saw("all", 21, 21*cent)
}

// A payer whose owed payment did not come through is refused, and told why and what to do, until it is made good.
func TestWhoOwesIsRefused(t *testing.T) {
	s := open(t, rig.Options{Site: deferredSite, App: "credit $0.50 $5\n interval 100ms\n max_timeout 60s"})
	b, other := rig.NewBuyer(t, 1), rig.NewBuyer(t, 2)
	s.serve(func(w http.ResponseWriter, _ *http.Request) {
		if err := s.Chain.Blacklist(context.WithoutCancel(t.Context()), b.Account.Address); err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, "answer")
	})
	a, _ := s.pay(b, http.MethodGet, "/x", "")
	id := s.owed("the first", a)
	waitFor(t, "the failure of what is owed", func() bool {
		return strings.Contains(b.Get(s.URL("/x402/payments/"+id)).Body, `"reason"`)
	})
	if err := s.Chain.Unblacklist(t.Context(), b.Account.Address); err != nil {
		t.Fatal(err)
	}
	s.serve(rig.Echo)
	if got := s.state(b, id); got != "OWED" {
		t.Errorf("the payment is %s", got)
	}
	a, _ = s.pay(b, http.MethodGet, "/x", "")
	if a.Status != http.StatusPaymentRequired || rig.Offered(t, a).Error != "payment_owed" {
		t.Errorf("who owes: %d %.300s", a.Status, a.Body)
	}
	a, _ = s.pay(other, http.MethodGet, "/x", "")
	s.settled(other, s.owed("another payer", a))
	s.saw("before it is made good", 2, cent)

	long := func(a *x402.Authorization) { a.ValidBefore.SetUint64(uint64(time.Now().Add(30 * time.Minute).Unix())) }
	pay := func(b *rig.Buyer, header ...string) rig.Answer {
		return s.again(b, http.MethodGet, "/x", "", b.Sign(b.Offer(s.URL("/x")), 0, long), header...)
	}
	repay := func(b *rig.Buyer) rig.Answer { return pay(b, "X-Payment-Owed", id) }
	if a := repay(b); a.Status != http.StatusPaymentRequired || rig.Offered(t, a).Error != "payment_owed" {
		t.Errorf("while it may still be executed: %d %.300s", a.Status, a.Body)
	}
	if a := repay(other); a.Status != http.StatusPaymentRequired || rig.Offered(t, a).Error != "payment_not_owed" {
		t.Errorf("another's debt: %d %.300s", a.Status, a.Body)
	}
	s.saw("refused repayments", 2, cent)
	if err := s.Chain.AdvanceTime(2 * time.Minute); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the repayment", func() bool { a = repay(b); return a.Status == http.StatusOK })
	if !contains(a.Body, id, "madeGood") || receipt(t, a) == nil {
		t.Errorf("the repayment: %v %s", a.Header, a.Body)
	}
	s.saw("made good", 2, 2*cent)
	if got := s.state(b, id); got != "DELIVERED" {
		t.Errorf("what was made good is %s", got)
	}
	if a := repay(b); a.Status != http.StatusPaymentRequired || rig.Offered(t, a).Error != "payment_not_owed" {
		t.Errorf("made good twice: %d %.300s", a.Status, a.Body)
	}
	s.settled(b, s.owed("afterwards", pay(b)))
	s.saw("afterwards", 3, 3*cent)
}

// Who has not the money for what it owes and for this is refused: what is owed comes first.
func TestBalanceBesideWhatIsOwed(t *testing.T) {
	s := open(t, rig.Options{Site: deferredSite, App: "credit $1 $5\n settle_timeout 2s\n hold_ttl 2s"})
	b := rig.NewBuyer(t, 5000) // beyond the payers that have money
	if err := s.Chain.Mint(t.Context(), b.Account.Address, uint256.NewInt(15_000)); err != nil {
		t.Fatal(err)
	}
	first, second := b.Sign(b.Offer(s.URL("/x")), 0), b.Sign(b.Offer(s.URL("/x")), 0)
	s.Chain.Stall()
	id := s.owed("the first", s.again(b, http.MethodGet, "/x", "", first))
	if a := s.again(b, http.MethodGet, "/x", "", second); a.Status != http.StatusPaymentRequired || rig.Offered(t, a).Error != string(x402.ReasonInsufficientBalance) {
		t.Errorf("the second: %d %v %s", a.Status, a.Header, a.Body)
	}
	s.Chain.Resume()
	s.settled(b, id)
	s.saw("one could be paid", 1, cent)
}

// A client that leaves while the upstream works: a GET costs nothing, and is paid up front when it comes back; a POST is done, and
// paid for.
func TestClientOfADeferredLeaves(t *testing.T) {
	s := open(t, rig.Options{Site: deferredSite, App: "credit $0.50 $5"})
	for i, method := range []string{http.MethodGet, http.MethodPost} {
		b := rig.NewBuyer(t, i)
		asked, left := make(chan struct{}), make(chan struct{})
		s.serve(func(w http.ResponseWriter, r *http.Request) {
			close(asked)
			if method == http.MethodGet {
				<-r.Context().Done()
			}
			<-left
			_, _ = io.WriteString(w, "done")
		})
		signed := b.Sign(b.Offer(s.URL("/x")), 0)
		s.leave(b, method, "/x", "", signed, asked)
		close(left)
		if method == http.MethodPost {
			waitFor(t, "the payment of a POST that was done", func() bool { return s.Earned() == 2*cent })
			if a := s.insist(b, method, "/x", "", signed); a.Status != http.StatusPaymentRequired {
				t.Errorf("a POST that comes back: %d %s", a.Status, a.Body)
			}
			s.saw("a POST", 3, 2*cent)
			continue
		}
		s.serve(rig.Echo)
		s.paid("a GET that comes back", b, s.insist(b, method, "/x", "", signed))
		s.saw("a GET", 2, cent)
	}
}

// The keys of what is owed keep working.
func TestDeferredKeys(t *testing.T) {
	s := open(t, rig.Options{Site: deferredSite, App: "credit $0.50 $5"})
	b := rig.NewBuyer(t, 1)
	first, signed := s.pay(b, http.MethodPost, "/x", "tea", "Idempotency-Key", "one")
	id := s.owed("the first", first)
	a := s.again(b, http.MethodPost, "/x", "tea", signed, "Idempotency-Key", "one")
	if a.Status != http.StatusOK || a.Body != first.Body || a.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("again: %d %v %s", a.Status, a.Header, a.Body)
	}
	s.settled(b, id)
	a, _ = s.pay(b, http.MethodPost, "/x", "tea", "Idempotency-Key", "one")
	if r := receipt(t, a); a.Status != http.StatusOK || a.Body != first.Body || r == nil || r.Transaction == "" {
		t.Errorf("settled, again: %d %v %s", a.Status, a.Header, a.Body)
	}
	s.saw("keys", 1, cent)
}

// What settles an owed payment is nobody's to read: it is in no status, and not in the trail.
func TestOwedSignatureIsSecret(t *testing.T) {
	s := open(t, rig.Options{Site: deferredSite, App: "credit $0.50 $5"})
	b := rig.NewBuyer(t, 1)
	offer := b.Offer(s.URL("/x"))
	auth, sig := b.Authorize(offer.Accepts[0])
	s.Chain.Stall()
	a := s.again(b, http.MethodGet, "/x", "", rig.Encode(t, offer.Pay(offer.Accepts[0], &auth, sig)))
	id := s.owed("the first", a)
	status := b.Get(s.URL("/x402/payments/" + id))
	for _, text := range []string{status.Body, a.Body, fmt.Sprint(a.Header)} {
		if strings.Contains(text, fmt.Sprintf("%x", sig[:16])) {
			t.Errorf("the signature shows: %s", text)
		}
	}
	s.Chain.Resume()
	s.settled(b, id)
}
