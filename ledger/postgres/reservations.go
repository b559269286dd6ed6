package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/jackc/pgx/v5"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

const (
	// reserve takes ReserveValues, the time and the slack, and gives how many reservations it made; keep likewise.
	reserve = `WITH made AS (` + sqlstore.Reserve + ` RETURNING key) SELECT (SELECT count(*) FROM made), x402_check(?, ?)`
	keep    = `WITH made AS (` + sqlstore.KeepAnswer + ` RETURNING key) SELECT (SELECT count(*) FROM made), x402_check(?, ?)`
)

// Reserve implements ledger.Store.
func (s *Store) Reserve(ctx context.Context, r ledger.Reservation, over string, ttl time.Duration) (ledger.Reservation, error) {
	for range tries {
		var n int64
		err := s.dated(ctx, func(ctx context.Context, c *pgx.Conn, at time.Time) error {
			r.CreatedAt, r.ExpiresAt = at, at.Add(ttl).Truncate(time.Microsecond)
			args := append(sqlstore.ReserveValues(&r, over), sqlstore.Micros(at), s.clock.slack(slack))
			return s.clock.check(c.QueryRow(ctx, numbered(reserve), args...), &n)
		})
		if err != nil {
			return ledger.Reservation{}, err
		}
		if n > 0 {
			return r, nil
		}
		had, err := s.reservation(ctx, r.Key, r.CreatedAt)
		if errors.Is(err, ledger.ErrNotFound) {
			continue // it was removed at this moment
		}
		if err != nil {
			return ledger.Reservation{}, err
		}
		return had, fmt.Errorf("ledger/postgres: reserved for payment %s: %w", had.Payment, ledger.ErrExists)
	}
	return ledger.Reservation{}, errors.New("ledger/postgres: a reservation comes and goes")
}

// Reservation implements ledger.Store.
func (s *Store) Reservation(ctx context.Context, key common.Hash) (ledger.Reservation, error) {
	return s.reservation(ctx, key, s.Now())
}

func (s *Store) reservation(ctx context.Context, key common.Hash, now time.Time) (ledger.Reservation, error) {
	return ask(ctx, s, func(run sqlstore.Query) (ledger.Reservation, error) { return sqlstore.Reservation(run, key, now) })
}

// KeepAnswer implements ledger.Store.
func (s *Store) KeepAnswer(ctx context.Context, key common.Hash, payment string, answer []byte, ttl time.Duration) error {
	if !storable(payment) {
		return ledger.ErrNotFound
	}
	if answer == nil {
		answer = []byte{} // NULL means that none is stored
	}
	var n int64
	var now time.Time
	err := s.dated(ctx, func(ctx context.Context, c *pgx.Conn, at time.Time) error {
		now = at
		return s.clock.check(c.QueryRow(ctx, numbered(keep),
			answer, sqlstore.Micros(at.Add(ttl)), key[:], payment, sqlstore.Micros(at), sqlstore.Micros(at), s.clock.slack(slack)), &n)
	})
	if err != nil || n > 0 {
		return err
	}
	had, err := s.reservation(ctx, key, now)
	if err == nil && had.Payment != payment {
		err = fmt.Errorf("%w: the key is reserved for another", ledger.ErrNotFound)
	}
	return err
}

// EachReservation implements ledger.Store. No connection is held while f runs.
func (s *Store) EachReservation(ctx context.Context, f func(ledger.Reservation) error) error {
	return sqlstore.EachReservation(s.reading(ctx), s.Now(), f)
}

var errHalfRead = errors.New("ledger/postgres: the connection was lost while something was read")

// reading runs each statement on a connection of its own. What scan has seen it does not see again.
func (s *Store) reading(ctx context.Context) sqlstore.Query {
	return func(query string, scan func(sqlstore.Row) error, args ...any) error {
		seen := false
		return s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
			if seen {
				return errHalfRead
			}
			return queries(ctx, c)(query, func(row sqlstore.Row) error {
				seen = true
				return scan(row)
			}, args...)
		})
	}
}
