package redis_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/redis"
	"github.com/caddy-x402/caddy-x402/test/service"
)

// load claims and changes payments until it is ended, and keeps what was acknowledged.
type load struct {
	stores []*redis.Store
	stop   chan struct{}
	wg     sync.WaitGroup
	acked  atomic.Int64
	failed atomic.Int64

	mu    sync.Mutex
	known map[string]ledger.Payment // by id, as acknowledged last
	first map[common.Hash]string    // the id that was acknowledged for an authorization
	twice []string
}

// begin starts callers of all the stores. Each claims an authorization until it is told an outcome; that is what a client does that repeats
// its request.
func begin(t *testing.T, callers int, stores ...*redis.Store) *load {
	l := &load{stores: stores, stop: make(chan struct{}), known: map[string]ledger.Payment{}, first: map[common.Hash]string{}}
	for c := range callers {
		l.wg.Go(func() {
			for n := uint64(0); ; n++ {
				select {
				case <-l.stop:
					return
				default:
				}
				l.one(t, stores[c%len(stores)], newPayment(t, byte(c), uint64(c)<<32|n))
			}
		})
	}
	return l
}

func (l *load) one(t *testing.T, s *redis.Store, p ledger.Payment) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	got, err := s.Claim(ctx, p, ledger.Change{Actor: "request", Hold: time.Minute})
	if err != nil {
		l.failed.Add(1)
		return
	}
	l.ack(got)
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(len(p.ID))+p.Nonce.Big().Uint64())
	next, err := s.Update(ctx, got.ID, got.Version, ledger.Change{Event: ledger.EventSettle, Transaction: common.BytesToHash(b[:])})
	if err != nil {
		if errors.Is(err, ledger.ErrConflict) {
			t.Errorf("nobody else changes %s: %v", got.ID, err)
		}
		l.failed.Add(1)
		return
	}
	l.ack(next)
}

func (l *load) ack(p ledger.Payment) {
	l.acked.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known[p.ID] = p
	if had, ok := l.first[p.Nonce]; ok && had != p.ID {
		l.twice = append(l.twice, p.ID)
	}
	l.first[p.Nonce] = p.ID
}

// passes waits until so many more calls were acknowledged.
func (l *load) passes(t *testing.T, more int64) {
	t.Helper()
	want, deadline := l.acked.Load()+more, time.Now().Add(2*time.Minute)
	for l.acked.Load() < want {
		if time.Now().After(deadline) {
			t.Fatalf("%d calls were acknowledged, %d failed; waited for %d", l.acked.Load(), l.failed.Load(), want)
		}
		time.Sleep(time.Millisecond)
	}
}

func (l *load) end() {
	close(l.stop)
	l.wg.Wait()
}

// check finds all that was acknowledged in the store.
func (l *load) check(t *testing.T, s *redis.Store) {
	t.Helper()
	for id, want := range l.known {
		got, err := s.Payment(t.Context(), id)
		if err != nil || got.Version < want.Version || got.Version == want.Version && got != want {
			t.Errorf("%s is %+v (%v), acknowledged was %+v", id, got, err, want)
			continue
		}
		if trail, err := s.Audit(t.Context(), id); err != nil || ledger.VerifyAudit(&got, trail) != nil {
			t.Errorf("the trail of %s: %v, %v", id, err, ledger.VerifyAudit(&got, trail))
		}
		if back, err := s.ByAuthorization(t.Context(), want.AuthorizationID); err != nil || back.ID != id {
			t.Errorf("the authorization of %s leads to %s, %v", id, back.ID, err)
		}
	}
	if len(l.twice) > 0 {
		t.Errorf("claimed twice: %v", l.twice)
	}
	t.Logf("%d calls acknowledged, %d failed, %d payments", l.acked.Load(), l.failed.Load(), len(l.known))
}

