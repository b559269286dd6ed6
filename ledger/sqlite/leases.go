package sqlite

import (
	"context"
	"fmt"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

// Lease implements ledger.Store.
func (s *Store) Lease(ctx context.Context, limit int, ttl time.Duration) ([]ledger.Payment, error) {
	return write(ctx, s, func(w *writer) ([]ledger.Payment, error) {
		now := w.now()
		due, err := sqlstore.Payments(w.query, sqlstore.SelectDue, sqlstore.Micros(now), sqlstore.Micros(now), max(limit, 0))
		if err != nil {
			return nil, fmt.Errorf("ledger/sqlite: reading what is due: %w", err)
		}
		for _, p := range due {
			if _, err := w.exec(sqlstore.Hide, sqlstore.Micros(now.Add(ttl)), p.ID); err != nil {
				return nil, fmt.Errorf("ledger/sqlite: leasing: %w", err)
			}
		}
		return due, nil
	})
}

// Recheck implements ledger.Store.
func (s *Store) Recheck(ctx context.Context, id string, after time.Duration) error {
	return s.write(ctx, func(w *writer) error {
		p, _, err := w.payment(sqlstore.SelectByID, id)
		if err != nil || !p.Open() {
			return err
		}
		if _, err := w.exec(sqlstore.Hide, sqlstore.Micros(w.now().Add(after)), id); err != nil {
			return fmt.Errorf("ledger/sqlite: leasing: %w", err)
		}
		return nil
	})
}
