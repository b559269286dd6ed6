package sqlite

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFromAddress(t *testing.T) {
	for address, want := range map[string]string{
		"sqlite:/var/lib/x.db": "/var/lib/x.db", "sqlite:x.db": "x.db", "sqlite:../a b.db": "../a b.db", "sqlite:{env.DIR}/x.db": "{env.DIR}/x.db",
		"sqlite:": "", "sqlite://host/x.db": "", "sqlite3:/x.db": "", "/var/lib/x.db": "", "": "",
	} {
		var s Store
		if err := s.FromAddress(address); s.Path != want || (err == nil) != (want != "") {
			t.Errorf("%q: path %q, %v", address, s.Path, err)
		}
	}
}

// Whoever asks whether there is a ledger makes none.
func TestExists(t *testing.T) {
	dir := t.TempDir()
	s, err := provisioned(t, filepath.Join(dir, "deep", "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Exists(t.Context()); err == nil || !strings.Contains(err.Error(), s.Path) {
		t.Errorf("before: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("asking made %v, %v", left, err)
	}
	store, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Exists(t.Context()); err != nil {
		t.Errorf("after: %v", err)
	}
	if s, err = provisioned(t, dir); err != nil {
		t.Fatal(err)
	}
	if err := s.Exists(t.Context()); err == nil {
		t.Error("a directory is taken for a ledger")
	}
	empty := filepath.Join(dir, "empty.db")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err = provisioned(t, empty); err != nil {
		t.Fatal(err)
	}
	if err := s.Exists(t.Context()); err == nil || !strings.Contains(err.Error(), "holds no ledger") {
		t.Errorf("an empty file is taken for a ledger: %v", err)
	}
}