// A primary of a Cluster dies in the middle of claims, and comes back with its data: all that was acknowledged is there.
func TestClusterPrimaryDies(t *testing.T) {
	c := cluster(t, 0)
	o := redis.Options{Durable: true}
	l := begin(t, 12, open(t, c.URL(), o), open(t, c.URL(), o))
	for _, r := range c.Primaries {
		l.passes(t, 200)
		if err := r.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := r.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.Whole(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	l.passes(t, 200)
	l.end()
	l.check(t, open(t, c.URL(), o))
}

// A primary of a Cluster dies for good: its replica, which has all that was acknowledged, takes its place.
func TestClusterFailsOver(t *testing.T) {
	c := cluster(t, 1)
	l := begin(t, 12, open(t, c.URL(), redis.Options{}), open(t, c.URL(), redis.Options{}))
	l.passes(t, 300)
	if err := c.Primaries[1].Kill(); err != nil {
		t.Fatal(err)
	}
	l.passes(t, 100)
	if err := c.Whole(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.passes(t, 300)
	l.end()
	l.check(t, open(t, c.URL(), redis.Options{}))
}

// The primary behind Sentinel dies under load: all that was acknowledged is on the replica that is promoted.
func TestSentinelFailsOver(t *testing.T) {
	s := sentinel(t, 2)
	l := begin(t, 12, open(t, s.URL(), redis.Options{}), open(t, s.URL(), redis.Options{}))
	l.passes(t, 300)
	master, err := s.Master(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := master.Kill(); err != nil {
		t.Fatal(err)
	}
	l.passes(t, 300)
	l.end()
	now, err := s.Master(t.Context())
	if err != nil || now == master {
		t.Errorf("nobody was promoted: %v", err)
	}
	l.check(t, open(t, s.URL(), redis.Options{}))
}

// A single server is paused, and killed, under load. Every call returns, and all that was acknowledged is there.
func TestServerDies(t *testing.T) {
	r := single(t, service.RedisOptions{})
	l := begin(t, 12, open(t, r.URL(), redis.Options{Durable: true}), open(t, r.URL(), redis.Options{Durable: true}))
	for range 3 {
		l.passes(t, 200)
		if err := r.Pause(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond) // the callers' next calls are under way
		if err := r.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := r.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	l.passes(t, 200)
	l.end()
	l.check(t, open(t, r.URL(), redis.Options{Durable: true}))
}

// A server that syncs every second loses power: the end of its file is missing. The store opens, what is left is whole, and an
// authorization whose claim was lost can be claimed, once.
func TestPowerLoss(t *testing.T) {
	r := single(t, service.RedisOptions{Fsync: "everysec"})
	s := open(t, r.URL(), redis.WithPatience(redis.Options{}, time.Second))
	l := begin(t, 8, s)
	l.passes(t, 400)
	sizes := fileSizes(t, r.Dir())
	l.passes(t, 400)
	if err := r.Kill(); err != nil {
		t.Fatal(err)
	}
	l.end()
	for path, size := range sizes {
		if err := os.Truncate(path, size-7); err != nil { // in the middle of a command
			t.Fatal(err)
		}
	}
	if err := r.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = open(t, r.URL(), redis.Options{})
	lost, older := 0, 0
	for id, want := range l.known {
		got, err := s.Payment(t.Context(), id)
		if errors.Is(err, ledger.ErrNotFound) {
			lost++
			again := newPayment(t, want.Payer[19], 0)
			again.AuthorizationID = want.AuthorizationID
			if _, err := s.Claim(t.Context(), again, ledger.Change{}); err != nil {
				t.Errorf("an authorization whose claim was lost: %v", err)
			}
			if _, err := s.Claim(t.Context(), want, ledger.Change{}); !errors.Is(err, ledger.ErrExists) {
				t.Errorf("claimed twice: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got.Version < want.Version {
			older++
		}
	}
	if lost == 0 || lost == len(l.known) {
		t.Errorf("%d of %d claims were lost: this test shows nothing", lost, len(l.known))
	}
	report, err := ledger.Verify(t.Context(), s, ledger.VerifyOptions{})
	if err != nil || report.Found != 0 {
		t.Errorf("verification: %+v, %v", report, err)
	}
	t.Logf("%d payments: %d claims lost, %d set back", len(l.known), lost, older)
}

// fileSizes are the sizes of the append-only files that grow.
func fileSizes(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "appendonlydir", "*.incr.aof"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("append-only files %v, %v", paths, err)
	}
	got := map[string]int64{}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		got[path] = info.Size()
	}
	return got
}

// A transaction for payments on several servers, whose author dies after any of its steps, is there for all of them or for none,
// whoever looks first and at what.
func TestRecordIsWhole(t *testing.T) {
	c := cluster(t, 0)
	seen := map[bool]int{}
	for steps := range 60 {
		b := opener(c.URL())(t, nil).(*backend)
		var ids []string
		for payer := range byte(4) {
			p, err := b.Store().Claim(t.Context(), newPayment(t, payer, 1), ledger.Change{})
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, p.ID)
		}
		tx := ledger.Transaction{ChainID: 1, Wallet: common.Address{9}, Nonce: 5, Hash: common.Hash{7}, Raw: []byte{1}, Payments: ids}
		b.CrashDuring(steps, func(s ledger.Store) { _ = s.Record(t.Context(), tx, "request") })
		s := b.Store()
		_, known, err := s.Nonce(t.Context(), 1, tx.Wallet)
		if err != nil {
			t.Fatal(err)
		}
		seen[known]++
		// A writer is not held up by what the dead one left.
		void := slices.Index(ids, ids[steps%4])
		_, err = s.Update(t.Context(), ids[void], 1, ledger.Change{Event: ledger.EventVoid})
		if known != errors.Is(err, ledger.ErrConflict) || !known && err != nil {
			t.Errorf("step %d, recorded %v: voiding %v", steps, known, err)
		}
		for i, id := range ids {
			p, err := s.Payment(t.Context(), id)
			if err != nil || (p.Settlement == ledger.Settling) != known {
				t.Errorf("step %d, recorded %v: payment %d is %s, %v", steps, known, i, p.Settlement, err)
			}
			txs, err := s.Transactions(t.Context(), id)
			if err != nil || (len(txs) == 1) != known {
				t.Errorf("step %d, recorded %v: payment %d has %d transactions, %v", steps, known, i, len(txs), err)
			}
		}
		b.Close()
	}
	if seen[true] == 0 || seen[false] == 0 {
		t.Errorf("recorded and not: %v: this test shows nothing", seen)
	}
	t.Logf("recorded in %d crashes, not in %d", seen[true], seen[false])
}
