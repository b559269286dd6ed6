package sqlite

import (
	"context"
	"strings"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

// WithStep has every statement of the writer run by step.
func WithStep(o Options, step func(statement func())) Options {
	o.step = step
	return o
}

// Exec runs a statement on the writer's connection.
func (s *Store) Exec(query string) error {
	_, err := write(context.Background(), s, func(w *writer) (int64, error) { return w.exec(query) })
	return err
}

// Ask runs a query on the writer's connection and joins what the first columns say.
func (s *Store) Ask(query string) (string, error) {
	return write(context.Background(), s, func(w *writer) (string, error) {
		var all []string
		err := w.query(query, func(row sqlstore.Row) error {
			var one string
			err := row.Scan(&one)
			all = append(all, one)
			return err
		})
		return strings.Join(all, " "), err
	})
}

// ArchiveOtherwise copies the trails to the archive, but with another value in one column, and deletes them.
func (s *Store) ArchiveOtherwise(column string) error {
	columns := strings.Replace(" "+strings.Join(strings.Fields(sqlstore.EntryColumns), " ")+",", " "+column+",", " 987,", 1)
	return s.write(context.Background(), func(w *writer) error {
		_, err := w.exec("INSERT INTO audit_archive (" + sqlstore.EntryColumns + ") SELECT " + strings.TrimSuffix(columns, ",") + " FROM audit")
		if err == nil {
			_, err = w.exec("DELETE FROM audit")
		}
		return err
	})
}

// Spoil is a job that succeeds, but makes the commit fail: a reference to nothing, checked at the end only.
func (s *Store) Spoil() error {
	_, err := write(context.Background(), s, func(w *writer) (int64, error) {
		if _, err := w.exec("PRAGMA defer_foreign_keys = ON"); err != nil {
			return 0, err
		}
		return w.exec("INSERT INTO transaction_payments (payment_id, seq, chain_id, hash, position) VALUES ('none', 0, 1, '', 0)")
	})
	return err
}

// Waiting is how many writes are queued.
func (s *Store) Waiting() int { return s.queue.waiting() }

// SetPatience shortens the wait for a disk that does not answer.
func (s *Store) SetPatience(d time.Duration) { s.patience = d }

// Plan is SQLite's plan of a query.
func (s *Store) Plan(query string) (string, error) {
	return write(context.Background(), s, func(w *writer) (string, error) {
		var all []string
		err := w.query("EXPLAIN QUERY PLAN "+query, func(row sqlstore.Row) error {
			var id, parent, unused int
			var detail string
			err := row.Scan(&id, &parent, &unused, &detail)
			all = append(all, detail)
			return err
		}, make([]any, strings.Count(query, "?"))...)
		return strings.Join(all, "; "), err
	})
}
