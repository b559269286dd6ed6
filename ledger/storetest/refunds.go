package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// What is to be paid back is somebody's work until it is: it is handed out, however final its own settlement is.
func testRefunds(t *testing.T, open Open) {
	f := setup(t, open)
	final := ledger.Change{Event: ledger.EventFinal, Transaction: hash(1), Block: 18, BlockHash: hash(2)}
	due := func(want ...string) {
		t.Helper()
		got, err := f.store().Lease(f.ctx, 10, time.Second)
		if err != nil || !sameIDs(got, want...) {
			t.Errorf("due: %v, %v; want %v", ids(got), err, want)
		}
		f.clock.Add(time.Minute)
	}
	p := f.update(f.settled(newPayment(t, 1, 1)), ledger.Change{Event: ledger.EventUndelivered, Reason: "why"}, final)
	due(p.ID)
	if err := f.store().Recheck(f.ctx, p.ID, time.Hour); err != nil {
		t.Error(err)
	}
	due()
	p = f.update(p, ledger.Change{Event: ledger.EventRefundFailed, Reason: "why not"})
	f.clock.Add(2 * time.Hour)
	due() // until somebody says that it is to be tried again
	p = f.update(p, ledger.Change{Event: ledger.EventRefundRetry, Actor: "operator"})
	due(p.ID)

	back := f.claim(transferBack(t, &p, 2, 1), 0)
	f.update(p, ledger.Change{Event: ledger.EventRefunded, Transaction: hash(7)})
	due(back.ID)
}

// The transfer by which a payment goes back is one like all others as to its authorization and its end, and no sale.
func transferBack(t *testing.T, p *ledger.Payment, wallet, nonce uint64) ledger.Payment {
	back := newPayment(t, wallet, nonce)
	back.Flow, back.PayTo, back.Amount = ledger.FlowRefund, p.Payer, p.Amount
	back.Binding = ledger.Binding{Route: "refund", URI: p.ID}
	return back
}

func testTransfersBack(t *testing.T, open Open) {
	f := setup(t, open)
	p := f.update(f.settled(newPayment(t, 1, 1)), ledger.Change{Event: ledger.EventUndelivered, Reason: "why"})
	asked := transferBack(t, &p, 2, 1)
	back := f.claim(asked, 0)
	if !back.PaysBack() || f.read(back.ID) != back || back.State() != ledger.StateRefund {
		t.Fatalf("claimed as %+v", back)
	}
	again := asked
	again.ID = newID(t, 2)
	if had, err := f.store().Claim(f.ctx, again, ledger.Change{Actor: "refunder"}); !errors.Is(err, ledger.ErrExists) || had != back {
		t.Errorf("its authorization was claimed again: %+v, %v", had, err)
	}
	unserved := func() {
		t.Helper()
		if got, err := f.store().Unserved(f.ctx, asked, 10); err != nil || len(got) != 0 {
			t.Errorf("unserved: %v, %v", ids(got), err)
		}
	}
	unserved()
	f.record(newTransaction(9, 0, 100, back.ID))
	// What was sent may be sent again, in another transaction of another wallet.
	f.record(newTransaction(8, 0, 101, back.ID))
	back = f.update(f.read(back.ID), ledger.Change{Event: ledger.EventSettle, Actor: "refunder", Transaction: hash(1), Block: 18, BlockHash: hash(2)})
	unserved()
	for _, e := range []ledger.Event{ledger.EventDeliver, ledger.EventUndelivered, ledger.EventRefunded, ledger.EventRefundFailed} {
		if _, err := f.store().Update(f.ctx, back.ID, back.Version, ledger.Change{Event: e}); !errors.Is(err, ledger.ErrTransition) {
			t.Errorf("%s: %v", e, err)
		}
	}
	if !back.Open() {
		t.Error("nobody looks whether its block stays")
	}
	back = f.update(back, ledger.Change{Event: ledger.EventFinal, Transaction: hash(1), Block: 18, BlockHash: hash(2)})
	if back.Open() || !back.Closed() {
		t.Errorf("it is not over: %+v", back)
	}
	got, err := f.store().List(f.ctx, ledger.Query{State: ledger.StateRefund, Limit: 10})
	if err != nil || !sameIDs(got, back.ID) || got[0] != back {
		t.Errorf("listed %+v, %v", got, err)
	}
	if counts, err := f.store().Counts(f.ctx); err != nil || len(counts) != 2 || counts[ledger.StateRefund] != 1 || counts[ledger.StateRefundPending] != 1 {
		t.Errorf("counts %v, %v", counts, err)
	}
}
