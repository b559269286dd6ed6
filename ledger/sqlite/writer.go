package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

// maxBatch is how many jobs share a transaction. More would save little more: by then the statements cost
// more than the sync.
const maxBatch = 128

// writer owns the one connection that writes. Only the queue's goroutine uses it.
type writer struct {
	db    *sql.DB
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
	queue *queue
	clock *clock
	log   *slog.Logger
	step  func(statement func())
	// incomplete: a copy into this ledger is under way, as the transaction sees it.
	incomplete bool
}

// connect takes a new connection, after closing the old one.
func (w *writer) connect(ctx context.Context) error {
	err := w.disconnect()
	conn, cerr := w.db.Conn(ctx)
	if cerr != nil {
		return fmt.Errorf("ledger/sqlite: connecting: %w", errors.Join(cerr, err))
	}
	w.conn, w.stmts = conn, map[string]*sql.Stmt{}
	return nil
}

func (w *writer) disconnect() error {
	if w.conn == nil {
		return nil
	}
	var errs []error
	for _, s := range w.stmts {
		errs = append(errs, s.Close())
	}
	// Saying that the connection is bad makes the pool close it, with whatever transaction it is in.
	_ = w.conn.Raw(func(any) error { return driver.ErrBadConn })
	w.conn, w.stmts = nil, nil
	return errors.Join(errs...)
}

func (w *writer) close() error {
	return errors.Join(w.disconnect(), w.db.Close())
}

// run writes one batch. The jobs are taken from the queue only when the transaction has begun: while another
// process holds the file, callers can still leave.
func (w *writer) run() {
	if w.conn == nil {
		if err := w.connect(context.Background()); err != nil {
			w.fail(w.queue.take(maxBatch), err)
			return
		}
	}
	if err := w.begin(); err != nil {
		w.fail(w.queue.take(maxBatch), fmt.Errorf("ledger/sqlite: beginning: %w", err))
		w.reset()
		return
	}
	jobs := w.queue.take(maxBatch)
	results := make([]error, len(jobs))
	for i, j := range jobs {
		var err error
		if results[i], err = w.one(j); err != nil {
			w.abort(jobs, err)
			return
		}
	}
	if _, err := w.exec("COMMIT"); err != nil {
		w.abort(jobs, fmt.Errorf("ledger/sqlite: committing: %w", err))
		return
	}
	for i, j := range jobs {
		j.done <- results[i]
	}
}

// begin begins a transaction, and learns what other processes may have written: an anchor, above which all times must be,
// or a copy.
func (w *writer) begin() error {
	if _, err := w.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	var until time.Time
	err := w.query(sqlstore.SelectStanding, func(row sqlstore.Row) error {
		return sqlstore.ScanStanding(row, &until, &w.incomplete)
	})
	w.clock.anchored(until)
	return err
}

// now is the time of what the transaction writes.
func (w *writer) now() time.Time { return w.clock.now() }

// one runs a job within a savepoint: result is for its caller, err says that the transaction is lost.
func (w *writer) one(j *job) (result, err error) {
	if _, err := w.exec("SAVEPOINT job"); err != nil {
		return nil, fmt.Errorf("ledger/sqlite: writing: %w", err)
	}
	if result = j.run(w); result != nil {
		// After a full disk or the like SQLite may have rolled back everything; then this fails, which
		// is how we know.
		if _, err := w.exec("ROLLBACK TO job"); err != nil {
			return nil, fmt.Errorf("ledger/sqlite: writing: %w", result)
		}
	}
	if _, err := w.exec("RELEASE job"); err != nil {
		return nil, fmt.Errorf("ledger/sqlite: writing: %w", err)
	}
	return result, nil
}

// abort undoes the transaction. Even a job that was refused is told of the error only: what it was refused
// for may be undone as well.
func (w *writer) abort(jobs []*job, err error) {
	w.reset()
	w.fail(jobs, err)
}

func (w *writer) fail(jobs []*job, err error) {
	if len(jobs) > 0 {
		w.log.Error("writing to the ledger failed", "error", err, "writes", len(jobs))
	}
	for _, j := range jobs {
		j.lost = true
		j.done <- err
	}
}

// reset makes the connection fit for another transaction: by closing it, which ends any transaction it is
// in; the next batch gets a new one.
func (w *writer) reset() {
	if err := w.disconnect(); err != nil {
		w.log.Warn("closing the ledger's connection", "error", err)
	}
}

func (w *writer) stmt(query string) (*sql.Stmt, error) {
	if s := w.stmts[query]; s != nil {
		return s, nil
	}
	s, err := w.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	w.stmts[query] = s
	return s, nil
}

// exec runs a statement and tells how many rows it changed. The texts of statements are constants: each is
// prepared once.
func (w *writer) exec(query string, args ...any) (n int64, err error) {
	w.do(func() {
		var s *sql.Stmt
		if s, err = w.stmt(query); err != nil {
			return
		}
		var r sql.Result
		if r, err = s.Exec(args...); err == nil {
			n, err = r.RowsAffected()
		}
	})
	return n, err
}

// query runs a statement and has scan read each row.
func (w *writer) query(query string, scan func(sqlstore.Row) error, args ...any) (err error) {
	w.do(func() {
		var s *sql.Stmt
		if s, err = w.stmt(query); err != nil {
			return
		}
		var rows *sql.Rows
		if rows, err = s.Query(args...); err == nil {
			err = each(rows, scan)
		}
	})
	return err
}

func (w *writer) do(statement func()) {
	if w.step != nil {
		w.step(statement)
		return
	}
	statement()
}
