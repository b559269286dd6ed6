package sqlite

import (
	"context"
	"fmt"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

const (
	selectDue = `SELECT ` + paymentColumns + ` FROM payments WHERE is_open = 1 AND check_at <= ? AND hold_until <= ?
		ORDER BY check_at, created_at, id LIMIT ?`
	hide = `UPDATE payments SET check_at = ? WHERE id = ?`
)

// Lease implements ledger.Store.
func (s *Store) Lease(ctx context.Context, limit int, ttl time.Duration) ([]ledger.Payment, error) {
	return write(ctx, s, func(w *writer) ([]ledger.Payment, error) {
		now := s.now()
		var due []ledger.Payment
		err := w.query(selectDue, func(row scanner) error {
			var p ledger.Payment
			if err := scanPayment(row, &p); err != nil {
				return err
			}
			due = append(due, p)
			return nil
		}, micros(now), micros(now), max(limit, 0))
		if err != nil {
			return nil, fmt.Errorf("ledger/sqlite: reading what is due: %w", err)
		}
		for _, p := range due {
			if _, err := w.exec(hide, micros(now.Add(ttl)), p.ID); err != nil {
				return nil, fmt.Errorf("ledger/sqlite: leasing: %w", err)
			}
		}
		return due, nil
	})
}

// Recheck implements ledger.Store.
func (s *Store) Recheck(ctx context.Context, id string, after time.Duration) error {
	_, err := write(ctx, s, func(w *writer) (struct{}, error) {
		p, _, err := w.payment(selectByID, id)
		if err != nil || !p.Open() {
			return struct{}{}, err
		}
		if _, err := w.exec(hide, micros(s.now().Add(after)), id); err != nil {
			return struct{}{}, fmt.Errorf("ledger/sqlite: leasing: %w", err)
		}
		return struct{}{}, nil
	})
	return err
}
