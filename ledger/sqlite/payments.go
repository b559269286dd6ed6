package sqlite

import (
	"context"
	"fmt"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

const (
	insertPayment = `INSERT INTO payments (id, chain_id, asset, payer, nonce, pay_to, amount, valid_before, header_hash,
		route, plan, method, host, uri, flow, claim_block,
		version, settlement, delivery, refund, reason, tx_hash, block_number, block_hash, is_final,
		hold_fence, hold_until, plan_until, served_by, created_at, updated_at, settled_at, delivered_at,
		state, is_open, is_unserved, audit_hash, check_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
			?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (chain_id, asset, payer, nonce) DO NOTHING`
	// A payment that opens again is due at once; otherwise the leases keep their times.
	updatePayment = `UPDATE payments SET version = ?, settlement = ?, delivery = ?, refund = ?, reason = ?, tx_hash = ?,
		block_number = ?, block_hash = ?, is_final = ?, hold_fence = ?, hold_until = ?, plan_until = ?, served_by = ?,
		created_at = ?, updated_at = ?, settled_at = ?, delivered_at = ?,
		state = ?, is_open = ?, is_unserved = ?, audit_hash = ?,
		check_at = CASE WHEN is_open = 1 THEN check_at ELSE updated_at END
		WHERE id = ?`
	insertEntry = `INSERT INTO audit (` + entryColumns + `) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

	selectByID     = `SELECT ` + paymentColumns + `, audit_hash FROM payments WHERE id = ?`
	selectByAuth   = `SELECT ` + paymentColumns + `, audit_hash FROM payments WHERE chain_id = ? AND asset = ? AND payer = ? AND nonce = ?`
	selectUnserved = `SELECT ` + paymentColumns + ` FROM payments WHERE payer = ? AND route = ? AND is_unserved = 1
		AND chain_id = ? AND asset = ? AND amount = ? AND plan = ? AND host = ?
		ORDER BY created_at, id LIMIT ?`
	selectPlans = `SELECT ` + paymentColumns + ` FROM payments WHERE payer = ? AND plan_until > 0 AND plan_until > ?
		AND route = ? AND host = ? AND delivery = 'delivered' ORDER BY plan_until DESC, id LIMIT ?`
	selectAudit  = `SELECT ` + entryColumns + ` FROM audit WHERE payment_id = ? ORDER BY version`
	selectCounts = `SELECT state, count(*) FROM payments GROUP BY state`
)

// Claim implements ledger.Store.
func (s *Store) Claim(ctx context.Context, p ledger.Payment, c ledger.Change) (ledger.Payment, error) {
	return write(ctx, s, func(w *writer) (ledger.Payment, error) {
		p, e, err := ledger.Create(p, c, s.now())
		if err != nil {
			return ledger.Payment{}, err
		}
		// It is due as soon as nobody holds it.
		n, err := w.exec(insertPayment, append(append(subjectValues(&p), stateValues(&p, e.Hash)...), micros(p.CreatedAt))...)
		if err != nil {
			return ledger.Payment{}, fmt.Errorf("ledger/sqlite: claiming: %w", err)
		}
		if n == 0 {
			had, _, err := w.payment(selectByAuth, authorization(p.AuthorizationID)...)
			if err != nil {
				return ledger.Payment{}, err
			}
			return had, fmt.Errorf("%w, by payment %s", ledger.ErrExists, had.ID)
		}
		return p, w.append(e)
	})
}

// Update implements ledger.Store.
func (s *Store) Update(ctx context.Context, id string, version uint64, changes ...ledger.Change) (ledger.Payment, error) {
	return write(ctx, s, func(w *writer) (ledger.Payment, error) {
		p, previous, err := w.payment(selectByID, id)
		if err != nil {
			return ledger.Payment{}, err
		}
		if p.Version != version {
			return ledger.Payment{}, fmt.Errorf("%w: payment %s has version %d, not %d", ledger.ErrConflict, id, p.Version, version)
		}
		next, entries, err := ledger.Advance(p, previous, s.now(), changes...)
		if err != nil || len(entries) == 0 {
			return next, err
		}
		err = w.save(&next, entries...)
		return next, err
	})
}

// save writes a payment that was changed, with the entries that tell how.
func (w *writer) save(p *ledger.Payment, entries ...ledger.Entry) error {
	if _, err := w.exec(updatePayment, append(stateValues(p, entries[len(entries)-1].Hash), p.ID)...); err != nil {
		return fmt.Errorf("ledger/sqlite: changing payment %s: %w", p.ID, err)
	}
	return w.append(entries...)
}

func (w *writer) append(entries ...ledger.Entry) error {
	for i := range entries {
		if _, err := w.exec(insertEntry, entryValues(&entries[i])...); err != nil {
			return fmt.Errorf("ledger/sqlite: writing the audit trail: %w", err)
		}
	}
	return nil
}

// payment reads one payment, as the transaction sees it, with the hash of its last audit entry.
func (w *writer) payment(query string, args ...any) (p ledger.Payment, audit common.Hash, err error) {
	err = w.query(query, func(row scanner) error { return scanPayment(row, &p, fixed(audit[:])) }, args...)
	if err != nil {
		return ledger.Payment{}, audit, fmt.Errorf("ledger/sqlite: reading a payment: %w", err)
	}
	if p.ID == "" {
		return p, audit, ledger.ErrNotFound
	}
	return p, audit, nil
}

func authorization(id x402.AuthorizationID) []any {
	return []any{id.ChainID, octets(id.Asset[:]), octets(id.Payer[:]), octets(id.Nonce[:])}
}

// Payment implements ledger.Store.
func (s *Store) Payment(ctx context.Context, id string) (ledger.Payment, error) {
	return s.payment(ctx, selectByID, id)
}

// ByAuthorization implements ledger.Store.
func (s *Store) ByAuthorization(ctx context.Context, id x402.AuthorizationID) (ledger.Payment, error) {
	return s.payment(ctx, selectByAuth, authorization(id)...)
}

func (s *Store) payment(ctx context.Context, query string, args ...any) (ledger.Payment, error) {
	var p ledger.Payment
	var audit common.Hash
	err := s.reads.query(ctx, query, func(row scanner) error { return scanPayment(row, &p, fixed(audit[:])) }, args...)
	switch {
	case err != nil:
		return ledger.Payment{}, err
	case p.ID == "":
		return ledger.Payment{}, ledger.ErrNotFound
	}
	return p, nil
}

// Unserved implements ledger.Store.
func (s *Store) Unserved(ctx context.Context, like ledger.Payment, limit int) ([]ledger.Payment, error) {
	b := like.Binding
	return s.payments(ctx, selectUnserved, octets(like.Payer[:]), b.Route, like.ChainID, octets(like.Asset[:]), like.Amount.Dec(),
		b.Plan, b.Host, max(limit, 0))
}

// LivePlans implements ledger.Store.
func (s *Store) LivePlans(ctx context.Context, payer common.Address, route, host string, limit int) ([]ledger.Payment, error) {
	return s.payments(ctx, selectPlans, octets(payer[:]), micros(s.now()), route, host, max(limit, 0))
}

func (s *Store) payments(ctx context.Context, query string, args ...any) ([]ledger.Payment, error) {
	var got []ledger.Payment
	err := s.reads.query(ctx, query, func(row scanner) error {
		var p ledger.Payment
		if err := scanPayment(row, &p); err != nil {
			return err
		}
		got = append(got, p)
		return nil
	}, args...)
	if err != nil {
		return nil, err
	}
	return got, nil
}

// Audit implements ledger.Store.
func (s *Store) Audit(ctx context.Context, id string) ([]ledger.Entry, error) {
	var got []ledger.Entry
	err := s.reads.query(ctx, selectAudit, func(row scanner) error {
		var e ledger.Entry
		if err := scanEntry(row, &e); err != nil {
			return err
		}
		got = append(got, e)
		return nil
	}, id)
	switch {
	case err != nil:
		return nil, err
	case len(got) == 0: // a payment has at least the entry of its claim
		return nil, ledger.ErrNotFound
	}
	return got, nil
}

// Counts implements ledger.Store.
func (s *Store) Counts(ctx context.Context) (map[ledger.State]int64, error) {
	got := map[ledger.State]int64{}
	err := s.reads.query(ctx, selectCounts, func(row scanner) error {
		var state ledger.State
		var n int64
		if err := row.Scan(&state, &n); err != nil {
			return err
		}
		got[state] = n
		return nil
	})
	if err != nil {
		return nil, err
	}
	return got, nil
}
