package sqlite

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func provisioned(t *testing.T, path string) (*Store, error) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	s := &Store{Path: path}
	err := s.Provision(ctx)
	return s, err
}

func key(t *testing.T, path string) string {
	t.Helper()
	s, err := provisioned(t, path)
	if err != nil {
		t.Fatal(err)
	}
	return s.Key()
}

// One file has one key, however it is written: two writers of one ledger would be two sources of truth.
func TestKey(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	t.Setenv("LEDGER_DIR", dir)
	if err := os.Mkdir("real", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", "link"); err != nil {
		t.Fatal(err)
	}
	want := key(t, filepath.Join(dir, "real", "ledger.db"))
	for _, path := range []string{
		"real/ledger.db", "./real//ledger.db", "real/../real/ledger.db", "link/ledger.db", dir + "/link/ledger.db", "{env.LEDGER_DIR}/link/ledger.db",
	} {
		if got := key(t, path); got != want {
			t.Errorf("%s has the key %s, want %s", path, got, want)
		}
	}
	if key(t, "real/other.db") == want {
		t.Error("another file has the same key")
	}
	before := key(t, "link/deep/ledger.db")
	if err := os.Mkdir("real/deep", 0o700); err != nil {
		t.Fatal(err)
	}
	if after := key(t, "link/deep/ledger.db"); before != after {
		t.Errorf("the key changes from %s to %s with the first start", before, after)
	}
	if key(t, "not/there/yet.db") != "sqlite:"+filepath.Join(dir, "not", "there", "yet.db") {
		t.Error("a folder that is not there yet has no key")
	}
}

// A file that is a link is the file that it points to.
func TestKeyOfALink(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file, link := filepath.Join(dir, "ledger.db"), filepath.Join(dir, "link.db")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if key(t, link) != key(t, file) {
		t.Errorf("%s and %s", key(t, link), key(t, file))
	}
}

func TestProvision(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", "/data/home")
	if got := key(t, ""); got != "sqlite:/data/home/caddy/x402/ledger.db" {
		t.Errorf("the default is %s", got)
	}
	if _, err := provisioned(t, "{env.NOT_SET_ANYWHERE}/ledger.db"); err == nil || !strings.Contains(err.Error(), "{env.NOT_SET_ANYWHERE}") {
		t.Errorf("a placeholder that gives nothing: %v", err)
	}
}

// Only Open opens.
func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "ledger.db")
	s, err := provisioned(t, path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(path)); !os.IsNotExist(err) {
		t.Error("provisioning made a folder")
	}
	store, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the ledger's mode is %v, %v", info.Mode(), err)
	}
}

func TestUnmarshalCaddyfile(t *testing.T) {
	for text, want := range map[string]string{
		"sqlite": "", "sqlite /a/b.db": "/a/b.db", "sqlite {\n}": "", `sqlite "/with space.db"`: "/with space.db",
	} {
		var s Store
		if err := s.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err != nil || s.Path != want {
			t.Errorf("%q gives %q, %v", text, s.Path, err)
		}
	}
	for text, want := range map[string]string{
		"sqlite a b": "wrong argument count", "sqlite {\npath a\n}": "takes no block", "sqlite a {\npath b\n}": "takes no block",
	} {
		var s Store
		if err := s.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
