package sqlite

import (
	"context"
	"fmt"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

// Revoke implements ledger.Store. Numbers are in the order of commits, since one at a time writes.
func (s *Store) Revoke(ctx context.Context, id string, until time.Time) error {
	return s.write(ctx, func(w *writer) error {
		at := sqlstore.Micros(until)
		if _, err := w.exec(sqlstore.OverrideRevocation, id, at); err != nil {
			return fmt.Errorf("ledger/sqlite: revoking: %w", err)
		}
		if _, err := w.exec(sqlstore.InsertRevocation, id, at); err != nil {
			return fmt.Errorf("ledger/sqlite: revoking: %w", err)
		}
		return nil
	})
}

// Revoked implements ledger.Store.
func (s *Store) Revoked(ctx context.Context, after uint64, limit int) ([]ledger.Revocation, error) {
	return sqlstore.Revoked(s.reading(ctx), after, limit)
}

func (w *writer) importRevocation(r *ledger.Revocation) error {
	n, err := w.exec(sqlstore.InsertRevocation, r.ID, sqlstore.Micros(r.Until))
	if err != nil || n > 0 {
		return err
	}
	same, err := sqlstore.SameRevocation(w.query, r)
	if err == nil && !same {
		err = fmt.Errorf("%w: the revocation of %s is here, and different", ledger.ErrConflict, r.ID)
	}
	return err
}
