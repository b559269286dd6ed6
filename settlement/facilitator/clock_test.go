package facilitator_test

import (
	"errors"
	"sync"
	"time"

	"github.com/caddy-x402/caddy-x402/settlement"
)

// clock is moved by hand.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Unix(1_900_000_000, 0)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func isUnavailable(err error) bool { return errors.Is(err, settlement.ErrUnavailable) }
