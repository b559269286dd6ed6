package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/jackc/pgx/v5"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
	"github.com/caddy-x402/caddy-x402/x402"
)

// asked gives the database's clock and the Until of the last anchor, for clock.at.
const asked = `x402_clock(), COALESCE((SELECT until_at FROM anchors ORDER BY sequence DESC LIMIT 1), 0)`

// isIncomplete says whether a copy is under way: early, for what decides before it writes. x402_complete has the last word.
const isIncomplete = `EXISTS (SELECT 1 FROM meta WHERE name = 'incomplete')`

var (
	// entered writes one audit entry if the row of the statement before was written.
	entered = `(INSERT INTO audit (` + sqlstore.EntryColumns + `) SELECT ` + placeholders(19) + ` FROM made)`
	// claim takes PaymentValues, EntryValues, the time and the slack, and gives how many payments it made.
	claim = `WITH made AS (` + sqlstore.ClaimPayment + ` RETURNING id), entry AS ` + entered +
		` SELECT (SELECT count(*) FROM made), x402_check(?, ?)`
	selectForUpdate = `SELECT ` + sqlstore.PaymentColumns + `, audit_hash, ` + asked + `, ` + isIncomplete + ` FROM payments WHERE id = ?`
)

func placeholders(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

// update takes ChangeValues, the version that is changed, EntryValues of each entry, the time and the slack, and gives how
// many payments it changed.
func update(entries int) string {
	var b strings.Builder
	b.WriteString(`WITH made AS (` + sqlstore.UpdatePayment + ` AND version = ? RETURNING id)`)
	for i := range entries {
		fmt.Fprintf(&b, `, entry%d AS %s`, i, entered)
	}
	b.WriteString(` SELECT (SELECT count(*) FROM made), x402_check(?, ?)`)
	return b.String()
}

// Claim implements ledger.Store. It is one statement.
func (s *Store) Claim(ctx context.Context, p ledger.Payment, c ledger.Change) (ledger.Payment, error) {
	var made ledger.Payment
	var n int64
	err := s.dated(ctx, func(ctx context.Context, conn *pgx.Conn, at time.Time) error {
		var e ledger.Entry
		var err error
		if made, e, err = ledger.Create(p, c, at); err != nil {
			return err
		}
		args := append(sqlstore.PaymentValues(&made, e.Hash), sqlstore.EntryValues(&e)...)
		args = append(args, sqlstore.Micros(at), s.clock.slack(slack))
		return s.clock.check(conn.QueryRow(ctx, numbered(claim), args...), &n)
	})
	if err != nil {
		return ledger.Payment{}, err
	}
	if n > 0 {
		return made, nil
	}
	had, err := s.ByAuthorization(ctx, p.AuthorizationID)
	if errors.Is(err, ledger.ErrNotFound) {
		return ledger.Payment{}, errors.New("ledger/postgres: a payment was there and is not: somebody else has changed the database")
	}
	if err != nil {
		return ledger.Payment{}, err
	}
	return had, fmt.Errorf("%w, by payment %s", ledger.ErrExists, had.ID)
}

// Update implements ledger.Store. It reads, with the time, and then writes what follows by one statement, if the payment
// still has the version that was read; between the two it holds nothing.
func (s *Store) Update(ctx context.Context, id string, version uint64, changes ...ledger.Change) (ledger.Payment, error) {
	if !storable(id) {
		return ledger.Payment{}, ledger.ErrNotFound
	}
	var next ledger.Payment
	err := s.write(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		var p ledger.Payment
		var previous common.Hash
		var now, last int64
		var incomplete bool
		err := sqlstore.ScanPayment(conn.QueryRow(ctx, numbered(selectForUpdate), id), &p, sqlstore.Fixed(previous[:]), &now, &last, &incomplete)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return ledger.ErrNotFound
		case err != nil:
			return err
		case incomplete:
			return ledger.ErrIncomplete
		}
		at := s.clock.at(now, last)
		if p.Version != version {
			return fmt.Errorf("%w: payment %s has version %d, not %d", ledger.ErrConflict, id, p.Version, version)
		}
		var entries []ledger.Entry
		if next, entries, err = ledger.Advance(p, previous, at, changes...); err != nil || len(entries) == 0 {
			return err
		}
		args := append(sqlstore.ChangeValues(&next, entries[len(entries)-1].Hash), version)
		for i := range entries {
			args = append(args, sqlstore.EntryValues(&entries[i])...)
		}
		args = append(args, sqlstore.Micros(at), s.clock.slack(patientSlack))
		var n int64
		if err := s.clock.check(conn.QueryRow(ctx, numbered(update(len(entries))), args...), &n); err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("%w: payment %s has version %d no more", ledger.ErrConflict, id, version)
		}
		return nil
	})
	if err != nil {
		return ledger.Payment{}, err
	}
	return next, nil
}

// storable reports whether the database can hold s, and so whether asking for it makes sense: strangers may ask for
// anything.
func storable(s string) bool { return ledger.Text(s) == s }

// Payment implements ledger.Store.
func (s *Store) Payment(ctx context.Context, id string) (ledger.Payment, error) {
	if !storable(id) {
		id = "" // nobody's
	}
	return s.payment(ctx, sqlstore.SelectByID, id)
}

// ByAuthorization implements ledger.Store.
func (s *Store) ByAuthorization(ctx context.Context, id x402.AuthorizationID) (ledger.Payment, error) {
	return s.payment(ctx, sqlstore.SelectByAuth, sqlstore.Authorization(id)...)
}

func (s *Store) payment(ctx context.Context, query string, args ...any) (ledger.Payment, error) {
	return ask(ctx, s, func(run sqlstore.Query) (ledger.Payment, error) {
		var p ledger.Payment
		var audit common.Hash
		err := run(query, func(row sqlstore.Row) error { return sqlstore.ScanPayment(row, &p, sqlstore.Fixed(audit[:])) }, args...)
		if err == nil && p.ID == "" {
			err = ledger.ErrNotFound
		}
		return p, err
	})
}

// Unserved implements ledger.Store.
func (s *Store) Unserved(ctx context.Context, like ledger.Payment, limit int) ([]ledger.Payment, error) {
	b := &like.Binding
	b.Route, b.Plan, b.Host = ledger.Text(b.Route), ledger.Text(b.Plan), ledger.Text(b.Host)
	return ask(ctx, s, func(run sqlstore.Query) ([]ledger.Payment, error) {
		return sqlstore.Payments(run, sqlstore.SelectUnserved, sqlstore.UnservedValues(&like, limit)...)
	})
}

// LivePlans implements ledger.Store.
func (s *Store) LivePlans(ctx context.Context, payer common.Address, route, host string, limit int) ([]ledger.Payment, error) {
	return ask(ctx, s, func(run sqlstore.Query) ([]ledger.Payment, error) {
		return sqlstore.Payments(run, sqlstore.SelectPlans,
			sqlstore.PlanValues(payer, s.Now(), ledger.Text(route), ledger.Text(host), limit)...)
	})
}

// Audit implements ledger.Store.
func (s *Store) Audit(ctx context.Context, id string) ([]ledger.Entry, error) {
	if !storable(id) {
		id = ""
	}
	return ask(ctx, s, func(run sqlstore.Query) ([]ledger.Entry, error) { return sqlstore.Audit(run, id) })
}
