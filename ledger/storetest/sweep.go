package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// sweep sweeps until nothing is left, a few things at a time, and tells how many there were.
func (f *fixture) sweep(keep time.Duration, limit int) int {
	f.Helper()
	total := 0
	for range 1000 {
		n, err := f.store().Sweep(f.ctx, keep, limit)
		if err != nil || n < 0 || n > limit {
			f.Fatalf("swept %d, at most %d: %v", n, limit, err)
		}
		if total += n; n == 0 {
			return total
		}
	}
	f.Fatalf("the sweep does not end")
	return 0
}

const month = 30 * 24 * time.Hour

// closedPayments are payments with which nobody has anything to do any more.
func (f *fixture) closedPayments() map[string]ledger.Payment {
	f.Helper()
	final := ledger.Change{Event: ledger.EventFinal, Transaction: hash(1), Block: 18, BlockHash: hash(2)}
	sent := f.claim(newPayment(f, 1, 1), 0)
	f.record(newTransaction(9, 0, 100, sent.ID))
	sent = f.update(f.read(sent.ID), ledger.Change{Event: ledger.EventSettle, Transaction: hash(100)})
	return map[string]ledger.Payment{
		"delivered": f.update(f.delivered(sent, time.Time{}), final),
		"void":      f.update(f.claim(newPayment(f, 1, 2), 0), ledger.Change{Event: ledger.EventVoid}, final),
		"failed":    f.update(f.claim(newPayment(f, 2, 3), 0), ledger.Change{Event: ledger.EventFail}, final),
		"refunded": f.update(f.settled(newPayment(f, 2, 4)), ledger.Change{Event: ledger.EventUndelivered},
			ledger.Change{Event: ledger.EventRefunded}, final),
		"made good": f.update(f.served(f.claim(onCredit(f, 2, 5, 7), time.Minute)), ledger.Change{Event: ledger.EventFail}, final,
			ledger.Change{Event: ledger.EventMadeGood, ServedBy: "pay_other"}),
	}
}

// keptPayments are payments that must never be swept.
func (f *fixture) keptPayments() map[string]ledger.Payment {
	f.Helper()
	final := ledger.Change{Event: ledger.EventFinal, Transaction: hash(1), Block: 18, BlockHash: hash(2)}
	undelivered := ledger.Change{Event: ledger.EventUndelivered}
	settling := f.claim(newPayment(f, 1, 10), 0)
	f.record(newTransaction(9, 1, 110, settling.ID))
	imported, err := f.store().Claim(f.ctx, newPayment(f, 1, 11), ledger.Change{Event: ledger.EventImport})
	if err != nil {
		f.Fatalf("import: %v", err)
	}
	return map[string]ledger.Payment{
		"claimed":              f.claim(newPayment(f, 1, 12), 0),
		"settling":             f.read(settling.ID),
		"paid":                 f.settled(newPayment(f, 1, 13)),
		"paid and final":       f.update(f.settled(newPayment(f, 1, 14)), final),
		"delivered, not final": f.delivered(f.settled(newPayment(f, 1, 15)), time.Time{}),
		"void, not final":      f.update(f.claim(newPayment(f, 1, 16), 0), ledger.Change{Event: ledger.EventVoid}),
		"refund pending":       f.update(f.settled(newPayment(f, 1, 17)), undelivered, final),
		"refund failed":        f.update(f.settled(newPayment(f, 1, 18)), undelivered, ledger.Change{Event: ledger.EventRefundFailed}, final),
		"quarantine, final":    f.update(imported, final),
		"owed, and failed":     f.update(f.served(f.claim(onCredit(f, 1, 19, 7), time.Minute)), ledger.Change{Event: ledger.EventFail}, final),
	}
}

