package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// anchor makes the next anchor.
func (f *fixture) anchor() ledger.Anchor {
	f.Helper()
	a, err := ledger.NextAnchor(f.ctx, f.store(), f.store().Now())
	if err != nil {
		f.Fatalf("anchor: %v", err)
	}
	return a
}

// age lets the newest entries be old enough to be anchored.
func (f *fixture) age() { f.clock.Add(ledger.AnchorLag + time.Second) }

func testAnchors(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	if a, err := f.store().LastAnchor(f.ctx); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("the last of none: %+v, %v", a, err)
	}
	if _, err := ledger.NextAnchor(f.ctx, f.store(), f.store().Now()); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("anchor of an empty ledger: %v", err)
	}
	var want []ledger.Anchor
	for i := range 5 {
		f.claim(newPayment(t, 1, uint64(i)), 0)
		f.age()
		want = append(want, f.anchor())
		if _, err := ledger.NextAnchor(f.ctx, f.store(), f.store().Now()); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("anchor of nothing new: %v", err)
		}
	}
	for after := range uint64(6) {
		got, err := f.store().Anchors(f.ctx, after, 2)
		if err != nil || !same(got, append([]ledger.Anchor(nil), want[after:min(after+2, 5)]...)) && len(got)+len(want[after:]) > 0 {
			t.Errorf("anchors after %d: %+v, %v", after, got, err)
		}
	}
	last, err := f.store().LastAnchor(f.ctx)
	if err != nil || last != want[4] || last.Sequence != 5 || last.Count != 1 {
		t.Errorf("the last: %+v, %v", last, err)
	}
	if report, err := ledger.Verify(f.ctx, f.store(), ledger.VerifyOptions{Expect: want[2].Hash}); err != nil || report.Found != 0 || report.Anchors != 5 {
		t.Errorf("verification: %+v, %v", report, err)
	}
}

// What does not follow the last anchor is refused: one that stands already, a fork, a gap, one that was changed, one of the past.
func testAnchorsRefuse(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	other := setup(t, open) // a ledger with other entries makes other anchors, which are as whole
	var own, foreign []ledger.Anchor
	for i := range uint64(3) {
		for _, x := range []*fixture{f, other} {
			x.claim(newPayment(t, 1, i), 0)
			x.age()
		}
		if i < 2 {
			own = append(own, f.anchor())
		}
		foreign = append(foreign, other.anchor())
	}
	changed := foreign[2]
	changed.Previous = own[1].Hash // and its own hash not made right
	for name, a := range map[string]ledger.Anchor{
		"the last again": own[1], "the first again": own[0], "a fork": foreign[1], "of another chain": foreign[2],
		"changed": changed, "zero": {}, "a gap": {Sequence: 9},
	} {
		if err := f.store().AddAnchor(f.ctx, a); !errors.Is(err, ledger.ErrConflict) {
			t.Errorf("%s: %v, want ErrConflict", name, err)
		}
	}
	if got, err := f.store().Anchors(f.ctx, 0, 9); err != nil || !same(got, own) {
		t.Errorf("anchors %+v (%v), want %+v", got, err, own)
	}
	f.anchor()
}

// Instances that anchor at once make one chain.
func testOneAnchor(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	s := f.instances()
	for round := range uint64(4) {
		f.claim(newPayment(t, 1, round), 0)
		f.age()
		errs := make([]error, 8)
		atOnce(len(errs), func(i int) {
			_, errs[i] = ledger.NextAnchor(f.ctx, s[i%2], s[i%2].Now())
		})
		made := 0
		for _, err := range errs {
			switch {
			case err == nil:
				made++
			case !errors.Is(err, ledger.ErrConflict) && !errors.Is(err, ledger.ErrNotFound):
				t.Error(err)
			}
		}
		if last, err := f.store().LastAnchor(f.ctx); err != nil || made != 1 || last.Sequence != round+1 {
			t.Errorf("round %d: %d made, the last is %+v, %v", round, made, last, err)
		}
	}
}

// A clock that is turned back after an anchor gives no entry a time that is anchored, also after a crash.
func testAnchorsAndClock(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	p := f.claim(newPayment(t, 1, 1), 0)
	f.age()
	first := f.anchor()
	f.clock.Add(-24 * time.Hour)
	for i := range uint64(3) {
		if now := f.store().Now(); !now.After(first.Until) {
			t.Errorf("now is %v, which is anchored until %v", now, first.Until)
		}
		p = f.update(p, ledger.Change{Event: ledger.EventTake})
		q := f.claim(newPayment(t, 2, i), 0)
		f.record(newTransaction(9, i, 100+i, q.ID))
		q = f.read(q.ID)
		if !p.UpdatedAt.After(first.Until) || !q.CreatedAt.After(first.Until) || !q.UpdatedAt.After(first.Until) {
			t.Errorf("changed at %v, %v, %v, which is anchored until %v", p.UpdatedAt, q.CreatedAt, q.UpdatedAt, first.Until)
		}
		f.b.Crash()
	}
	f.clock.Add(25 * time.Hour)
	f.age()
	f.anchor()
	f.wholeLedger(common.Hash{}, first.Hash)
}

// wholeLedger verifies the ledger as an operator does, with anchors that were kept outside.
func (f *fixture) wholeLedger(kept ...common.Hash) {
	f.Helper()
	for _, hash := range kept {
		report, err := ledger.Verify(f.ctx, f.store(), ledger.VerifyOptions{Expect: hash})
		if err != nil || report.Found != 0 {
			f.Errorf("verification: %+v, %v", report, err)
		}
	}
}

// Payments of all kinds go on while anchors are made: none is missed by them.
func testAnchorsUnderLoad(t *testing.T, open Open, o Options) {
	f := setup(t, open)
	rounds := 6
	if o.Light {
		rounds = 2
	}
	var kept common.Hash
	for round := range rounds {
		var offers [9][5]ledger.Payment
		for i := range offers {
			for n := range offers[i] {
				offers[i][n] = newPayment(t, uint64(i), uint64(round)<<32|uint64(n))
			}
		}
		atOnce(9, func(i int) {
			if i == 0 {
				// Its own entries are too young: it anchors those of the round before while others come in.
				if a, err := ledger.NextAnchor(f.ctx, f.store(), f.store().Now()); err == nil {
					kept = a.Hash
				} else if round > 0 {
					t.Error(err)
				}
				return
			}
			for n := range uint64(5) {
				if _, err := f.store().Claim(f.ctx, offers[i][n], ledger.Change{Actor: "request"}); err != nil {
					t.Error(err)
				}
				f.clock.Add(time.Millisecond)
			}
		})
		f.age()
	}
	f.anchor()
	f.wholeLedger(kept)
	report, err := ledger.Verify(f.ctx, f.store(), ledger.VerifyOptions{})
	if want := int64(rounds * 8 * 5); err != nil || report.Payments != want || report.Entries != want || report.Unanchored != 0 {
		t.Errorf("verification: %+v, %v; want %d payments", report, err, want)
	}
}
