package storetest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// revoke takes back a token.
func (f *fixture) revoke(id string, until time.Time) {
	f.Helper()
	if err := f.store().Revoke(f.ctx, id, until); err != nil {
		f.Fatalf("revoking %s: %v", id, err)
	}
}

// revoked are the revocations above a number, read a few at a time, whose numbers must rise.
func (f *fixture) revoked(after uint64) []ledger.Revocation {
	f.Helper()
	return revoked(f, f.store(), after)
}

func revoked(f *fixture, s ledger.Store, after uint64) []ledger.Revocation {
	f.Helper()
	var got []ledger.Revocation
	for {
		page, err := s.Revoked(f.ctx, after, 3)
		if err != nil || len(page) > 3 {
			f.Fatalf("%d revocations after %d: %v", len(page), after, err)
		}
		for _, r := range page {
			if r.Number <= after {
				f.Fatalf("the number %d comes after %d", r.Number, after)
			}
			after = r.Number
		}
		if got = append(got, page...); len(page) == 0 {
			return got
		}
	}
}

// unnumbered are revocations without what is the store's own.
func unnumbered(list []ledger.Revocation) []ledger.Revocation {
	list = slices.Clone(list)
	for i := range list {
		list[i].Number = 0
	}
	return list
}

func testRevoke(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	if got := f.revoked(0); len(got) != 0 {
		t.Errorf("an empty store has %+v", got)
	}
	end := f.clock.Now().Add(time.Hour).Truncate(time.Microsecond).UTC()
	for _, id := range []string{"pay_c", "pay_a", "pay_b", "pay_d"} {
		f.revoke(id, end)
	}
	want := []ledger.Revocation{{ID: "pay_c", Until: end}, {ID: "pay_a", Until: end}, {ID: "pay_b", Until: end}, {ID: "pay_d", Until: end}}
	all := f.revoked(0)
	if !same(unnumbered(all), want) {
		t.Fatalf("got %+v, want %+v", all, want)
	}
	if got := f.revoked(all[1].Number); !same(got, all[2:]) {
		t.Errorf("after the second: %+v", got)
	}
	last := all[3].Number
	if got, err := f.store().Revoked(f.ctx, 0, 0); err != nil || len(got) != 0 {
		t.Errorf("none of them: %+v, %v", got, err)
	}
	// Again, and for less: nothing new. For longer: whoever follows hears of it, and nothing is there twice.
	f.revoke("pay_a", end)
	f.revoke("pay_a", end.Add(-time.Minute))
	if got := f.revoked(last); len(got) != 0 {
		t.Errorf("what was revoked is news again: %+v", got)
	}
	f.revoke("pay_a", end.Add(time.Hour+7))
	longer := ledger.Revocation{ID: "pay_a", Until: end.Add(time.Hour)}
	if got := f.revoked(last); !same(unnumbered(got), []ledger.Revocation{longer}) {
		t.Errorf("a later end: %+v", got)
	}
	if got := f.revoked(0); !same(unnumbered(got), []ledger.Revocation{want[0], want[2], want[3], longer}) {
		t.Errorf("all: %+v", got)
	}
	if got := f.revoked(1 << 60); len(got) != 0 {
		t.Errorf("after all numbers: %+v", got)
	}
}

// A number is never given twice, though nothing that had one is left: who follows would miss what has it.
func testRevocationNumbers(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	f.revoke("pay_a", f.clock.Now().Add(time.Minute))
	f.revoke("pay_b", f.clock.Now().Add(time.Minute))
	last := f.revoked(0)[1].Number
	f.clock.Add(time.Minute + ledger.RevocationGrace - time.Second)
	if n := f.sweep(0, 1); n != 0 {
		t.Errorf("%d were swept within the grace", n)
	}
	f.clock.Add(time.Second)
	if n := f.sweep(0, 1); n != 2 {
		t.Errorf("%d were swept, want both", n)
	}
	if got := f.revoked(0); len(got) != 0 {
		t.Errorf("left: %+v", got)
	}
	f.b.Crash()
	f.revoke("pay_c", f.clock.Now().Add(time.Minute))
	if got := f.revoked(last); len(got) != 1 || got[0].ID != "pay_c" {
		t.Errorf("after %d: %+v", last, got)
	}
}

