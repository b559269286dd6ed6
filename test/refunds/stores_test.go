package refunds

import (
	"context"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/postgres"
	"github.com/caddy-x402/caddy-x402/ledger/redis"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/test/service"
)

// store is where the instances of a run have their ledger.
type store struct {
	// config is what stands after `store`.
	config string
	open   func(context.Context) (ledger.Store, error)
}

// stores make an empty one of each kind.
var stores = map[string]func(t *testing.T, dir string) store{
	"sqlite":   newSQLite,
	"postgres": newPostgres,
	"redis":    newRedis,
}

func newSQLite(_ *testing.T, dir string) store {
	path := filepath.Join(dir, "ledger.db")
	return store{"sqlite " + path, func(ctx context.Context) (ledger.Store, error) { return sqlite.Open(ctx, path, sqlite.Options{}) }}
}

func newPostgres(t *testing.T, _ string) store {
	server, err := service.StartPostgres(t.Context(), service.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	name, err := server.CreateDatabase(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	url := server.URL(name)
	return store{"postgres " + strconv.Quote(url), func(ctx context.Context) (ledger.Store, error) { return postgres.Open(ctx, url, postgres.Options{}) }}
}

func newRedis(t *testing.T, _ string) store {
	server, err := service.StartRedis(t.Context(), service.RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	url := server.URL()
	return store{"redis " + url, func(ctx context.Context) (ledger.Store, error) {
		return redis.Open(ctx, url, redis.Options{Durable: true})
	}}
}
