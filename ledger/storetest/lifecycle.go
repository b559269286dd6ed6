package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
)

func testLease(t *testing.T, open Open) {
	f := setup(t, open)
	lease := func(limit int, want ...string) {
		t.Helper()
		got, err := f.store().Lease(f.ctx, limit, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if !sameIDs(got, want...) {
			t.Errorf("leased %v, want %v", ids(got), want)
		}
		for _, p := range got {
			if p != f.read(p.ID) {
				t.Errorf("leased %+v, which is not the payment", p)
			}
		}
	}
	lease(10)
	a := f.claim(newPayment(t, 1, 1), 30*time.Second)
	f.clock.Add(time.Second)
	b := f.claim(newPayment(t, 1, 2), 0)
	f.clock.Add(time.Second)
	c := f.claim(newPayment(t, 1, 3), 0)
	lease(0)
	lease(1, b.ID) // a is held
	f.clock.Add(time.Second)
	lease(10, c.ID)
	lease(10)
	f.clock.Add(27 * time.Second) // a's hold ends now
	lease(10, a.ID)
	f.clock.Add(33 * time.Second) // the leases of b and, just now, c have ended
	lease(1, b.ID)
	lease(10, c.ID)
	f.clock.Add(time.Hour)
	b = f.delivered(f.update(b, ledger.Change{Event: ledger.EventSettle}), time.Time{})
	f.update(b, ledger.Change{Event: ledger.EventFinal}) // no longer open
	c = f.update(c, ledger.Change{Event: ledger.EventTake, Hold: time.Minute})
	lease(10, a.ID)
	c = f.update(c, ledger.Change{Event: ledger.EventRelease, Fence: c.Hold.Fence})
	lease(10, c.ID)
	if got := f.read(c.ID); got != c {
		t.Errorf("the lease changed the payment: %+v", got)
	}
}

func testRecheck(t *testing.T, open Open) {
	f := setup(t, open)
	p := f.claim(newPayment(t, 1, 1), 0)
	due := func(want bool) {
		t.Helper()
		got, err := f.store().Lease(f.ctx, 10, 24*time.Hour)
		if err != nil || (len(got) == 1) != want {
			t.Errorf("leased %v (%v), want due: %v", ids(got), err, want)
		}
	}
	recheck := func(after time.Duration) {
		t.Helper()
		if err := f.store().Recheck(f.ctx, p.ID, after); err != nil {
			t.Errorf("recheck: %v", err)
		}
	}
	due(true)
	recheck(time.Minute)
	f.clock.Add(time.Minute - time.Microsecond)
	due(false)
	f.clock.Add(time.Microsecond)
	due(true)
	recheck(0)
	due(true)
	// One that opens again is due at once, whatever was said of it before.
	p = f.update(p, ledger.Change{Event: ledger.EventVoid}, ledger.Change{Event: ledger.EventFinal})
	recheck(time.Hour)
	due(false)
	p = f.update(p, ledger.Change{Event: ledger.EventSettle})
	due(true)
	if got := f.read(p.ID); got != p {
		t.Errorf("recheck changed the payment: %+v", got)
	}
}

func testPing(t *testing.T, open Open) {
	f := setup(t, open)
	for range 2 {
		if err := f.store().Ping(f.ctx); err != nil {
			t.Error(err)
		}
	}
}

// calls is every method, on a payment that exists.
func calls(s ledger.Store, p, fresh ledger.Payment) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Claim":           func(ctx context.Context) error { _, err := s.Claim(ctx, fresh, ledger.Change{}); return err },
		"Payment":         func(ctx context.Context) error { _, err := s.Payment(ctx, p.ID); return err },
		"ByAuthorization": func(ctx context.Context) error { _, err := s.ByAuthorization(ctx, p.AuthorizationID); return err },
		"Unserved":        func(ctx context.Context) error { _, err := s.Unserved(ctx, p, 1); return err },
		"LivePlans": func(ctx context.Context) error {
			_, err := s.LivePlans(ctx, p.Payer, "weather", "api.example.com", 1)
			return err
		},
		"Update": func(ctx context.Context) error {
			_, err := s.Update(ctx, p.ID, p.Version, ledger.Change{Event: ledger.EventVoid})
			return err
		},
		"Nonce":        func(ctx context.Context) error { _, _, err := s.Nonce(ctx, 1, p.Payer); return err },
		"Record":       func(ctx context.Context) error { return s.Record(ctx, newTransaction(1, 0, 1, p.ID), "request") },
		"AdvanceNonce": func(ctx context.Context) error { return s.AdvanceNonce(ctx, 1, p.Payer, 7) },
		"Transactions": func(ctx context.Context) error { _, err := s.Transactions(ctx, p.ID); return err },
		"Lease":        func(ctx context.Context) error { _, err := s.Lease(ctx, 1, time.Minute); return err },
		"Recheck":      func(ctx context.Context) error { return s.Recheck(ctx, p.ID, time.Hour) },
		"Audit":        func(ctx context.Context) error { _, err := s.Audit(ctx, p.ID); return err },
		"Counts":       func(ctx context.Context) error { _, err := s.Counts(ctx); return err },
		"Reserve": func(ctx context.Context) error {
			_, err := s.Reserve(ctx, ledger.Reservation{Key: hash(1), Payment: p.ID}, "", time.Hour)
			return err
		},
		"Reservation": func(ctx context.Context) error { _, err := s.Reservation(ctx, hash(1)); return err },
		"KeepAnswer": func(ctx context.Context) error {
			return s.KeepAnswer(ctx, hash(1), p.ID, []byte("x"), time.Hour)
		},
		"Draw": func(ctx context.Context) error {
			_, _, err := s.Draw(ctx, ledger.Draw{Key: hash(1), Until: p.CreatedAt.Add(time.Hour)})
			return err
		},
		"Return": func(ctx context.Context) error { return s.Return(ctx, hash(1), p.CreatedAt, uint256.Int{}) },
		"Object": func(ctx context.Context) error { _, err := s.Object(ctx, "key", "a"); return err },
		"PutObject": func(ctx context.Context) error {
			_, err := s.PutObject(ctx, newObject("key", "a", "", "1"))
			return err
		},
		"DeleteObject": func(ctx context.Context) error { return s.DeleteObject(ctx, "key", "a", 1) },
		"Objects":      func(ctx context.Context) error { _, err := s.Objects(ctx, "key", "", "", 9); return err },
		"DueObjects":   func(ctx context.Context) error { _, err := s.DueObjects(ctx, "key", time.Now(), 9); return err },
		"EachObject": func(ctx context.Context) error {
			return s.EachObject(ctx, func(ledger.Object) error { return nil })
		},
		"Allowance": func(ctx context.Context) error { _, err := s.Allowance(ctx, hash(1)); return err },
		"EachAllowance": func(ctx context.Context) error {
			return s.EachAllowance(ctx, func(ledger.Allowance) error { return nil })
		},
		"List":       func(ctx context.Context) error { _, err := s.List(ctx, ledger.Query{Limit: 1}); return err },
		"Entries":    func(ctx context.Context) error { _, err := s.Entries(ctx, ledger.Mark{}, p.CreatedAt, 1); return err },
		"Anchors":    func(ctx context.Context) error { _, err := s.Anchors(ctx, 0, 1); return err },
		"LastAnchor": func(ctx context.Context) error { _, err := s.LastAnchor(ctx); return err },
		"AddAnchor":  func(ctx context.Context) error { return s.AddAnchor(ctx, ledger.Anchor{Sequence: 1}) },
		"Sweep":      func(ctx context.Context) error { _, err := s.Sweep(ctx, time.Hour, 10); return err },
		"Records":    func(ctx context.Context) error { _, err := s.Records(ctx, "", 1); return err },
		"Wallets":    func(ctx context.Context) error { _, err := s.Wallets(ctx); return err },
		"EachReservation": func(ctx context.Context) error {
			return s.EachReservation(ctx, func(ledger.Reservation) error { return nil })
		},
		"Import": func(ctx context.Context) error { return s.Import(ctx, ledger.Part{Complete: true}) },
		"Ping":   s.Ping,
	}
}

