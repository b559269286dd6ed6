package token

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Revoked is the ids of tokens that were taken back, as far as somebody has heard, and when that somebody has listened last. Any number of
// verifiers share one. It is safe for concurrent use.
type Revoked struct {
	// version grows after an id was added: who has looked for an id need not look again until then.
	version atomic.Uint64
	heard   atomic.Pointer[time.Time]

	mu      sync.RWMutex
	until   map[string]time.Time // token id -> when it may be forgotten
	sweepAt int
}

// NewRevoked makes an empty one, which nobody has heard of.
func NewRevoked() *Revoked { return &Revoked{until: map[string]time.Time{}, sweepAt: 64} }

// Add makes every token with this id, a payment's, fail with ErrRevoked. It is remembered until the time given, when
// the token expires by itself; now is the caller's clock.
func (r *Revoked) Add(id string, until, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.until) >= r.sweepAt {
		maps.DeleteFunc(r.until, func(_ string, t time.Time) bool { return t.Before(now) })
		r.sweepAt = max(64, 2*len(r.until))
	}
	// The leeway of the verifier must not outlive its memory.
	until = until.Add(Leeway)
	had, known := r.until[id]
	if known && !had.Before(until) {
		return
	}
	r.until[id] = until
	if !known {
		r.version.Add(1)
	}
}

// Has reports whether the token with this id was taken back.
func (r *Revoked) Has(id string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ok := r.until[id]
	return ok
}

// Heard notes that at the time at all that had been revoked until then was asked for, and was added.
func (r *Revoked) Heard(at time.Time) { r.heard.Store(&at) }

// Silence is how long ago that was; heard is false if it never was. Where the clock was set, or the machine slept, it is the longer
// of what the two clocks of the machine say.
func (r *Revoked) Silence(now time.Time) (d time.Duration, heard bool) {
	at := r.heard.Load()
	if at == nil {
		return 0, false
	}
	return max(now.Sub(*at), now.Round(0).Sub(at.Round(0))), true
}
