package sqlite

import (
	"context"
	"fmt"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Claim implements ledger.Store.
func (s *Store) Claim(ctx context.Context, p ledger.Payment, c ledger.Change) (ledger.Payment, error) {
	return write(ctx, s, func(w *writer) (ledger.Payment, error) {
		p, e, err := ledger.Create(p, c, w.now())
		if err != nil {
			return ledger.Payment{}, err
		}
		n, err := w.exec(sqlstore.ClaimPayment, sqlstore.PaymentValues(&p, e.Hash)...)
		if err != nil {
			return ledger.Payment{}, fmt.Errorf("ledger/sqlite: claiming: %w", err)
		}
		if n == 0 {
			had, _, err := w.payment(sqlstore.SelectByAuth, sqlstore.Authorization(p.AuthorizationID)...)
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
		p, previous, err := w.payment(sqlstore.SelectByID, id)
		if err != nil {
			return ledger.Payment{}, err
		}
		if p.Version != version {
			return ledger.Payment{}, fmt.Errorf("%w: payment %s has version %d, not %d", ledger.ErrConflict, id, p.Version, version)
		}
		next, entries, err := ledger.Advance(p, previous, w.now(), changes...)
		if err != nil || len(entries) == 0 {
			return next, err
		}
		err = w.save(&next, entries...)
		return next, err
	})
}

// save writes a payment that was changed, with the entries that tell how.
func (w *writer) save(p *ledger.Payment, entries ...ledger.Entry) error {
	if _, err := w.exec(sqlstore.UpdatePayment, sqlstore.ChangeValues(p, entries[len(entries)-1].Hash)...); err != nil {
		return fmt.Errorf("ledger/sqlite: changing payment %s: %w", p.ID, err)
	}
	return w.append(entries...)
}

func (w *writer) append(entries ...ledger.Entry) error {
	for i := range entries {
		if _, err := w.exec(sqlstore.InsertEntry, sqlstore.EntryValues(&entries[i])...); err != nil {
			return fmt.Errorf("ledger/sqlite: writing the audit trail: %w", err)
		}
	}
	return nil
}

// payment reads one payment, as the transaction sees it, with the hash of its last audit entry.
func (w *writer) payment(query string, args ...any) (ledger.Payment, common.Hash, error) {
	p, audit, err := payment(w.query, query, args...)
	if err != nil {
		err = fmt.Errorf("ledger/sqlite: reading a payment: %w", err)
	}
	return p, audit, err
}

func payment(run sqlstore.Query, query string, args ...any) (p ledger.Payment, audit common.Hash, err error) {
	err = run(query, func(row sqlstore.Row) error { return sqlstore.ScanPayment(row, &p, sqlstore.Fixed(audit[:])) }, args...)
	switch {
	case err != nil:
		return ledger.Payment{}, audit, err
	case p.ID == "":
		return p, audit, ledger.ErrNotFound
	}
	return p, audit, nil
}

// Payment implements ledger.Store.
func (s *Store) Payment(ctx context.Context, id string) (ledger.Payment, error) {
	p, _, err := payment(s.reading(ctx), sqlstore.SelectByID, id)
	return p, err
}

// ByAuthorization implements ledger.Store.
func (s *Store) ByAuthorization(ctx context.Context, id x402.AuthorizationID) (ledger.Payment, error) {
	p, _, err := payment(s.reading(ctx), sqlstore.SelectByAuth, sqlstore.Authorization(id)...)
	return p, err
}

// Unserved implements ledger.Store.
func (s *Store) Unserved(ctx context.Context, like ledger.Payment, limit int) ([]ledger.Payment, error) {
	return sqlstore.Payments(s.reading(ctx), sqlstore.SelectUnserved, sqlstore.UnservedValues(&like, limit)...)
}

// LivePlans implements ledger.Store.
func (s *Store) LivePlans(ctx context.Context, payer common.Address, route, host string, limit int) ([]ledger.Payment, error) {
	return sqlstore.Payments(s.reading(ctx), sqlstore.SelectPlans, sqlstore.PlanValues(payer, s.Now(), route, host, limit)...)
}

// Audit implements ledger.Store.
func (s *Store) Audit(ctx context.Context, id string) ([]ledger.Entry, error) {
	return sqlstore.Audit(s.reading(ctx), id)
}

// Counts implements ledger.Store.
func (s *Store) Counts(ctx context.Context) (map[ledger.State]int64, error) {
	return sqlstore.Counts(s.reading(ctx))
}
