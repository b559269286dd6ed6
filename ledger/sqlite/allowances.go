package sqlite

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

// drawn is what Draw gives.
type drawn struct {
	units uint256.Int
	of    ledger.Allowance
}

// Draw implements ledger.Store.
func (s *Store) Draw(ctx context.Context, d ledger.Draw) (uint256.Int, ledger.Allowance, error) {
	got, err := write(ctx, s, func(w *writer) (drawn, error) {
		had, err := sqlstore.Allowance(w.query, d.Key)
		if err != nil {
			return drawn{}, fmt.Errorf("ledger/sqlite: reading an allowance: %w", err)
		}
		next, n := d.Take(had, w.now())
		if n.IsZero() {
			return drawn{n, next}, nil
		}
		return drawn{n, next}, w.storeAllowance(&next, &had)
	})
	return got.units, got.of, err
}

func (w *writer) storeAllowance(next, had *ledger.Allowance) error {
	if _, err := w.exec(sqlstore.StoreAllowance, sqlstore.StoreAllowanceValues(next, had)...); err != nil {
		return fmt.Errorf("ledger/sqlite: storing an allowance: %w", err)
	}
	return nil
}

// Return implements ledger.Store.
func (s *Store) Return(ctx context.Context, key common.Hash, created time.Time, n uint256.Int) error {
	return s.write(ctx, func(w *writer) error {
		had, err := sqlstore.Allowance(w.query, key)
		if err != nil {
			return fmt.Errorf("ledger/sqlite: reading an allowance: %w", err)
		}
		next, changed, err := had.GiveBack(created, n, w.now())
		if err != nil || !changed {
			return err
		}
		return w.storeAllowance(&next, &had)
	})
}

// Allowance implements ledger.Store.
func (s *Store) Allowance(ctx context.Context, key common.Hash) (ledger.Allowance, error) {
	a, err := sqlstore.Allowance(s.reading(ctx), key)
	if err == nil && !a.Live(s.Now()) {
		return ledger.Allowance{}, ledger.ErrNotFound
	}
	return a, err
}

// EachAllowance implements ledger.Store.
func (s *Store) EachAllowance(ctx context.Context, f func(ledger.Allowance) error) error {
	return sqlstore.EachAllowance(s.reading(ctx), s.Now(), f)
}

func (w *writer) importAllowance(a *ledger.Allowance) error {
	values := sqlstore.AllowanceValues(a)
	n, err := w.exec(sqlstore.InsertAllowance, values...)
	if err != nil || n > 0 {
		return err
	}
	had, err := sqlstore.Allowance(w.query, a.Key)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(sqlstore.AllowanceValues(&had), values) {
		return fmt.Errorf("%w: the allowance %s is here, and different", ledger.ErrConflict, a.Key)
	}
	return nil
}
