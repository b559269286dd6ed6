package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// A payment that is settled for another server is one like all others as to its authorization and its end, and serves nobody here.
func testFacilitated(t *testing.T, open Open) {
	f := setup(t, open)
	asked := newPayment(t, 1, 1)
	asked.Flow = ledger.FlowFacilitator
	p := f.claim(asked, 0)
	if p.Flow != ledger.FlowFacilitator || f.read(p.ID) != p {
		t.Fatalf("claimed as %+v", p)
	}
	// Its authorization pays for nothing else, whoever claims it, and of what kind that is.
	again := asked
	again.ID, again.Flow = newID(t, 1), ledger.FlowUpfront
	if had, err := f.store().Claim(f.ctx, again, ledger.Change{Actor: "request"}); !errors.Is(err, ledger.ErrExists) || had != p {
		t.Errorf("its authorization was claimed again: %+v, %v", had, err)
	}
	like := asked
	like.Flow = ledger.FlowUpfront
	unserved := func() {
		t.Helper()
		if got, err := f.store().Unserved(f.ctx, like, 10); err != nil || len(got) != 0 {
			t.Errorf("unserved: %v, %v", ids(got), err)
		}
	}
	unserved()
	f.record(newTransaction(9, 0, 100, p.ID))
	p = f.update(f.read(p.ID), ledger.Change{Event: ledger.EventSettle, Actor: "request", Transaction: hash(1), Block: 18, BlockHash: hash(2)})
	unserved()
	for _, e := range []ledger.Event{ledger.EventDeliver, ledger.EventUndelivered} {
		if _, err := f.store().Update(f.ctx, p.ID, p.Version, ledger.Change{Event: e}); !errors.Is(err, ledger.ErrTransition) {
			t.Errorf("%s: %v", e, err)
		}
	}
	due := func(want bool) {
		t.Helper()
		got, err := f.store().Lease(f.ctx, 10, time.Second)
		if err != nil || (len(got) == 1) != want {
			t.Errorf("due: %v, %v", ids(got), err)
		}
		f.clock.Add(time.Minute)
	}
	due(true) // its block is not safe yet
	p = f.update(p, ledger.Change{Event: ledger.EventFinal, Transaction: hash(1), Block: 18, BlockHash: hash(2)})
	due(false)
	got, err := f.store().List(f.ctx, ledger.Query{State: ledger.StateSettled, Limit: 10})
	if err != nil || !sameIDs(got, p.ID) || got[0] != p {
		t.Errorf("listed %+v, %v", got, err)
	}
	if counts, err := f.store().Counts(f.ctx); err != nil || len(counts) != 1 || counts[ledger.StateSettled] != 1 {
		t.Errorf("counts %v, %v", counts, err)
	}
}
