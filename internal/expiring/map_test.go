package expiring

import (
	"testing"
	"time"
)

func TestMap(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	m := Map[int, string]{Most: 4}
	want := func(key int, at time.Time, value string) {
		t.Helper()
		if got, ok := m.Get(key, at); got != value || ok != (value != "") {
			t.Errorf("%d: %q, %v; want %q", key, got, ok, value)
		}
	}
	want(1, now, "")
	m.Put(1, "a", now.Add(time.Minute), now)
	want(1, now.Add(time.Minute-1), "a")
	want(1, now.Add(time.Minute), "")
	m.Put(1, "b", now.Add(time.Hour), now)
	want(1, now.Add(time.Minute), "b")
	m.Delete(1)
	m.Delete(1)
	want(1, now, "")
}

// A full one gives up what has expired, and all of it rather than to look for room each time.
func TestMapIsBounded(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	m := Map[int, int]{Most: 4}
	for i := range 4 {
		m.Put(i, i, now.Add(time.Duration(i+1)*time.Minute), now)
	}
	later := now.Add(2 * time.Minute)
	m.Put(4, 4, later.Add(time.Hour), later)
	for i, want := range []bool{false, false, true, true, true} {
		if _, ok := m.Get(i, later); ok != want {
			t.Errorf("%d is there: %v", i, ok)
		}
	}
	for i := range 1000 {
		m.Put(i, i, later.Add(time.Hour), later)
		if got, ok := m.Get(i, later); !ok || got != i {
			t.Fatalf("%d is not there", i)
		}
		if len(m.entries) > 4 {
			t.Fatalf("it holds %d", len(m.entries))
		}
	}
	var none Map[int, int]
	none.Put(1, 1, later.Add(time.Hour), later)
	none.Delete(1)
	if _, ok := none.Get(1, later); ok {
		t.Error("a Map without room holds something")
	}
}
