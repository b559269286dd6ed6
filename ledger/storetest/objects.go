package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

func newObject(kind, id, group, body string) ledger.Object {
	return ledger.Object{Kind: kind, ID: id, Group: group, Body: []byte(body)}
}

// put stores an object that may be stored, and finds it as it was answered.
func (f *fixture) put(o ledger.Object) ledger.Object {
	f.Helper()
	got, err := f.store().PutObject(f.ctx, o)
	if err != nil || got.Version != o.Version+1 {
		f.Fatalf("storing %s %s: %v, %v", o.Kind, o.ID, got, err)
	}
	f.hasObject(got)
	return got
}

func (f *fixture) hasObject(want ledger.Object) {
	f.Helper()
	if got, err := f.store().Object(f.ctx, want.Kind, want.ID); err != nil || !same(got, want) {
		f.Errorf("read %+v (%v): %s", got, err, difference(got, want))
	}
}

// refuses gives an object that must not be stored, and what is answered with the error.
func (f *fixture) refuses(o ledger.Object, want error) ledger.Object {
	f.Helper()
	got, err := f.store().PutObject(f.ctx, o)
	if !errors.Is(err, want) {
		f.Errorf("storing %v: %v, want %v", o, err, want)
	}
	return got
}

func (f *fixture) noObject(kind, id string) {
	f.Helper()
	if got, err := f.store().Object(f.ctx, kind, id); !errors.Is(err, ledger.ErrNotFound) {
		f.Errorf("%s %q: %v, %v; want ErrNotFound", kind, id, got, err)
	}
}

func (f *fixture) remove(o ledger.Object, want error) {
	f.Helper()
	if err := f.store().DeleteObject(f.ctx, o.Kind, o.ID, o.Version); !errors.Is(err, want) {
		f.Errorf("removing %s %q of version %d: %v, want %v", o.Kind, o.ID, o.Version, err, want)
	}
}

func (f *fixture) objects() map[string]ledger.Object {
	f.Helper()
	got, err := objectsOf(f.ctx, f.store())
	if err != nil {
		f.Fatalf("objects: %v", err)
	}
	return got
}

func objectsOf(ctx context.Context, s ledger.Store) (map[string]ledger.Object, error) {
	got := map[string]ledger.Object{}
	err := s.EachObject(ctx, func(o ledger.Object) error {
		name := o.Kind + " " + o.ID
		if _, twice := got[name]; twice {
			return fmt.Errorf("%s is there twice", name)
		}
		got[name] = o
		return nil
	})
	return got, err
}

// listed gives the ids of a list, read by pages of size.
func (f *fixture) listed(kind, group string, size int) []string {
	f.Helper()
	got := []string{}
	for after := ""; ; {
		page, err := f.store().Objects(f.ctx, kind, group, after, size)
		if err != nil || len(page) > size {
			f.Fatalf("%d objects after %q: %v", len(page), after, err)
		}
		for _, o := range page {
			if o.ID <= after || o.Kind != kind || group != "" && o.Group != group {
				f.Fatalf("%s %q of %q after %q", o.Kind, o.ID, o.Group, after)
			}
			after = o.ID
			got = append(got, o.ID)
		}
		if len(page) < size {
			return got
		}
	}
}

func (f *fixture) due(kind string, until time.Time, limit int) []string {
	f.Helper()
	page, err := f.store().DueObjects(f.ctx, kind, until, limit)
	if err != nil {
		f.Fatalf("what is due: %v", err)
	}
	got := []string{}
	for _, o := range page {
		if o.Kind != kind || o.Due.IsZero() || o.Due.After(until) {
			f.Errorf("%v is due at %v, asked for until %v", o, o.Due, until)
		}
		got = append(got, o.ID)
	}
	return got
}

func (f *fixture) equal(what string, got []string, want ...string) {
	f.Helper()
	if !slices.Equal(got, want) {
		f.Errorf("%s: %q, want %q", what, got, want)
	}
}