// Without a time to keep, only what has expired is swept.
func testSweepReservations(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	closed := f.closedPayments()
	for i := range uint64(10) {
		f.reserve(i, "pay_a", "", time.Minute+time.Duration(i%2)*time.Hour, "")
	}
	f.sweep(0, 3)
	for i := range uint64(10) {
		if _, err := f.store().Reservation(f.ctx, hash(i)); err != nil {
			t.Errorf("reservation %d is gone: %v", i, err)
		}
	}
	f.clock.Add(2 * time.Minute)
	f.sweep(0, 3)
	for i := range uint64(10) {
		_, err := f.store().Reservation(f.ctx, hash(i))
		if (err == nil) != (i%2 == 1) {
			t.Errorf("reservation %d: %v", i, err)
		}
	}
	f.clock.Add(2 * month)
	f.sweep(0, 100)
	for name, p := range closed {
		if got := f.read(p.ID); got != p {
			t.Errorf("%s: %+v, was %+v", name, got, p)
		}
	}
	f.recorded(closed["delivered"].ID, f.transactions(closed["delivered"].ID)...)
	if n := len(f.transactions(closed["delivered"].ID)); n != 1 {
		t.Errorf("%d transactions are left of one", n)
	}
}

func (f *fixture) transactions(id string) []ledger.Transaction {
	f.Helper()
	got, err := f.store().Transactions(f.ctx, id)
	if err != nil {
		f.Fatalf("transactions: %v", err)
	}
	return got
}

// What is closed and old goes to the archive, or is forgotten; what is not stays as it was, all of it.
func testSweepPayments(t *testing.T, open Open, o Options) {
	f := setup(t, open)
	closed, kept := f.closedPayments(), f.keptPayments()
	f.clock.Add(2 * month)
	young := f.update(f.claim(newPayment(t, 3, 20), 0), ledger.Change{Event: ledger.EventVoid}, ledger.Change{Event: ledger.EventFinal})
	kept["young"] = young
	before := f.records()
	anchors := []ledger.Anchor{f.anchor()}
	wallets, err := f.store().Wallets(f.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if n := f.sweep(month, 2); n < len(closed) {
		t.Errorf("%d things were swept, of %d payments", n, len(closed))
	}
	if n := f.sweep(month, 100); n != 0 {
		t.Errorf("%d things were swept again", n)
	}
	for name, p := range kept {
		if got := f.read(p.ID); got != p {
			t.Errorf("%s: %+v, was %+v", name, got, p)
		}
	}
	f.wasSwept(o, closed, before)
	if got, err := f.store().Wallets(f.ctx); err != nil || !same(got, wallets) {
		t.Errorf("wallets %+v (%v), were %+v", got, err, wallets)
	}
	if got, err := f.store().Anchors(f.ctx, 0, 9); err != nil || !same(got, anchors) {
		t.Errorf("anchors %+v (%v), were %+v", got, err, anchors)
	}
	// Open ones are still worked on.
	f.record(newTransaction(9, 1, 120, kept["settling"].ID))
	f.update(kept["paid"], ledger.Change{Event: ledger.EventUndelivered})
	f.b.Crash()
	f.wasSwept(o, closed, nil)
	v := ledger.VerifyOptions{Expect: anchors[0].Hash}
	if o.Forgets {
		v.KeptSince = f.clock.Now().Add(-month)
	}
	report, err := ledger.Verify(f.ctx, f.store(), v)
	if err != nil || report.Found != 0 || (report.Forgotten > 0) != o.Forgets {
		t.Errorf("verification: %+v, %v", report, err)
	}
}

// wasSwept finds what closed payments left behind as the contract says, and their authorizations used.
func (f *fixture) wasSwept(o Options, closed map[string]ledger.Payment, before []ledger.Record) {
	f.Helper()
	for name, p := range closed {
		again := withID(f, p)
		had, err := f.store().Claim(f.ctx, again, ledger.Change{})
		if !errors.Is(err, ledger.ErrExists) {
			f.Errorf("%s: claimed again: %v", name, err)
		}
		if o.Forgets {
			if _, err := f.store().Payment(f.ctx, p.ID); !errors.Is(err, ledger.ErrNotFound) {
				f.Errorf("%s is still there: %v", name, err)
			}
			if _, err := f.store().Audit(f.ctx, p.ID); !errors.Is(err, ledger.ErrNotFound) {
				f.Errorf("the trail of %s is still there: %v", name, err)
			}
			continue
		}
		if got := f.read(p.ID); got != p || had != p {
			f.Errorf("%s: %+v, and for its authorization %+v; was %+v", name, got, had, p)
		}
	}
	if got := f.records(); before != nil && !o.Forgets && !same(got, before) {
		f.Errorf("records: %s", difference(got, before))
	}
	if n := len(f.transactions(closed["delivered"].ID)); n != 1 && !o.Forgets {
		f.Errorf("%d transactions are left of one", n)
	}
}

// A payment that was swept may still be paid: by anybody who sends its authorization. Where it was archived it opens again, and
// its trail goes on; then it is swept once more.
func testSweepAndReopen(t *testing.T, open Open, o Options) {
	f := setup(t, open)
	void := f.closedPayments()["void"]
	f.clock.Add(2 * month)
	f.sweep(month, 100)
	settle := ledger.Change{Event: ledger.EventSettle, Transaction: hash(7), Block: 30}
	got, err := f.store().Update(f.ctx, void.ID, void.Version, settle)
	if o.Forgets {
		if !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("changing what was forgotten: %v", err)
		}
		return
	}
	if err != nil || f.read(void.ID) != got || got.State() != ledger.StateRefundPending {
		t.Fatalf("settled %+v, %v", got, err)
	}
	if due, err := f.store().Lease(f.ctx, 10, time.Minute); err != nil || !sameIDs(due, void.ID) {
		t.Errorf("leased %v, %v", ids(due), err)
	}
	f.clock.Add(2 * month)
	if n := f.sweep(month, 100); n != 0 {
		t.Errorf("%d things were swept: a refund is pending", n)
	}
	got = f.update(got, ledger.Change{Event: ledger.EventRefunded}, ledger.Change{Event: ledger.EventFinal})
	f.clock.Add(2 * month)
	if n := f.sweep(month, 100); n == 0 {
		t.Error("it was not swept again")
	}
	if back := f.read(void.ID); back != got {
		t.Errorf("archived %+v, was %+v", back, got)
	}
	f.records()
}

