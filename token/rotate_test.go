package token

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// shelf is a storage in memory.
type shelf struct {
	mu    sync.Mutex // the lock, held from Lock to Unlock
	data  map[string][]byte
	wrote int
}

func newShelf() *shelf { return &shelf{data: map[string][]byte{}} }

func (s *shelf) Lock(context.Context, string) error   { s.mu.Lock(); return nil }
func (s *shelf) Unlock(context.Context, string) error { s.mu.Unlock(); return nil }

func (s *shelf) Load(_ context.Context, key string) ([]byte, error) {
	v, ok := s.data[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return v, nil
}

func (s *shelf) Store(_ context.Context, key string, value []byte) error {
	s.data[key] = bytes.Clone(value)
	s.wrote++
	return nil
}

// privates counts the private keys in a storage.
func (s *shelf) privates() int { return strings.Count(string(s.data[storageKey]), "BEGIN PRIVATE KEY") }

// stored is a storage with a ring whose tokens live for a day at most.
func stored(t testing.TB) *shelf {
	t.Helper()
	s := newShelf()
	if _, err := Load(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if _, err := Lengthen(t.Context(), s, day, start); err != nil {
		t.Fatal(err)
	}
	return s
}

const day = 24 * time.Hour

func states(r *Keyring, now time.Time) string {
	var b strings.Builder
	for _, k := range r.Info(now) {
		fmt.Fprintf(&b, "%s ", k.State)
	}
	return strings.TrimSpace(b.String())
}

// published are the ids in the JWK Set.
func publishedIDs(t testing.TB, r *Keyring, now time.Time) []string {
	t.Helper()
	var set struct {
		Keys []struct{ Kid string }
	}
	if err := json.Unmarshal(r.JWKS(now), &set); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, k := range set.Keys {
		ids = append(ids, k.Kid)
	}
	return ids
}

func rotated(t testing.TB, s Storage, r Rotation, now time.Time) *Keyring {
	t.Helper()
	ring, err := Rotate(t.Context(), s, r, now)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// A new key is shown at once, signs after the lead, and the old one ends when its last token has expired; nothing but time has to pass.
func TestRotate(t *testing.T) {
	s := stored(t)
	first, err := Read(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	old := first.SigningKey(start).ID()
	ring := rotated(t, s, Rotation{}, start)
	ids := publishedIDs(t, ring, start)
	if len(ids) != 2 || ids[0] != old || ring.SigningKey(start).ID() != old {
		t.Fatalf("published %v, of which %s signs", ids, ring.SigningKey(start).ID())
	}
	end := start.Add(DefaultLead + day + ringMargin + Leeway)
	for at, want := range map[time.Duration]string{
		0:                         "signing next",
		DefaultLead - time.Second: "signing next",
		DefaultLead:               "verifying signing",
		day:                       "verifying signing",
		end.Sub(start) - 1:        "verifying signing",
		end.Sub(start):            "ended signing",
	} {
		if got := states(ring, start.Add(at)); got != want {
			t.Errorf("after %s: %s, want %s", at, got, want)
		}
	}
	if got := publishedIDs(t, ring, end); !slices.Equal(got, ids[1:]) {
		t.Errorf("published at the end: %v, want %v", got, ids[1:])
	}
	if _, err := Rotate(t.Context(), s, Rotation{}, start.Add(time.Minute)); !errors.Is(err, ErrRotating) {
		t.Errorf("rotated while a key waits: %v", err)
	}
	again := rotated(t, s, Rotation{Algorithm: "ES256"}, start.Add(DefaultLead))
	if got := states(again, start.Add(DefaultLead)); got != "verifying signing next" {
		t.Errorf("rotated again: %s", got)
	}
}

func TestRotateRefuses(t *testing.T) {
	short, negative := day-time.Minute, -time.Second
	for name, tt := range map[string]struct {
		r    Rotation
		want error
	}{
		"a lead that nobody can follow": {Rotation{Lead: MinLead - 1}, ErrRotation},
		"an algorithm of no key":        {Rotation{Algorithm: "HS256"}, ErrRotation},
		"none":                          {Rotation{Algorithm: "none"}, ErrRotation},
		"a negative overlap":            {Rotation{Overlap: &negative}, ErrRotation},
		"an overlap that ends tokens":   {Rotation{Overlap: &short}, ErrCost},
	} {
		s := stored(t)
		before := s.wrote
		if _, err := Rotate(t.Context(), s, tt.r, start); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
		if s.wrote != before {
			t.Errorf("%s: the ring was written", name)
		}
	}
	if _, err := Rotate(t.Context(), newShelf(), Rotation{}, start); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a ring that was never made: %v", err)
	}
	ring := rotated(t, stored(t), Rotation{Overlap: &short, Force: true}, start)
	if got := states(ring, start.Add(DefaultLead+day)); got != "ended signing" {
		t.Errorf("a forced overlap: %s", got)
	}
}

// What nobody knows is taken for long: a ring whose tokens' lives were never noted keeps the old key for a month.
func TestRotateUnknownLife(t *testing.T) {
	s := newShelf()
	if _, err := Load(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	ring := rotated(t, s, Rotation{}, start)
	if got := states(ring, start.Add(DefaultLead+unknownLife)); got != "verifying signing" {
		t.Errorf("after %s: %s", unknownLife, got)
	}
}

func TestRetire(t *testing.T) {
	s := stored(t)
	retire := func(id string, force bool, now time.Time, want error) *Keyring {
		t.Helper()
		ring, err := Retire(t.Context(), s, id, force, now)
		if !errors.Is(err, want) {
			t.Errorf("retiring %q: %v, want %v", id, err, want)
		}
		return ring
	}
	ring := rotated(t, s, Rotation{}, start)
	old, next := ring.Keys()[0].ID(), ring.Keys()[1].ID()
	retire(old, true, start, ErrKeySigns)
	retire("", true, start, ErrNoKey)
	retire("nobody's", true, start, ErrNoKey)
	retire(next[:12], false, start.Add(DefaultLead-time.Second), ErrKeySigns) // a clock that is ahead has begun
	// Taken back, the old one goes on without an end.
	if ring = retire(next[:12], false, start, nil); states(ring, start.Add(365*day)) != "signing" {
		t.Errorf("after a rotation that was taken back: %s", states(ring, start.Add(365*day)))
	}
	rotated(t, s, Rotation{}, start)
	after := start.Add(DefaultLead)
	retire(old, false, after, ErrCost)
	if ring = retire(old, true, after, nil); states(ring, after) != "signing ended" || s.privates() != 1 {
		t.Errorf("forced: %s, with %d private keys", states(ring, after), s.privates())
	}
	wrote := s.wrote
	if retire(old, true, after.Add(time.Minute), nil); s.wrote != wrote {
		t.Error("what has ended was ended again")
	}
}

// A plan that lives longer than all before it moves the end of the key that signs it, also while that one's successor waits; but a
// forced end stays.
func TestLengthen(t *testing.T) {
	s := stored(t)
	rotated(t, s, Rotation{}, start)
	ring, err := Lengthen(t.Context(), s, 10*day, start.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if got := states(ring, start.Add(DefaultLead+10*day)); got != "verifying signing" {
		t.Errorf("after ten days: %s", got)
	}
	if ring.Lacks(10*day, start) || !ring.Lacks(11*day, start) {
		t.Error("it does not know what it knows")
	}
	for _, k := range ring.Info(start) {
		if k.LongestToken != int64(10*day/time.Second) {
			t.Errorf("the longest token of %s lives for %d s", k.State, k.LongestToken)
		}
	}
	wrote := s.wrote
	if _, err := Lengthen(t.Context(), s, time.Hour, start); err != nil || s.wrote != wrote {
		t.Errorf("a shorter one was written: %v", err)
	}
	// Just after the change somebody whose clock is behind still signs with the old one; later nobody does.
	if ring, err = Lengthen(t.Context(), s, 20*day, start.Add(DefaultLead+30*time.Second)); err != nil {
		t.Fatal(err)
	}
	if got := states(ring, start.Add(DefaultLead+20*day)); got != "verifying signing" {
		t.Errorf("after twenty days: %s", got)
	}
	if ring, err = Lengthen(t.Context(), s, 30*day, start.Add(DefaultLead+ringMargin)); err != nil {
		t.Fatal(err)
	}
	if got := states(ring, start.Add(DefaultLead+21*day)); got != "ended signing" {
		t.Errorf("after twenty-one days: %s", got)
	}
	s, zero := stored(t), time.Duration(0)
	forced := rotated(t, s, Rotation{Overlap: &zero, Force: true}, start)
	if ring, err = Lengthen(t.Context(), s, 10*day, start.Add(time.Minute)); err != nil || !ring.Keys()[0].until.Equal(forced.Keys()[0].until) {
		t.Errorf("a forced end was moved: %v", err)
	}
}

// Private halves that are of no more use leave the storage, and so does what has ended.
func TestTidy(t *testing.T) {
	s := stored(t)
	ring := rotated(t, s, Rotation{}, start)
	next, end := ring.Keys()[1].from, ring.Keys()[0].until
	for _, tt := range []struct {
		at       time.Time
		privates int
		keys     int
	}{
		{start, 2, 2},
		{next.Add(ringMargin - time.Second), 2, 2}, // who is behind still signs with it
		{next.Add(ringMargin), 1, 2},
		{end.Add(endedFor - time.Second), 1, 2},
		{end.Add(endedFor), 1, 1},
	} {
		before := ring.Untidy(tt.at)
		ring, err := Tidy(t.Context(), s, tt.at)
		if err != nil || s.privates() != tt.privates || len(ring.Keys()) != tt.keys {
			t.Errorf("%s: %d keys, %d of them private (%v), want %d and %d", tt.at.Sub(start), len(ring.Keys()), s.privates(), err, tt.keys, tt.privates)
		}
		if ring.Untidy(tt.at) || before && s.wrote < 3 {
			t.Errorf("%s: it is not tidy", tt.at.Sub(start))
		}
	}
}

func TestRefresh(t *testing.T) {
	s := stored(t)
	ring, err := Read(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	before := ring.keys.Load()
	if changed, err := ring.Refresh(t.Context(), s); changed || err != nil || ring.keys.Load() != before {
		t.Errorf("refreshed from the same: %v, %v", changed, err)
	}
	rotated(t, s, Rotation{}, start)
	if changed, err := ring.Refresh(t.Context(), s); !changed || err != nil || states(ring, start) != "signing next" {
		t.Errorf("refreshed from another: %v, %v: %s", changed, err, states(ring, start))
	}
	for name, broken := range map[string][]byte{"nothing": nil, "empty": {}, "half": s.data[storageKey][:100], "too much": make([]byte, maxRing+1)} {
		bad := newShelf()
		if broken != nil {
			bad.data[storageKey] = broken
		}
		if changed, err := ring.Refresh(t.Context(), bad); changed || err == nil || states(ring, start) != "signing next" {
			t.Errorf("%s: %v, %v: %s", name, changed, err, states(ring, start))
		}
	}
}

// Who dies at any step of a rotation leaves a ring that works, and what it was about to do can be done again.
func TestRotationThatDies(t *testing.T) {
	for _, step := range []string{"lock", "load", "store", "unlock"} {
		s := fileStorage(t)
		first, err := Load(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Rotate(t.Context(), brokenStorage{s, step}, Rotation{}, start); !errors.Is(err, errBroken) {
			t.Errorf("%s fails: %v", step, err)
		}
		ring, err := Read(t.Context(), s)
		if err != nil || ring.SigningKey(start).ID() != first.SigningKey(start).ID() {
			t.Errorf("after %s failed: %v", step, err)
		}
		if _, err := Rotate(t.Context(), s, Rotation{}, start); err != nil && !errors.Is(err, ErrRotating) {
			t.Errorf("again after %s failed: %v", step, err)
		}
	}
}

// An instance of this test: it sees a ring that is up to some seconds old by a clock that is wrong by some seconds.
type follower struct {
	ring   *Keyring
	v      *Verifier
	skew   time.Duration
	looked time.Time
	issuer Issuer
}

type promise struct {
	text string
	kid  string
	end  time.Time
}

// fleet is instances that share a storage.
type fleet struct {
	ctx     context.Context
	s       *shelf
	now     time.Time
	members []*follower
	sold    []promise
	longest time.Duration
}

// Whatever is done to a ring without force, in whatever order, every token that any instance makes is taken by all until it expires, and
// all show the key that it is signed with; although their clocks differ, and they hear of changes seconds later.
//
// It runs as often as there is time: signatures take long under the race detector.
func TestRotationKeepsItsPromises(t *testing.T) {
	begun, runs, failed := time.Now(), 0, false
	rapid.Check(t, func(t *rapid.T) {
		if runs++; runs > 20 && time.Since(begun) > 10*time.Second && !failed {
			return
		}
		defer func() { failed = failed || t.Failed() }()
		f := &fleet{ctx: context.Background(), s: newShelf(), now: start, longest: time.Hour}
		for range 3 {
			ring, err := Load(f.ctx, f.s)
			if err != nil {
				t.Fatal(err)
			}
			m := &follower{ring: ring, skew: time.Duration(rapid.IntRange(-2000, 2000).Draw(t, "skew")) * time.Millisecond}
			if m.v, err = NewVerifier(ring, Access, site, 0); err != nil {
				t.Fatal(err)
			}
			m.issuer = Issuer{Keyring: ring, Issuer: site, Now: func() time.Time { return f.now.Add(m.skew) }}
			f.members = append(f.members, m)
		}
		f.lengthen(t)
		t.Repeat(map[string]func(*rapid.T){
			"rotate": func(t *rapid.T) {
				lead := MinLead + time.Duration(rapid.IntRange(0, 3600).Draw(t, "lead"))*time.Second
				if _, err := Rotate(f.ctx, f.s, Rotation{Lead: lead}, f.any(t)); err != nil && !errors.Is(err, ErrRotating) {
					t.Fatal(err)
				}
			},
			"retire": func(t *rapid.T) {
				ring, _ := Read(f.ctx, f.s)
				k := rapid.SampledFrom(ring.Info(f.now)).Draw(t, "key")
				if _, err := Retire(f.ctx, f.s, k.ID, false, f.any(t)); err != nil && !errors.Is(err, ErrKeySigns) && !errors.Is(err, ErrCost) {
					t.Fatal(err)
				}
			},
			"lengthen": func(t *rapid.T) {
				f.longest = max(f.longest, time.Duration(rapid.IntRange(1, 72).Draw(t, "hours"))*time.Hour)
				f.lengthen(t)
			},
			"tidy": func(t *rapid.T) {
				if _, err := Tidy(f.ctx, f.s, f.any(t)); err != nil {
					t.Fatal(err)
				}
			},
			"sell":    f.sell,
			"seconds": func(t *rapid.T) { f.pass(t, time.Duration(rapid.IntRange(100, 2000).Draw(t, "ms"))*time.Millisecond) },
			"hours": func(t *rapid.T) {
				for range 6 { // all have heard by then
					f.pass(t, 2*time.Second)
				}
				f.pass(t, time.Duration(rapid.IntRange(60, 100_000).Draw(t, "s"))*time.Second)
			},
			"": f.check,
		})
	})
}

// any is the clock of any of them.
func (f *fleet) any(t *rapid.T) time.Time {
	return f.now.Add(rapid.SampledFrom(f.members).Draw(t, "whose clock").skew)
}

func (f *fleet) lengthen(t *rapid.T) {
	if _, err := Lengthen(f.ctx, f.s, f.longest, f.any(t)); err != nil {
		t.Fatal(err)
	}
}

// pass lets time pass. Each looks at the storage every two seconds.
func (f *fleet) pass(t *rapid.T, d time.Duration) {
	f.now = f.now.Add(d)
	for _, m := range f.members {
		if f.now.Sub(m.looked) >= FollowEvery || rapid.Bool().Draw(t, "looks") {
			m.looked = f.now
			if _, err := m.ring.Refresh(f.ctx, f.s); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.sold = slices.DeleteFunc(f.sold, func(p promise) bool { return p.end.Before(f.now.Add(3 * time.Second)) })
}

func (f *fleet) sell(t *rapid.T) {
	if len(f.sold) > 4 {
		return
	}
	m := rapid.SampledFrom(f.members).Draw(t, "seller")
	ttl := rapid.SampledFrom([]time.Duration{time.Minute, f.longest / 2, f.longest}).Draw(t, "ttl")
	text, err := m.issuer.Issue(Access, sale(), ttl)
	if err != nil {
		t.Fatal(err)
	}
	f.sold = append(f.sold, promise{text, m.ring.SigningKey(f.now.Add(m.skew)).ID(), f.now.Add(m.skew + ttl)})
}

func (f *fleet) check(t *rapid.T) {
	for i, m := range f.members {
		for _, p := range f.sold {
			if _, err := m.v.Verify(p.text, f.now.Add(m.skew)); err != nil {
				t.Fatalf("instance %d refuses what is good until %s, at %s: %v; %v", i, p.end, f.now, err, m.ring.Info(f.now))
			}
			if !strings.Contains(string(m.ring.JWKS(f.now.Add(m.skew))), p.kid) {
				t.Fatalf("instance %d does not show the key %s of what it takes", i, p.kid)
			}
		}
	}
}
