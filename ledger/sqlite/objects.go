package sqlite

import (
	"context"
	"fmt"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

// Object implements ledger.Store.
func (s *Store) Object(ctx context.Context, kind, id string) (ledger.Object, error) {
	return sqlstore.Object(s.reading(ctx), kind, id, s.Now())
}

// PutObject implements ledger.Store.
func (s *Store) PutObject(ctx context.Context, o ledger.Object) (ledger.Object, error) {
	return write(ctx, s, func(w *writer) (ledger.Object, error) {
		next, err := o.Next()
		if err != nil {
			return ledger.Object{}, err
		}
		if o.Version == 0 {
			return w.makeObject(&next)
		}
		n, err := w.exec(sqlstore.ChangeObject, sqlstore.ChangeObjectValues(&next, w.now())...)
		if err != nil {
			return ledger.Object{}, fmt.Errorf("ledger/sqlite: changing an object: %w", err)
		}
		if n == 0 {
			return ledger.Object{}, ledger.ErrObjectChanged
		}
		return next, nil
	})
}

// makeObject stores an object whose id must be free, or gives the one that has it.
func (w *writer) makeObject(o *ledger.Object) (ledger.Object, error) {
	now := w.now()
	n, err := w.exec(sqlstore.MakeObject, append(sqlstore.ObjectValues(o), sqlstore.Micros(now))...)
	if err != nil {
		return ledger.Object{}, fmt.Errorf("ledger/sqlite: storing an object: %w", err)
	}
	if n > 0 {
		return *o, nil
	}
	had, err := sqlstore.Object(w.query, o.Kind, o.ID, now)
	if err != nil {
		return ledger.Object{}, fmt.Errorf("ledger/sqlite: reading an object: %w", err)
	}
	return had, ledger.ErrObjectExists
}

// DeleteObject implements ledger.Store.
func (s *Store) DeleteObject(ctx context.Context, kind, id string, version int64) error {
	return s.write(ctx, func(w *writer) error {
		if !ledger.IsObjectName(kind, id) {
			return nil // nobody has it
		}
		n, err := w.exec(sqlstore.RemoveObject, kind, id, version, sqlstore.Micros(w.now()))
		if err != nil {
			return fmt.Errorf("ledger/sqlite: removing an object: %w", err)
		}
		if n > 0 {
			return nil
		}
		return w.noObject(kind, id)
	})
}

// noObject is an error if the object is there.
func (w *writer) noObject(kind, id string) error {
	there := false
	err := w.query(sqlstore.SelectObject, func(sqlstore.Row) error {
		there = true
		return nil
	}, kind, id, sqlstore.Micros(w.now()))
	if err != nil {
		return fmt.Errorf("ledger/sqlite: reading an object: %w", err)
	}
	if there {
		return ledger.ErrObjectChanged
	}
	return nil
}

// Objects implements ledger.Store.
func (s *Store) Objects(ctx context.Context, kind, group, after string, limit int) ([]ledger.Object, error) {
	return sqlstore.Objects(s.reading(ctx), kind, group, after, limit, s.Now())
}

// DueObjects implements ledger.Store.
func (s *Store) DueObjects(ctx context.Context, kind string, until time.Time, limit int) ([]ledger.Object, error) {
	return sqlstore.DueObjects(s.reading(ctx), kind, until, limit, s.Now())
}

// EachObject implements ledger.Store.
func (s *Store) EachObject(ctx context.Context, f func(ledger.Object) error) error {
	return sqlstore.EachObject(s.reading(ctx), s.Now(), f)
}

func (w *writer) importObject(o *ledger.Object) error {
	if err := o.Check(); err != nil {
		return err
	}
	n, err := w.exec(sqlstore.ImportObject, sqlstore.ObjectValues(o)...)
	if err != nil || n > 0 {
		return err
	}
	same, err := sqlstore.SameObject(w.query, o)
	if err == nil && !same {
		err = ledger.ErrObjectChanged
	}
	return err
}
