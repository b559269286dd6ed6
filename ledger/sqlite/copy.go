package sqlite

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

// Import implements ledger.Store. The whole part is written, or nothing of it.
func (s *Store) Import(ctx context.Context, part ledger.Part) error {
	_, err := transact(ctx, s, func(w *writer) (struct{}, error) { return struct{}{}, w.importPart(&part) })
	return err
}

func (w *writer) importPart(part *ledger.Part) error {
	if err := w.beginCopy(); err != nil {
		return err
	}
	for i := range part.Records {
		if err := w.importRecord(&part.Records[i]); err != nil {
			return fmt.Errorf("ledger/sqlite: importing payment %s: %w", part.Records[i].Payment.ID, err)
		}
	}
	for i := range part.Wallets {
		if err := w.importWallet(&part.Wallets[i]); err != nil {
			return fmt.Errorf("ledger/sqlite: importing wallet %s: %w", part.Wallets[i].Address, err)
		}
	}
	for i := range part.Reservations {
		if err := w.importReservation(&part.Reservations[i]); err != nil {
			return fmt.Errorf("ledger/sqlite: importing a reservation: %w", err)
		}
	}
	for i := range part.Revocations {
		if err := w.importRevocation(&part.Revocations[i]); err != nil {
			return fmt.Errorf("ledger/sqlite: importing a revocation: %w", err)
		}
	}
	for i := range part.Allowances {
		if err := w.importAllowance(&part.Allowances[i]); err != nil {
			return fmt.Errorf("ledger/sqlite: importing an allowance: %w", err)
		}
	}
	for i := range part.Objects {
		if err := w.importObject(&part.Objects[i]); err != nil {
			return fmt.Errorf("ledger/sqlite: importing an object: %w", err)
		}
	}
	if err := w.importAnchors(part.Anchors); err != nil {
		return fmt.Errorf("ledger/sqlite: importing anchors: %w", err)
	}
	if part.Complete {
		if _, err := w.exec(sqlstore.MarkComplete); err != nil {
			return fmt.Errorf("ledger/sqlite: completing a copy: %w", err)
		}
	}
	w.incomplete = !part.Complete
	return nil
}

// beginCopy marks the ledger as incomplete, if it is empty.
func (w *writer) beginCopy() error {
	if w.incomplete {
		return nil
	}
	var used bool
	err := w.query(sqlstore.SelectUsed, func(row sqlstore.Row) error { return row.Scan(sqlstore.Boolean{B: &used}) })
	if err != nil {
		return fmt.Errorf("ledger/sqlite: beginning a copy: %w", err)
	}
	if used {
		return fmt.Errorf("ledger/sqlite: the ledger is in use, nothing can be copied into it: %w", ledger.ErrExists)
	}
	if _, err := w.exec(sqlstore.MarkIncomplete); err != nil {
		return fmt.Errorf("ledger/sqlite: beginning a copy: %w", err)
	}
	return nil
}

func (w *writer) importRecord(r *ledger.Record) error {
	p := &r.Payment
	if len(r.Trail) == 0 {
		return fmt.Errorf("%w: it is missing", ledger.ErrAudit)
	}
	n, err := w.exec(sqlstore.InsertPayment, sqlstore.PaymentValues(p, r.Trail[len(r.Trail)-1].Hash)...)
	if err != nil {
		return err
	}
	if n == 0 {
		return w.compareRecord(r)
	}
	if err := w.append(r.Trail...); err != nil {
		return err
	}
	for i := range r.Transactions {
		t := &r.Transactions[i]
		if err := w.importTransaction(t); err != nil {
			return err
		}
		position := slices.Index(t.Payments, p.ID)
		if position < 0 {
			return fmt.Errorf("%w: transaction %s does not carry it", ledger.ErrConflict, t.Hash)
		}
		if _, err := w.exec(sqlstore.InsertCarriedAs, p.ID, i, t.ChainID, sqlstore.Octets(t.Hash[:]), position); err != nil {
			return err
		}
	}
	return nil
}

