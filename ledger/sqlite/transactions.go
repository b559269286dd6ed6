package sqlite

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

const (
	selectNonce = `SELECT next_nonce FROM wallets WHERE chain_id = ? AND address = ?`
	raiseNonce  = `INSERT INTO wallets (chain_id, address, next_nonce) VALUES (?, ?, ?)
		ON CONFLICT (chain_id, address) DO UPDATE SET next_nonce = excluded.next_nonce
		WHERE wallets.next_nonce < excluded.next_nonce`
	insertTransaction = `INSERT INTO transactions (chain_id, hash, wallet, nonce, raw, created_at) VALUES (?, ?, ?, ?, ?, ?)`
	insertCarried     = `INSERT INTO transaction_payments (payment_id, seq, chain_id, hash, position)
		SELECT CAST(? AS TEXT), count(*), ?, ?, ? FROM transaction_payments WHERE payment_id = ?`

	transactionColumns = `t.chain_id, t.hash, t.wallet, t.nonce, t.raw, t.created_at`
	selectByHash       = `SELECT ` + transactionColumns + ` FROM transactions t WHERE t.chain_id = ? AND t.hash = ?`
	selectByNonce      = `SELECT ` + transactionColumns + ` FROM transactions t
		WHERE t.chain_id = ? AND t.wallet = ? AND t.nonce = ?`
	selectByPayment = `SELECT ` + transactionColumns + ` FROM transaction_payments tp
		JOIN transactions t ON t.chain_id = tp.chain_id AND t.hash = tp.hash
		WHERE tp.payment_id = ? ORDER BY tp.seq`
	selectCarried = `SELECT payment_id FROM transaction_payments WHERE chain_id = ? AND hash = ? ORDER BY position`
)

// Nonce implements ledger.Store.
func (s *Store) Nonce(ctx context.Context, chainID uint64, wallet common.Address) (nonce uint64, known bool, err error) {
	err = s.reads.query(ctx, selectNonce, func(row scanner) error {
		known = true
		return row.Scan(natural{&nonce})
	}, chainID, octets(wallet[:]))
	if err != nil {
		return 0, false, err
	}
	return nonce, known, nil
}

// AdvanceNonce implements ledger.Store.
func (s *Store) AdvanceNonce(ctx context.Context, chainID uint64, wallet common.Address, to uint64) error {
	_, err := write(ctx, s, func(w *writer) (struct{}, error) {
		_, err := w.exec(raiseNonce, chainID, octets(wallet[:]), to)
		if err != nil {
			err = fmt.Errorf("ledger/sqlite: advancing the nonce: %w", err)
		}
		return struct{}{}, err
	})
	return err
}

// Record implements ledger.Store.
func (s *Store) Record(ctx context.Context, t ledger.Transaction, actor string) error {
	_, err := write(ctx, s, func(w *writer) (struct{}, error) { return struct{}{}, w.record(t, actor, s.now()) })
	return err
}

func (w *writer) record(t ledger.Transaction, actor string, now time.Time) error {
	had, err := w.transactions(selectByHash, t.ChainID, octets(t.Hash[:]))
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
	if _, err := w.exec(insertTransaction, t.ChainID, octets(t.Hash[:]), octets(t.Wallet[:]), t.Nonce, t.Raw, micros(now)); err != nil {
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
	next, known := t.Nonce, false
	err := w.query(selectNonce, func(row scanner) error {
		known = true
		return row.Scan(natural{&next})
	}, t.ChainID, octets(t.Wallet[:]))
	if err != nil {
		return fmt.Errorf("ledger/sqlite: reading the nonce: %w", err)
	}
	switch {
	case !known || t.Nonce == next:
		if _, err := w.exec(raiseNonce, t.ChainID, octets(t.Wallet[:]), t.Nonce+1); err != nil {
			return fmt.Errorf("ledger/sqlite: advancing the nonce: %w", err)
		}
		return nil
	case t.Nonce > next:
		return fmt.Errorf("%w: %d leaves a gap, the next is %d", ledger.ErrNonce, t.Nonce, next)
	}
	rivals, err := w.transactions(selectByNonce, t.ChainID, octets(t.Wallet[:]), t.Nonce)
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
	p, previous, err := w.payment(selectByID, id)
	if err != nil {
		return fmt.Errorf("payment %s: %w", id, err)
	}
	p, e, err := ledger.Send(p, previous, now, t, actor)
	if err != nil {
		return err
	}
	if _, err := w.exec(insertCarried, id, t.ChainID, octets(t.Hash[:]), position, id); err != nil {
		return fmt.Errorf("ledger/sqlite: recording a transaction: %w", err)
	}
	return w.save(&p, e)
}

// transactions reads transactions as the writer's transaction sees them.
func (w *writer) transactions(query string, args ...any) ([]ledger.Transaction, error) {
	got, err := transactions(w.query, query, args...)
	if err != nil {
		return nil, fmt.Errorf("ledger/sqlite: reading transactions: %w", err)
	}
	return got, nil
}

// Transactions implements ledger.Store.
func (s *Store) Transactions(ctx context.Context, paymentID string) ([]ledger.Transaction, error) {
	return transactions(func(query string, scan func(scanner) error, args ...any) error {
		return s.reads.query(ctx, query, scan, args...)
	}, selectByPayment, paymentID)
}

func transactions(
	run func(query string, scan func(scanner) error, args ...any) error, query string, args ...any,
) ([]ledger.Transaction, error) {
	var got []ledger.Transaction
	err := run(query, func(row scanner) error {
		var t ledger.Transaction
		err := row.Scan(natural{&t.ChainID}, fixed(t.Hash[:]), fixed(t.Wallet[:]), natural{&t.Nonce}, &t.Raw, instant{&t.CreatedAt})
		if err != nil {
			return err
		}
		got = append(got, t)
		return nil
	}, args...)
	if err != nil {
		return nil, err
	}
	for i := range got {
		t := &got[i]
		err := run(selectCarried, func(row scanner) error {
			var id string
			if err := row.Scan(&id); err != nil {
				return err
			}
			t.Payments = append(t.Payments, id)
			return nil
		}, t.ChainID, octets(t.Hash[:]))
		if err != nil {
			return nil, err
		}
	}
	return got, nil
}
