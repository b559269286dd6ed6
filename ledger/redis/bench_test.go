package redis_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/redis"
	"github.com/caddy-x402/caddy-x402/test/service"
)

// BenchmarkClaim is a claim in a ledger that has many payments already: claimed ones, of many payers. LEDGER_SIZES are the
// numbers of them, ascending. Each size is measured with one caller, and with 64 at once.
func BenchmarkClaim(b *testing.B) {
	r := single(b, service.RedisOptions{})
	s := open(b, r.URL(), redis.Options{Durable: true})
	empty := used(b, r)
	var have uint64
	for _, size := range sizes(b) {
		fill(b, r, s, have, size)
		have = size
		perPayment := float64(used(b, r)-empty) / float64(size)
		for _, callers := range []int{1, 64} {
			b.Run(fmt.Sprintf("payments=%d/callers=%d", size, callers), func(b *testing.B) {
				claims(b, s, callers)
				b.ReportMetric(perPayment, "bytes/payment")
			})
		}
	}
}

func sizes(b *testing.B) []uint64 {
	b.Helper()
	list := os.Getenv("LEDGER_SIZES")
	if list == "" {
		list = "1000,100000"
	}
	var got []uint64
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			b.Fatalf("LEDGER_SIZES: %v", err)
		}
		got = append(got, n)
	}
	return got
}

// used is the server's memory in bytes.
func used(b *testing.B, r *service.Redis) int64 {
	b.Helper()
	info, err := r.Do(b.Context(), "INFO", "memory")
	if err != nil {
		b.Fatal(err)
	}
	text, _ := info.(string)
	_, text, _ = strings.Cut(text, "used_memory:")
	text, _, _ = strings.Cut(text, "\r\n")
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// fill brings the ledger from so many payments to so many. Meanwhile nothing is synced; and the file that was appended to is
// not rewritten, which would need the memory twice.
func fill(b *testing.B, r *service.Redis, s *redis.Store, from, to uint64) {
	b.Helper()
	set := func(name, value string) {
		if _, err := r.Do(b.Context(), "CONFIG", "SET", name, value); err != nil {
			b.Fatal(err)
		}
	}
	set("auto-aof-rewrite-percentage", "0")
	set("appendfsync", "no")
	const batch = 1000
	var next atomic.Uint64
	next.Store(from)
	now := s.Now()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				end := next.Add(batch)
				if end-batch >= to {
					return
				}
				var offers []ledger.Payment
				for n := end - batch; n < min(end, to); n++ {
					offers = append(offers, offer(b, n, n))
				}
				// Spread over the last month.
				at := now.Add(-time.Duration(to-min(end, to)) * 30 * 24 * time.Hour / time.Duration(to))
				if err := s.Load(b.Context(), at, offers); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	set("appendfsync", "always")
}

func offer(b *testing.B, payer, n uint64) ledger.Payment {
	p := newPayment(b, 0, n)
	binary.BigEndian.PutUint64(p.Payer[:], payer/4+1) // a payer buys four times
	id, err := ledger.NewID(strings.NewReader(fmt.Sprintf("%016x", n*0x9e3779b97f4a7c15)), p.Payer)
	if err != nil {
		b.Error(err)
	}
	p.ID = id
	p.Nonce = common.BigToHash(common.BytesToHash([]byte(id)).Big())
	return p
}

var claimed atomic.Uint64

func claims(b *testing.B, s *redis.Store, callers int) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				n := claimed.Add(1) | 1<<60
				if _, err := s.Claim(b.Context(), offer(b, n*0x9e3779b97f4a7c15, n), ledger.Change{Actor: "request", Hold: time.Minute}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "claims/s")
}
