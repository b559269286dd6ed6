// Package postgres keeps the ledger in a PostgreSQL database, for any number of instances. It needs nothing else, and
// passes the suite ledger/storetest.
//
// Payments are changed by compare-and-set in single statements, so that an instance that stops in the middle of its work holds
// nothing that another waits for; what concerns several rows is one short transaction that locks them in one order. The
// database's clock dates what is written. A session ends what lasts too long: see connect.go.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

// Options are what Open can do without. The zero value is good.
type Options struct {
	// MigrateURL is how the owner of the tables connects: it makes them, and gives the role of the other URL just the rights
	// that the ledger needs. Empty: that one owns them.
	MigrateURL string
	// MaxConns is how many connections may be open at once; zero means what the URL says by pool_max_conns, or DefaultMaxConns.
	MaxConns int
	// Now is the store's clock in tests; nil means the database's.
	Now func() time.Time
	// Logger hears of trouble with the database; nil means silence.
	Logger *slog.Logger

	// dial, if set, makes the connections.
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// DefaultMaxConns is how many connections an instance may open, if nothing else is said. While one waits for the disk, others are
// written along with it, so more of them cost the database little; its own limit (max_connections) is for all instances.
const DefaultMaxConns = 20

// Store is the ledger in a database.
type Store struct {
	pool  *pgxpool.Pool
	log   *slog.Logger
	clock clock
	// patience is how long a statement is awaited, whatever its caller's context says.
	patience time.Duration

	closing sync.Once
	closed  atomic.Bool
}

var (
	_ ledger.Store = (*Store)(nil)
	_ ledger.Filed = (*Store)(nil)
)

// ErrSchema: the database holds no ledger that this version can use.
var ErrSchema = sqlstore.ErrSchema

// ErrStalled: the database took too long to answer. Whether a change was made is not known.
var ErrStalled = errors.New("ledger/postgres: the database does not answer")

// Open opens the ledger in the database that url (or a libpq connection string) names, and makes its tables if they are
// missing. Several programs may do so at once. The caller closes it. No error shows a password.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	config, err := poolConfig(url, o)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("ledger/postgres: connecting: %w", err)
	}
	s := &Store{pool: pool, log: o.Logger, clock: clock{fixed: o.Now}, patience: patience}
	if err := s.prepare(ctx, config, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Now implements ledger.Store.
func (s *Store) Now() time.Time { return s.clock.now() }

// Ping writes a row: only that shows that the database takes one.
func (s *Store) Ping(ctx context.Context) error {
	return s.dated(ctx, func(ctx context.Context, c *pgx.Conn, at time.Time) error {
		return s.clock.check(c.QueryRow(ctx, ping, sqlstore.Micros(at), sqlstore.Micros(at), s.clock.slack(slack)))
	})
}

const ping = `WITH beat AS (INSERT INTO heartbeat (id, at) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET at = excluded.at)
	SELECT x402_check($2, $3)`

// Close waits for what is under way, and closes the connections.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.closed.Store(true)
		s.pool.Close()
	})
	return nil
}
