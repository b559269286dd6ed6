package paywall

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
)

// drawing counts the calls of a ledger, each of which takes a moment, and fails where it is told to.
type drawing struct {
	ledger.Allowances
	draws, returns atomic.Int64
	fails          atomic.Bool
}

var errBroken = errors.New("broken")

func (d *drawing) Draw(ctx context.Context, w ledger.Draw) (uint256.Int, ledger.Allowance, error) {
	d.draws.Add(1)
	time.Sleep(2 * time.Millisecond)
	if d.fails.Load() {
		return uint256.Int{}, ledger.Allowance{}, errBroken
	}
	return d.Allowances.Draw(ctx, w)
}

func (d *drawing) Return(ctx context.Context, key common.Hash, created time.Time, n uint256.Int) error {
	d.returns.Add(1)
	time.Sleep(time.Millisecond)
	return d.Allowances.Return(ctx, key, created, n)
}

// instances are leasers of several processes on one ledger.
type leasers struct {
	t     testing.TB
	store *drawing
	all   []*leaser
	stops []func()
	dead  []*leaser
}

func newLeasers(t testing.TB, n int) *leasers {
	s := &leasers{t: t, store: &drawing{Allowances: storetest.NewMemory(time.Now, false)}}
	for range n {
		s.start()
	}
	return s
}

func (s *leasers) start() {
	l := newLeaser(s.store, func() *slog.Logger { return slog.New(slog.DiscardHandler) })
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { l.run(ctx) })
	s.all = append(s.all, l)
	s.stops = append(s.stops, func() { cancel(); wg.Wait() })
}

// kill ends a process without giving anything back, and starts another.
func (s *leasers) kill(i int) {
	s.stops[i]()
	s.all[i].fills.Wait()
	s.dead = append(s.dead, s.all[i])
	s.remove(i)
	s.start()
}

// restart ends a process as it should be, and starts another.
func (s *leasers) restart(i int) {
	s.stops[i]()
	s.all[i].close()
	s.remove(i)
	s.start()
}

func (s *leasers) remove(i int) {
	s.all = append(s.all[:i], s.all[i+1:]...)
	s.stops = append(s.stops[:i], s.stops[i+1:]...)
}

func (s *leasers) close() {
	for i, l := range s.all {
		s.stops[i]()
		l.close()
	}
	s.all, s.stops = nil, nil
}

// buried is what those who were killed held.
func (s *leasers) buried() (n uint64) {
	for _, l := range s.dead {
		for _, e := range l.held {
			n += e.have.Uint64()
		}
	}
	return n
}

func (s *leasers) used(d *due) uint64 {
	a, err := s.store.Allowance(s.t.Context(), d.key)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		s.t.Fatal(err)
	}
	return a.Used.Uint64()
}

func pass(limit, units uint64) *due {
	return &due{
		key: common.Hash{1}, units: *uint256.NewInt(units), limit: *uint256.NewInt(limit), until: time.Now().Add(24 * time.Hour),
		policy: kindRequests, window: 24 * time.Hour,
	}
}

// All who share a pass get just as much of it as there is, on however many instances, and the ledger is asked now and then.
func TestLeasesGiveOutAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLeasers(t, 3)
		const limit, clients = 20_000, 64
		d := pass(limit, 1)
		var served, refused atomic.Int64
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				for {
					_, err := s.all[i%3].take(t.Context(), d, leasePatience)
					if errors.Is(err, errUsedUp) {
						refused.Add(1)
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					served.Add(1)
					time.Sleep(time.Millisecond)
				}
			})
		}
		wg.Wait()
		if served.Load() != limit || refused.Load() != clients || s.used(d) != limit {
			t.Errorf("%d served and %d refused, %d used of %d", served.Load(), refused.Load(), s.used(d), limit)
		}
		if n := s.store.draws.Load(); n > limit/20 {
			t.Errorf("the ledger was asked %d times for %d requests", n, limit)
		}
		s.close()
	})
}

// What one instance holds and does not use, another gets while its request waits.
func TestLeaseOfAnIdleInstanceComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLeasers(t, 2)
		defer s.close()
		d := pass(100, 1)
		for range 40 {
			if _, err := s.all[0].take(t.Context(), d, leasePatience); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 60 {
			if _, err := s.all[1].take(t.Context(), d, leasePatience); err != nil {
				t.Fatalf("request %d: %v", 40+i, err)
			}
		}
		begun := time.Now()
		for i := range 20 {
			if _, err := s.all[i%2].take(t.Context(), d, leasePatience); !errors.Is(err, errUsedUp) {
				t.Fatalf("request %d: %v", 100+i, err)
			}
		}
		if waited := time.Since(begun); waited > 2*leasePatience+time.Second {
			t.Errorf("20 refusals took %v", waited)
		}
		asked := s.store.draws.Load()
		for range 100 {
			_, _ = s.all[0].take(t.Context(), d, leasePatience)
		}
		if n := s.store.draws.Load() - asked; n > 1 {
			t.Errorf("the ledger was asked %d times for nothing", n)
		}
		time.Sleep(time.Minute)
		for _, l := range s.all {
			l.mu.Lock()
			if n := len(l.held); n != 0 {
				t.Errorf("%d leases are remembered", n)
			}
			l.mu.Unlock()
		}
	})
}

