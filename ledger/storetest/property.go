package storetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// testModel does the same to the store and to Memory: whatever callers do, in whatever order, with a crash
// at any step, the store says what Memory says. Memory can't hold two payments of one authorization
// (I1) and makes its steps by ledger.Apply (I3, I4); every trail is verified (I5).
//
// It runs as often as there is time, since the servers and the machines that it runs on differ by far.
func testModel(t *testing.T, open Open, o Options) {
	budget := 20 * time.Second
	if o.Light {
		budget = 8 * time.Second
	}
	begun, runs, failed := time.Now(), 0, false
	rapid.Check(t, func(rt *rapid.T) {
		if runs >= fewestRuns && time.Since(begun) > budget && !failed {
			return
		}
		runs++
		defer func() { failed = failed || rt.Failed() }()
		c := newClock()
		b := open(t, c.Now)
		defer b.Close()
		r := &run{ctx: t.Context(), clock: c, b: b, m: NewMemory(c.Now, o.Forgets), o: o}
		rt.Repeat(map[string]func(*rapid.T){
			"claim":   r.act(r.claim),
			"update":  r.act(r.update),
			"record":  r.act(r.record),
			"advance": r.act(r.advance),
			"reserve": r.act(r.reserve),
			"answer":  r.act(r.answer),
			"revoke":  r.act(r.revoke),
			"draw":    r.act(r.drawUnits),
			"return":  r.act(r.returnUnits),
			"put":     r.act(r.putObject),
			"delete":  r.act(r.deleteObject),
			"anchor":  r.act(r.anchor),
			"sweep":   r.sweep,
			"lease":   r.lease,
			"recheck": r.recheck,
			"time":    func(t *rapid.T) { c.Add(time.Duration(rapid.IntRange(1, 90_000).Draw(t, "ms")) * time.Millisecond) },
			"list":    r.list,
			"":        r.checkOne,
		})
		b.Crash()
		r.check(rt)
	})
	t.Logf("%d runs", runs)
}

// fewestRuns are made even if there is no time.
const fewestRuns = 10

// run is one run of the model beside the store.
type run struct {
	ctx   context.Context
	clock *clock
	b     Backend
	m     *Memory
	o     Options
	ids   []string
	txs   uint64
}

// op is a call. It is made to the model and to a store, which may be one that is crashing, and must be answered alike.
type op func(s ledger.Store) (any, error)

// act makes an action of a call that writes: mostly it is made and must be answered as the model answers it; else the
// store crashes within, and must then stand before the step or after it.
func (r *run) act(draw func(*rapid.T) op) func(*rapid.T) {
	return func(t *rapid.T) {
		do := draw(t)
		steps := rapid.IntRange(-80, 15).Draw(t, "crash after")
		if steps < 0 {
			if err := alike(do, r.m, r.b.Store()); err != nil {
				t.Fatalf("%v", err)
			}
			return
		}
		before, after := r.m, r.m.Clone()
		var err error
		inside := r.b.CrashDuring(steps, func(s ledger.Store) { err = alike(do, after, s) })
		if err != nil && !inside {
			t.Fatalf("%v", err)
		}
		r.m = after
		if inside && r.diff() != nil {
			r.m = before
		}
		r.check(t)
	}
}

// alike makes the call to both, and says in what the answers differ.
func alike(do op, m *Memory, s ledger.Store) error {
	want, wantErr := do(m)
	got, err := do(s)
	if err := sameOutcome(err, wantErr); err != nil {
		return err
	}
	if !same(got, want) {
		return errors.New(difference(got, want))
	}
	return nil
}

// sameOutcome compares a store's error with the model's.
func sameOutcome(got, want error) error {
	for _, known := range []error{
		ledger.ErrTransition, ledger.ErrFence, ledger.ErrConflict, ledger.ErrNotFound, ledger.ErrExists, ledger.ErrNonce,
	} {
		if errors.Is(want, known) {
			if !errors.Is(got, known) {
				return fmt.Errorf("error %v, want %v", got, want)
			}
			return nil
		}
	}
	if got != nil {
		return fmt.Errorf("error %w, want none", got)
	}
	return nil
}

