package sqlite_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
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

// BenchmarkClaim is a claim in a ledger that has many payments already (LEDGER_SIZES): by one caller it is the latency of a
// durable commit, by many their share of one.
func BenchmarkClaim(b *testing.B) {
	for _, size := range sizes(b) {
		path := filepath.Join(b.TempDir(), "ledger.db")
		load(b, path, size)
		file, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		s := open(b, path, sqlite.Options{})
		for _, callers := range []int{1, 64} {
			b.Run(fmt.Sprintf("payments=%d/callers=%d", size, callers), func(b *testing.B) {
				claims(b, s, callers)
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "claims/s")
				b.ReportMetric(float64(file.Size())/float64(size), "bytes/payment")
			})
		}
		if err := errors.Join(s.Close(), os.Remove(path)); err != nil {
			b.Error(err)
		}
	}
}

// claims makes b.N claims by payers who are new.
func claims(b *testing.B, s *sqlite.Store, callers int) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				p, err := newPayment(mathrand.Uint64())
				if err == nil {
					_, err = s.Claim(b.Context(), p, ledger.Change{Actor: "request", Hold: time.Minute})
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

// BenchmarkImport is a payment, with its trail of five entries and its transaction, copied from another ledger, in the order
// of the ids.
func BenchmarkImport(b *testing.B) {
	from, to := benchStore(b), benchStore(b)
	for range 500 {
		if err := life(b.Context(), from, 1); err != nil {
			b.Fatal(err)
		}
	}
	records, err := from.Records(b.Context(), "", 500)
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for n := 0; n < b.N; n += len(records) {
		for i := range records {
			if err := anew(&records[i], uint64(n+i)); err != nil {
				b.Fatal(err)
			}
		}
		if err := to.Import(b.Context(), ledger.Part{Records: records}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "payments/s")
}

// anew makes a record the n-th payment's, of some time in the last month. Its hashes are then wrong, which nobody looks
// at here.
func anew(r *ledger.Record, n uint64) (err error) {
	p := &r.Payment
	if p.ID, err = ledger.NewID(bytes.NewReader(binary.BigEndian.AppendUint64(make([]byte, 8), n)), p.Payer); err != nil {
		return err
	}
	if _, err := rand.Read(p.Nonce[:]); err != nil {
		return err
	}
	past := -time.Duration(mathrand.Int64N(int64(month)))
	p.CreatedAt, p.UpdatedAt = p.CreatedAt.Add(past), p.UpdatedAt.Add(past)
	for i := range r.Trail {
		r.Trail[i].Payment, r.Trail[i].At = p.ID, r.Trail[i].At.Add(past)
	}
	for i := range r.Transactions {
		r.Transactions[i].Hash, r.Transactions[i].Payments = p.Nonce, []string{p.ID}
	}
	return nil
}
