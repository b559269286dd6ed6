package redis

import (
	"context"
	"net"
	"time"

	"github.com/ethereum/go-ethereum/common"

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

// Load stores payments that were sold and delivered at the time now, all in one pipeline.
func (s *Store) Load(ctx context.Context, now time.Time, offers []ledger.Payment) error {
	calls := make([]*call, 0, len(offers))
	for _, p := range offers {
		p, first, err := ledger.Create(p, ledger.Change{Actor: "request", Hold: time.Minute}, now)
		if err != nil {
			return err
		}
		tx := common.BytesToHash(p.Nonce[16:])
		p, rest, err := ledger.Advance(p, first.Hash, now,
			ledger.Change{Event: ledger.EventSettle, Actor: "request", Transaction: tx, Block: 18, BlockHash: tx},
			ledger.Change{Event: ledger.EventDeliver, Actor: "request", Fence: 1, Hold: time.Minute},
			ledger.Change{Event: ledger.EventDelivered, Actor: "request", Fence: 1},
			ledger.Change{Event: ledger.EventFinal, Actor: "reconciler", Transaction: tx, Block: 18, BlockHash: tx})
		if err != nil {
			return err
		}
		is := &stored{payment: p, check: now.UnixMicro()}
		entries := append([]ledger.Entry{first}, rest...)
		for i := range entries {
			is.trail = appendEntry(is.trail, &entries[i], "12345678")
		}
		calls = append(calls, s.claim(is, entries, false))
	}
	return s.ask(ctx, calls...)
}
