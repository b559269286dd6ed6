//go:build explain

package postgres_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-x402/caddy-x402/ledger/postgres"
	"github.com/caddy-x402/caddy-x402/test/service"
)

// TestExplain loads a ledger of ten million payments (or LEDGER_SIZES) and prints how each question is answered there. It takes
// some 15 GB and minutes, so it has a build tag of its own:
//
//	go test -tags explain -run TestExplain -timeout 1h -v ./ledger/postgres
func TestExplain(t *testing.T) {
	for _, size := range sizes(t, 10_000_000) {
		p, url := own(t, service.PostgresOptions{NoSync: true, Settings: map[string]string{
			"wal_level": "minimal", "max_wal_senders": "0", "shared_buffers": "2GB", "autovacuum": "off", "checkpoint_timeout": "1h", "max_wal_size": "16GB",
		}})
		config, err := pgx.ParseConfig(url)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		load(t, p.URL(config.Database), size)
		fmt.Printf("%d payments, loaded in %v\n", size, time.Since(began).Round(time.Second))
		s := open(t, url, postgres.Options{})
		conn, err := pgx.Connect(t.Context(), p.URL(config.Database))
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range postgres.Questions(sample(t, s), time.Now()) {
			explain(t, conn, "ANALYZE", q.SQL, q.Args...) // what is read for the first time is not what is asked all day
			fmt.Printf("\n== %s\n%s\n", q.Name, explain(t, conn, "ANALYZE, BUFFERS", q.SQL, q.Args...))
		}
		if err := conn.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}
