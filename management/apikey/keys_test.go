package apikey_test

import (
	"crypto/rand"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
	"github.com/caddy-x402/caddy-x402/management/apikey"
)

// desk is keys in a store whose clock the test turns.
type desk struct {
	apikey.Keys
	store *storetest.Memory
	clock *atomic.Int64
}

func newDesk() *desk {
	clock := new(atomic.Int64)
	clock.Store(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixMicro())
	store := storetest.NewMemory(func() time.Time { return time.UnixMicro(clock.Load()) }, false)
	return &desk{apikey.Keys{Store: store, Random: rand.Reader, Log: slog.New(slog.DiscardHandler)}, store, clock}
}

func (d *desk) pass(t time.Duration) { d.clock.Add(t.Microseconds()) }

var admin = apikey.Grantor{Actor: "admin", Local: true}

func (d *desk) create(t testing.TB, r apikey.Request) (apikey.Key, apikey.Secret) {
	t.Helper()
	if r.Label == "" {
		r.Label = "a program"
	}
	if r.Mode == "" {
		r.Mode = apikey.Test
	}
	if r.Scopes == nil {
		r.Scopes = []apikey.Scope{apikey.PaymentsRead, apikey.KeysManage}
	}
	k, s, err := d.Create(t.Context(), admin, r)
	if err != nil {
		t.Fatal(err)
	}
	return k, s
}

func (d *desk) good(t testing.TB, s apikey.Secret) error {
	t.Helper()
	_, err := d.Authenticate(t.Context(), s.Reveal())
	return err
}

// A key is good from when it is made until it expires or is revoked, and each end has its own error.
func TestKeyLife(t *testing.T) {
	d := newDesk()
	forever, s := d.create(t, apikey.Request{})
	if err := d.good(t, s); err != nil || !forever.ExpiresAt.IsZero() {
		t.Errorf("a new key: %v, %+v", err, forever)
	}
	_, short := d.create(t, apikey.Request{Life: time.Hour})
	d.pass(time.Hour - time.Microsecond)
	if err := d.good(t, short); err != nil {
		t.Errorf("in its last moment: %v", err)
	}
	d.pass(time.Microsecond)
	if err := d.good(t, short); !errors.Is(err, apikey.ErrExpired) {
		t.Errorf("at its end: %v", err)
	}
	if _, err := d.Revoke(t.Context(), admin, forever.ID); err != nil {
		t.Fatal(err)
	}
	if err := d.good(t, s); !errors.Is(err, apikey.ErrRevoked) {
		t.Errorf("revoked: %v", err)
	}
	again, err := d.Revoke(t.Context(), admin, forever.ID)
	if err != nil || again.RevokedAt.IsZero() {
		t.Errorf("revoked again: %+v, %v", again, err)
	}
	unknown, err := apikey.NewSecret(rand.Reader, apikey.Test)
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{unknown.Reveal(), "", s.Prefix(), s.ID(), s.Reveal() + "x"} {
		if _, err := d.Authenticate(t.Context(), shown); !errors.Is(err, apikey.ErrInvalid) {
			t.Errorf("%q: %v", shown, err)
		}
	}
	// What has ended is known as such for long, and then forgotten.
	d.pass(89 * 24 * time.Hour)
	if err := d.good(t, s); !errors.Is(err, apikey.ErrRevoked) {
		t.Errorf("after 89 days: %v", err)
	}
	d.pass(2 * 24 * time.Hour)
	if err := d.good(t, s); !errors.Is(err, apikey.ErrInvalid) {
		t.Errorf("after 91 days: %v", err)
	}
}

