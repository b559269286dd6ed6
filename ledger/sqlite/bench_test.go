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

// BenchmarkClaimAmong is a claim in a ledger that has many payments already: it should not cost more there.
func BenchmarkClaimAmong(b *testing.B) {
	s := benchStore(b)
	have := 0
	for _, want := range []int{1_000, 10_000, 100_000} {
		fill(b, s, want-have)
		have = want
		b.Run(fmt.Sprintf("payments=%d", want), func(b *testing.B) {
			for b.Loop() {
				fill(b, s, 64)
			}
			have += 64 * b.N
			b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(64*b.N), "us/claim")
		})
	}
}

// fill claims n payments, by 64 callers.
func fill(b *testing.B, s *sqlite.Store, n int) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for i := range uint64(64) {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				p, err := newPayment(i)
				if err == nil {
					_, err = s.Claim(b.Context(), p, ledger.Change{Hold: time.Minute})
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
