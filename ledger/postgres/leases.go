package postgres

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

const (
	// lease takes a test's clock, limit and the time to hide for, and gives payments with the time since when they were due, in
	// no order. A row that another is leasing is passed over.
	lease = `WITH clock AS MATERIALIZED (SELECT x402_now(?) AS now WHERE x402_complete()),
		due AS (SELECT id AS due_id, check_at AS due_at FROM payments
			WHERE is_open = 1 AND check_at <= (SELECT now FROM clock) AND hold_until <= (SELECT now FROM clock)
			ORDER BY check_at, created_at, id LIMIT ? FOR UPDATE SKIP LOCKED)
		UPDATE payments SET check_at = (SELECT now FROM clock) + ? FROM due WHERE id = due_id
		RETURNING ` + sqlstore.PaymentColumns + `, due_at`
	// recheck takes a test's clock, the time to hide for and the id twice, and gives whether the payment is there.
	recheck = `WITH hidden AS (UPDATE payments SET check_at = x402_now(?) + ? WHERE id = ? AND is_open = 1 RETURNING 1)
		SELECT EXISTS (SELECT 1 FROM payments WHERE id = ?), (SELECT count(*) FROM hidden), x402_complete()`
)

// Lease implements ledger.Store. It is one statement.
func (s *Store) Lease(ctx context.Context, limit int, ttl time.Duration) ([]ledger.Payment, error) {
	type leased struct {
		p   ledger.Payment
		due int64
	}
	var got []leased
	err := s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		got = nil
		return queries(ctx, c)(lease, func(row sqlstore.Row) error {
			var l leased
			if err := sqlstore.ScanPayment(row, &l.p, &l.due); err != nil {
				return err
			}
			got = append(got, l)
			return nil
		}, s.clock.given(), max(limit, 0), ttl.Microseconds())
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(got, func(a, b leased) int {
		switch {
		case a.due != b.due:
			return int(min(max(a.due-b.due, -1), 1))
		case !a.p.CreatedAt.Equal(b.p.CreatedAt):
			return a.p.CreatedAt.Compare(b.p.CreatedAt)
		case a.p.ID < b.p.ID:
			return -1
		}
		return 1
	})
	due := make([]ledger.Payment, 0, len(got))
	for _, l := range got {
		due = append(due, l.p)
	}
	return due, nil
}

// Recheck implements ledger.Store.
func (s *Store) Recheck(ctx context.Context, id string, after time.Duration) error {
	if !storable(id) {
		return ledger.ErrNotFound
	}
	return s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		var there bool
		err := c.QueryRow(ctx, numbered(recheck), s.clock.given(), after.Microseconds(), id, id).Scan(&there, nil, nil)
		if err == nil && !there {
			err = ledger.ErrNotFound
		}
		return err
	})
}
