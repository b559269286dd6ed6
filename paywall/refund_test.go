package paywall

import (
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement/refund"
)

// fund gives the refund wallet money.
func (w *refundWorld) fund(n uint64) { w.bank.balances[w.wallet.Address()] += n }

// run lets instances work for a time, a minute at a time.
func (w *refundWorld) run(d time.Duration) {
	for end := w.now().Add(d); w.now().Before(end); {
		w.instance(-1)
		w.check()
		w.pass(time.Minute)
	}
}

func (w *refundWorld) is(p ledger.Payment, want string) {
	w.t.Helper()
	if got := w.state(p); got != want {
		w.t.Errorf("%s, want %s", got, want)
	}
}

// A payment is not paid back before its time, then once, and is refunded when that is safe.
func TestRefund(t *testing.T) {
	w := newRefundWorld(t)
	w.fund(1 << 20)
	p := w.held(1, "")
	w.run(4 * time.Minute)
	if w.bank.transfers != 0 {
		t.Fatal("it was paid back too early")
	}
	w.is(p, "REFUND_PENDING upstream_status_502")
	w.run(3 * time.Minute)
	if w.bank.transfers != 1 {
		t.Fatalf("%d transfers", w.bank.transfers)
	}
	w.is(p, "REFUND_PENDING upstream_status_502")
	w.run(10 * time.Minute)
	w.is(p, "REFUNDED upstream_status_502")
	e := idleEngine(w.store, Settings{})
	s, err := e.Status(t.Context(), p.ID)
	if err != nil || s.Refund != "refunded" || common.HexToHash(s.RefundTransaction) == (common.Hash{}) {
		t.Errorf("its payer is told %+v, %v", s, err)
	}
	w.run(time.Hour)
	if w.bank.transfers != 1 || w.bank.balances[p.Payer] != p.Amount.Uint64() {
		t.Errorf("%d transfers, %d arrived", w.bank.transfers, w.bank.balances[p.Payer])
	}
	w.trails()
}

// What can't be paid for lack of money waits, for as long as it takes, and no operator is needed when there is money.
func TestRefundWaitsForMoney(t *testing.T) {
	w := newRefundWorld(t)
	p, q := w.held(1, ""), w.held(2, "")
	w.run(3 * time.Hour)
	w.is(p, "REFUND_PENDING upstream_status_502")
	w.bank.paused = true
	w.fund(p.Amount.Uint64() + q.Amount.Uint64())
	w.run(time.Hour)
	w.is(p, "REFUND_PENDING upstream_status_502")
	w.bank.paused = false
	w.run(15 * time.Minute)
	w.is(p, "REFUNDED upstream_status_502")
	w.is(q, "REFUNDED upstream_status_502")
	if left := w.bank.balances[w.wallet.Address()]; left != 0 {
		t.Errorf("%d are left", left)
	}
}

// A payer that the token refuses is for the operator, once told; all others are paid.
func TestRefundToABlacklistedPayer(t *testing.T) {
	w := newRefundWorld(t)
	w.fund(1 << 20)
	p, q := w.held(1, ""), w.held(2, "")
	w.bank.banned[p.Payer] = true
	w.run(time.Hour)
	w.is(p, "REFUND_FAILED refund_refused_by_token")
	w.is(q, "REFUNDED upstream_status_502")
	if w.failures[p.ID] != 1 || w.failures[q.ID] != 0 {
		t.Errorf("failures %v", w.failures)
	}
	w.retry()
	w.run(10 * time.Minute)
	w.is(p, "REFUND_FAILED refund_refused_by_token")
	w.bank.banned[p.Payer] = false
	w.retry()
	w.run(15 * time.Minute)
	w.is(p, "REFUNDED refund_refused_by_token")
}

// A wallet that is filled between a refusal and the question why makes nothing fail: who fills it need not retry anything.
func TestRefundFromAWalletThatIsBeingFilled(t *testing.T) {
	w := newRefundWorld(t)
	w.fund(1 << 20)
	w.bank.filled = 1
	p := w.held(1, "")
	w.run(20 * time.Minute)
	w.is(p, "REFUNDED upstream_status_502")
	if len(w.failures) != 0 {
		t.Errorf("failures %v", w.failures)
	}
}

// That others were faster to take what the refund wallet has is no reason to give up.
func TestRefundFromACrowdedWallet(t *testing.T) {
	w := newRefundWorld(t)
	w.fund(1 << 20)
	p := w.held(1, "")
	w.bank.crowded = true
	w.run(time.Hour)
	w.is(p, "REFUND_PENDING upstream_status_502")
	w.bank.crowded = false
	w.run(10 * time.Minute)
	w.is(p, "REFUNDED upstream_status_502")
}

