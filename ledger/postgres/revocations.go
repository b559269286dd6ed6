package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

const revoke = `SELECT x402_revoke(?, ?)`

// Revoke implements ledger.Store.
func (s *Store) Revoke(ctx context.Context, id string, until time.Time) error {
	if !storable(id) {
		return errors.New("ledger/postgres: this can be no token's id")
	}
	return s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, numbered(revoke), id, sqlstore.Micros(until))
		return err
	})
}

// Revoked implements ledger.Store.
func (s *Store) Revoked(ctx context.Context, after uint64, limit int) ([]ledger.Revocation, error) {
	return ask(ctx, s, func(run sqlstore.Query) ([]ledger.Revocation, error) { return sqlstore.Revoked(run, after, limit) })
}

func (i *importing) revocations(all []ledger.Revocation) error {
	var there []*ledger.Revocation
	b := &pgx.Batch{}
	for n := range all {
		queue(b, sqlstore.InsertRevocation, all[n].ID, sqlstore.Micros(all[n].Until)).Exec(func(tag pgconn.CommandTag) error {
			if tag.RowsAffected() == 0 {
				there = append(there, &all[n])
			}
			return nil
		})
	}
	if err := i.send(b); err != nil {
		return err
	}
	for _, r := range there {
		same, err := sqlstore.SameRevocation(i.run, r)
		if err != nil {
			return err
		}
		if !same {
			return fmt.Errorf("%w: the revocation of %s is here, and different", ledger.ErrConflict, r.ID)
		}
	}
	return nil
}
