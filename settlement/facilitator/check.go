package facilitator

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/proof"
)

const (
	// checkTimeout bounds a simulation, which may serve several requests and hangs on none of them.
	checkTimeout = 20 * time.Second
	// freshness is how long a check stands for the simulation right before a payment is handed over.
	freshness = time.Second
	// mostChecks bounds what is remembered; what is forgotten costs a question to the chain.
	mostChecks = 8192
)

// Check simulates the transfer on the chain. It does not ask /verify, for two reasons. Whoever is asked that has the
// signature, and may use it: a payment must be on record before anybody gets hold of it, and Check comes before the claim. And the
// block after which only transfers count has to come from the chain: a facilitator could name one that is too old.
// Of the facilitators it only looks at whether one is there.
func (s *Settler) Check(ctx context.Context, in settlement.Intent) (head uint64, err error) {
	done, err := s.enter(&in)
	if err != nil {
		return 0, err
	}
	defer done()
	if err := s.reachable(ctx); err != nil {
		return 0, err
	}
	key := checkKey(in)
	c := s.checks.join(key, func(c *check) {
		s.wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
			defer cancel()
			c.head, c.err = proof.Simulate(ctx, s.chain, in)
			s.checks.end(key, c, s.now())
		})
	})
	select {
	case <-c.done:
		return c.head, c.err
	case <-ctx.Done():
		return 0, unavailable(ctx.Err())
	}
}

// approve is the look right before a payment is handed over, unless it was checked a moment ago.
func (s *Settler) approve(ctx context.Context, in settlement.Intent) error {
	if s.checks.take(checkKey(in), s.now()) {
		return nil
	}
	_, err := proof.Simulate(ctx, s.chain, in)
	return err
}

// checkKey tells a transfer from all others, one with another signature among them.
func checkKey(in settlement.Intent) [32]byte {
	return sha256.Sum256(in.Authorization.TransferCalldataBytes(in.Signature))
}

// check is one simulation, for all who ask for it while it runs.
type check struct {
	done chan struct{}
	head uint64
	err  error
}

// checks lets identical ones share one simulation, and remembers for a moment which went well.
type checks struct {
	mu      sync.Mutex
	running map[[32]byte]*check
	well    map[[32]byte]time.Time
}

// join gives the check of key that runs, or has start begin one.
func (c *checks) join(key [32]byte, start func(*check)) *check {
	c.mu.Lock()
	defer c.mu.Unlock()
	if one := c.running[key]; one != nil {
		return one
	}
	if c.running == nil {
		c.running, c.well = make(map[[32]byte]*check), make(map[[32]byte]time.Time)
	}
	one := &check{done: make(chan struct{})}
	c.running[key] = one
	start(one)
	return one
}

func (c *checks) end(key [32]byte, one *check, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.running, key)
	if one.err == nil {
		for old := range c.well {
			if len(c.well) < mostChecks {
				break
			}
			delete(c.well, old)
		}
		c.well[key] = now
	}
	close(one.done)
}

// take reports whether a check of key went well a moment ago, and forgets it.
func (c *checks) take(key [32]byte, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.well[key]
	delete(c.well, key)
	age := now.Sub(at)
	return ok && age >= 0 && age < freshness
}

// turns lets one call at a time settle a payment; the others find what it left.
type turns struct {
	mu   sync.Mutex
	busy map[string]*turn
}

type turn struct {
	free  chan struct{} // holds one token while nobody has the turn
	users int
}

// take waits for the turn of a payment; yield gives it back.
func (t *turns) take(ctx context.Context, payment string) (yield func(), err error) {
	t.mu.Lock()
	if t.busy == nil {
		t.busy = make(map[string]*turn)
	}
	one := t.busy[payment]
	if one == nil {
		one = &turn{free: make(chan struct{}, 1)}
		one.free <- struct{}{}
		t.busy[payment] = one
	}
	one.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(t.busy, payment)
		}
	}
	select {
	case <-one.free:
		return func() { one.free <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, unavailable(ctx.Err())
	}
}
