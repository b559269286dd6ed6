package paywall

import (
	"sync"
	"time"
)

// callers bounds how often each caller may ask: most times at once, and then as often as makes most in per. It is safe for
// concurrent use.
type callers struct {
	most int
	per  time.Duration

	mu sync.Mutex
	// full is when a caller's allowance will be whole again, if it asks no more.
	full map[string]time.Time
}

// admit reports whether who may ask now, and counts it.
func (l *callers) admit(who string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full == nil {
		l.full = make(map[string]time.Time)
	}
	at, known := l.full[who]
	if !known && len(l.full) >= maxClients {
		for name, at := range l.full {
			if !at.After(now) {
				delete(l.full, name)
			}
		}
		if len(l.full) >= maxClients { // the new ones share an allowance
			who = ""
			at = l.full[who]
		}
	}
	if at.Before(now) {
		at = now
	}
	at = at.Add(max(l.per/time.Duration(l.most), 1))
	if at.Sub(now) > l.per {
		return false
	}
	l.full[who] = at
	return true
}
