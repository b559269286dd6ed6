// Package postgres is the Caddy module x402.stores.postgres: the ledger in a PostgreSQL database, which several instances
// may share.
package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-x402/caddy-x402/caddymodule"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/postgres"
)

func init() {
	caddy.RegisterModule(new(Store))
}

// Store keeps the ledger in a PostgreSQL database. Any number of instances may share it; nothing else is needed beside it.
//
//	store postgres {env.LEDGER_URL} {
//		migrate_url {env.LEDGER_OWNER_URL}
//		max_conns   20
//	}
type Store struct {
	// How to connect, such as `postgres://user:password@host:5432/database?sslmode=verify-full`, or in libpq's form, `host=… user=…`.
	// All of libpq's settings count: TLS, several hosts, `search_path`. Write placeholders for what is secret, or for all of it: `{env.LEDGER_URL}`,
	// `{file./run/secrets/ledger_url}`. A literal password is accepted for a database on this machine only. The database, or the
	// schema, should be the ledger's alone.
	URL string `json:"url"`

	// How the owner of the tables connects, if that is another role. It makes the tables and gives the role of `url` just the rights
	// that it needs: that one can then neither change nor remove what is in the audit trail. Default: `url`, whose role owns the tables;
	// triggers then refuse the same.
	MigrateURL string `json:"migrate_url,omitempty"`

	// How many connections each instance may open. Default: 20, or `pool_max_conns` of the URL.
	MaxConns int `json:"max_conns,omitempty"`

	log     *slog.Logger
	url     string
	migrate string
	key     string
}

// CaddyModule implements caddy.Module.
func (*Store) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "x402.stores.postgres", New: func() caddy.Module { return new(Store) }}
}

// Provision implements caddy.Provisioner. It connects to nothing.
func (s *Store) Provision(ctx caddy.Context) error {
	s.log = ctx.Slogger()
	if s.MaxConns < 0 {
		return fmt.Errorf("max_conns is %d; it must be positive", s.MaxConns)
	}
	var err error
	var place postgres.Place
	if s.url, place, err = connection("url", s.URL); err != nil {
		return err
	}
	s.key = "postgres:" + place.String()
	if s.MigrateURL == "" {
		return nil
	}
	if s.migrate, place, err = connection("migrate_url", s.MigrateURL); err != nil {
		return err
	}
	if owner := "postgres:" + place.String(); owner != s.key {
		return fmt.Errorf("migrate_url leads to %s, url to %s: both must be the same database and schema", owner, s.key)
	}
	return nil
}

// connection resolves the placeholders of a connection string. Errors never show a value.
func connection(what, value string) (url string, place postgres.Place, err error) {
	if value == "" {
		return "", place, fmt.Errorf("%s is missing; write `store postgres postgres://host/database`", what)
	}
	url, written, err := caddymodule.ServerURL(what, value, "\x00")
	if err != nil {
		return "", place, err
	}
	if place, err = postgres.Locate(url); err != nil {
		return "", place, fmt.Errorf("%s: %w", what, err)
	}
	if !place.Loopback && postgres.HasPassword(written) {
		return "", place, fmt.Errorf("%s: %w", what, caddymodule.ErrLiteralPassword)
	}
	return url, place, nil
}

// Key implements caddymodule.StoreModule: where the ledger is, without who asks for it.
func (s *Store) Key() string { return s.key }

// Open implements caddymodule.StoreModule.
func (s *Store) Open(ctx context.Context) (ledger.Store, error) {
	return postgres.Open(ctx, s.url, postgres.Options{MigrateURL: s.migrate, MaxConns: s.MaxConns, Logger: s.log})
}

// Exists implements caddymodule.ExistingStore.
func (s *Store) Exists(ctx context.Context) error {
	switch yes, err := postgres.Exists(ctx, s.url); {
	case err != nil:
		return err
	case !yes:
		return caddymodule.NoLedgerError("there is no ledger in " + strings.TrimPrefix(s.key, "postgres:") + ", as this role sees it: look at the database's name and at search_path")
	}
	return nil
}

// UnmarshalCaddyfile reads
//
//	postgres <url> {
//		migrate_url <url>
//		max_conns   <number>
//	}
func (s *Store) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the module's name
	if !d.AllArgs(&s.URL) {
		return d.Errf("the postgres store takes one URL; write `store postgres {env.LEDGER_URL}`")
	}
	seen := map[string]bool{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		if seen[name] {
			return d.Errf("%s is given twice", name)
		}
		seen[name] = true
		var value string
		if !d.AllArgs(&value) {
			return d.ArgErr()
		}
		switch name {
		case "migrate_url":
			s.MigrateURL = value
		case "max_conns":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 {
				return d.Errf("max_conns must be a positive number, not %q", value)
			}
			s.MaxConns = n
		default:
			return d.Errf("the postgres store has no setting %q; it has migrate_url and max_conns", name)
		}
	}
	return nil
}

// Interface guards.
var (
	_ caddy.Provisioner       = (*Store)(nil)
	_ caddyfile.Unmarshaler   = (*Store)(nil)
	_ caddymodule.StoreModule = (*Store)(nil)

	_ caddymodule.ExistingStore = (*Store)(nil)
)
