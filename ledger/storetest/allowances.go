package storetest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/holiman/uint256"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// wantDraw is a draw of the key n: of an allowance of limit for an hour from now.
func (f *fixture) wantDraw(n, least, want, limit uint64) ledger.Draw {
	return ledger.Draw{
		Key: hash(n), Least: *uint256.NewInt(least), Want: *uint256.NewInt(want), Limit: *uint256.NewInt(limit),
		Until: f.clock.Now().Add(time.Hour),
	}
}

// draw draws, and checks how many units are given and how many are out then.
func (f *fixture) draw(d ledger.Draw, units, used uint64) ledger.Allowance {
	f.Helper()
	n, a, err := f.store().Draw(f.ctx, d)
	if err != nil || !n.IsUint64() || n.Uint64() != units || a.Used.Uint64() != used {
		f.Errorf("drew %s, then %+v (%v); want %d, and %d used", n.Dec(), a, err, units, used)
	}
	if used > 0 {
		if back, err := f.store().Allowance(f.ctx, d.Key); err != nil || !same(back, a) {
			f.Errorf("read %+v (%v), answered was %+v", back, err, a)
		}
	}
	return a
}

func (f *fixture) giveBack(a ledger.Allowance, n uint64, want error) {
	f.Helper()
	if err := f.store().Return(f.ctx, a.Key, a.CreatedAt, *uint256.NewInt(n)); !errors.Is(err, want) {
		f.Errorf("giving back %d: %v, want %v", n, err, want)
	}
}

// noAllowance finds none by the key 1.
func (f *fixture) noAllowance() {
	f.Helper()
	if a, err := f.store().Allowance(f.ctx, hash(1)); !errors.Is(err, ledger.ErrNotFound) {
		f.Errorf("allowance %+v, %v; want ErrNotFound", a, err)
	}
}

func testDraw(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	f.noAllowance()
	a := f.draw(f.wantDraw(1, 1, 4, 10), 4, 4)
	now := f.clock.Now().Truncate(time.Microsecond)
	if a.Key != hash(1) || a.Limit.Uint64() != 10 || !a.CreatedAt.Equal(now) || !a.ExpiresAt.Equal(now.Add(time.Hour)) {
		t.Errorf("made %+v at %v", a, now)
	}
	// What there is, and until when, was said by the first.
	f.clock.Add(time.Minute)
	if b := f.draw(f.wantDraw(1, 1, 4, 1000), 4, 8); b.Limit != a.Limit || !b.ExpiresAt.Equal(a.ExpiresAt) || !b.CreatedAt.Equal(a.CreatedAt) {
		t.Errorf("the second draw made %+v of %+v", b, a)
	}
	f.draw(f.wantDraw(1, 3, 4, 10), 0, 8) // two are left
	f.draw(f.wantDraw(1, 2, 4, 10), 2, 10)
	f.draw(f.wantDraw(1, 1, 1, 10), 0, 10)
	f.draw(f.wantDraw(2, 1, 1, 10), 1, 1) // another's
	f.giveBack(a, 11, ledger.ErrTransition)
	f.giveBack(a, 3, nil)
	f.draw(f.wantDraw(1, 0, 0, 10), 0, 7)
	f.draw(f.wantDraw(1, 0, 9, 10), 3, 10)
	f.clock.Add(time.Hour - time.Minute - time.Microsecond)
	f.draw(f.wantDraw(1, 1, 1, 10), 0, 10)
	f.clock.Add(time.Microsecond)
	f.noAllowance()
	f.giveBack(a, 1, nil) // nobody needs it
	f.noAllowance()
	// It begins anew, and what was drawn before does not come back into it.
	b := f.draw(f.wantDraw(1, 1, 5, 6), 5, 5)
	f.giveBack(a, 5, nil)
	f.draw(f.wantDraw(1, 5, 5, 6), 0, 5)
	f.giveBack(b, 5, nil)
	f.draw(f.wantDraw(1, 6, 6, 6), 6, 6)
}

func testDrawRefuses(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	over := f.wantDraw(1, 1, 1, 10)
	over.Until = f.clock.Now().Truncate(time.Microsecond)
	f.draw(over, 0, 0)
	f.draw(f.wantDraw(1, 11, 11, 10), 0, 0)
	f.draw(f.wantDraw(1, 0, 0, 10), 0, 0)
	f.draw(f.wantDraw(1, 1, 1, 0), 0, 0)
	f.noAllowance()
	f.giveBack(ledger.Allowance{Key: hash(1), CreatedAt: f.clock.Now()}, 1, nil)
	f.noAllowance()
	// Amounts are as long as the chain's, and ends as far as may be.
	all := ledger.Draw{Key: hash(1), Until: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}
	all.Limit.SetAllOne()
	all.Want.Sub(&all.Limit, uint256.NewInt(1))
	n, a, err := f.store().Draw(f.ctx, all)
	if left := a.Left(); err != nil || n != all.Want || !left.Eq(uint256.NewInt(1)) || a.ExpiresAt.Year() < 2200 {
		t.Errorf("drew %s of %+v, %v", n.Hex(), a, err)
	}
	f.draw(f.wantDraw(2, 1, 5, 4), 4, 4)
	f.b.Crash()
	if back, err := f.store().Allowance(f.ctx, hash(1)); err != nil || !same(back, a) {
		t.Errorf("after a crash %+v, %v", back, err)
	}
	f.draw(f.wantDraw(2, 1, 5, 4), 0, 4)
}