// The store never has what a key could be rebuilt from.
func TestKeyIsHashedAtRest(t *testing.T) {
	d := newDesk()
	k, s := d.create(t, apikey.Request{Label: "billing"})
	_, _, next, err := d.Rotate(t.Context(), admin, k.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.good(t, s); err != nil { // its use is written down
		t.Fatal(err)
	}
	list, err := d.store.Objects(t.Context(), "api_key", "", "", 100)
	if err != nil || len(list) != 2 {
		t.Fatalf("%d objects, %v", len(list), err)
	}
	for _, o := range list {
		for _, secret := range []apikey.Secret{s, next} {
			kept := o.ID + o.Group + string(o.Body)
			if strings.Contains(kept, secret.Reveal()) || strings.Contains(kept, secret.Reveal()[14:30]) {
				t.Errorf("the store has %s", kept)
			}
		}
	}
}

// The last use is written down, to within a minute and without a write for every call.
func TestKeyLastUse(t *testing.T) {
	d := newDesk()
	k, s := d.create(t, apikey.Request{})
	used := func() time.Time {
		t.Helper()
		if err := d.good(t, s); err != nil {
			t.Fatal(err)
		}
		got, err := d.Get(t.Context(), k.ID)
		if err != nil {
			t.Fatal(err)
		}
		return got.LastUsedAt
	}
	first := used()
	if first.IsZero() {
		t.Fatal("the first use is not written down")
	}
	d.pass(59 * time.Second)
	if got := used(); !got.Equal(first) {
		t.Errorf("a use within the minute was written down: %v, %v", first, got)
	}
	d.pass(2 * time.Second)
	if got := used(); got.Sub(first) != 61*time.Second {
		t.Errorf("the next one is at %v, the first was at %v", got, first)
	}
}

// Rotation: both are good during the overlap, then only the successor, which can do the same things.
func TestKeyRotation(t *testing.T) {
	d := newDesk()
	k, s := d.create(t, apikey.Request{Label: "billing", Scopes: []apikey.Scope{apikey.PaymentsRead}})
	old, next, secret, err := d.Rotate(t.Context(), admin, k.ID, apikey.DefaultOverlap)
	if err != nil {
		t.Fatal(err)
	}
	if next.ID == k.ID || next.RotatedFrom != k.ID || old.RotatedTo != next.ID || next.Label != "billing" || !slices.Equal(next.Scopes, k.Scopes) {
		t.Errorf("%+v was followed by %+v", old, next)
	}
	if _, _, _, err := d.Rotate(t.Context(), admin, k.ID, 0); !errors.Is(err, apikey.ErrRotating) {
		t.Errorf("rotated twice: %v", err)
	}
	d.pass(7*24*time.Hour - time.Second)
	if err := errors.Join(d.good(t, s), d.good(t, secret)); err != nil {
		t.Errorf("during the overlap: %v", err)
	}
	d.pass(time.Second)
	if err := d.good(t, s); !errors.Is(err, apikey.ErrExpired) {
		t.Errorf("the old one after it: %v", err)
	}
	if err := d.good(t, secret); err != nil {
		t.Errorf("the new one after it: %v", err)
	}
	if _, _, _, err := d.Rotate(t.Context(), admin, k.ID, 0); !errors.Is(err, apikey.ErrExpired) {
		t.Errorf("the old one is rotated after its end: %v", err)
	}
	// A key that has leaked ends at once.
	_, _, third, err := d.Rotate(t.Context(), admin, next.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.good(t, secret); !errors.Is(err, apikey.ErrExpired) {
		t.Errorf("the one that leaked: %v", err)
	}
	if err := d.good(t, third); err != nil {
		t.Errorf("its successor: %v", err)
	}
	for _, overlap := range []time.Duration{-1, 31 * 24 * time.Hour} {
		if _, _, _, err := d.Rotate(t.Context(), admin, third.ID(), overlap); !errors.Is(err, apikey.ErrRequest) {
			t.Errorf("an overlap of %s: %v", overlap, err)
		}
	}
	if _, _, _, err := d.Rotate(t.Context(), admin, "ak_nobody", 0); !errors.Is(err, apikey.ErrNotFound) {
		t.Errorf("a key that is not there: %v", err)
	}
}

// Of many who rotate a key at the same time one does, and the others leave nothing behind.
func TestKeyRotationInParallel(t *testing.T) {
	d := newDesk()
	k, _ := d.create(t, apikey.Request{})
	var wg sync.WaitGroup
	var done, refused atomic.Int64
	for range 20 {
		wg.Go(func() {
			switch _, _, _, err := d.Rotate(t.Context(), admin, k.ID, time.Hour); {
			case err == nil:
				done.Add(1)
			case errors.Is(err, apikey.ErrRotating):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	list, err := d.List(t.Context(), "", "", 100)
	if err != nil || done.Load() != 1 || refused.Load() != 19 || len(list) != 2 {
		t.Errorf("%d rotated it, %d did not; there are %d keys, %v", done.Load(), refused.Load(), len(list), err)
	}
}

// Whatever a key does, it never makes or takes over one with a scope, a mode or a life that it does not have itself.
func TestKeysNeverWiden(t *testing.T) {
	scopes := rapid.SliceOfNDistinct(rapid.SampledFrom(apikey.Scopes()), 1, 5, func(s apikey.Scope) apikey.Scope { return s })
	modes := rapid.SampledFrom([]apikey.Mode{apikey.Test, apikey.Live})
	lives := rapid.SampledFrom([]time.Duration{0, time.Hour, 30 * 24 * time.Hour})
	rapid.Check(t, func(r *rapid.T) {
		d := newDesk()
		draw := func(name string) apikey.Request {
			return apikey.Request{
				Label: name, Mode: modes.Draw(r, name+" mode"), Scopes: scopes.Draw(r, name+" scopes"), Life: lives.Draw(r, name+" life"),
			}
		}
		me, _ := d.create(t, draw("me"))
		by := apikey.Grantor{Actor: me.ID, Mode: me.Mode, Scopes: me.Scopes, Until: me.Ends()}
		within := func(k *apikey.Key) bool {
			longer := !me.Ends().IsZero() && (k.Ends().IsZero() || k.Ends().After(me.Ends()))
			return k.Mode == me.Mode && !longer && !slices.ContainsFunc(k.Scopes, func(s apikey.Scope) bool { return !slices.Contains(me.Scopes, s) })
		}
		if made, _, err := d.Create(t.Context(), by, draw("made")); err == nil && !within(&made) {
			r.Fatalf("%+v has made %+v", me, made)
		} else if err != nil && !errors.Is(err, apikey.ErrWider) {
			r.Fatal(err)
		}
		other, otherSecret := d.create(t, draw("other"))
		_, taken, _, err := d.Rotate(t.Context(), by, other.ID, 0)
		switch {
		case err == nil && !within(&taken):
			r.Fatalf("%+v has taken over %+v by way of %+v", me, other, taken)
		case err != nil && !errors.Is(err, apikey.ErrWider) && !errors.Is(err, apikey.ErrNotFound):
			r.Fatal(err)
		case err != nil && d.good(t, otherSecret) != nil:
			r.Fatal("a rotation that was refused has ended the key")
		}
	})
}

// What can't be made is refused in words.
func TestKeyRequests(t *testing.T) {
	d := newDesk()
	good := apikey.Request{Label: "x", Mode: apikey.Test, Scopes: []apikey.Scope{apikey.Access}}
	for name, change := range map[string]func(*apikey.Request){
		"no label":          func(r *apikey.Request) { r.Label = " " },
		"a long label":      func(r *apikey.Request) { r.Label = strings.Repeat("ü", 81) },
		"a control":         func(r *apikey.Request) { r.Label = "a\nb" },
		"no mode":           func(r *apikey.Request) { r.Mode = "" },
		"another mode":      func(r *apikey.Request) { r.Mode = "both" },
		"no scope":          func(r *apikey.Request) { r.Scopes = nil },
		"an unknown scope":  func(r *apikey.Request) { r.Scopes = []apikey.Scope{"everything"} },
		"a short life":      func(r *apikey.Request) { r.Life = time.Second },
		"a very long life":  func(r *apikey.Request) { r.Life = 11 * 365 * 24 * time.Hour },
		"a life before now": func(r *apikey.Request) { r.Life = -time.Hour },
	} {
		r := good
		change(&r)
		if _, _, err := d.Create(t.Context(), admin, r); !errors.Is(err, apikey.ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := d.Create(t.Context(), admin, good); err != nil {
		t.Error(err)
	}
}

// A key that is old is told of once, by one of all instances; one that was rotated, or has ended, is not.
func TestKeyDueForRotation(t *testing.T) {
	d := newDesk()
	old, _ := d.create(t, apikey.Request{Label: "old"})
	rotated, _ := d.create(t, apikey.Request{Label: "rotated"})
	ended, _ := d.create(t, apikey.Request{Label: "ended"})
	d.pass(90 * 24 * time.Hour)
	d.create(t, apikey.Request{Label: "young"})
	if _, _, _, err := d.Rotate(t.Context(), admin, rotated.ID, apikey.MaxOverlap); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Revoke(t.Context(), admin, ended.ID); err != nil {
		t.Fatal(err)
	}
	var told []string
	for range 3 {
		due, err := d.DueForRotation(t.Context(), 90*24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range due {
			told = append(told, k.ID)
		}
	}
	if !slices.Equal(told, []string{old.ID}) {
		t.Errorf("told of %v, want %s", told, old.ID)
	}
}

// A store that can't say is no reason to let somebody in, nor to say that there is no such key.
func TestKeyStoreAway(t *testing.T) {
	d := newDesk()
	_, s := d.create(t, apikey.Request{})
	if err := d.store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.good(t, s); err == nil || errors.Is(err, apikey.ErrInvalid) || !errors.Is(err, ledger.ErrClosed) {
		t.Errorf("%v", err)
	}
}
