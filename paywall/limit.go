package paywall

import (
	"net/http"
	"sync"
	"time"

	"github.com/caddy-x402/caddy-x402/internal/address"
)

// A signature costs a stranger nothing, and its simulation costs us a call of the chain's endpoint. So each client has an
// allowance of units: a simulation under way takes one, and one that ends in a refusal leaves refusedUnits behind, which
// wear off with time. Who pays never notices; who sends what can't be paid is slowed down to one refusal a second.
const (
	allowance    = 4096
	refusedUnits = 128 // wear off in a second; so 32 refusals at once
	replayUnits  = 16  // of an answer that is given again, which nobody pays for; so 256 at once, and 8 a second
	maxClients   = 8192
)

const codeLimited = "too_many_refused_payments"

// limits counts by client. It is safe for concurrent use.
type limits struct {
	mu      sync.Mutex
	clients map[string]*spent
}

type spent struct {
	flying  int // simulations under way
	refused int // units that refusals, and answers given again, have left
	at      time.Time
}

// wear takes off what time has worn off.
func (s *spent) wear(now time.Time) {
	gone := int(min(now.Sub(s.at), time.Hour) * refusedUnits / time.Second)
	if gone > 0 {
		s.refused, s.at = max(s.refused-gone, 0), now
	}
}

// begin asks for a simulation on behalf of client; end must follow if it is granted.
func (l *limits) begin(client string, now time.Time) (end func(refused bool), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.of(client, now)
	if s.wear(now); s.flying+s.refused >= allowance {
		return nil, false
	}
	s.flying++
	return func(refused bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		s.flying--
		if refused {
			s.refused += refusedUnits
		}
	}, true
}

// spend asks for something of the allowance for what nobody pays for.
func (l *limits) spend(client string, units int, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.of(client, now)
	if s.wear(now); s.flying+s.refused >= allowance {
		return false
	}
	s.refused += units
	return true
}

// of finds what a client has spent. When there are more clients than can be remembered, the new ones share an allowance.
func (l *limits) of(client string, now time.Time) *spent {
	if s := l.clients[client]; s != nil {
		return s
	}
	if len(l.clients) >= maxClients {
		for name, s := range l.clients {
			if s.wear(now); s.flying+s.refused == 0 {
				delete(l.clients, name)
			}
		}
	}
	if len(l.clients) >= maxClients {
		if client = ""; l.clients[client] != nil {
			return l.clients[client]
		}
	}
	s := &spent{at: now}
	l.clients[client] = s
	return s
}

// clientKey is by whom a client's address is counted.
func clientKey(client string) string { return address.Key(client) }

func limited() *refusal {
	return &refusal{
		status: http.StatusTooManyRequests, code: codeLimited,
		detail: "too many payments from your address were refused, or led to answers that were given before; see why, and wait before you send the next one",
	}
}
