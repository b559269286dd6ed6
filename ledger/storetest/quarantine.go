package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// A payment of which only the money is known waits for the operator, and its authorization is used.
func testQuarantine(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	p := newPayment(t, 1, 1)
	c := ledger.Change{
		Event: ledger.EventImport, Actor: "reconciler", Transaction: hash(3), Block: 18, BlockHash: hash(4), Hold: time.Minute,
	}
	got, err := f.store().Claim(f.ctx, p, c)
	if err != nil {
		t.Fatal(err)
	}
	want, _, err := ledger.Create(p, c, f.clock.Now())
	if err != nil || got != want || f.read(p.ID) != want {
		t.Errorf("imported %+v\nwant     %+v (%v)", got, want, err)
	}
	if got.State() != ledger.StateRefundFailed || got.Reason != ledger.ReasonQuarantine {
		t.Errorf("it is %s, %q", got.State(), got.Reason)
	}
	if trail, err := f.store().Audit(f.ctx, p.ID); err != nil || len(trail) != 1 || trail[0].Event != ledger.EventImport {
		t.Errorf("trail %+v, %v", trail, err)
	}
	if _, err := f.store().Claim(f.ctx, newPayment(t, 1, 1), ledger.Change{}); !errors.Is(err, ledger.ErrExists) {
		t.Errorf("claiming it: %v, want ErrExists", err)
	}
	known := f.claim(newPayment(t, 1, 2), 0)
	again := newPayment(t, 1, 2)
	if had, err := f.store().Claim(f.ctx, again, c); !errors.Is(err, ledger.ErrExists) || had != known {
		t.Errorf("importing what is known: %+v, %v; want ErrExists", had, err)
	}
	if _, err := f.store().Update(f.ctx, known.ID, known.Version, c); !errors.Is(err, ledger.ErrTransition) {
		t.Errorf("an import of a payment that is there: %v, want ErrTransition", err)
	}
	if ps, err := f.store().Unserved(f.ctx, p, 9); err != nil || len(ps) != 0 {
		t.Errorf("unserved: %v, %v", ids(ps), err)
	}
	// The operator knows that it was not served.
	back := f.update(got, ledger.Change{Event: ledger.EventRefundRetry}, ledger.Change{Event: ledger.EventRefunded, Transaction: hash(9)})
	if f.read(p.ID) != back || back.State() != ledger.StateRefunded {
		t.Errorf("refunded %+v", back)
	}
}

// Texts of a binding may hold anything that fits in a request's line, and come back as ledger.Text leaves them.
func testTexts(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	for i, wild := range []string{
		"\x00", "\xff\xfe", "a\x00b\xc3\x28", "%00%FF", "'; DROP TABLE payments; --", `"\`, "\r\n\t\x01\x1f\x7f", "ünïcödé 漢字 🜁",
		"\u2028\u2029<script>&amp;", "{tag}", "x:y:z", "*?[a-z]", "\ufffd", "$1 ?1 :a", "KEYS[1]", "\u202e", " ", "null", "%2525",
	} {
		p := newPayment(t, 1, uint64(i))
		p.Binding = ledger.Binding{Route: wild, Plan: wild, Method: wild, Host: wild, URI: wild}
		want, _, err := ledger.Create(p, ledger.Change{}, f.clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		got := f.claim(p, 0)
		if got.Binding != want.Binding || f.read(p.ID) != got {
			t.Errorf("%q: claimed %+v, want %+v", wild, got.Binding, want.Binding)
		}
		if ps, err := f.store().Unserved(f.ctx, got, 9); err != nil || !sameIDs(ps, p.ID) {
			t.Errorf("%q: unserved %v, %v", wild, ids(ps), err)
		}
		got = f.update(got, ledger.Change{Event: ledger.EventSettle})
		got = f.delivered(got, f.clock.Now().Add(time.Hour))
		b := got.Binding
		if ps, err := f.store().LivePlans(f.ctx, p.Payer, b.Route, b.Host, 9); err != nil || !sameIDs(ps, p.ID) {
			t.Errorf("%q: plans %v, %v", wild, ids(ps), err)
		}
	}
	f.records()
}

// Now is the clock that dates and judges, in whole microseconds or finer.
func testNow(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	for range 3 {
		f.clock.Add(time.Hour)
		p := f.claim(newPayment(t, 1, uint64(f.clock.Now().Unix())), time.Minute)
		if now := f.store().Now(); now.Sub(p.CreatedAt).Abs() > time.Millisecond || !p.Held(now) {
			t.Errorf("now is %v, the payment was made at %v", now, p.CreatedAt)
		}
	}
}