// A context that is over has its error returned, and nothing done.
func testContexts(t *testing.T, open Open) {
	f := setup(t, open)
	p, fresh := f.claim(newPayment(t, 1, 1), 0), newPayment(t, 1, 2)
	over, cancel := context.WithCancel(f.ctx)
	cancel()
	for name, call := range calls(f.store(), p, fresh) {
		if err := call(over); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", name, err)
		}
	}
	if got := f.read(p.ID); got != p {
		t.Errorf("the payment changed: %+v", got)
	}
	if _, err := f.store().Payment(f.ctx, fresh.ID); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("it was claimed: %v", err)
	}
	if _, known, err := f.store().Nonce(f.ctx, 1, p.Payer); known || err != nil {
		t.Errorf("the nonce is known: %v", err)
	}
	if got, err := f.store().Lease(f.ctx, 1, time.Minute); err != nil || len(got) != 1 {
		t.Errorf("it was leased, or put off: %v", err)
	}
}

// After Close every call fails; what was answered before is kept.
func testClose(t *testing.T, open Open) {
	f := setup(t, open)
	s := f.store()
	p := f.claim(newPayment(t, 1, 1), 0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, call := range calls(s, p, newPayment(t, 1, 2)) {
		if err := call(f.ctx); !errors.Is(err, ledger.ErrClosed) {
			t.Errorf("%s after Close: %v, want ErrClosed", name, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
	f.b.Crash()
	if got := f.read(p.ID); got != p {
		t.Errorf("opened again: %+v", got)
	}
}
