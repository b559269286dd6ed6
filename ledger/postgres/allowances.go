package postgres

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

// storeAllowance takes StoreAllowanceValues, the time and the slack, and gives how many allowances it stored.
const storeAllowance = `WITH made AS (` + sqlstore.StoreAllowance + ` RETURNING key) SELECT (SELECT count(*) FROM made), x402_check(?, ?)`

// allowanceTries is how often an allowance is read again that others change at the same moment. One of those who compete always
// gets through.
const allowanceTries = 200

// errContended: so many draw of one allowance that this one never got its turn.
var errContended = errors.New("ledger/postgres: an allowance keeps changing")

// changeAllowance stores what step makes of an allowance, reading it again whenever somebody was faster.
func (s *Store) changeAllowance(ctx context.Context, key common.Hash, step func(had ledger.Allowance, now time.Time) (ledger.Allowance, bool, error)) error {
	for range allowanceTries {
		var n int64
		err := s.dated(ctx, func(ctx context.Context, c *pgx.Conn, at time.Time) error {
			had, err := sqlstore.Allowance(queries(ctx, c), key)
			if err != nil {
				return err
			}
			next, changed, err := step(had, at)
			if err != nil || !changed {
				n = 1
				if _, incomplete := c.Exec(ctx, "SELECT x402_complete()"); incomplete != nil {
					return incomplete
				}
				return err
			}
			args := append(sqlstore.StoreAllowanceValues(&next, &had), sqlstore.Micros(at), s.clock.slack(slack))
			return s.clock.check(c.QueryRow(ctx, numbered(storeAllowance), args...), &n)
		})
		if err != nil || n > 0 {
			return err
		}
	}
	return errContended
}

// Draw implements ledger.Store.
func (s *Store) Draw(ctx context.Context, d ledger.Draw) (units uint256.Int, a ledger.Allowance, err error) {
	err = s.changeAllowance(ctx, d.Key, func(had ledger.Allowance, now time.Time) (ledger.Allowance, bool, error) {
		a, units = d.Take(had, now)
		return a, !units.IsZero(), nil
	})
	if err != nil {
		return uint256.Int{}, ledger.Allowance{}, err
	}
	return units, a, nil
}

// Return implements ledger.Store.
func (s *Store) Return(ctx context.Context, key common.Hash, created time.Time, n uint256.Int) error {
	return s.changeAllowance(ctx, key, func(had ledger.Allowance, now time.Time) (ledger.Allowance, bool, error) {
		return had.GiveBack(created, n, now)
	})
}

// Allowance implements ledger.Store.
func (s *Store) Allowance(ctx context.Context, key common.Hash) (ledger.Allowance, error) {
	a, err := ask(ctx, s, func(run sqlstore.Query) (ledger.Allowance, error) { return sqlstore.Allowance(run, key) })
	if err == nil && !a.Live(s.Now()) {
		return ledger.Allowance{}, ledger.ErrNotFound
	}
	return a, err
}

// EachAllowance implements ledger.Store. No connection is held while f runs.
func (s *Store) EachAllowance(ctx context.Context, f func(ledger.Allowance) error) error {
	return sqlstore.EachAllowance(s.reading(ctx), s.Now(), f)
}

func (i *importing) allowances(all []ledger.Allowance) error {
	var there []*ledger.Allowance
	b := &pgx.Batch{}
	for n := range all {
		queue(b, sqlstore.InsertAllowance, sqlstore.AllowanceValues(&all[n])...).Exec(func(tag pgconn.CommandTag) error {
			if tag.RowsAffected() == 0 {
				there = append(there, &all[n])
			}
			return nil
		})
	}
	if err := i.send(b); err != nil {
		return err
	}
	for _, a := range there {
		had, err := sqlstore.Allowance(i.run, a.Key)
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(sqlstore.AllowanceValues(&had), sqlstore.AllowanceValues(a)) {
			return fmt.Errorf("%w: the allowance %s is here, and different", ledger.ErrConflict, a.Key)
		}
	}
	return nil
}
