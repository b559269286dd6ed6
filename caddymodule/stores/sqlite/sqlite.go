// Package sqlite is the Caddy module x402.stores.sqlite: the ledger in a file of this machine.
package sqlite

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-x402/caddy-x402/caddymodule"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
)

func init() {
	caddy.RegisterModule(new(Store))
}

// Store keeps the ledger in a SQLite file: durable, and fast enough for one machine. It is the default.
type Store struct {
	// The file. Default: `x402/ledger.db` in Caddy's data directory.
	Path string `json:"path,omitempty"`

	log *slog.Logger
}

// CaddyModule implements caddy.Module.
func (*Store) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "x402.stores.sqlite", New: func() caddy.Module { return new(Store) }}
}

// Provision implements caddy.Provisioner. It opens nothing.
func (s *Store) Provision(ctx caddy.Context) error {
	s.log = ctx.Slogger()
	path, err := caddy.NewReplacer().ReplaceOrErr(s.Path, true, true)
	if err != nil {
		return fmt.Errorf("path: %w", err)
	}
	if path == "" {
		path = filepath.Join(caddy.AppDataDir(), "x402", "ledger.db")
	}
	if path, err = filepath.Abs(path); err != nil {
		return fmt.Errorf("path: %w", err)
	}
	s.Path = followed(path)
	return nil
}

// followed is path without symbolic links: one file has one key, also while parts of its path are not there yet.
func followed(path string) string {
	rest := ""
	for at := path; ; at = filepath.Dir(at) {
		if found, err := filepath.EvalSymlinks(at); err == nil {
			return filepath.Join(found, rest)
		}
		if at == filepath.Dir(at) {
			return path
		}
		rest = filepath.Join(filepath.Base(at), rest)
	}
}

// Key implements caddymodule.StoreModule.
func (s *Store) Key() string { return "sqlite:" + s.Path }

// Open implements caddymodule.StoreModule.
func (s *Store) Open(ctx context.Context) (ledger.Store, error) {
	return sqlite.Open(ctx, s.Path, sqlite.Options{Logger: s.log})
}

// UnmarshalCaddyfile reads
//
//	sqlite [<path>]
func (s *Store) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the module's name
	if d.NextArg() {
		s.Path = d.Val()
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	if d.NextBlock(d.Nesting()) {
		return d.Errf("the sqlite store takes no block; write `store sqlite /path/to/ledger.db`")
	}
	return nil
}

// Interface guards.
var (
	_ caddy.Provisioner       = (*Store)(nil)
	_ caddyfile.Unmarshaler   = (*Store)(nil)
	_ caddymodule.StoreModule = (*Store)(nil)
)
