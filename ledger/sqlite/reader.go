package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

// reader reads on connections that can't write. Every query is a snapshot of what is committed, so it sees all
// that was answered before it began.
type reader struct {
	db    *sql.DB
	stmts sync.Map // query -> *sql.Stmt

	mu     sync.RWMutex // held for reading by every query
	closed bool
}

func (r *reader) query(ctx context.Context, query string, scan func(sqlstore.Row) error, args ...any) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.closed {
		return ledger.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s, err := r.stmt(ctx, query)
	if err != nil {
		return readError(ctx, err)
	}
	rows, err := s.QueryContext(ctx, args...)
	if err != nil {
		return readError(ctx, err)
	}
	return readError(ctx, each(rows, scan))
}

// snapshot has f read what is committed at one moment.
func (r *reader) snapshot(ctx context.Context, f func(sqlstore.Query) error) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.closed {
		return ledger.ErrClosed
	}
	tx, err := r.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return readError(ctx, err)
	}
	err = f(func(query string, scan func(sqlstore.Row) error, args ...any) error {
		rows, err := tx.QueryContext(ctx, query, args...)
		if err != nil {
			return readError(ctx, err)
		}
		return readError(ctx, each(rows, scan))
	})
	if end := tx.Rollback(); err == nil && end != nil {
		return readError(ctx, end)
	}
	return err
}

func (r *reader) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	if s, ok := r.stmts.Load(query); ok {
		return s.(*sql.Stmt), nil
	}
	s, err := r.db.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	if had, ok := r.stmts.LoadOrStore(query, s); ok {
		return had.(*sql.Stmt), s.Close()
	}
	return s, nil
}

// readError names the context where it is the cause: SQLite only says that it was interrupted.
func readError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("ledger/sqlite: reading: %w", err)
}

func (r *reader) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	var errs []error
	r.stmts.Range(func(_, s any) bool {
		errs = append(errs, s.(*sql.Stmt).Close())
		return true
	})
	return errors.Join(append(errs, r.db.Close())...)
}

func each(rows *sql.Rows, scan func(sqlstore.Row) error) error {
	for rows.Next() {
		if err := scan(rows); err != nil {
			return errors.Join(err, rows.Close())
		}
	}
	return errors.Join(rows.Err(), rows.Close())
}
