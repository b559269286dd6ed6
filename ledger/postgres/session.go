package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

// tries is how often a call is made that changed nothing and may be made again.
const tries = 5

// The codes of PostgreSQL's errors that we tell apart; the last two are of x402_check and x402_complete.
const (
	codeUnique        = "23505"
	codeReadOnly      = "25006"
	codeSerialization = "40001"
	codeDeadlock      = "40P01"
	codeTooLong       = "57014"
	codeShutdown      = "57P01"
	codeCrash         = "57P02"
	codeStale         = "XL001"
	codeIncomplete    = "XL002"
)

// acquire gives a connection, or the context's error if that ends before there is one.
func (s *Store) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	if s.closed.Load() {
		return nil, ledger.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	c, err := s.pool.Acquire(bounded)
	switch {
	case err == nil && ctx.Err() != nil:
		c.Release()
		return nil, ctx.Err()
	case err == nil:
		return c, nil
	case s.closed.Load():
		return nil, ledger.ErrClosed
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case bounded.Err() != nil:
		return nil, fmt.Errorf("%w: there is no connection for %v", ErrStalled, s.patience)
	}
	return nil, opaque("connecting", err)
}

// opaque wraps err, unless it is a context's: it is not the caller's that ended, and its error would say that nothing was
// changed.
func opaque(doing string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("ledger/postgres: %s: %v", doing, err) //nolint:errorlint // on purpose, see above
	}
	return fmt.Errorf("ledger/postgres: %s: %w", doing, err)
}

// write runs f, which changes something, on a connection of its own. A context that ends before that is there ends the
// call; afterwards the outcome is awaited, so that a caller is never told that nothing happened when something did. f runs
// again where it is certain that it changed nothing.
func (s *Store) write(ctx context.Context, f func(context.Context, *pgx.Conn) error) error {
	return s.writeWithin(ctx, s.patience, f)
}

func (s *Store) writeWithin(ctx context.Context, limit time.Duration, f func(context.Context, *pgx.Conn) error) error {
	for try := 1; ; try++ {
		c, err := s.acquire(ctx)
		if err != nil {
			return err
		}
		err = s.run(context.WithoutCancel(ctx), limit, c, f)
		if err == nil || try == tries || !again(err) {
			return s.outcome("writing", err)
		}
	}
}

// read runs f, which changes nothing: it ends with the context, and runs again on a new connection when one was lost.
func (s *Store) read(ctx context.Context, f func(context.Context, *pgx.Conn) error) error {
	return s.readWithin(ctx, s.patience, f)
}

func (s *Store) readWithin(ctx context.Context, limit time.Duration, f func(context.Context, *pgx.Conn) error) error {
	for try := 1; ; try++ {
		c, err := s.acquire(ctx)
		if err != nil {
			return err
		}
		err = s.run(ctx, limit, c, f)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case try == tries, !again(err) && !broken(err):
			return s.outcome("reading", err)
		}
	}
}

func (s *Store) run(ctx context.Context, limit time.Duration, c *pgxpool.Conn, f func(context.Context, *pgx.Conn) error) error {
	defer c.Release()
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := f(bounded, c.Conn())
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		s.log.Warn("the database does not answer", "waited", limit)
		s.pool.Reset() // the other connections lead nowhere either
		return fmt.Errorf("%w for %v", ErrStalled, limit)
	}
	s.lost(err)
	return err
}

// ask reads by one of the shared functions.
func ask[T any](ctx context.Context, s *Store, f func(sqlstore.Query) (T, error)) (T, error) {
	var got, none T
	err := s.read(ctx, func(ctx context.Context, c *pgx.Conn) (err error) {
		got, err = f(queries(ctx, c))
		return err
	})
	if err != nil {
		return none, err
	}
	return got, nil
}

// queries runs the shared statements on a connection.
func queries(ctx context.Context, c *pgx.Conn) sqlstore.Query {
	return func(query string, scan func(sqlstore.Row) error, args ...any) error {
		rows, err := c.Query(ctx, numbered(query), args...)
		if err != nil {
			return err
		}
		return each(rows, scan)
	}
}

func each(rows pgx.Rows, scan func(sqlstore.Row) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

var texts sync.Map // statement -> statement with PostgreSQL's placeholders

// numbered is query as PostgreSQL takes it. The texts are few, and the same string each time is what makes the driver
// prepare each once.
func numbered(query string) string {
	if had, ok := texts.Load(query); ok {
		return had.(string)
	}
	n := sqlstore.Numbered(query)
	texts.Store(query, n)
	return n
}

// again reports whether err says that nothing was changed, and that another try may do better.
func again(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch e.Code {
		case codeSerialization, codeDeadlock, codeStale:
			return true
		}
		return false
	}
	return pgconn.SafeToRetry(err)
}

// broken reports whether a connection was lost.
func broken(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code == codeShutdown || e.Code == codeCrash
	}
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// lost gives all connections up where one has shown that the server went away, or is a copy now that can't be written:
// each of the others would fail once.
func (s *Store) lost(err error) {
	if err == nil {
		return
	}
	e, ok := errors.AsType[*pgconn.PgError](err)
	if ok && e.Code == codeStale {
		s.clock.stale(e)
	}
	if ok && e.Code == codeReadOnly || broken(err) {
		s.log.Warn("a connection to the database was lost", "error", err)
		s.pool.Reset()
	}
}

// outcome is err as callers are told. What this package and the ledger say themselves stays.
func (s *Store) outcome(doing string, err error) error {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case ok && e.Code == codeIncomplete:
		return ledger.ErrIncomplete
	case ok && e.Code == codeTooLong:
		return fmt.Errorf("%w in time: %w", ErrStalled, err)
	case ok:
		return fmt.Errorf("ledger/postgres: %s: %w", doing, err)
	}
	for _, known := range []error{
		ErrStalled, ErrSchema, ledger.ErrClosed, ledger.ErrNotFound, ledger.ErrConflict, ledger.ErrExists, ledger.ErrTransition, ledger.ErrFence,
		ledger.ErrNonce, ledger.ErrIncomplete,
	} {
		if errors.Is(err, known) {
			return err
		}
	}
	return opaque(doing, err)
}

// dated runs f, which writes by single statements that end with x402_check, at the time that it should be.
func (s *Store) dated(ctx context.Context, f func(ctx context.Context, c *pgx.Conn, at time.Time) error) error {
	return s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return f(ctx, c, s.clock.now().Truncate(time.Microsecond))
	})
}
