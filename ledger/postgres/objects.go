package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

// Each takes the arguments of the statement in it, the time and the slack, and gives how many objects it changed.
const (
	makeObject   = `WITH made AS (` + sqlstore.MakeObject + ` RETURNING 1) SELECT (SELECT count(*) FROM made), x402_check(?, ?)`
	changeObject = `WITH made AS (` + sqlstore.ChangeObject + ` RETURNING 1) SELECT (SELECT count(*) FROM made), x402_check(?, ?)`
	removeObject = `WITH made AS (` + sqlstore.RemoveObject + ` RETURNING 1) SELECT (SELECT count(*) FROM made), x402_check(?, ?)`
)

// changeObjects runs one of the statements above, and gives how many objects it changed, and when.
func (s *Store) changeObjects(ctx context.Context, statement string, values func(now time.Time) []any) (n int64, now time.Time, err error) {
	err = s.dated(ctx, func(ctx context.Context, c *pgx.Conn, at time.Time) error {
		now = at
		args := append(values(at), sqlstore.Micros(at), s.clock.slack(slack))
		return s.clock.check(c.QueryRow(ctx, numbered(statement), args...), &n)
	})
	return n, now, err
}

func (s *Store) object(ctx context.Context, kind, id string, now time.Time) (ledger.Object, error) {
	return ask(ctx, s, func(run sqlstore.Query) (ledger.Object, error) { return sqlstore.Object(run, kind, id, now) })
}

// Object implements ledger.Store.
func (s *Store) Object(ctx context.Context, kind, id string) (ledger.Object, error) {
	return s.object(ctx, kind, id, s.Now())
}

// PutObject implements ledger.Store.
func (s *Store) PutObject(ctx context.Context, o ledger.Object) (ledger.Object, error) {
	next, err := o.Next()
	if err != nil {
		return ledger.Object{}, err
	}
	if o.Version == 0 {
		return s.makeObject(ctx, next)
	}
	n, _, err := s.changeObjects(ctx, changeObject, func(now time.Time) []any { return sqlstore.ChangeObjectValues(&next, now) })
	switch {
	case err != nil:
		return ledger.Object{}, err
	case n == 0:
		return ledger.Object{}, ledger.ErrObjectChanged
	}
	return next, nil
}

// makeObject stores an object whose id must be free, or gives the one that has it.
func (s *Store) makeObject(ctx context.Context, o ledger.Object) (ledger.Object, error) {
	for range tries {
		n, now, err := s.changeObjects(ctx, makeObject, func(now time.Time) []any {
			return append(sqlstore.ObjectValues(&o), sqlstore.Micros(now))
		})
		switch {
		case err != nil:
			return ledger.Object{}, err
		case n > 0:
			return o, nil
		}
		had, err := s.object(ctx, o.Kind, o.ID, now)
		switch {
		case err == nil:
			return had, ledger.ErrObjectExists
		case !errors.Is(err, ledger.ErrNotFound): // else it was removed at this moment
			return ledger.Object{}, err
		}
	}
	return ledger.Object{}, errors.New("ledger/postgres: an object comes and goes")
}

// DeleteObject implements ledger.Store.
func (s *Store) DeleteObject(ctx context.Context, kind, id string, version int64) error {
	if !ledger.IsObjectName(kind, id) {
		return nil // nobody has it
	}
	n, now, err := s.changeObjects(ctx, removeObject, func(now time.Time) []any { return []any{kind, id, version, sqlstore.Micros(now)} })
	if err != nil || n > 0 {
		return err
	}
	switch _, err := s.object(ctx, kind, id, now); {
	case err == nil:
		return ledger.ErrObjectChanged
	case !errors.Is(err, ledger.ErrNotFound):
		return err
	}
	return nil
}

// Objects implements ledger.Store.
func (s *Store) Objects(ctx context.Context, kind, group, after string, limit int) ([]ledger.Object, error) {
	now, after := s.Now(), place(after)
	return ask(ctx, s, func(run sqlstore.Query) ([]ledger.Object, error) {
		return sqlstore.Objects(run, kind, group, after, limit, now)
	})
}

// DueObjects implements ledger.Store.
func (s *Store) DueObjects(ctx context.Context, kind string, until time.Time, limit int) ([]ledger.Object, error) {
	now := s.Now()
	return ask(ctx, s, func(run sqlstore.Query) ([]ledger.Object, error) {
		return sqlstore.DueObjects(run, kind, until, limit, now)
	})
}

// EachObject implements ledger.Store. No connection is held while f runs.
func (s *Store) EachObject(ctx context.Context, f func(ledger.Object) error) error {
	return sqlstore.EachObject(s.reading(ctx), s.Now(), f)
}

// sweepObjects removes what has expired.
func (s *Store) sweepObjects(ctx context.Context, limit int64) (n int64, err error) {
	err = s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		now := sqlstore.Micros(s.Now())
		return c.QueryRow(ctx, numbered(sweepObjects), now, limit, now).Scan(&n, nil)
	})
	return n, err
}

func (i *importing) objects(all []ledger.Object) error {
	var there []*ledger.Object
	b := &pgx.Batch{}
	for n := range all {
		if err := all[n].Check(); err != nil {
			return err
		}
		queue(b, sqlstore.ImportObject, sqlstore.ObjectValues(&all[n])...).Exec(func(tag pgconn.CommandTag) error {
			if tag.RowsAffected() == 0 {
				there = append(there, &all[n])
			}
			return nil
		})
	}
	if err := i.send(b); err != nil {
		return err
	}
	for _, o := range there {
		same, err := sqlstore.SameObject(i.run, o)
		if err != nil {
			return err
		}
		if !same {
			return ledger.ErrObjectChanged
		}
	}
	return nil
}