func testObject(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	f.noObject("key", "a")
	// A body comes back byte by byte, and times as every store can tell them.
	wild := newObject("key", "a", "test", " {\"b\" : [\"\\u0000 é \xff\"],\n\"a\":1e400, \"a\":2}\t")
	at := f.clock.Now().In(time.FixedZone("east", 7200))
	wild.Due, wild.Expires = at.Add(-time.Hour), at.Add(time.Hour)
	a := f.put(wild)
	want := wild
	want.Version, want.Due, want.Expires = 1, wild.Due.UTC().Truncate(time.Microsecond), wild.Expires.UTC().Truncate(time.Microsecond)
	if !same(a, want) {
		t.Errorf("stored %s", difference(a, want))
	}
	twin := f.put(newObject("keys", "a", "", "1"))
	// The id is taken, and whoever wants it learns by what.
	if had := f.refuses(newObject("key", "a", "test", "2"), ledger.ErrExists); !same(had, a) {
		t.Errorf("what is there already: %s", difference(had, a))
	}
	b := a
	b.Body, b.Due, b.Expires = []byte("null"), time.Time{}, time.Time{}
	b = f.put(b)
	if !b.Due.IsZero() || !b.Expires.IsZero() {
		t.Errorf("times are left: %v, %v", b.Due, b.Expires)
	}
	f.refuses(a, ledger.ErrConflict) // old
	later, other, none := b, b, b
	later.Version, other.Group, none.ID = 3, "live", "none"
	for _, o := range []ledger.Object{later, other, none} {
		f.refuses(o, ledger.ErrConflict)
	}
	other.Group = ""
	f.refuses(other, ledger.ErrConflict)
	f.hasObject(b)
	f.b.Crash()
	f.hasObject(b)
	f.remove(a, ledger.ErrConflict)
	f.remove(later, ledger.ErrConflict)
	f.hasObject(b)
	f.remove(b, nil)
	f.remove(b, nil)
	f.remove(none, nil)
	f.noObject("key", "a")
	f.refuses(b, ledger.ErrConflict)
	f.hasObject(twin)
	f.put(newObject("key", "a", "another", "3"))
	f.equal("the old group", f.listed("key", "test", 9))
	f.equal("the new group", f.listed("key", "another", 9), "a")
}

// printable are all characters that an id may have.
func printable() string {
	var b strings.Builder
	for c := byte('!'); c <= '~'; c++ {
		b.WriteByte(c)
	}
	return b.String()
}

