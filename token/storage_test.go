package token

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
)

// Caddy's storage is what this package is made for.
var _ Storage = certmagic.Storage(nil)

func fileStorage(t *testing.T) *certmagic.FileStorage {
	t.Helper()
	return &certmagic.FileStorage{Path: t.TempDir()}
}

func TestLoadMakesAKeyOnce(t *testing.T) {
	s := fileStorage(t)
	first, err := Load(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if alg := first.SigningKey(start).Algorithm(); alg != "EdDSA" {
		t.Errorf("made a key for %s", alg)
	}
	again, err := Load(t.Context(), s)
	if err != nil || again.SigningKey(start).ID() != first.SigningKey(start).ID() {
		t.Errorf("got %v, %v; want %v", again, err, first.SigningKey(start))
	}
	other, err := Load(t.Context(), fileStorage(t))
	if err != nil || other.SigningKey(start).ID() == first.SigningKey(start).ID() {
		t.Errorf("two storages have the same key: %v", err)
	}
}

func TestInstancesThatStartAtOnceAgree(t *testing.T) {
	s := fileStorage(t)
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			own := &certmagic.FileStorage{Path: s.Path}
			ring, err := Load(t.Context(), own)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = ring.SigningKey(start).ID()
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Fatalf("they have different keys: %v", ids)
		}
	}
}

func TestDamagedKeyIsNotReplaced(t *testing.T) {
	for name, data := range map[string]string{
		"nothing":       "",
		"noise":         "hello",
		"half":          "-----BEGIN PRIVATE KEY-----\nMC4C",
		"a public key":  "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n",
		"a certificate": "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
	} {
		s := fileStorage(t)
		if err := s.Store(t.Context(), storageKey, []byte(data)); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(t.Context(), s); err == nil || !strings.Contains(err.Error(), storageKey) {
			t.Errorf("%s: got %v", name, err)
		}
		if got, err := s.Load(t.Context(), storageKey); err != nil || string(got) != data {
			t.Errorf("%s: it was replaced by %q, %v", name, got, err)
		}
	}
}

// brokenStorage fails at one step.
type brokenStorage struct {
	certmagic.Storage
	fails string
}

var errBroken = errors.New("broken")

func (s brokenStorage) Lock(ctx context.Context, name string) error {
	if s.fails == "lock" {
		return errBroken
	}
	return s.Storage.Lock(ctx, name)
}

func (s brokenStorage) Unlock(ctx context.Context, name string) error {
	if err := s.Storage.Unlock(ctx, name); err != nil || s.fails != "unlock" {
		return err
	}
	return errBroken
}

func (s brokenStorage) Load(ctx context.Context, key string) ([]byte, error) {
	if s.fails == "load" {
		return nil, errBroken
	}
	return s.Storage.Load(ctx, key)
}

func (s brokenStorage) Store(ctx context.Context, key string, value []byte) error {
	if s.fails == "store" {
		return errBroken
	}
	return s.Storage.Store(ctx, key, value)
}

func TestStorageFailures(t *testing.T) {
	for _, step := range []string{"load", "lock", "store", "unlock"} {
		s := brokenStorage{fileStorage(t), step}
		if _, err := Load(t.Context(), s); !errors.Is(err, errBroken) {
			t.Errorf("%s fails: got %v", step, err)
		}
		// What failed may be tried again: no lock is left behind.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if _, err := Load(ctx, s.Storage); err != nil {
			t.Errorf("after %s failed: %v", step, err)
		}
		cancel()
	}
}

func TestKeyringSurvivesStorage(t *testing.T) {
	keys := everyKey(t)
	until := start.Add(time.Hour)
	ring := ringOf(t, keys["EdDSA"], keys["RS256"].Retired(until), keys["ES256"].Retired(until))
	data, err := marshalKeys(ring.Keys())
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(data), "PRIVATE KEY-----\n"); n != 2 {
		t.Errorf("the private halves of retired keys are kept:\n%d", n)
	}
	back, err := unmarshalKeyring(data)
	if err != nil {
		t.Fatal(err)
	}
	want := ring.Keys()
	for i, k := range back.Keys() {
		if k.ID() != want[i].ID() || k.Algorithm() != want[i].Algorithm() || !k.until.Equal(want[i].until) {
			t.Errorf("got %v until %v, want %v until %v", k, k.until, want[i], want[i].until)
		}
	}
	tok := issue(t, ringOf(t, keys["RS256"]), Access, sale(), 2*time.Hour)
	v := verifier(t, back, Access, 0)
	wantOK(t, v, tok, start)
	wantErr(t, v, tok, until, ErrUnknownKey)
	if _, err := fileStorage(t).Load(t.Context(), storageKey); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent key is %v", err)
	}
}
