package storetest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// Of many that make one object, one does, and the others learn what it made; of many that change it, each changes what it has seen.
func testOneObject(t *testing.T, open Open, o Options) {
	f := setup(t, open)
	stores := f.instances()
	got, errs := make([]ledger.Object, crowd), make([]error, crowd)
	atOnce(crowd, func(i int) {
		got[i], errs[i] = stores[i%len(stores)].PutObject(f.ctx, newObject("key", "a", fmt.Sprint("g", i), fmt.Sprint(i)))
	})
	won := 0
	is, err := f.store().Object(f.ctx, "key", "a")
	for i := range got {
		if errs[i] == nil {
			won++
		} else if !errors.Is(errs[i], ledger.ErrExists) {
			t.Errorf("caller %d: %v", i, errs[i])
		}
		if !same(got[i], is) {
			t.Errorf("caller %d: %s", i, difference(got[i], is))
		}
	}
	if err != nil || won != 1 || len(f.listed("key", "", 9)) != 1 {
		t.Fatalf("%d made it, %v", won, err)
	}
	callers, each := 8, 5
	if o.Light {
		callers = 4
	}
	f.put(newObject("count", "n", "", "0"))
	atOnce(callers, func(i int) {
		s := stores[i%len(stores)]
		for done := 0; done < each; {
			o, err := s.Object(f.ctx, "count", "n")
			if err == nil {
				o.Body = fmt.Appendf(nil, "%d", o.Version)
				_, err = s.PutObject(f.ctx, o)
			}
			switch {
			case err == nil:
				done++
			case !errors.Is(err, ledger.ErrConflict):
				t.Errorf("caller %d: %v", i, err)
				return
			}
		}
	})
	n, err := f.store().Object(f.ctx, "count", "n")
	if all := callers * each; err != nil || n.Version != int64(all+1) || string(n.Body) != fmt.Sprint(all) {
		t.Errorf("%v with %s after %d changes, %v", n, n.Body, all, err)
	}
	atOnce(callers, func(i int) { errs[i] = stores[i%len(stores)].DeleteObject(f.ctx, "count", "n", n.Version) })
	if err := errors.Join(errs[:callers]...); err != nil {
		t.Errorf("removing it: %v", err)
	}
	f.noObject("count", "n")
}

// What was answered is there after a crash; of what was not, all or nothing.
func testObjectCrash(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	var is ledger.Object
	for steps := range 10 {
		next := newObject("key", "a", "g", "1")
		if is.Version > 0 {
			next = is
			next.Body = fmt.Appendf(nil, "%d", steps)
		}
		next.Due = f.clock.Now().Add(time.Duration(steps) * time.Second)
		want, _ := next.Next()
		inside := f.b.CrashDuring(steps, func(s ledger.Store) { _, _ = s.PutObject(f.ctx, next) })
		got, err := f.store().Object(f.ctx, "key", "a")
		switch {
		case errors.Is(err, ledger.ErrNotFound) && is.Version == 0 && inside:
			f.equal("not made", f.listed("key", "g", 9))
			continue
		case err != nil, !same(got, want) && (!inside || !same(got, is)):
			t.Fatalf("%v, %v; crashed within: %v", got, err, inside)
		}
		is = got
		f.equal("listed", f.listed("key", "g", 9), "a")
		f.equal("due", f.due("key", is.Due, 9), "a")
		f.equal("due before", f.due("key", is.Due.Add(-time.Microsecond), 9))
	}
	for steps := range 10 {
		inside := f.b.CrashDuring(steps, func(s ledger.Store) { _ = s.DeleteObject(f.ctx, "key", "a", is.Version) })
		_, err := f.store().Object(f.ctx, "key", "a")
		if err == nil && !inside {
			t.Fatal("it was removed, and is there")
		}
		want := []string{"a"}[:len(f.objects())]
		f.equal("listed", f.listed("key", "", 9), want...)
		f.equal("in its group", f.listed("key", "g", 9), want...)
		f.equal("due", f.due("key", is.Due, 9), want...)
	}
}

