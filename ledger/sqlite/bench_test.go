package sqlite_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/x402"
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
		if _, err := s.Claim(b.Context(), benchPayment(b, uint64(i)), ledger.Change{Hold: time.Minute}); err != nil {
			b.Fatal(err)
		}
	}
}

func benchStore(b *testing.B) *sqlite.Store {
	b.Helper()
	s, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "ledger.db"), sqlite.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

func benchPayment(b *testing.B, i uint64) ledger.Payment {
	b.Helper()
	id, err := ledger.NewID(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	var nonce common.Hash
	if _, err := rand.Read(nonce[:]); err != nil {
		b.Fatal(err)
	}
	var payer common.Address
	binary.BigEndian.PutUint64(payer[:], i+1)
	return ledger.Payment{
		ID:              id,
		AuthorizationID: x402.AuthorizationID{ChainID: 8453, Asset: common.Address{1}, Payer: payer, Nonce: nonce},
		PayTo:           common.Address{2},
		Amount:          *uint256.NewInt(10_000),
		ValidBefore:     1_900_000_000,
		HeaderHash:      nonce,
		Binding:         ledger.Binding{Route: "weather", Method: "GET", Host: "api.example.com", URI: "/weather/today"},
		Flow:            ledger.FlowUpfront,
		ClaimBlock:      1,
	}
}

func life(ctx context.Context, s ledger.Store, i uint64) error {
	b := &testing.B{}
	p, err := s.Claim(ctx, benchPayment(b, i), ledger.Change{Actor: "request", Hold: time.Minute})
	if err != nil {
		return err
	}
	t := ledger.Transaction{ChainID: 8453, Hash: p.Nonce, Raw: make([]byte, 400), Payments: []string{p.ID}}
	binary.BigEndian.PutUint64(t.Wallet[:], i+1)
	if err := s.Record(ctx, t, "request"); err != nil {
		return err
	}
	p, err = s.Update(ctx, p.ID, p.Version+1,
		ledger.Change{Event: ledger.EventSettle, Actor: "request", Transaction: t.Hash, Block: 9, BlockHash: t.Hash},
		ledger.Change{Event: ledger.EventDeliver, Actor: "request", Fence: p.Hold.Fence, Hold: time.Minute})
	if err != nil {
		return err
	}
	_, err = s.Update(ctx, p.ID, p.Version, ledger.Change{Event: ledger.EventDelivered, Actor: "request", Fence: p.Hold.Fence})
	return err
}