func testObjectRules(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	long, body := strings.Repeat("x", 128), `"`+strings.Repeat("x", ledger.MaxObjectBody-2)+`"`
	for _, o := range []ledger.Object{
		newObject(strings.Repeat("z_", 16), printable(), printable()[1:], body),
		newObject("a", long, long, "0"), newObject("_", "a:b{c}*", "-", "[]"),
	} {
		o = f.put(f.put(o))
		f.equal("the list", f.listed(o.Kind, "", 5), o.ID)
		f.equal("the group", f.listed(o.Kind, o.Group, 5), o.ID)
	}
	before := f.objects()
	for name, o := range map[string]ledger.Object{
		"no kind": newObject("", "a", "", "1"), "a long kind": newObject(strings.Repeat("k", 33), "a", "", "1"),
		"a kind of another form": newObject("Key", "a", "", "1"), "a kind with a digit": newObject("key2", "a", "", "1"),
		"no id": newObject("key", "", "", "1"), "a long id": newObject("key", long+"x", "", "1"), "a space": newObject("key", "a b", "", "1"),
		"a zero byte": newObject("key", "a\x00", "", "1"), "no ASCII": newObject("key", "é", "", "1"), "no text": newObject("key", "\xff", "", "1"),
		"DEL": newObject("key", "a\x7f", "", "1"), "a long group": newObject("key", "a", long+"x", "1"), "a line in a group": newObject("key", "a", "a\nb", "1"),
		"no body": newObject("key", "a", "", ""), "no JSON": newObject("key", "a", "", "{"), "two bodies": newObject("key", "a", "", "1 2"),
		"a long body":       newObject("key", "a", "", body+" "),
		"a negative number": {Kind: "key", ID: "a", Version: -1, Body: []byte("1")},
		"the last number":   {Kind: "key", ID: "a", Version: math.MaxInt64, Body: []byte("1")},
	} {
		if _, err := f.store().PutObject(f.ctx, o); !errors.Is(err, ledger.ErrObject) {
			t.Errorf("%s: %v, want ErrObject", name, err)
		}
		if o.Version == 0 && !ledger.IsObjectName(o.Kind, o.ID) {
			f.noObject(o.Kind, o.ID)
			f.remove(o, nil)
		}
		f.equal(name+", listed", f.listed(o.Kind, o.Group, 5))
		f.equal(name+", due", f.due("Key", f.clock.Now(), 5))
	}
	if after := f.objects(); !same(after, before) {
		t.Errorf("something changed: %s", difference(after, before))
	}
	// Ends and times that no store can tell are told as those next to them.
	o := newObject("key", "far", "", "1")
	o.Due, o.Expires = time.Unix(-1, 0), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	if o = f.put(o); o.Due.IsZero() || o.Due.Year() != 1970 || o.Expires.Year() < 2200 {
		t.Errorf("due at %v, until %v", o.Due, o.Expires)
	}
	f.equal("due for long", f.due("key", f.clock.Now(), 5), "far")
	f.equal("due at no time", f.due("key", time.Time{}, 5))
}

// What has expired is gone for everybody, swept or not, and its id is free.
func testObjectExpiry(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	end := f.clock.Now().Add(time.Minute).Truncate(time.Microsecond)
	a, b := newObject("key", "a", "one", "1"), newObject("key", "b", "one", "2")
	a.Expires, a.Due, b.Expires = end, end.Add(-time.Hour), end
	a, b = f.put(a), f.put(b)
	b.Expires = end.Add(time.Hour)
	f.put(b)
	f.clock.Add(end.Add(-time.Microsecond).Sub(f.clock.Now()))
	f.hasObject(a)
	f.equal("the list", f.listed("key", "one", 1), "a", "b")
	f.clock.Add(time.Microsecond)
	f.noObject("key", "a")
	f.equal("the list", f.listed("key", "", 1), "b")
	f.equal("the group", f.listed("key", "one", 1), "b")
	f.equal("what is due", f.due("key", end.Add(time.Hour), 9))
	if n := len(f.objects()); n != 1 {
		t.Errorf("%d objects, want one", n)
	}
	f.refuses(a, ledger.ErrConflict)
	stale := a
	stale.Version = 7
	f.remove(stale, nil)
	f.remove(a, nil)
	f.clock.Add(time.Hour)
	f.noObject("key", "b")
	// It is made again, in another group, and nothing of it comes back.
	c := f.put(newObject("key", "b", "two", "3"))
	if c.Version != 1 {
		t.Errorf("it begins again at version %d", c.Version)
	}
	f.equal("the old group", f.listed("key", "one", 9))
	f.equal("the new group", f.listed("key", "two", 9), "b")
	f.sweep(0, 10)
	f.hasObject(c)
	// An end that is over forgets it at once.
	c.Expires = f.clock.Now()
	if _, err := f.store().PutObject(f.ctx, c); err != nil {
		t.Error(err)
	}
	f.noObject("key", "b")
}