// Of all who draw, on any number of instances, and give back, together nobody has more than there is.
func testInstancesDraw(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	stores := f.instances()
	const limit, callers = 100, 24
	var mu sync.Mutex
	out, used := uint64(0), uint64(0)
	d := f.wantDraw(1, 1, 3, limit)
	atOnce(callers, func(i int) {
		s := stores[i%len(stores)]
		for round := range 8 {
			n, a, err := s.Draw(f.ctx, d)
			if err != nil {
				t.Errorf("caller %d: %v", i, err)
				return
			}
			mu.Lock()
			if out += n.Uint64(); out > limit {
				t.Errorf("%d of %d are out", out, limit)
			}
			mu.Unlock()
			if n.IsZero() || round%2 == 1 {
				mu.Lock()
				used += n.Uint64()
				mu.Unlock()
				continue
			}
			mu.Lock()
			out -= n.Uint64()
			mu.Unlock()
			if err := s.Return(f.ctx, d.Key, a.CreatedAt, n); err != nil {
				t.Errorf("caller %d: %v", i, err)
			}
		}
	})
	a, err := f.store().Allowance(f.ctx, d.Key)
	if err != nil || a.Used.Uint64() != used || used > limit {
		t.Errorf("%+v, %v; %d were used of %d", a, err, used, limit)
	}
}

// What was drawn stays drawn, whenever the store is killed; of a draw that was not answered it may be either.
func testDrawCrash(t *testing.T, open Open, o Options) {
	f := setup(t, open)
	used := uint64(0)
	d := f.wantDraw(1, 1, 1, 1<<20)
	rounds := 16
	if o.Light {
		rounds = 8
	}
	for steps := range rounds {
		inside := f.b.CrashDuring(steps%8, func(s ledger.Store) { _, _, _ = s.Draw(f.ctx, d) })
		a, err := f.store().Allowance(f.ctx, d.Key)
		if errors.Is(err, ledger.ErrNotFound) && used == 0 && inside {
			continue
		}
		now := a.Used.Uint64()
		if err != nil || now < used || now > used+1 || now == used && !inside {
			t.Fatalf("%+v, %v; %d were used, and one was drawn, crashed within: %v", a, err, used, inside)
		}
		used = now
	}
}

func testSweepAllowances(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	for i := range uint64(10) {
		d := f.wantDraw(i, 1, 1, 5)
		d.Until = f.clock.Now().Add(time.Minute + time.Duration(i%2)*time.Hour)
		f.draw(d, 1, 1)
	}
	f.sweep(0, 3)
	if n := len(f.allowances()); n != 10 {
		t.Errorf("%d allowances are left of 10", n)
	}
	f.clock.Add(2 * time.Minute)
	f.sweep(0, 3)
	if n := len(f.allowances()); n != 5 {
		t.Errorf("%d allowances are left of 5", n)
	}
	for i := range uint64(10) {
		if _, err := f.store().Allowance(f.ctx, hash(i)); (err == nil) != (i%2 == 1) {
			t.Errorf("allowance %d: %v", i, err)
		}
	}
}

func (f *fixture) allowances() map[string]ledger.Allowance {
	f.Helper()
	got, err := allowancesOf(f.ctx, f.store())
	if err != nil {
		f.Fatalf("allowances: %v", err)
	}
	return got
}

func allowancesOf(ctx context.Context, s ledger.Store) (map[string]ledger.Allowance, error) {
	got := map[string]ledger.Allowance{}
	err := s.EachAllowance(ctx, func(a ledger.Allowance) error {
		got[a.Key.Hex()] = a
		return nil
	})
	return got, err
}

// The calls of the model test.

type drawnUnits struct {
	Units string
	Of    ledger.Allowance
}

func (r *run) drawUnits(t *rapid.T) op {
	amount := func(what string) (n uint256.Int) {
		n.SetUint64(rapid.Uint64Range(0, 6).Draw(t, what))
		if rapid.IntRange(0, 9).Draw(t, what+" is large") == 0 {
			n.Lsh(&n, 200)
		}
		return n
	}
	d := ledger.Draw{
		Key: drawKey(t), Least: amount("least"), Want: amount("want"), Limit: amount("limit"),
		Until: r.clock.Now().Add(drawDuration(t, "until")),
	}
	return func(s ledger.Store) (any, error) {
		n, a, err := s.Draw(r.ctx, d)
		return drawnUnits{n.Dec(), a}, err
	}
}

func (r *run) returnUnits(t *rapid.T) op {
	key, n := drawKey(t), *uint256.NewInt(rapid.Uint64Range(0, 3).Draw(t, "units"))
	created := r.m.allowances[key].CreatedAt
	if rapid.IntRange(0, 5).Draw(t, "of another") == 0 {
		created = created.Add(time.Second)
	}
	return func(s ledger.Store) (any, error) { return nil, s.Return(r.ctx, key, created, n) }
}
