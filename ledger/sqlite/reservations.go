package sqlite

import (
	"context"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

// Reserve implements ledger.Store.
func (s *Store) Reserve(ctx context.Context, r ledger.Reservation, over string, ttl time.Duration) (ledger.Reservation, error) {
	return write(ctx, s, func(w *writer) (ledger.Reservation, error) {
		r := r
		r.CreatedAt = w.now()
		r.ExpiresAt = r.CreatedAt.Add(ttl).Truncate(time.Microsecond)
		n, err := w.exec(sqlstore.Reserve, sqlstore.ReserveValues(&r, over)...)
		if err != nil {
			return ledger.Reservation{}, fmt.Errorf("ledger/sqlite: reserving: %w", err)
		}
		if n > 0 {
			return r, nil
		}
		had, err := sqlstore.Reservation(w.query, r.Key, r.CreatedAt)
		if err != nil {
			return ledger.Reservation{}, fmt.Errorf("ledger/sqlite: reading a reservation: %w", err)
		}
		return had, fmt.Errorf("ledger/sqlite: reserved for payment %s: %w", had.Payment, ledger.ErrExists)
	})
}

// Reservation implements ledger.Store.
func (s *Store) Reservation(ctx context.Context, key common.Hash) (ledger.Reservation, error) {
	return sqlstore.Reservation(s.reading(ctx), key, s.Now())
}

// KeepAnswer implements ledger.Store.
func (s *Store) KeepAnswer(ctx context.Context, key common.Hash, payment string, answer []byte, ttl time.Duration) error {
	if answer == nil {
		answer = []byte{} // NULL means that none is stored
	}
	return s.write(ctx, func(w *writer) error {
		now := w.now()
		n, err := w.exec(sqlstore.KeepAnswer, answer, sqlstore.Micros(now.Add(ttl)), key[:], payment, sqlstore.Micros(now))
		if err != nil {
			return fmt.Errorf("ledger/sqlite: keeping an answer: %w", err)
		}
		if n > 0 {
			return nil
		}
		had, err := sqlstore.Reservation(w.query, key, now)
		if err != nil {
			return fmt.Errorf("ledger/sqlite: reading a reservation: %w", err)
		}
		if had.Payment != payment {
			return fmt.Errorf("%w: the key is reserved for another", ledger.ErrNotFound)
		}
		return nil
	})
}

// EachReservation implements ledger.Store.
func (s *Store) EachReservation(ctx context.Context, f func(ledger.Reservation) error) error {
	return sqlstore.EachReservation(s.reading(ctx), s.Now(), f)
}