// Lists are ordered by the bytes of ids, and pages of any size give each object once, however large they are.
func testObjectLists(t *testing.T, open Open, o Options) {
	f := setup(t, open)
	large, n := `"`+strings.Repeat("y", ledger.MaxObjectBody-2)+`"`, 230
	if o.Light {
		n = 120
	}
	want := map[string][]string{}
	for i := range n {
		x := newObject("event", fmt.Sprintf("%c%03d", "aB_~!0"[i%6], i*7919%1000), fmt.Sprintf("g%d", i%3), "{}")
		if i%9 == 0 {
			x.Body = []byte(large)
		}
		if i%5 == 0 {
			x.Expires = f.clock.Now().Add(time.Minute)
		}
		if _, err := f.store().PutObject(f.ctx, x); err != nil {
			t.Fatal(err)
		}
		if i%5 > 0 {
			want[""] = append(want[""], x.ID)
			want[x.Group] = append(want[x.Group], x.ID)
		}
	}
	f.put(newObject("events", "other", "g1", "1"))
	f.clock.Add(time.Minute)
	for group, ids := range want {
		slices.Sort(ids)
		for _, size := range []int{7, 50, 1000} {
			f.equal(fmt.Sprintf("group %q by %d", group, size), f.listed("event", group, size), ids...)
		}
	}
	all := want[""]
	for what, tt := range map[string]struct {
		group, after string
		limit        int
		want         []string
	}{
		"after one": {"", all[10], 3, all[11:14]}, "after none of them": {"", all[10] + "!", 3, all[11:14]}, "after all": {"", "~~", 3, nil},
		"no limit": {"", "", 0, nil}, "a negative limit": {"", "", -1, nil}, "a group that is none": {"g", "", 9, nil},
		"after no text": {"", "\xff\x00", 9, nil}, "after zero bytes": {"", "\x00\x00", 2, all[:2]},
	} {
		page, err := f.store().Objects(f.ctx, "event", tt.group, tt.after, tt.limit)
		got := []string{}
		for _, o := range page {
			got = append(got, o.ID)
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		f.equal(what, got, tt.want...)
	}
	got := slices.Sorted(maps.Keys(f.objects()))
	if len(got) != len(all)+1 {
		t.Errorf("%d objects in all, want %d", len(got), len(all)+1)
	}
}

func testDueObjects(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	now := f.clock.Now().Truncate(time.Microsecond)
	put := func(id string, due time.Time, body string) ledger.Object {
		o := newObject("delivery", id, "e1", body)
		o.Due = due
		return f.put(o)
	}
	a := put("a", now.Add(2*time.Second), "1")
	b := put("b", now, "1")
	put("B", now, "1")
	put("c", now.Add(-time.Hour), "1")
	put("d", time.Time{}, "1")
	put("e", now.Add(time.Microsecond), "1")
	f.put(newObject("deliveries", "z", "", "1"))
	f.equal("now", f.due("delivery", now, 9), "c", "B", "b")
	f.equal("the first", f.due("delivery", now, 2), "c", "B")
	f.equal("none", f.due("delivery", now, 0))
	f.equal("a moment later", f.due("delivery", now.Add(time.Microsecond+7), 9), "c", "B", "b", "e")
	f.equal("for ever", f.due("delivery", now.Add(1000000*time.Hour), 9), "c", "B", "b", "e", "a")
	// Who does it moves it; of two who want to, one does.
	claimed := b
	claimed.Due = now.Add(time.Minute)
	f.put(claimed)
	f.refuses(claimed, ledger.ErrConflict)
	f.equal("moved", f.due("delivery", now, 9), "c", "B")
	a.Due = time.Time{}
	a = f.put(a)
	f.equal("done", f.due("delivery", now.Add(time.Hour), 9), "c", "B", "e", "b")
	a.Due = now.Add(-2 * time.Hour)
	f.put(a)
	f.remove(ledger.Object{Kind: "delivery", ID: "c", Version: 1}, nil)
	f.equal("in front", f.due("delivery", now, 9), "a", "B")
	want := []string{"a", "B"}
	large := `"` + strings.Repeat("y", ledger.MaxObjectBody-2) + `"`
	for i := range 40 {
		id := fmt.Sprintf("l%02d", i)
		put(id, now, large)
		want = append(want, id)
	}
	f.equal("many", f.due("delivery", now, 100), want...)
}
