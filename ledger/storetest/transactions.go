package storetest

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

func (f *fixture) nonce(wallet uint64) (uint64, bool) {
	f.Helper()
	n, known, err := f.store().Nonce(f.ctx, 84532, account(wallet))
	if err != nil {
		f.Fatalf("nonce: %v", err)
	}
	return n, known
}

// recorded checks what is recorded for a payment.
func (f *fixture) recorded(id string, want ...ledger.Transaction) {
	f.Helper()
	got, err := f.store().Transactions(f.ctx, id)
	if err != nil {
		f.Fatalf("transactions: %v", err)
	}
	if len(got) != len(want) {
		f.Errorf("transactions of %s: %+v, want %+v", id, got, want)
		return
	}
	for i := range got {
		if !reflect.DeepEqual(got[i], want[i]) {
			f.Errorf("transactions of %s: %+v, want %+v", id, got[i], want[i])
		}
	}
}

func (f *fixture) dated(t ledger.Transaction) ledger.Transaction {
	t.CreatedAt = f.clock.Now().Truncate(time.Microsecond)
	return t
}

func testRecord(t *testing.T, open Open) {
	f := setup(t, open)
	a, b := f.claim(newPayment(t, 1, 1), time.Minute), f.claim(newPayment(t, 2, 2), 0)
	f.clock.Add(time.Second)
	first := newTransaction(9, 41, 100, b.ID, a.ID)
	first.CreatedAt = f.clock.Now().Add(time.Hour) // not the caller's to say
	f.record(first)
	first = f.dated(first)
	if n, known := f.nonce(9); n != 42 || !known {
		t.Errorf("next nonce %d, %v", n, known)
	}
	for _, p := range []ledger.Payment{a, b} {
		want := p
		if err := ledger.Apply(&want, ledger.Change{Event: ledger.EventSend, Transaction: first.Hash}, f.clock.Now()); err != nil {
			t.Fatal(err)
		}
		if got := f.read(p.ID); got != want {
			t.Errorf("recorded %+v\nwant     %+v", got, want)
		}
		f.recorded(p.ID, first)
		trail, err := f.store().Audit(f.ctx, p.ID)
		if err != nil || trail[1].Event != ledger.EventSend || trail[1].Transaction != first.Hash || trail[1].Actor != "request" {
			t.Errorf("trail %+v, %v", trail, err)
		}
	}

	// A second transaction of the same payment, and the wallet of another chain.
	f.clock.Add(time.Second)
	second := newTransaction(9, 42, 98, a.ID) // its hash sorts before the first
	f.record(second)
	second = f.dated(second)
	f.recorded(a.ID, first, second)
	f.recorded(b.ID, first)
	elsewhere := newTransaction(9, 0, 102)
	elsewhere.ChainID = 1
	f.record(elsewhere)
	if n, _ := f.nonce(9); n != 43 {
		t.Errorf("next nonce %d, want 43", n)
	}
}

func testRecordRefuses(t *testing.T, open Open) {
	f := setup(t, open)
	good := f.claim(newPayment(t, 1, 1), 0)
	settled := f.settled(newPayment(t, 1, 2))
	void := f.update(f.claim(newPayment(t, 1, 3), 0), ledger.Change{Event: ledger.EventVoid})
	for name, tt := range map[string]struct {
		t    ledger.Transaction
		want error
	}{
		"settled":     {newTransaction(9, 7, 101, good.ID, settled.ID), ledger.ErrTransition},
		"void":        {newTransaction(9, 7, 102, good.ID, void.ID), ledger.ErrTransition},
		"unknown":     {newTransaction(9, 7, 103, good.ID, newID(t, 1)), ledger.ErrNotFound},
		"named twice": {newTransaction(9, 7, 104, good.ID, good.ID), ledger.ErrTransition},
	} {
		if err := f.store().Record(f.ctx, tt.t, "request"); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
		if n, known := f.nonce(9); known {
			t.Errorf("%s: the nonce advanced to %d", name, n)
		}
		if got := f.read(good.ID); got != good {
			t.Errorf("%s: the good payment changed: %+v", name, got)
		}
		f.recorded(good.ID)
	}
}

func testReplacement(t *testing.T, open Open) {
	f := setup(t, open)
	a, b := f.claim(newPayment(t, 1, 1), 0), f.claim(newPayment(t, 2, 2), 0)
	refused := func(name string, tx ledger.Transaction) {
		t.Helper()
		before := f.read(a.ID)
		if err := f.store().Record(f.ctx, tx, "request"); !errors.Is(err, ledger.ErrNonce) {
			t.Errorf("%s: %v, want ErrNonce", name, err)
		}
		if f.read(a.ID) != before {
			t.Errorf("%s changed the payment", name)
		}
	}
	first := newTransaction(9, 5, 100, a.ID, b.ID)
	f.record(first)
	first = f.dated(first)
	refused("a gap", newTransaction(9, 7, 101, a.ID, b.ID))
	refused("a nonce from before", newTransaction(9, 4, 102, a.ID, b.ID))
	refused("other payments", newTransaction(9, 5, 103, a.ID))
	changed := first
	changed.Nonce = 6
	refused("the same hash with another nonce", changed)

	// The same again, even when its payments have gone on.
	versions := f.read(a.ID).Version
	f.record(first)
	if got := f.read(a.ID).Version; got != versions {
		t.Errorf("recording it again made version %d of %d", got, versions)
	}
	f.clock.Add(time.Second)
	dearer := newTransaction(9, 5, 104, b.ID, a.ID)
	f.record(dearer)
	dearer = f.dated(dearer)
	f.recorded(a.ID, first, dearer)
	f.recorded(b.ID, first, dearer)
	free := newTransaction(9, 5, 105)
	f.record(free)
	if n, _ := f.nonce(9); n != 6 {
		t.Errorf("next nonce %d, want 6", n)
	}
	f.update(f.read(a.ID), ledger.Change{Event: ledger.EventSettle})
	f.record(first)
	f.recorded(a.ID, first, dearer)
	late := newTransaction(9, 5, 106, b.ID, a.ID)
	if err := f.store().Record(f.ctx, late, "request"); !errors.Is(err, ledger.ErrTransition) {
		t.Errorf("replacement for a settled payment: %v, want ErrTransition", err)
	}
}

func testNonces(t *testing.T, open Open) {
	f := setup(t, open)
	advance := func(to, want uint64) {
		t.Helper()
		if err := f.store().AdvanceNonce(f.ctx, 84532, account(9), to); err != nil {
			t.Fatal(err)
		}
		if n, known := f.nonce(9); n != want || !known {
			t.Errorf("next nonce %d, %v, want %d", n, known, want)
		}
	}
	advance(3, 3)
	advance(8, 8)
	advance(2, 8)
	p := f.claim(newPayment(t, 1, 1), 0)
	for _, nonce := range []uint64{2, 3, 7, 9} {
		if err := f.store().Record(f.ctx, newTransaction(9, nonce, 100+nonce, p.ID), "request"); !errors.Is(err, ledger.ErrNonce) {
			t.Errorf("nonce %d: %v, want ErrNonce", nonce, err)
		}
	}
	f.record(newTransaction(9, 8, 108, p.ID))
	advance(9, 9)
	if _, known := f.nonce(10); known {
		t.Error("another wallet's nonce is known")
	}
}