// Whoever follows hears of every revocation, once that has returned, although many revoke at the same time: no number comes in below one
// that was read.
func testFollowRevocations(t *testing.T, open Open, o Options) {
	f := setup(t, open)
	stores := f.instances()
	end := f.clock.Now().Add(time.Hour)
	each := 40
	if o.Light {
		each = 10
	}
	var done sync.WaitGroup
	stop := make(chan struct{})
	var mu sync.Mutex
	returned := map[string]bool{}
	for w := range 4 {
		done.Go(func() {
			for i := range each {
				id := fmt.Sprintf("pay_%d_%d", w, i)
				if err := stores[w%len(stores)].Revoke(f.ctx, id, end); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				returned[id] = true
				mu.Unlock()
			}
		})
	}
	go func() { done.Wait(); close(stop) }()
	var follower sync.WaitGroup
	for _, s := range stores {
		follower.Go(func() { f.follows(s, stop, &mu, returned, 4*each) })
	}
	follower.Wait()
	done.Wait()
}

// follows reads what is new, and finds in it all that had returned before.
func (f *fixture) follows(s ledger.Store, stop <-chan struct{}, mu *sync.Mutex, returned map[string]bool, all int) {
	heard := map[string]bool{}
	for after, over := uint64(0), false; ; {
		select {
		case <-stop:
			over = true
		default:
		}
		mu.Lock()
		before := make([]string, 0, len(returned))
		for id := range returned {
			before = append(before, id)
		}
		mu.Unlock()
		page, err := s.Revoked(f.ctx, after, 1000)
		if err != nil {
			f.Error(err)
			return
		}
		for _, r := range page {
			heard[r.ID], after = true, r.Number
		}
		for _, id := range before {
			if !heard[id] {
				f.Errorf("%s was revoked, and who follows has not heard of it", id)
				return
			}
		}
		if over {
			if len(heard) != all {
				f.Errorf("%d were heard of, want %d", len(heard), all)
			}
			return
		}
	}
}

// A revocation that was answered is there after a crash, and one that was not is there or not.
func testRevokeCrash(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	end := f.clock.Now().Add(time.Hour)
	for steps := range 6 {
		id := fmt.Sprintf("pay_%d", steps)
		var err error
		inside := f.b.CrashDuring(steps, func(s ledger.Store) { err = s.Revoke(f.ctx, id, end) })
		found := slices.ContainsFunc(f.revoked(0), func(r ledger.Revocation) bool { return r.ID == id })
		if !inside && (err != nil || !found) {
			t.Errorf("%s was revoked (%v), and is not after a crash", id, err)
		}
		f.revoke(id, end)
		if n := len(f.revoked(0)); n != steps+1 {
			t.Errorf("%d revocations, want %d", n, steps+1)
		}
	}
}

// A copy has the same revocations in the same order; another end of one is a conflict.
func testImportRevocations(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	end := f.clock.Now().Add(time.Hour).Truncate(time.Microsecond).UTC()
	for i := range 7 {
		f.revoke(fmt.Sprintf("pay_%d", 9-i), end.Add(time.Duration(i)*time.Second))
	}
	want := unnumbered(f.revoked(0))
	g := f.another(open)
	part := ledger.Part{Revocations: f.revoked(0)}
	g.imports(part, part)
	if got := unnumbered(g.revoked(0)); !same(got, want) {
		t.Errorf("imported %+v, want %+v", got, want)
	}
	if err := g.store().Revoke(g.ctx, "pay_x", end); !errors.Is(err, ledger.ErrIncomplete) {
		t.Errorf("revoked while the copy is not complete: %v", err)
	}
	other := ledger.Part{Revocations: []ledger.Revocation{{ID: "pay_9", Until: end.Add(time.Hour)}}}
	if err := g.store().Import(g.ctx, other); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("another end: %v", err)
	}
	g.imports(ledger.Part{Complete: true})
	g.revoke("pay_x", end)
	if got := g.revoked(0); len(got) != 8 || got[7].ID != "pay_x" {
		t.Errorf("after the copy: %+v", got)
	}
	if err := f.store().Import(f.ctx, ledger.Part{}); !errors.Is(err, ledger.ErrExists) {
		t.Errorf("a store that has revocations takes a copy: %v", err)
	}
	h := f.another(open)
	if _, err := ledger.Copy(f.ctx, f.store(), h.store(), ledger.CopyOptions{PageSize: 2}); err != nil {
		t.Fatal(err)
	}
	if got := unnumbered(h.revoked(0)); !same(got, want) {
		t.Errorf("copied %+v, want %+v", got, want)
	}
}

// byID are revocations as the model compares them: numbers are the store's own.
func byID(list []ledger.Revocation) []ledger.Revocation {
	list = unnumbered(list)
	slices.SortFunc(list, func(a, b ledger.Revocation) int { return cmp.Compare(a.ID, b.ID) })
	return list
}
