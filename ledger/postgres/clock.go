package postgres

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

const (
	// slack is how far from the database's clock the time may be that a single statement brings along: what was last heard of
	// that clock, carried on by ours. The statement asks the clock itself and fails if it is further off; that saves asking
	// first. Who is near the clock by this much is told the time by the answer at the latest.
	slack = 2 * time.Second
	// patientSlack is for what was dated by the clock in a step before.
	patientSlack = patience
)

// clock is the database's, as heard.
type clock struct {
	fixed func() time.Time // a test's
	heard atomic.Pointer[hearing]
	last  atomic.Int64 // the Until of the last anchor that was heard of
}

type hearing struct {
	database, local time.Time // local with its monotonic reading
}

// hear notes what the database says: its clock and the last anchor's Until.
func (c *clock) hear(now, last int64) {
	c.heard.Store(&hearing{database: time.UnixMicro(now).UTC(), local: time.Now()})
	c.anchored(last)
}

// anchored raises the clock above last.
func (c *clock) anchored(last int64) {
	for {
		had := c.last.Load()
		if last <= had || c.last.CompareAndSwap(had, last) {
			return
		}
	}
}

// now is the clock as it was last heard, carried on by the local one.
func (c *clock) now() time.Time {
	var t time.Time
	h := c.heard.Load()
	switch {
	case c.fixed != nil:
		t = c.fixed().UTC()
	case h != nil:
		t = h.database.Add(time.Since(h.local))
	default:
		t = time.Now().UTC()
	}
	return after(t, c.last.Load())
}

// at is the time for a change that is decided when the database says that it is now.
func (c *clock) at(now, last int64) time.Time {
	c.hear(now, last)
	if c.fixed != nil {
		return c.now()
	}
	return after(time.UnixMicro(now).UTC(), last)
}

// after is t in whole microseconds, but always above last: no entry comes in below an anchor.
func after(t time.Time, last int64) time.Time {
	t = t.Truncate(time.Microsecond)
	if next := time.UnixMicro(last + 1).UTC(); last > 0 && t.Before(next) {
		return next
	}
	return t
}

// given is the argument of x402_now.
func (c *clock) given() any {
	if c.fixed == nil {
		return nil
	}
	return sqlstore.Micros(c.fixed())
}

// slack is d as an argument of x402_check; a test's clock may be anywhere.
func (c *clock) slack(d time.Duration) int64 {
	if c.fixed != nil {
		return math.MaxInt64
	}
	return d.Microseconds()
}

// check reads what x402_check gives as the only column, after others.
func (c *clock) check(row pgx.Row, before ...any) error {
	var now int64
	if err := row.Scan(append(before, &now)...); err != nil {
		return err
	}
	c.hear(now, 0)
	return nil
}

// stale hears from the error of x402_check what time it is.
func (c *clock) stale(e *pgconn.PgError) {
	var now, last int64
	if _, err := fmt.Sscan(e.Detail, &now, &last); err == nil {
		c.hear(now, last)
	}
}