// Requests of different prices draw down one credit: what is too little for one does for another.
func TestLeasesOfCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLeasers(t, 2)
		defer s.close()
		dear, cheap := pass(1000, 300), pass(1000, 1)
		spent := uint64(0)
		for i := range 3 {
			if _, err := s.all[i%2].take(t.Context(), dear, leasePatience); err != nil {
				t.Fatal(err)
			}
			spent += 300
		}
		if _, err := s.all[1].take(t.Context(), dear, leasePatience); !errors.Is(err, errUsedUp) {
			t.Fatalf("there are 100 left: %v", err)
		}
		for i := range 100 {
			if _, err := s.all[i%2].take(t.Context(), cheap, leasePatience); err != nil {
				t.Fatalf("cheap request %d: %v", i, err)
			}
			spent++
		}
		if spent != 1000 || s.used(dear) != 1000 {
			t.Errorf("%d spent, %d used", spent, s.used(dear))
		}
	})
}

// A ledger that does not answer opens nothing, and takes nothing that was drawn before.
func TestLeasesWithoutALedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLeasers(t, 1)
		defer s.close()
		d := pass(1000, 1)
		if _, err := s.all[0].take(t.Context(), d, leasePatience); err != nil {
			t.Fatal(err)
		}
		s.store.fails.Store(true)
		served := 0
		for {
			_, err := s.all[0].take(t.Context(), d, leasePatience)
			if err != nil {
				if !errors.Is(err, errBroken) {
					t.Errorf("%v", err)
				}
				break
			}
			served++
		}
		if served > mostLease {
			t.Errorf("%d served without a ledger", served)
		}
		s.store.fails.Store(false)
		if _, err := s.all[0].take(t.Context(), d, leasePatience); err != nil {
			t.Errorf("when it answers again: %v", err)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		other := pass(1000, 1)
		other.key = common.Hash{9}
		if _, err := s.all[0].take(gone, other, leasePatience); !errors.Is(err, context.Canceled) {
			t.Errorf("a client that has left: %v", err)
		}
	})
}

// Whatever happens to the instances, never more is used than there is; and what is neither used nor in the hands of those who were
// killed can still be had.
func TestLeasesAndCrashes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.Uint64Range(1, 3000).Draw(rt, "limit")
		steps := rapid.SliceOfN(rapid.SampledFrom([]string{"take", "take", "burst", "burst", "back", "kill", "restart", "time"}), 1, 40).Draw(rt, "steps")
		which := rapid.SliceOfN(rapid.IntRange(0, 2), len(steps), len(steps)).Draw(rt, "instances")
		var problem string
		synctest.Test(t, func(t *testing.T) { problem = crashes(t, limit, steps, which) })
		if problem != "" {
			rt.Fatal(problem)
		}
	})
}

func crashes(t *testing.T, limit uint64, steps []string, which []int) (problem string) {
	s := newLeasers(t, 3)
	defer s.close()
	d := pass(limit, 1)
	served := uint64(0)
	var last *standing
	var by *leaser
	one := func(i int) bool {
		st, err := s.all[i].take(t.Context(), d, leasePatience)
		if err == nil {
			served++
			last, by = &st, s.all[i]
		}
		return err == nil
	}
	for n, step := range steps {
		i := which[n]
		switch step {
		case "take":
			one(i)
		case "burst":
			for range 50 {
				one(i)
			}
		case "back":
			if last != nil && by == s.all[i] {
				by.giveBack(d, last)
				last = nil
				served--
			}
		case "kill":
			s.kill(i)
		case "restart":
			s.restart(i)
		case "time":
			time.Sleep(700 * time.Millisecond)
		}
		if served > limit {
			return "more was served than there is"
		}
	}
	for range 3 {
		s.restart(0) // all give back what they hold
	}
	time.Sleep(time.Minute)
	if lost := s.buried(); s.used(d) != served+lost {
		return "the ledger does not say what was served, and what was lost"
	}
	want := limit - s.used(d)
	before := served
	for one(0) {
		continue // until nothing is left
	}
	if served-before != want {
		return "what is left can't be had"
	}
	return ""
}