// A plan of which something was drawn does not go back by itself, whatever is said of its delivery.
func TestRefundOfAPlanInUse(t *testing.T) {
	w := newRefundWorld(t)
	w.fund(1 << 20)
	p, q := w.held(1, "day"), w.held(2, "day")
	one := *uint256.NewInt(1)
	_, a, err := w.store.Draw(t.Context(), ledger.Draw{
		Key: allowanceKey(kindRequests, p.ID), Least: one, Want: one, Limit: one, Until: w.now().Add(24 * time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.run(time.Hour)
	w.is(p, "REFUND_FAILED refund_of_a_plan_in_use")
	w.is(q, "REFUNDED upstream_status_502")
	if err := w.store.Return(t.Context(), a.Key, a.CreatedAt, one); err != nil {
		t.Fatal(err)
	}
	w.retry()
	w.run(15 * time.Minute)
	w.is(p, "REFUNDED refund_of_a_plan_in_use")
	w.trails()
}

// An authorization that was cancelled on the chain is told to the operator, who may name another wallet.
func TestRefundThatWasCancelled(t *testing.T) {
	w := newRefundWorld(t)
	p := w.held(1, "")
	w.run(10 * time.Minute) // begun, and without money
	w.bank.cancel(w.wallet.Address(), refund.Nonce(p.AuthorizationID))
	w.fund(1 << 20)
	w.run(10 * time.Minute)
	w.is(p, "REFUND_FAILED refund_authorization_cancelled")
	w.wallet = refundKey(2)
	w.fund(1 << 20)
	w.retry()
	w.run(4 * time.Hour)
	w.is(p, "REFUNDED refund_authorization_cancelled")
	w.trails()
}

// A wallet takes over what another one has begun only when nothing of that one can be executed any more.
func TestRefundByAnotherWallet(t *testing.T) {
	w := newRefundWorld(t)
	p := w.held(1, "")
	w.run(10 * time.Minute) // begun, signed and without money
	first := w.wallet.Address()
	w.wallet = refundKey(2)
	w.fund(1 << 20)
	// An instance that has not heard of that signs once more, as late as it can.
	w.run(14 * time.Minute)
	w.wallet = refundKey(1)
	w.run(time.Minute)
	w.wallet = refundKey(2)
	signed := w.bank.seen[len(w.bank.seen)-1].Authorization.ValidBefore.Uint64()
	if left := signed - uint64(w.now().Unix()); w.bank.seen[len(w.bank.seen)-1].Authorization.From != first || left < 13*60 {
		t.Fatalf("the last signature is good for %d s", left)
	}
	for w.bank.transfers == 0 {
		w.run(time.Minute)
		if w.bank.transfers > 0 && uint64(w.now().Unix()) <= signed {
			t.Fatal("paid while the first wallet's signature was good")
		}
		if w.now().Sub(p.SettledAt) > 6*time.Hour {
			t.Fatal("never paid")
		}
	}
	// What the first wallet signed would be executed now, if it could be.
	w.bank.balances[first] = 1 << 20
	for i := range w.bank.seen {
		w.bank.execute(i)
	}
	w.run(time.Hour)
	w.is(p, "REFUNDED upstream_status_502")
	w.wallet = refundKey(1)
	w.run(time.Hour)
	w.is(p, "REFUNDED upstream_status_502")
	if w.bank.transfers != 1 {
		t.Errorf("%d transfers", w.bank.transfers)
	}
	w.trails()
}

// A transfer that strangers make is the refund as well, whichever wallet is configured by then.
func TestRefundByAStranger(t *testing.T) {
	w := newRefundWorld(t)
	p := w.held(1, "")
	w.run(7 * time.Minute) // begun, and without money
	w.wallet = refundKey(2)
	w.fund(1 << 20)
	w.run(3 * time.Minute)
	w.bank.balances[refundKey(1).Address()] = 1 << 20
	for i := range w.bank.seen {
		w.bank.execute(i)
	}
	w.run(4 * time.Hour)
	w.is(p, "REFUNDED upstream_status_502")
	if w.bank.transfers != 1 {
		t.Errorf("%d transfers", w.bank.transfers)
	}
}

// What is dearer than may go back by itself is the operator's to decide; what is more than may go back in a day waits for the next.
func TestRefundLimits(t *testing.T) {
	w := newRefundWorld(t)
	w.fund(1 << 20)
	w.limits = RefundLimits{PerPayment: *uint256.NewInt(1002), PerDay: *uint256.NewInt(2100)}
	a, b, c, dear := w.held(0, ""), w.held(1, ""), w.held(2, ""), w.held(3, "")
	w.run(time.Hour)
	w.is(dear, "REFUND_FAILED refund_over_max_payment")
	if w.bank.transfers != 2 {
		t.Fatalf("%d transfers in a day for 2100, each of about 1000", w.bank.transfers)
	}
	w.run(13 * time.Hour) // past midnight
	if w.bank.transfers != 3 {
		t.Errorf("%d transfers in two days", w.bank.transfers)
	}
	for _, p := range []ledger.Payment{a, b, c} {
		w.is(p, "REFUNDED upstream_status_502")
	}
	w.retry() // that is the decision
	w.run(time.Hour)
	w.is(dear, "REFUNDED refund_over_max_payment")
}

// The token of a plan is revoked before its payment goes back, and everybody has the time to hear of it.
func TestRefundRevokesFirst(t *testing.T) {
	w := newRefundWorld(t)
	w.fund(1 << 20)
	p, q := w.held(1, "day"), w.held(2, "")
	w.pass(6 * time.Minute)
	w.instance(-1)
	w.check()
	revoked, err := w.store.Revoked(t.Context(), 0, 10)
	if err != nil || w.bank.transfers != 1 || len(revoked) != 1 || revoked[0].ID != p.ID {
		t.Fatalf("%d transfers, revoked %v: %v", w.bank.transfers, revoked, err)
	}
	w.pass(29 * time.Second)
	if w.instance(-1); w.bank.transfers != 1 {
		t.Fatal("paid back before everybody had heard of the revocation")
	}
	w.run(15 * time.Minute)
	w.is(p, "REFUNDED upstream_status_502")
	w.is(q, "REFUNDED upstream_status_502")
}

// Where nobody pays refunds they wait, and are paid when somebody does.
func TestRefundsOff(t *testing.T) {
	w := newRefundWorld(t)
	p := w.held(1, "")
	off := func() {
		e := idleEngine(w.store, Settings{
			Payees: []*Payee{{Network: sepolia, PayTo: refundSeller, Settler: w.bank}}, ReconcileEvery: time.Second,
		})
		e.reconcile(t.Context())
		e.background.Wait()
	}
	for range 100 {
		off()
		w.pass(10 * time.Minute)
	}
	w.is(p, "REFUND_PENDING upstream_status_502")
	w.fund(1 << 20)
	w.run(2 * time.Hour)
	w.is(p, "REFUNDED upstream_status_502")
}

// A batch is what goes out at once; the rest follows, round by round.
func TestRefundBatches(t *testing.T) {
	w := newRefundWorld(t)
	w.fund(1 << 20)
	for n := range 11 {
		w.held(n, "")
	}
	w.pass(6 * time.Minute)
	for _, want := range []int{4, 8, 11, 11} {
		w.instance(-1)
		if w.bank.transfers != want {
			t.Fatalf("%d transfers, want %d", w.bank.transfers, want)
		}
		w.pass(time.Minute)
	}
	w.rest()
	for _, p := range w.payments {
		w.is(p, "REFUNDED upstream_status_502")
	}
}

// What was delivered is no business of refunds, whatever the ledger is asked.
func TestDeliveredIsNeverRefunded(t *testing.T) {
	w := newRefundWorld(t)
	w.fund(1 << 20)
	p := w.held(1, "")
	q := p
	q.Delivery, q.Refund = ledger.Delivered, ledger.NotRefunded
	for _, ev := range []ledger.Event{ledger.EventUndelivered, ledger.EventRefunded, ledger.EventRefundFailed, ledger.EventRefundRetry} {
		if err := ledger.Apply(&q, ledger.Change{Event: ev}, w.now()); err == nil {
			t.Errorf("%s of a delivered payment", ev)
		}
	}
}

func TestRefundOn(t *testing.T) {
	for _, c := range []struct {
		on        *RefundOn
		yes, no   []int
		transport bool
	}{
		{nil, []int{500, 503, 599}, []int{200, 302, 404, 499}, true},
		{&RefundOn{}, nil, []int{200, 404, 500, 503}, true},
		{&RefundOn{ServerErrors: true, ClientErrors: true}, []int{400, 404, 499, 500}, []int{200, 204, 304}, true},
		{&RefundOn{Statuses: []int{404, 503}}, []int{404, 503}, []int{200, 403, 500, 502}, true},
	} {
		for _, status := range c.yes {
			if !c.on.covers(status) {
				t.Errorf("%+v does not cover %d", c.on, status)
			}
		}
		for _, status := range c.no {
			if c.on.covers(status) {
				t.Errorf("%+v covers %d", c.on, status)
			}
		}
		d := &deliveryWriter{attempt: &attempt{Request: Request{Route: &Route{RefundOn: c.on}}}}
		if !d.undelivered(502, true) || d.undelivered(404, true) != c.on.covers(404) {
			t.Errorf("%+v: no answer at all is a delivery", c.on)
		}
	}
}
