package postgres_test

import (
	"context"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/jackc/pgx/v5"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/postgres"
	"github.com/caddy-x402/caddy-x402/test/service"
)

// synced gives a ledger of n payments on a server that syncs its disk.
func synced(b *testing.B, n int) *postgres.Store {
	b.Helper()
	p, err := service.StartPostgres(b.Context(), service.PostgresOptions{Settings: map[string]string{"shared_buffers": "1GB", "max_wal_size": "8GB"}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := p.Stop(); err != nil {
			b.Error(err)
		}
	})
	name, err := prepare(context.Background(), p)
	if err != nil {
		b.Fatal(err)
	}
	if n > 0 {
		load(b, p.URL(name), n)
	}
	return open(b, p.URLAs(appRole, appPassword, name), postgres.Options{})
}

// together shares b.N calls out to callers.
func together(b *testing.B, callers int, call func(ctx context.Context) error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := call(b.Context()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
}

// BenchmarkClaim is a claim in a ledger that has many payments already (LEDGER_SIZES): by one caller it is the latency of a
// durable commit, by many their share of one.
func BenchmarkClaim(b *testing.B) {
	for _, size := range sizes(b, 1_000, 100_000) {
		b.Run(fmt.Sprintf("payments=%d", size), func(b *testing.B) {
			s := synced(b, size)
			for _, callers := range []int{1, 64} {
				b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
					together(b, callers, func(ctx context.Context) error {
						p, err := newPayment(mathrand.Uint64())
						if err == nil {
							_, err = s.Claim(ctx, p, ledger.Change{Actor: "request", Hold: time.Minute})
						}
						return err
					})
					b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "claims/s")
				})
			}
		})
	}
}

// BenchmarkPayment is the life of a paid request in the ledger: claim, record, settle with deliver, delivered: four
// commits. An operation is one payment; the figure is over all callers.
func BenchmarkPayment(b *testing.B) {
	s := synced(b, 0)
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			together(b, callers, func(ctx context.Context) error { return life(ctx, s) })
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "payments/s")
		})
	}
}

// life is a payment's.
func life(ctx context.Context, s ledger.Store) error {
	p, err := newPayment(mathrand.Uint64())
	if err != nil {
		return err
	}
	if p, err = s.Claim(ctx, p, ledger.Change{Actor: "request", Hold: time.Minute}); err != nil {
		return err
	}
	if err := s.Record(ctx, transaction(p), "request"); err != nil {
		return err
	}
	fence := p.Hold.Fence
	if p, err = s.Update(ctx, p.ID, p.Version+1,
		ledger.Change{Event: ledger.EventSettle, Actor: "request", Transaction: common.Hash{1}, Block: 9, BlockHash: common.Hash{2}},
		ledger.Change{Event: ledger.EventDeliver, Actor: "request", Fence: fence, Hold: time.Minute}); err != nil {
		return err
	}
	_, err = s.Update(ctx, p.ID, p.Version, ledger.Change{Event: ledger.EventDelivered, Actor: "request", Fence: fence})
	return err
}

// BenchmarkImport is a payment, with its trail and its transaction, copied from another ledger.
func BenchmarkImport(b *testing.B) {
	from, to := synced(b, 0), synced(b, 0)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 32 {
				if err := life(b.Context(), from); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	records, err := from.Records(b.Context(), "", 500)
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for n := 0; n < b.N; n += len(records) {
		for i := range records {
			if err := anew(&records[i]); err != nil {
				b.Fatal(err)
			}
		}
		if err := to.Import(b.Context(), ledger.Part{Records: records}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "payments/s")
}

// anew makes a record another payment's. Its hashes are then wrong, which nobody looks at here.
func anew(r *ledger.Record) error {
	p, err := newPayment(mathrand.Uint64())
	if err != nil {
		return err
	}
	r.Payment.ID, r.Payment.AuthorizationID = p.ID, p.AuthorizationID
	for i := range r.Trail {
		r.Trail[i].Payment = p.ID
	}
	for i := range r.Transactions {
		r.Transactions[i].Hash, r.Transactions[i].Payments = p.Nonce, []string{p.ID}
	}
	return nil
}

// BenchmarkStatements tells how long the database alone takes for a claim, without commits: an upper bound for what more
// connections can bring.
func BenchmarkStatements(b *testing.B) {
	s := synced(b, 0)
	p, err := newPayment(1)
	if err != nil {
		b.Fatal(err)
	}
	conn, err := s.Pool().Acquire(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Release()
	q := postgres.Questions(p, time.Now())[0]
	for b.Loop() {
		err := pgx.BeginFunc(b.Context(), conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(b.Context(), q.SQL, q.Args...); err != nil {
				return err
			}
			return errRollback
		})
		if err != errRollback { //nolint:errorlint // it comes back as it is
			b.Fatal(err)
		}
	}
}

var errRollback = fmt.Errorf("undo it")
