package sqlite_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
)

func TestSuite(t *testing.T) {
	storetest.Run(t, func(t *testing.T, now func() time.Time) storetest.Backend {
		b := &backend{t: t, now: now}
		b.s, b.path = b.open(t.TempDir())
		return b
	})
}

// backend crashes a store by copying its files as they stand, between two statements of the writer, and opening
// the copy. That is what a killed process leaves: what was written, and nothing of what it had in memory.
type backend struct {
	t   *testing.T
	now func() time.Time

	mu    sync.Mutex // held while a statement of the writer runs, and while the files are copied
	s     *sqlite.Store
	also  *sqlite.Store // another on the same file, if it was asked for
	path  string
	steps int    // until crash, counted down by the writer; negative: no crash is planned
	crash string // the copy that was made
}

func (b *backend) open(dir string) (*sqlite.Store, string) {
	path := filepath.Join(dir, "ledger.db")
	b.steps = -1
	s, err := sqlite.Open(context.Background(), path, sqlite.WithStep(sqlite.Options{Now: b.now}, b.step))
	if err != nil {
		b.t.Fatalf("opening: %v", err)
	}
	return s, path
}

func (b *backend) step(statement func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.steps == 0 {
		b.crash = b.copy()
	}
	if b.steps >= 0 {
		b.steps--
	}
	statement()
}

// copy copies the file, and then its log, which has all that the file may lack; unless the log was begun anew meanwhile.
func (b *backend) copy() string {
	for {
		before := b.read("-wal")
		file, log := b.read(""), b.read("-wal")
		if !bytes.Equal(logHeader(before), logHeader(log)) {
			continue
		}
		dir := b.t.TempDir()
		for name, data := range map[string][]byte{"ledger.db": file, "ledger.db-wal": log} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				b.t.Errorf("copying: %v", err)
			}
		}
		return dir
	}
}

func (b *backend) read(suffix string) []byte {
	data, err := os.ReadFile(b.path + suffix)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.t.Errorf("copying: %v", err)
	}
	return data
}

// logHeader has the salts of the log, which change when it is begun anew.
func logHeader(log []byte) []byte { return log[:min(len(log), 32)] }

func (b *backend) Store() ledger.Store { return b.s }

var _ storetest.Instances = (*backend)(nil)

// Second implements storetest.Instances. Its writer does not stop for a copy: the two wait for each other's transactions.
func (b *backend) Second() ledger.Store {
	if b.also == nil {
		s, err := sqlite.Open(context.Background(), b.path, sqlite.Options{Now: b.now})
		if err != nil {
			b.t.Fatalf("opening: %v", err)
		}
		b.also = s
	}
	return b.also
}

func (b *backend) Crash() {
	b.mu.Lock()
	dir := b.copy()
	b.mu.Unlock()
	b.reopen(dir)
}

func (b *backend) CrashDuring(steps int, f func(ledger.Store)) bool {
	b.mu.Lock()
	b.steps, b.crash = steps, ""
	b.mu.Unlock()
	f(b.s)
	b.mu.Lock()
	b.steps = -1
	dir, inside := b.crash, b.crash != ""
	if !inside {
		dir = b.copy()
	}
	b.mu.Unlock()
	b.reopen(dir)
	return inside
}

// reopen lets the old store go on with its own files, which nobody looks at again, and end.
func (b *backend) reopen(dir string) {
	b.Close()
	b.s, b.path = b.open(dir)
}

func (b *backend) Close() {
	for _, s := range []*sqlite.Store{b.also, b.s} {
		if s == nil {
			continue
		}
		if err := s.Close(); err != nil {
			b.t.Errorf("closing: %v", err)
		}
	}
	b.also = nil
}
