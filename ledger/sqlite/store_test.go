package sqlite_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
)

func mustClaim(t *testing.T, s *sqlite.Store) ledger.Payment {
	t.Helper()
	p, err := newPayment(1)
	if err != nil {
		t.Fatal(err)
	}
	p, err = s.Claim(t.Context(), p, ledger.Change{Hold: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The file, its log and its directory are the owner's alone.
func TestFileModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // there are no such modes
	}
	dir := filepath.Join(t.TempDir(), "a", "b")
	path := filepath.Join(dir, "ledger.db")
	mustClaim(t, open(t, path, sqlite.Options{}))
	for name, want := range map[string]os.FileMode{
		filepath.Dir(dir): 0o700, dir: 0o700, path: 0o600, path + "-wal": 0o600, path + "-shm": 0o600,
	} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v, want %v", name, info.Mode().Perm(), err, want)
		}
	}
}

// A path is a path, whatever characters it has.
func TestStrangePaths(t *testing.T) {
	for _, name := range []string{"a b.db", "50%41.db", "what?mode=memory.db", "#1.db", "ümläut.db", "a&b=c.db"} {
		path := filepath.Join(t.TempDir(), name)
		s := open(t, path, sqlite.Options{})
		p := mustClaim(t, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if got, err := open(t, path, sqlite.Options{}).Payment(t.Context(), p.ID); err != nil || got != p {
			t.Errorf("%q: %+v, %v", name, got, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	newer := filepath.Join(t.TempDir(), "newer.db")
	s := open(t, newer, sqlite.Options{})
	if err := s.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	garbage := filepath.Join(t.TempDir(), "garbage.db")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(t.TempDir(), "damaged.db")
	s = open(t, damaged, sqlite.Options{})
	mustClaim(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(damaged, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, 3900), 100); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ path, say string }{
		{newer, "use a newer program"}, {garbage, "not a database"}, {damaged, "malformed"},
	} {
		s, err := sqlite.Open(t.Context(), tt.path, sqlite.Options{})
		if !errors.Is(err, sqlite.ErrSchema) || !strings.Contains(err.Error(), tt.say) || !strings.Contains(err.Error(), tt.path) {
			t.Errorf("%v, want ErrSchema that names the file and says %q", err, tt.say)
		}
		if err == nil {
			_ = s.Close()
		}
	}
	if s, err := sqlite.Open(t.Context(), t.TempDir(), sqlite.Options{}); err == nil {
		t.Error("a directory was opened as a file")
		_ = s.Close()
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := sqlite.Open(over, filepath.Join(t.TempDir(), "x.db"), sqlite.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("opened under a context that is over: %v", err)
		_ = s.Close()
	}
}

// A ledger that an older version has made is brought up to date, with all that is in it.
func TestOlderSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "older.db")
	s := open(t, path, sqlite.Options{})
	p := mustClaim(t, s)
	for _, undo := range []string{
		"DROP INDEX payments_owed", "DROP TABLE revocations", "DROP TABLE allowances", "DROP TABLE objects",
		"DELETE FROM goose_db_version WHERE version_id > 2",
	} {
		if err := s.Exec(undo); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, sqlite.Options{})
	if got, err := s.Payment(t.Context(), p.ID); err != nil || got != p {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := s.Ask("SELECT name FROM sqlite_schema WHERE name = 'payments_owed'"); err != nil || got != "payments_owed" {
		t.Errorf("the index: %q, %v", got, err)
	}
}

// Two stores on one file, as two instances on one machine have it.
func TestTwoStores(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	a, b := open(t, path, sqlite.Options{}), open(t, path, sqlite.Options{})
	for range 20 {
		p := mustClaim(t, a)
		twin := p
		twin.ID += "x"
		if got, err := b.Claim(t.Context(), twin, ledger.Change{}); !errors.Is(err, ledger.ErrExists) || got != p {
			t.Fatalf("claimed twice: %+v, %v", got, err)
		}
		if got, err := b.Payment(t.Context(), p.ID); err != nil || got != p {
			t.Fatalf("%+v, %v", got, err)
		}
		a, b = b, a
	}
}

// Every connection has what durability and the foreign keys need.
func TestPragmas(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "ledger.db"), sqlite.Options{})
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "recursive_triggers": "1", "busy_timeout": "5000",
	} {
		if got, err := s.Ask("PRAGMA " + pragma); err != nil || got != want {
			t.Errorf("%s is %s, %v, want %s", pragma, got, err, want)
		}
	}
}

// A failing disk is told to the log, without what was to be written.
func TestFailureIsLogged(t *testing.T) {
	var log bytes.Buffer
	s := open(t, filepath.Join(t.TempDir(), "ledger.db"), sqlite.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err := s.Spoil(); err == nil {
		t.Fatal("the commit did not fail")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := log.String(); !strings.Contains(got, "writing to the ledger failed") || !strings.Contains(got, "FOREIGN KEY") {
		t.Errorf("log: %s", got)
	}
}
