package sqlite

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

// Nonce implements ledger.Store.
func (s *Store) Nonce(ctx context.Context, chainID uint64, wallet common.Address) (nonce uint64, known bool, err error) {
	return sqlstore.Nonce(s.reading(ctx), chainID, wallet)
}

// AdvanceNonce implements ledger.Store.
func (s *Store) AdvanceNonce(ctx context.Context, chainID uint64, wallet common.Address, to uint64) error {
	return s.write(ctx, func(w *writer) error {
		if _, err := w.exec(sqlstore.RaiseNonce, chainID, sqlstore.Octets(wallet[:]), to); err != nil {
			return fmt.Errorf("ledger/sqlite: advancing the nonce: %w", err)
		}
		return nil
	})
}

// Record implements ledger.Store.
func (s *Store) Record(ctx context.Context, t ledger.Transaction, actor string) error {
	return s.write(ctx, func(w *writer) error { return w.record(t, actor, w.now()) })
}

func (w *writer) record(t ledger.Transaction, actor string, now time.Time) error {
	had, err := w.transactions(sqlstore.SelectByHash, t.ChainID, sqlstore.Octets(t.Hash[:]))
	if err != nil {
		return err
	}
	if len(had) > 0 {
		if had[0].Wallet != t.Wallet || had[0].Nonce != t.Nonce || !t.Carries(had[0].Payments) {
			return fmt.Errorf("%w: transaction %s was recorded with other contents", ledger.ErrNonce, t.Hash)
		}
		return nil
	}
	if ids := slices.Sorted(slices.Values(t.Payments)); len(slices.Compact(ids)) != len(t.Payments) {
		return fmt.Errorf("%w: transaction %s names a payment twice", ledger.ErrTransition, t.Hash)
	}
	if err := w.takeNonce(&t); err != nil {
		return err
	}
	if _, err := w.exec(sqlstore.InsertTransaction, sqlstore.TransactionValues(&t, now)...); err != nil {
		return fmt.Errorf("ledger/sqlite: recording a transaction: %w", err)
	}
	for i, id := range t.Payments {
		if err := w.send(&t, i, id, actor, now); err != nil {
			return err
		}
	}
	return nil
}

// takeNonce advances the wallet's nonce for t, or finds that t may replace what was recorded with its nonce.
func (w *writer) takeNonce(t *ledger.Transaction) error {
	next, known, err := sqlstore.Nonce(w.query, t.ChainID, t.Wallet)
	if err != nil {
		return fmt.Errorf("ledger/sqlite: reading the nonce: %w", err)
	}
	switch {
	case !known || t.Nonce == next:
		if _, err := w.exec(sqlstore.RaiseNonce, t.ChainID, sqlstore.Octets(t.Wallet[:]), t.Nonce+1); err != nil {
			return fmt.Errorf("ledger/sqlite: advancing the nonce: %w", err)
		}
		return nil
	case t.Nonce > next:
		return fmt.Errorf("%w: %d leaves a gap, the next is %d", ledger.ErrNonce, t.Nonce, next)
	}
	rivals, err := w.transactions(sqlstore.SelectByNonce, t.ChainID, sqlstore.Octets(t.Wallet[:]), t.Nonce)
	if err != nil {
		return err
	}
	for _, r := range rivals {
		if len(t.Payments) == 0 || t.Carries(r.Payments) {
			return nil
		}
	}
	return fmt.Errorf("%w: %d is used, the next is %d", ledger.ErrNonce, t.Nonce, next)
}

// send moves one payment of t to settling.
func (w *writer) send(t *ledger.Transaction, position int, id, actor string, now time.Time) error {
	p, previous, err := w.payment(sqlstore.SelectByID, id)
	if err != nil {
		return fmt.Errorf("payment %s: %w", id, err)
	}
	p, e, err := ledger.Send(p, previous, now, t, actor)
	if err != nil {
		return err
	}
	if _, err := w.exec(sqlstore.InsertCarried, id, id, t.ChainID, sqlstore.Octets(t.Hash[:]), position); err != nil {
		return fmt.Errorf("ledger/sqlite: recording a transaction: %w", err)
	}
	return w.save(&p, e)
}

// transactions reads transactions as the writer's transaction sees them.
func (w *writer) transactions(query string, args ...any) ([]ledger.Transaction, error) {
	got, err := sqlstore.Transactions(w.query, query, args...)
	if err != nil {
		return nil, fmt.Errorf("ledger/sqlite: reading transactions: %w", err)
	}
	return got, nil
}

// Transactions implements ledger.Store.
func (s *Store) Transactions(ctx context.Context, paymentID string) ([]ledger.Transaction, error) {
	return sqlstore.Transactions(s.reading(ctx), sqlstore.SelectByPayment, paymentID)
}
