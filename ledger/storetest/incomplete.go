package storetest

import (
	"errors"
	"time"

	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// refusesWrites makes every call that writes, each such as would succeed if the copy were complete.
func (f *fixture) refusesWrites() {
	f.Helper()
	var open ledger.Payment
	for _, r := range f.records() {
		if r.Payment.Settlement == ledger.Claimed {
			open = r.Payment
		}
	}
	next, _ := f.nonce(9)
	reserved := f.reservations()[0]
	drawn := f.allowances()[hash(3).Hex()]
	object := f.objects()["key o0"]
	s, ctx := f.store(), f.ctx
	for name, call := range map[string]func() error{
		"ping":  func() error { return s.Ping(ctx) },
		"claim": func() error { _, err := s.Claim(ctx, newPayment(f, 1, 999), ledger.Change{}); return err },
		"update": func() error {
			_, err := s.Update(ctx, open.ID, open.Version, ledger.Change{Event: ledger.EventVoid})
			return err
		},
		"record":         func() error { return s.Record(ctx, newTransaction(9, next, 300, open.ID), "request") },
		"record again":   func() error { return s.Record(ctx, newTransaction(9, next-1, 133), "request") },
		"advance nonce":  func() error { return s.AdvanceNonce(ctx, 1, account(9), 4) },
		"lease":          func() error { _, err := s.Lease(ctx, 10, time.Hour); return err },
		"recheck":        func() error { return s.Recheck(ctx, open.ID, time.Hour) },
		"reserve":        func() error { _, err := s.Reserve(ctx, ledger.Reservation{Key: hash(77)}, "", time.Hour); return err },
		"keep an answer": func() error { return s.KeepAnswer(ctx, reserved.Key, reserved.Payment, []byte("kept"), time.Hour) },
		"revoke":         func() error { return s.Revoke(ctx, "pay_x", s.Now().Add(time.Hour)) },
		"draw": func() error {
			_, _, err := s.Draw(ctx, ledger.Draw{Key: hash(3), Want: *uint256.NewInt(1), Limit: *uint256.NewInt(1), Until: s.Now().Add(time.Hour)})
			return err
		},
		"put an object": func() error { _, err := s.PutObject(ctx, newObject("key", "fresh", "", "1")); return err },
		"change an object": func() error {
			_, err := s.PutObject(ctx, object)
			return err
		},
		"remove an object":   func() error { return s.DeleteObject(ctx, object.Kind, object.ID, object.Version) },
		"give back":          func() error { return s.Return(ctx, drawn.Key, drawn.CreatedAt, *uint256.NewInt(1)) },
		"give back too much": func() error { return s.Return(ctx, drawn.Key, drawn.CreatedAt, *uint256.NewInt(1 << 40)) },
		"anchor":             func() error { _, err := ledger.NextAnchor(ctx, s, s.Now()); return err },
		"sweep":              func() error { _, err := s.Sweep(ctx, time.Microsecond, 100); return err },
	} {
		if err := call(); !errors.Is(err, ledger.ErrIncomplete) {
			f.Errorf("%s before the copy is complete: %v, want ErrIncomplete", name, err)
		}
	}
	if got := f.read(open.ID); got != open {
		f.Errorf("the payment changed: %+v, want %+v", got, open)
	}
}
