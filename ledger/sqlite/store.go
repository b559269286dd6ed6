// Package sqlite keeps the ledger in one file on the local disk, for one machine: the store that needs
// nothing else. It is written in pure Go (modernc.org/sqlite) and passes the suite ledger/storetest.
//
// One goroutine writes. What callers ask for at the same time is written in one transaction with one sync
// of the disk (group commit), and nobody is answered before that; so safety costs latency, not throughput.
// Readers have connections of their own and never wait for the writer.
//
// Nothing is ever lost for age: Sweep moves the trails and raw transactions of payments that are long closed to tables of
// their own, so that those in use stay small, and every reading method reads both.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

// Options are what Open can do without. The zero value is good.
type Options struct {
	// Now is the store's clock; nil means time.Now.
	Now func() time.Time
	// Logger hears of trouble with the disk; nil means silence.
	Logger *slog.Logger

	// step, if set, runs every statement of the writer: tests stop it anywhere.
	step func(statement func())
}

// Store is the ledger in a file.
type Store struct {
	clock  *clock
	log    *slog.Logger
	queue  *queue
	writer *writer
	reads  *reader
	// patience is how long a write is awaited after its caller's context has ended.
	patience time.Duration

	closing sync.Once
	closed  error
}

var (
	_ ledger.Store = (*Store)(nil)
	_ ledger.Filed = (*Store)(nil)
)

const (
	// busyTimeout is how long a statement waits for another process that writes the same file.
	busyTimeout = 5 * time.Second
	// readers is how many reads may run at once.
	readers = 4
)

// Open opens the ledger in the file path, or makes it: the file readable by its owner only, its directory
// as well if that is missing. Another process may have it open too. The caller closes it. Errors wrap
// ErrSchema where the file is at fault.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	path, err := touch(path)
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", dsn(path, false))
	if err != nil {
		return nil, fmt.Errorf("ledger/sqlite: opening %s: %w", path, err)
	}
	db.SetMaxOpenConns(1)
	if err := migrate(ctx, db); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), db.Close())
	}
	rdb, err := sql.Open("sqlite", dsn(path, true))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ledger/sqlite: opening %s: %w", path, err), db.Close())
	}
	rdb.SetMaxOpenConns(readers)
	rdb.SetMaxIdleConns(readers)
	s := &Store{
		clock: &clock{machine: o.Now}, log: o.Logger, queue: newQueue(), reads: &reader{db: rdb}, patience: patience,
	}
	s.writer = &writer{db: db, clock: s.clock, log: o.Logger, step: o.step, queue: s.queue}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, rdb.Close(), db.Close())
	}
	s.queue.serve(s.writer.run)
	return s, nil
}

// start connects the writer, and sets the clock above the last anchor.
func (s *Store) start(ctx context.Context) error {
	if err := s.writer.connect(ctx); err != nil {
		return err
	}
	last, err := sqlstore.LastAnchor(s.reading(ctx))
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return errors.Join(err, s.writer.disconnect())
	}
	s.clock.anchored(last.Until)
	return nil
}

// reading is how the functions of sqlstore read, each query by itself.
func (s *Store) reading(ctx context.Context) sqlstore.Query {
	return func(query string, scan func(sqlstore.Row) error, args ...any) error {
		return s.reads.query(ctx, query, scan, args...)
	}
}

// Now implements ledger.Store.
func (s *Store) Now() time.Time { return s.clock.now() }

// Close writes what is queued, and closes the file.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.queue.close()
		// The last connection to close folds the log into the file; it must be one that can write.
		s.closed = errors.Join(s.reads.close(), s.writer.close())
	})
	return s.closed
}

// Ping writes a row: only that shows that the disk takes one.
func (s *Store) Ping(ctx context.Context) error {
	return s.write(ctx, func(w *writer) error {
		_, err := w.exec(`INSERT INTO heartbeat (id, at) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET at = excluded.at`,
			sqlstore.Micros(w.now()))
		return err
	})
}

// touch makes the file before SQLite does, so that nobody else can read it, not even for a moment.
// The log beside it gets the file's mode from SQLite.
func touch(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("ledger/sqlite: %w", err)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("ledger/sqlite: making the directory: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", fmt.Errorf("ledger/sqlite: making the file: %w", err)
	}
	if err := f.Close(); err != nil {
		return "", fmt.Errorf("ledger/sqlite: making the file: %w", err)
	}
	// The file's name must survive a power failure as its contents do. Not every system can sync a directory.
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
	return path, nil
}

func dsn(path string, readOnly bool) string {
	q := url.Values{}
	q.Add("_pragma", fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()))
	q.Add("_pragma", "foreign_keys(1)")
	q.Add("_pragma", "temp_store(2)") // memory
	if readOnly {
		q.Set("mode", "ro")
		q.Add("_pragma", "query_only(1)")
	} else {
		q.Set("mode", "rw")
		q.Set("_txlock", "immediate")
		q.Add("_pragma", "synchronous(2)")        // FULL: a commit is on the disk when it returns
		q.Add("_pragma", "recursive_triggers(1)") // or REPLACE would delete behind the triggers' back
		q.Add("_pragma", "journal_size_limit(67108864)")
		q.Add("_pragma", "cache_size(-32768)") // KiB: the indexes are entered at random places
	}
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // a drive letter
	}
	return "file://" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}