// anyID is a payment's id, which may be one that a crash has undone.
func (r *run) anyID(t *rapid.T) string {
	if len(r.ids) == 0 {
		return "pay_none"
	}
	return rapid.SampledFrom(r.ids).Draw(t, "payment")
}

// recheck and lease are not crashed within: whether one that was not answered was made can't be seen, and
// makes no more than a delay.
func (r *run) recheck(t *rapid.T) {
	id, after := r.anyID(t), time.Duration(rapid.IntRange(0, 60_000).Draw(t, "after"))*time.Millisecond
	err := alike(func(s ledger.Store) (any, error) { return nil, s.Recheck(r.ctx, id, after) }, r.m, r.b.Store())
	if err != nil {
		t.Fatalf("recheck: %v", err)
	}
}

func (r *run) lease(t *rapid.T) {
	limit, ttl := rapid.IntRange(0, 4).Draw(t, "limit"), time.Duration(rapid.IntRange(0, 60).Draw(t, "ttl"))*time.Second
	due := r.m.due()
	got, err := r.b.Store().Lease(r.ctx, limit, ttl)
	if err != nil || len(got) != min(limit, len(due)) {
		t.Fatalf("leased %d of %d due, at most %d: %v", len(got), len(due), limit, err)
	}
	seen := map[string]bool{}
	for i, p := range got {
		had := r.m.rows[p.ID]
		isDue := slices.ContainsFunc(due, func(d row) bool { return d.p.ID == p.ID })
		switch {
		case !isDue, p != had.p, seen[p.ID]:
			t.Fatalf("leased %+v, which is not due or not so", p)
		case !had.check.Equal(due[i].check):
			t.Fatalf("leased as number %d what is due since %v, not since %v", i, had.check, due[i].check)
		}
		seen[p.ID] = true
	}
	for id := range seen {
		r.m.putOff(id, ttl)
	}
}

// sweep is seen by nobody, unless the store forgets: then it leaves the payments alone here.
func (r *run) sweep(t *rapid.T) {
	keep, limit := time.Duration(rapid.IntRange(0, 90).Draw(t, "keep"))*time.Second, rapid.IntRange(0, 9).Draw(t, "limit")
	if r.o.Forgets {
		keep = 0
	}
	steps := rapid.IntRange(-20, 15).Draw(t, "crash after")
	sweep := func(s ledger.Store) {
		n, err := s.Sweep(r.ctx, keep, limit)
		if steps < 0 && (err != nil || n > limit) {
			t.Fatalf("swept %d, at most %d: %v", n, limit, err)
		}
	}
	if steps < 0 {
		sweep(r.b.Store())
	} else {
		r.b.CrashDuring(steps, sweep)
	}
	r.check(t)
}

