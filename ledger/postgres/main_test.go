package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/ledger/postgres"
	"github.com/caddy-x402/caddy-x402/test/service"
)

// server is the PostgreSQL of all tests but those that kill one of their own.
var server *service.Postgres

// template is a database with an empty ledger, of which the others are copies: the tables are made once.
var template string

func TestMain(m *testing.M) {
	if err := begin(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
		os.Exit(code)
	}))
}

func begin(ctx context.Context) (err error) {
	if server, err = service.StartPostgres(ctx, service.PostgresOptions{NoSync: true}); err != nil {
		return err
	}
	template, err = server.CreateDatabase(ctx, "")
	if err == nil {
		var s *postgres.Store
		if s, err = postgres.Open(ctx, server.URL(template), postgres.Options{}); err == nil {
			err = s.Close()
		}
	}
	if err != nil {
		return errors.Join(err, server.Stop())
	}
	return nil
}

// one at a time: a template can't be copied by two at once.
var creating sync.Mutex

// database makes a database with an empty ledger, and gives its name.
func database(t testing.TB) string {
	t.Helper()
	creating.Lock()
	defer creating.Unlock()
	name, err := server.CreateDatabase(context.Background(), template)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.DropDatabase(context.Background(), name); err != nil {
			t.Error(err)
		}
	})
	return name
}

// open opens a ledger until the test ends.
func open(t testing.TB, url string, o postgres.Options) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(context.Background(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