// compareRecord finds out whether what is there of a payment is r.
func (w *writer) compareRecord(r *ledger.Record) error {
	differs := fmt.Errorf("%w: it is here, and different", ledger.ErrConflict)
	had, audit, err := w.payment(sqlstore.SelectByID, r.Payment.ID)
	if errors.Is(err, ledger.ErrNotFound) {
		return fmt.Errorf("%w: its authorization belongs to another payment here", ledger.ErrConflict)
	}
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(sqlstore.PaymentValues(&had, audit), sqlstore.PaymentValues(&r.Payment, r.Trail[len(r.Trail)-1].Hash)) {
		return differs
	}
	trail, err := sqlstore.Audit(w.query, had.ID)
	if err != nil {
		return err
	}
	if !slices.EqualFunc(trail, r.Trail, func(a, b ledger.Entry) bool {
		return reflect.DeepEqual(sqlstore.EntryValues(&a), sqlstore.EntryValues(&b))
	}) {
		return differs
	}
	type carried struct {
		chainID, position uint64
		hash              [32]byte
	}
	var want, got []carried
	for i := range r.Transactions {
		t := &r.Transactions[i]
		want = append(want, carried{t.ChainID, uint64(slices.Index(t.Payments, had.ID)), t.Hash})
		if err := w.importTransaction(t); err != nil {
			return err
		}
	}
	err = w.query(sqlstore.SelectCarriedAs, func(row sqlstore.Row) error {
		var c carried
		err := row.Scan(sqlstore.Natural{N: &c.chainID}, sqlstore.Fixed(c.hash[:]), sqlstore.Natural{N: &c.position})
		got = append(got, c)
		return err
	}, had.ID)
	if err == nil && !slices.Equal(got, want) {
		err = differs
	}
	return err
}

// importTransaction writes a transaction, or finds that it is there.
func (w *writer) importTransaction(t *ledger.Transaction) error {
	values := sqlstore.TransactionValues(t, t.CreatedAt)
	n, err := w.exec(sqlstore.InsertTransaction, values...)
	if err != nil || n > 0 {
		return err
	}
	had, err := sqlstore.Transactions(w.query, sqlstore.SelectByHash, t.ChainID, sqlstore.Octets(t.Hash[:]))
	if err != nil {
		return err
	}
	if len(had) != 1 || !reflect.DeepEqual(sqlstore.TransactionValues(&had[0], had[0].CreatedAt), values) {
		return fmt.Errorf("%w: transaction %s is here, and different", ledger.ErrConflict, t.Hash)
	}
	return nil
}

func (w *writer) importWallet(g *ledger.Wallet) error {
	n, err := w.exec(sqlstore.InsertWallet, g.ChainID, sqlstore.Octets(g.Address[:]), g.NextNonce)
	if err != nil {
		return err
	}
	if n == 0 {
		next, _, err := sqlstore.Nonce(w.query, g.ChainID, g.Address)
		if err != nil {
			return err
		}
		if next != g.NextNonce {
			return fmt.Errorf("%w: its next nonce here is %d, not %d", ledger.ErrConflict, next, g.NextNonce)
		}
	}
	for i := range g.Freed {
		if err := w.importTransaction(&g.Freed[i]); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) importReservation(r *ledger.Reservation) error {
	values := sqlstore.ReservationValues(r)
	n, err := w.exec(sqlstore.InsertReservation, values...)
	if err != nil || n > 0 {
		return err
	}
	had, err := sqlstore.Reservation(w.query, r.Key, time.Time{}) // even one that has expired
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(sqlstore.ReservationValues(&had), values) {
		return fmt.Errorf("%w: the reservation for payment %s is here, and different", ledger.ErrConflict, r.Payment)
	}
	return nil
}

func (w *writer) importAnchors(anchors []ledger.Anchor) error {
	last, err := w.lastAnchor()
	if err != nil {
		return err
	}
	for i := range anchors {
		a := &anchors[i]
		if last == nil || a.Sequence > last.Sequence {
			if !a.Follows(last) {
				return fmt.Errorf("%w: anchor %d does not follow the last one", ledger.ErrConflict, a.Sequence)
			}
			if err := w.addAnchor(a); err != nil {
				return err
			}
			last = a
			continue
		}
		had, err := sqlstore.Anchors(w.query, a.Sequence-1, 1)
		if err != nil {
			return err
		}
		if len(had) != 1 || !reflect.DeepEqual(sqlstore.AnchorValues(&had[0]), sqlstore.AnchorValues(a)) {
			return fmt.Errorf("%w: anchor %d is here, and different", ledger.ErrConflict, a.Sequence)
		}
	}
	return nil
}
