package sqlite

import (
	"sync/atomic"
	"time"
)

// clock is the machine's, but never at or below the time of the last anchor: what is anchored stays as it is even if the
// machine's clock is turned back.
type clock struct {
	machine func() time.Time
	anchor  atomic.Int64 // the Until of the newest anchor that was seen, in microseconds
}

func (c *clock) now() time.Time {
	now := c.machine().UTC().Truncate(time.Microsecond)
	if anchor := c.anchor.Load(); now.UnixMicro() <= anchor {
		return time.UnixMicro(anchor + 1).UTC()
	}
	return now
}

// anchored raises the clock above until.
func (c *clock) anchored(until time.Time) {
	if until.IsZero() {
		return
	}
	for next := until.UnixMicro(); ; {
		had := c.anchor.Load()
		if had >= next || c.anchor.CompareAndSwap(had, next) {
			return
		}
	}
}