// Sweeps remove what has expired and nothing else, not even what is made again at that moment.
func testSweepObjects(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	objects := func(i int) ledger.Object {
		o := newObject([]string{"key", "event", "answer"}[i%3], fmt.Sprintf("o%d", i), "g", "1")
		if i%2 == 0 {
			o.Expires = f.clock.Now().Add(time.Minute)
		}
		return o
	}
	for i := range 24 {
		f.put(objects(i))
	}
	if n := f.sweep(0, 5); n != 0 {
		t.Errorf("%d were swept that have not expired", n)
	}
	f.clock.Add(time.Minute)
	stores := f.instances()
	atOnce(6, func(i int) {
		s := stores[i%len(stores)]
		if i < 3 {
			if _, err := s.Sweep(f.ctx, 0, 4); err != nil {
				t.Error(err)
			}
			return
		}
		for _, k := range []int{0, 6, 12, 18} {
			if _, err := s.PutObject(f.ctx, objects(k+2*(i-3))); err != nil {
				t.Error(err)
			}
		}
	})
	f.sweep(0, 5)
	for i := range 24 {
		o, err := f.store().Object(f.ctx, objects(i).Kind, objects(i).ID)
		if err != nil || o.Version != 1 {
			t.Errorf("object %d is gone, or another: %v, %v", i, o, err)
		}
	}
	f.clock.Add(time.Hour)
	if n := f.sweep(0, 5); n != 12 {
		t.Errorf("%d were swept, want 12", n)
	}
	if n := len(f.objects()); n != 12 {
		t.Errorf("%d are left, want 12", n)
	}
	f.equal("of a kind", f.listed("event", "g", 9), "o1", "o13", "o19", "o7")
}

// furnishObjects makes objects of several kinds.
func (f *fixture) furnishObjects() {
	f.Helper()
	for i := range 9 {
		o := newObject([]string{"key", "event"}[i%2], fmt.Sprintf("o%d", i), strings.Repeat("g", i%3), fmt.Sprintf("[%d, \"\xff\"]", i))
		if i%4 == 1 {
			o.Due = f.clock.Now().Add(time.Duration(i) * time.Minute)
		}
		if i > 4 {
			o.Expires = f.clock.Now().Add(time.Duration(i-5)*time.Hour + time.Second) // the first before it can be exported
		}
		o = f.put(o)
		if i%3 == 0 {
			f.put(o)
		}
	}
}

// The calls of the model test.

func drawObject(t *rapid.T) objectName {
	return objectName{rapid.SampledFrom([]string{"key", "event"}).Draw(t, "kind"), rapid.SampledFrom([]string{"A", "a", "a!", "b"}).Draw(t, "id")}
}

func (r *run) putObject(t *rapid.T) op {
	name := drawObject(t)
	had, live := r.m.object(name)
	o := newObject(name.kind, name.id, rapid.SampledFrom([]string{"", "g", "h"}).Draw(t, "group"), rapid.SampledFrom([]string{"1", " {}"}).Draw(t, "body"))
	if live && rapid.IntRange(0, 3).Draw(t, "fits") > 0 {
		o.Version, o.Group = had.Version, had.Group
	} else {
		o.Version = rapid.SampledFrom([]int64{0, 0, 0, 1, 2}).Draw(t, "version")
	}
	if rapid.Bool().Draw(t, "due") {
		o.Due = r.clock.Now().Add(drawDuration(t, "due in"))
	}
	if rapid.Bool().Draw(t, "ends") {
		o.Expires = r.clock.Now().Add(drawDuration(t, "ends in"))
	}
	return func(s ledger.Store) (any, error) { return s.PutObject(r.ctx, o) }
}

func (r *run) deleteObject(t *rapid.T) op {
	name := drawObject(t)
	version := rapid.Int64Range(0, 2).Draw(t, "version")
	if had, live := r.m.object(name); live && rapid.Bool().Draw(t, "fits") {
		version = had.Version
	}
	return func(s ledger.Store) (any, error) { return nil, s.DeleteObject(r.ctx, name.kind, name.id, version) }
}

// listObjects are lists that must be alike.
func (r *run) listObjects(t *rapid.T) map[string]op {
	name, group := drawObject(t), rapid.SampledFrom([]string{"", "g", "h"}).Draw(t, "group")
	limit, until := rapid.IntRange(0, 4).Draw(t, "at most"), r.clock.Now().Add(drawDuration(t, "due until"))
	return map[string]op{
		"objects":     func(s ledger.Store) (any, error) { return s.Objects(r.ctx, name.kind, group, name.id, limit) },
		"due objects": func(s ledger.Store) (any, error) { return s.DueObjects(r.ctx, name.kind, until, limit) },
		"object":      func(s ledger.Store) (any, error) { return s.Object(r.ctx, name.kind, name.id) },
	}
}