// Sweeps of several instances at once, while payments go on, spoil nothing.
func testSweepUnderLoad(t *testing.T, open Open, o Options) {
	f := setup(t, open)
	s := f.instances()
	old := map[string]ledger.Payment{}
	for i := range uint64(30) {
		p := f.update(f.claim(newPayment(t, i%3, i), 0), ledger.Change{Event: ledger.EventVoid}, ledger.Change{Event: ledger.EventFinal})
		old[p.ID] = p
	}
	f.clock.Add(2 * month)
	offers := make([]ledger.Payment, 30)
	for i := range offers {
		offers[i] = newPayment(t, uint64(i%3), 100+uint64(i))
	}
	atOnce(6, func(i int) {
		for n := range 10 {
			var err error
			if i < 3 {
				_, err = s[i%2].Sweep(f.ctx, month, 3)
			} else {
				_, err = s[i%2].Claim(f.ctx, offers[(i-3)*10+n], ledger.Change{})
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	f.sweep(month, 100)
	for _, p := range offers {
		f.read(p.ID)
	}
	for id, p := range old {
		if o.Forgets {
			if _, err := f.store().Payment(f.ctx, id); !errors.Is(err, ledger.ErrNotFound) {
				t.Errorf("%s is still there: %v", id, err)
			}
		} else if got := f.read(id); got != p {
			t.Errorf("%+v, was %+v", got, p)
		}
	}
}
