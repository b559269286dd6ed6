package webhooks

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"testing"
)

// shelf is a storage in memory.
type shelf struct {
	locked sync.Mutex
	mu     sync.Mutex
	kept   map[string][]byte
	stored int
	away   error
}

func (s *shelf) Lock(context.Context, string) error {
	s.locked.Lock()
	return nil
}

func (s *shelf) Unlock(context.Context, string) error {
	s.locked.Unlock()
	return nil
}

func (s *shelf) Load(_ context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away != nil {
		return nil, s.away
	}
	b, ok := s.kept[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return b, nil
}

func (s *shelf) Store(_ context.Context, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil {
		s.kept = make(map[string][]byte)
	}
	s.kept[key] = value
	s.stored++
	return nil
}

// Instances that start at once make one key, which keys can be made of.
func TestStoredKeyIsMadeOnce(t *testing.T) {
	s := new(shelf)
	if text, err := StoredKey(t.Context(), s); text != "" || err != nil {
		t.Errorf("before the first start: %q, %v", text, err)
	}
	got := make([]string, 20)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			var err error
			if got[i], err = LoadKey(t.Context(), s); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, text := range got {
		if text != got[0] {
			t.Fatal("there are several keys")
		}
	}
	keys, err := NewKeys(got[0])
	if err != nil || s.stored != 1 {
		t.Fatalf("%v, stored %d times", err, s.stored)
	}
	if text, err := keys.open(keys.seal("whsec_x", "we_1"), "we_1"); text != "whsec_x" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

// What can't be read is never overwritten, and not told.
func TestStoredKeyIsNotReplaced(t *testing.T) {
	away := errors.New("the disk is away")
	for name, s := range map[string]*shelf{
		"cut off": {kept: map[string][]byte{storageKey: []byte("c2VjcmV0")}},
		"empty":   {kept: map[string][]byte{storageKey: {}}},
		"long":    {kept: map[string][]byte{storageKey: []byte(strings.Repeat("c2VjcmV0", 1000))}},
		"away":    {away: away},
	} {
		text, err := LoadKey(t.Context(), s)
		if err == nil || text != "" || s.stored != 0 || strings.Contains(err.Error(), "c2VjcmV0") || s.away != nil && !errors.Is(err, away) {
			t.Errorf("%s: %q, %v, stored %d times", name, text, err, s.stored)
		}
	}
}
