// Package stores has each store of the ledger for tests whose instances are processes, or of which every store must pass.
package stores

import (
	"context"
	"path/filepath"
	"testing"

	_ "github.com/caddy-x402/caddy-x402/caddymodule/stores/postgres" // what a Caddyfile may name
	_ "github.com/caddy-x402/caddy-x402/caddymodule/stores/redis"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/postgres"
	"github.com/caddy-x402/caddy-x402/ledger/redis"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/test/service"
)

// Store is an empty store that ends with the test.
type Store struct {
	// Caddyfile is what stands after `store`.
	Caddyfile string
	// Open opens its ledger beside the Caddys that use it.
	Open func(context.Context) (ledger.Store, error)
}

// All makes each of them, by name. What is a file lies in dir.
var All = map[string]func(t testing.TB, dir string) Store{
	"sqlite":   newSQLite,
	"postgres": newPostgres,
	"redis":    newRedis,
}

func newSQLite(_ testing.TB, dir string) Store {
	path := filepath.Join(dir, "ledger.db")
	return Store{"sqlite " + path, func(ctx context.Context) (ledger.Store, error) {
		return sqlite.Open(ctx, path, sqlite.Options{})
	}}
}

func newPostgres(t testing.TB, _ string) Store {
	t.Helper()
	server, err := service.StartPostgres(t.Context(), service.PostgresOptions{NoSync: true}) // nobody kills it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	name, err := server.CreateDatabase(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	url := server.URL(name)
	return Store{"postgres " + url, func(ctx context.Context) (ledger.Store, error) {
		return postgres.Open(ctx, url, postgres.Options{})
	}}
}

func newRedis(t testing.TB, _ string) Store {
	t.Helper()
	server, err := service.StartRedis(t.Context(), service.RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	url := server.URL()
	return Store{"redis " + url, func(ctx context.Context) (ledger.Store, error) {
		return redis.Open(ctx, url, redis.Options{Durable: true})
	}}
}
