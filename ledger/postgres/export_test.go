package postgres

import (
	"context"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// WithDial has connections made by dial.
func WithDial(o Options, dial func(ctx context.Context, network, addr string) (net.Conn, error)) Options {
	o.dial = dial
	return o
}

// SetPatience shortens the wait for a database that does not answer.
func (s *Store) SetPatience(d time.Duration) { s.patience = d }

// Exec runs a statement as the store does.
func (s *Store) Exec(ctx context.Context, statement string, args ...any) error {
	return s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, statement, args...)
		return err
	})
}

// Pool is the store's connections.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// Slack is how far from the database's clock a time may be that a statement brings along.
const Slack = slack

// Mishear makes the store believe that the database's clock is off by d from what it is.
func (s *Store) Mishear(d time.Duration) {
	h := *s.clock.heard.Load()
	h.database, h.local = time.Now().Add(d), time.Now()
	s.clock.heard.Store(&h)
}

// ManyEntries are counted while others write.
const ManyEntries = manyEntries
