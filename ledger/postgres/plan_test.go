package postgres_test

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/postgres"
)

// sample is a payment of the middle of a loaded ledger.
func sample(t testing.TB, s *postgres.Store) ledger.Payment {
	t.Helper()
	var id string
	err := s.Pool().QueryRow(context.Background(), "SELECT id FROM payments WHERE id > 'pay_8' ORDER BY id LIMIT 1").Scan(&id)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Payment(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// explain gives the plan of a statement, which is undone where it was run.
func explain(t testing.TB, conn *pgx.Conn, options, statement string, args ...any) string {
	t.Helper()
	tx, err := conn.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	rows, err := tx.Query(context.Background(), "EXPLAIN ("+options+") "+statement, args...)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return strings.Join(lines, "\n")
}

var sorts = regexp.MustCompile(`(?m)^\s*(-> +)?(Incremental )?Sort\b( *\(|$)`)

// Every question of a request, a worker or an operator is answered by indexes, so that its cost does not grow with the
// ledger. In a small one the database would rather read everything, which it is kept from here.
func TestPlans(t *testing.T) {
	name := database(t)
	load(t, server.URL(name), 3000)
	s := open(t, appURL(name), postgres.Options{})
	conn, err := pgx.Connect(t.Context(), server.URL(name))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off"); err != nil {
		t.Fatal(err)
	}
	for _, q := range postgres.Questions(sample(t, s), time.Now()) {
		plan := explain(t, conn, "COSTS OFF", q.SQL, q.Args...)
		if strings.Contains(plan, "Seq Scan") {
			t.Errorf("%s reads a whole table:\n%s", q.Name, plan)
		}
		if q.Ordered && sorts.MatchString(plan) {
			t.Errorf("%s sorts:\n%s", q.Name, plan)
		}
		for _, index := range q.Indexes {
			if !strings.Contains(plan, index) {
				t.Errorf("%s does not use %s:\n%s", q.Name, index, plan)
			}
		}
		if !q.Whole && strings.Contains(plan, " using ") && !strings.Contains(plan, "Index Cond") && !strings.Contains(plan, "Limit") {
			t.Errorf("%s reads a whole index:\n%s", q.Name, plan)
		}
	}
}

// What was loaded in bulk is a ledger, as far as it is asked here.
func TestLoad(t *testing.T) {
	name := database(t)
	load(t, server.URL(name), 5000)
	s := open(t, appURL(name), postgres.Options{})
	counts, err := s.Counts(t.Context())
	if err != nil || counts[ledger.StatePaid] != 5 || counts[ledger.StateRefundPending] != 1 || counts[ledger.StateDelivered] != 4994 {
		t.Errorf("%v, %v", counts, err)
	}
	due, err := s.Lease(t.Context(), 10, time.Minute)
	if err != nil || len(due) != 5 {
		t.Errorf("%d are due, %v", len(due), err)
	}
	claim(t, s, 1)
	n := one[int](t, server.URL(name), "SELECT count(*) FROM pg_index WHERE NOT indisvalid OR NOT indisready")
	if n > 0 {
		t.Errorf("%d indexes are missing", n)
	}
}
