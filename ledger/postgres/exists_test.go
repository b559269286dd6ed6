package postgres_test

import (
	"testing"

	"github.com/caddy-x402/caddy-x402/ledger/postgres"
)

// Whoever asks whether a database holds a ledger finds out, and makes no tables.
func TestExists(t *testing.T) {
	name := emptyDatabase(t)
	for _, url := range []string{ownerURL(name), appURL(name)} {
		if yes, err := postgres.Exists(t.Context(), url); yes || err != nil {
			t.Errorf("an empty one: %t, %v", yes, err)
		}
	}
	if n := one[int](t, ownerURL(name), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"); n != 0 {
		t.Errorf("asking made %d tables", n)
	}
	s, err := postgres.Open(t.Context(), appURL(name), postgres.Options{MigrateURL: ownerURL(name), MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{ownerURL(name), appURL(name)} {
		if yes, err := postgres.Exists(t.Context(), url); !yes || err != nil {
			t.Errorf("a ledger: %t, %v", yes, err)
		}
	}
}
