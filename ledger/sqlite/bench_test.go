package sqlite_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
)

// BenchmarkPayment is the life of a paid request in the ledger: claim, record, settle with deliver, delivered: four
// commits. An operation is one payment; the figure is over all callers.
func BenchmarkPayment(b *testing.B) {
	for _, callers := range []int{1, 8, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s := benchStore(b)
			var n atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for range callers {
				wg.Go(func() {
					for {
						i := n.Add(1)
						if i > int64(b.N) {
							return
						}
						if err := life(b.Context(), s, uint64(i)); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "payments/s")
		})
	}
}

// BenchmarkCommit is one claim by one caller: the latency of a durable commit.
func BenchmarkCommit(b *testing.B) {
	s := benchStore(b)
	for i := range b.N {
		p, err := newPayment(uint64(i))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Claim(b.Context(), p, ledger.Change{Hold: time.Minute}); err != nil {
			b.Fatal(err)
		}
	}
}

func benchStore(b *testing.B) *sqlite.Store {
	b.Helper()
	return open(b, filepath.Join(b.TempDir(), "ledger.db"), sqlite.Options{})
}

// life is a payment's.
func life(ctx context.Context, s ledger.Store, wallet uint64) error {
	p, err := newPayment(wallet)
	if err != nil {
		return err
	}
	p, err = s.Claim(ctx, p, ledger.Change{Actor: "request", Hold: time.Minute})
	if err != nil {
		return err
	}
	if err := s.Record(ctx, newTransaction(p), "request"); err != nil {
		return err
	}
	for _, changes := range serve(p.Version+1, p.Hold.Fence) {
		if _, err = s.Update(ctx, p.ID, changes.version, changes.list...); err != nil {
			return err
		}
	}
	return nil
}
