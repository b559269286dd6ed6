package redis

import (
	"context"
	"net"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// WithDialer has the store's connections made by dial.
func WithDialer(o Options, dial func(ctx context.Context, network, address string) (net.Conn, error)) Options {
	o.dial = dial
	return o
}

// WithPatience sets how long a call is repeated while no server answers.
func WithPatience(o Options, d time.Duration) Options {
	o.patience = d
	return o
}

// Kill ends the repetitions of calls under way: a process that dies does not try again.
func (s *Store) Kill() { s.killed.Store(true) }

// Load stores payments that were claimed at the time now, all in one pipeline.
func (s *Store) Load(ctx context.Context, now time.Time, offers []ledger.Payment) error {
	calls := make([]*call, 0, len(offers))
	for _, p := range offers {
		p, first, err := ledger.Create(p, ledger.Change{Actor: "request"}, now)
		if err != nil {
			return err
		}
		is := &stored{payment: p, check: now.UnixMicro(), trail: appendEntry(nil, &first, "12345678")}
		calls = append(calls, s.claim(is, []ledger.Entry{first}, false))
	}
	return s.ask(ctx, calls...)
}
