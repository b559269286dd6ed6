package redis

import (
	"sync"
	"time"
)

// clock is the server's time, carried on by the local clock: so a change is dated in one round trip. The
// scripts refuse a date that is too far from what the server's clock says, and then tell what it says.
type clock struct {
	fixed func() time.Time // the clock of tests, instead of the server's

	mu    sync.Mutex
	heard time.Time // what the server said last
	when  time.Time // when that was, by the local clock
	floor time.Time // no time at or before it is given
}

// now is an estimate that is behind the server's time rather than ahead of it. What is behind judges a hold as standing.
func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	var t time.Time
	if c.fixed != nil {
		t = c.fixed()
	} else {
		t = c.heard.Add(time.Since(c.when))
	}
	if t = t.UTC().Truncate(time.Microsecond); !t.After(c.floor) {
		t = c.floor.Add(time.Microsecond)
	}
	return t
}

// correct takes over what a script said when it refused a date. What lies ahead of the clock of tests is a floor.
func (c *clock) correct(micros int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := time.UnixMicro(micros).UTC()
	if c.fixed != nil {
		c.floor = t.Add(-time.Microsecond)
		return
	}
	c.heard, c.when = t, time.Now()
}

// raise says that no time at or before t may be given any more.
func (c *clock) raise(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.After(c.floor) {
		c.floor = t
	}
}