// list compares what the lists say.
func (r *run) list(t *rapid.T) {
	limit := rapid.IntRange(0, 5).Draw(t, "limit")
	like := r.m.rows[r.anyID(t)].p
	payer := account(rapid.Uint64Range(1, 3).Draw(t, "payer"))
	route := rapid.SampledFrom([]string{"weather", "reports"}).Draw(t, "route")
	q := ledger.Query{
		State: rapid.SampledFrom(append(ledger.States(), "", "", "", "")).Draw(t, "state"),
		Payer: rapid.SampledFrom([]common.Address{{}, account(1), account(2)}).Draw(t, "of"), Limit: limit,
	}
	if rapid.Bool().Draw(t, "a page") {
		q.Before = ledger.Mark{At: like.CreatedAt, Payment: like.ID}
	}
	mark := ledger.Mark{At: like.UpdatedAt, Payment: like.ID, Version: rapid.Uint64Range(0, 4).Draw(t, "version")}
	until := r.clock.Now().Add(-time.Duration(rapid.IntRange(0, 90).Draw(t, "before now")) * time.Second)
	lists := r.listObjects(t)
	maps.Copy(lists, map[string]op{
		"unserved": func(s ledger.Store) (any, error) { return s.Unserved(r.ctx, like, limit) },
		"plans": func(s ledger.Store) (any, error) {
			got, err := s.LivePlans(r.ctx, payer, route, "api.example.com", 100)
			if !slices.IsSortedFunc(got, func(a, b ledger.Payment) int { return b.PlanUntil.Compare(a.PlanUntil) }) {
				return nil, fmt.Errorf("plans %+v are not in order", got)
			}
			slices.SortFunc(got, func(a, b ledger.Payment) int { return cmp.Compare(a.ID, b.ID) })
			return got, err
		},
		"list":    func(s ledger.Store) (any, error) { return s.List(r.ctx, q) },
		"entries": func(s ledger.Store) (any, error) { return s.Entries(r.ctx, mark, until, limit) },
		"anchors": func(s ledger.Store) (any, error) { return s.Anchors(r.ctx, uint64(limit), 2) },
		"last":    func(s ledger.Store) (any, error) { return s.LastAnchor(r.ctx) },
		"records": func(s ledger.Store) (any, error) { return s.Records(r.ctx, like.ID, limit) },
	})
	for name, do := range lists {
		if err := alike(do, r.m, r.b.Store()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

func (r *run) checkOne(t *rapid.T) {
	id := r.anyID(t)
	auth := r.m.rows[id].p.AuthorizationID
	for name, do := range map[string]op{
		"payment":          func(s ledger.Store) (any, error) { return s.Payment(r.ctx, id) },
		"trail":            func(s ledger.Store) (any, error) { return s.Audit(r.ctx, id) },
		"transactions":     func(s ledger.Store) (any, error) { return s.Transactions(r.ctx, id) },
		"by authorization": func(s ledger.Store) (any, error) { return s.ByAuthorization(r.ctx, auth) },
	} {
		if err := alike(do, r.m, r.b.Store()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

func (r *run) check(t *rapid.T) {
	t.Helper()
	if err := r.diff(); err != nil {
		t.Fatalf("%v", err)
	}
}

// diff says in what the store differs from the model, in anything.
func (r *run) diff() error {
	for name, do := range r.everything() {
		if err := alike(do, r.m, r.b.Store()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (r *run) everything() map[string]op {
	const all = 1000
	far := r.clock.Now().Add(24 * time.Hour)
	return map[string]op{
		"records": func(s ledger.Store) (any, error) { return verified(s.Records(r.ctx, "", all)) },
		"wallets": func(s ledger.Store) (any, error) {
			got, err := s.Wallets(r.ctx)
			for i := range got { // those of one moment have no order
				slices.SortStableFunc(got[i].Freed, func(a, b ledger.Transaction) int {
					return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), a.Hash.Cmp(b.Hash))
				})
			}
			return got, err
		},
		"reservations": func(s ledger.Store) (any, error) {
			got := map[string]ledger.Reservation{}
			err := s.EachReservation(r.ctx, func(v ledger.Reservation) error { got[v.Key.Hex()] = v; return nil })
			return got, err
		},
		"revocations": func(s ledger.Store) (any, error) {
			got, err := s.Revoked(r.ctx, 0, all)
			live := r.clock.Now().Add(time.Minute - ledger.RevocationGrace) // others may have been swept
			got = slices.DeleteFunc(got, func(v ledger.Revocation) bool { return v.Until.Before(live) })
			return byID(got), err
		},
		"allowances": func(s ledger.Store) (any, error) { return allowancesOf(r.ctx, s) },
		"objects":    func(s ledger.Store) (any, error) { return objectsOf(r.ctx, s) },
		"anchors":    func(s ledger.Store) (any, error) { return s.Anchors(r.ctx, 0, all) },
		"entries":    func(s ledger.Store) (any, error) { return s.Entries(r.ctx, ledger.Mark{}, far, all) },
		"list":       func(s ledger.Store) (any, error) { return s.List(r.ctx, ledger.Query{Limit: all}) },
		"counts":     func(s ledger.Store) (any, error) { return s.Counts(r.ctx) },
		"authorizations": func(s ledger.Store) (any, error) {
			got := map[string]string{}
			for a := range maps.Keys(r.m.claimed) {
				p, err := s.ByAuthorization(r.ctx, a)
				if err != nil {
					return nil, err
				}
				got[fmt.Sprint(a)] = p.ID
			}
			return got, nil
		},
	}
}

func verified(records []ledger.Record, err error) ([]ledger.Record, error) {
	for i := range records {
		if err == nil {
			err = ledger.VerifyAudit(&records[i].Payment, records[i].Trail)
		}
	}
	return records, err
}
