package sqlite

import (
	"bytes"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// Whoever asks whether a file is a ledger finds out, and changes nothing: neither an empty file nor another program's database
// becomes one.
func TestExists(t *testing.T) {
	dir := t.TempDir()
	ledgerFile, empty, other, text := filepath.Join(dir, "ledger.db"), filepath.Join(dir, "empty.db"), filepath.Join(dir, "other.db"), filepath.Join(dir, "text")
	s, err := Open(t.Context(), ledgerFile, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if yes, err := Exists(t.Context(), ledgerFile); !yes || err != nil {
		t.Errorf("one that is open: %t, %v", yes, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE payments (a)"); err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string]string{empty: "", text: "this is no database, but it is a text that is as long as the head of one would be, and even longer than that"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{ledgerFile: true, empty: false, other: false, text: false} {
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		yes, err := Exists(t.Context(), path)
		if yes != want || (err != nil) != (path == text) || err != nil && !errors.Is(err, ErrSchema) {
			t.Errorf("%s: %t, %v", path, yes, err)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
			t.Errorf("%s was changed (%v)", path, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 4 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
