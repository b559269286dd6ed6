package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

const (
	// countPatience is for what looks at every row.
	countPatience = time.Minute
	// anchorPatience is how long who adds an anchor waits for the writes that are under way; others wait behind it.
	anchorPatience = 500 * time.Millisecond
	// manyEntries are too many to be counted while others wait.
	manyEntries = 100_000
	// anchorLock is the key of the advisory lock that x402_complete shares.
	anchorLock = 40200
)

// selectEntries is sqlstore.SelectEntries with the order and the limit in both halves: PostgreSQL takes a page from
// two indexes by merging them only if it is told so, and otherwise sorts all that there is for each page.
const (
	selectEntries = `SELECT * FROM ((` + someEntries + `audit` + inOrder + `) UNION ALL (` + someEntries + `audit_archive` + inOrder + `)) AS entries
		ORDER BY at, payment_id, version LIMIT ?`
	someEntries = `SELECT ` + sqlstore.EntryColumns + ` FROM `
	inOrder     = ` WHERE (at, payment_id, version) > (?, ?, ?) AND at <= ? ORDER BY at, payment_id, version LIMIT ?`
)

const (
	sweepReservations = `WITH gone AS (` + sqlstore.SweepReservations + ` RETURNING 1) SELECT (SELECT count(*) FROM gone), x402_complete()`
	sweepRevocations  = `WITH gone AS (` + sqlstore.SweepRevocations + ` RETURNING 1) SELECT (SELECT count(*) FROM gone), x402_complete()`
	sweepAllowances   = `WITH gone AS (` + sqlstore.SweepAllowances + ` RETURNING 1) SELECT (SELECT count(*) FROM gone), x402_complete()`
	sweepObjects      = `WITH gone AS (` + sqlstore.SweepObjects + ` RETURNING 1) SELECT (SELECT count(*) FROM gone), x402_complete()`
)

// List implements ledger.Store.
func (s *Store) List(ctx context.Context, q ledger.Query) ([]ledger.Payment, error) {
	if !storable(string(q.State)) {
		return nil, nil
	}
	q.Before.Payment = place(q.Before.Payment)
	return ask(ctx, s, func(run sqlstore.Query) ([]ledger.Payment, error) { return sqlstore.List(run, q) })
}

// place is an id as a place in a list. The database holds none with a zero byte, so what follows one makes no difference.
func place(id string) string {
	before, _, _ := strings.Cut(id, "\x00")
	return before
}

// Counts implements ledger.Store.
func (s *Store) Counts(ctx context.Context) (map[ledger.State]int64, error) {
	var got map[ledger.State]int64
	err := s.readWithin(ctx, countPatience, func(ctx context.Context, c *pgx.Conn) error {
		return within(ctx, c, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func() (err error) {
			if _, err := c.Exec(ctx, fmt.Sprintf("SET LOCAL statement_timeout = %d", countPatience.Milliseconds())); err != nil {
				return err
			}
			got, err = sqlstore.Counts(queries(ctx, c))
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return got, nil
}

// within runs f in a transaction that only reads.
func within(ctx context.Context, c *pgx.Conn, o pgx.TxOptions, f func() error) error {
	tx, err := c.BeginTx(ctx, o)
	if err != nil {
		return err
	}
	return errors.Join(f(), tx.Rollback(ctx))
}

// snapshot reads as of one moment.
func snapshot[T any](ctx context.Context, s *Store, f func(sqlstore.Query) (T, error)) (T, error) {
	var got, none T
	err := s.readWithin(ctx, countPatience, func(ctx context.Context, c *pgx.Conn) error {
		return within(ctx, c, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func() (err error) {
			got, err = f(queries(ctx, c))
			return err
		})
	})
	if err != nil {
		return none, err
	}
	return got, nil
}

// Entries implements ledger.Store.
func (s *Store) Entries(ctx context.Context, after ledger.Mark, until time.Time, limit int) ([]ledger.Entry, error) {
	after.Payment = place(after.Payment)
	var got []ledger.Entry
	err := s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		got = nil
		return queries(ctx, c)(selectEntries, func(row sqlstore.Row) error {
			var e ledger.Entry
			if err := sqlstore.ScanEntry(row, &e); err != nil {
				return err
			}
			got = append(got, e)
			return nil
		}, entriesValues(after, until, limit)...)
	})
	if err != nil {
		return nil, err
	}
	return got, nil
}

// entriesValues are the arguments of selectEntries.
func entriesValues(after ledger.Mark, until time.Time, limit int) []any {
	v := sqlstore.EntriesValues(after, until, limit)
	half, most := v[:4], v[len(v)-1]
	return slices.Concat(half, []any{most}, half, []any{most, most})
}

// Anchors implements ledger.Store.
func (s *Store) Anchors(ctx context.Context, after uint64, limit int) ([]ledger.Anchor, error) {
	return ask(ctx, s, func(run sqlstore.Query) ([]ledger.Anchor, error) { return sqlstore.Anchors(run, after, limit) })
}

// LastAnchor implements ledger.Store.
func (s *Store) LastAnchor(ctx context.Context) (ledger.Anchor, error) {
	return ask(ctx, s, sqlstore.LastAnchor)
}

// AddAnchor implements ledger.Store. It waits until all writes have ended that were dated before, and so can find out
// whether a is about all entries that there are: a database that stood still for long may have let one in after a was made.
// Nobody writes meanwhile, unless there is very much to count.
func (s *Store) AddAnchor(ctx context.Context, a ledger.Anchor) error {
	err := s.writeWithin(ctx, countPatience, undoing(func(ctx context.Context, c *pgx.Conn) error {
		b := &pgx.Batch{}
		queue(b, "BEGIN")
		queue(b, fmt.Sprintf("SET LOCAL lock_timeout = %d", anchorPatience.Milliseconds()))
		queue(b, "SELECT pg_advisory_xact_lock(?)", anchorLock)
		queue(b, "SELECT x402_complete()")
		if a.Count > manyEntries {
			queue(b, "COMMIT")
			queue(b, "BEGIN")
			queue(b, fmt.Sprintf("SET LOCAL statement_timeout = %d", countPatience.Milliseconds()))
		}
		if err := c.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		last, err := lastAnchor(queries(ctx, c))
		if err != nil {
			return err
		}
		if !a.Follows(last) {
			return fmt.Errorf("%w: anchor %d does not follow the last one", ledger.ErrConflict, a.Sequence)
		}
		var after time.Time
		if last != nil {
			after = last.Until
		}
		var count uint64
		from, until := sqlstore.Micros(after), sqlstore.Micros(a.Until)
		if err := c.QueryRow(ctx, numbered(sqlstore.CountEntries), from, until, from, until).Scan(sqlstore.Natural{N: &count}); err != nil {
			return err
		}
		if count != a.Count {
			return fmt.Errorf("%w: anchor %d is about %d entries, there are %d", ledger.ErrConflict, a.Sequence, a.Count, count)
		}
		b = &pgx.Batch{}
		queue(b, sqlstore.InsertAnchor, sqlstore.AnchorValues(&a)...)
		queue(b, "COMMIT")
		if err := c.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		s.clock.anchored(until)
		return nil
	}))
	if unique(err) {
		return fmt.Errorf("%w: another has added anchor %d", ledger.ErrConflict, a.Sequence)
	}
	return err
}

// lastAnchor is nil if there is none.
func lastAnchor(run sqlstore.Query) (*ledger.Anchor, error) {
	last, err := sqlstore.LastAnchor(run)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &last, nil
}

// Sweep implements ledger.Store. The archive is filled by a function of the database, since the application's role may not
// remove anything from the audit trail.
func (s *Store) Sweep(ctx context.Context, keep time.Duration, limit int) (int, error) {
	var removed, lapsed, used, archived int64
	limit = max(limit, 0)
	err := s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		now := s.Now()
		if err := c.QueryRow(ctx, numbered(sweepReservations), sqlstore.Micros(now), limit, sqlstore.Micros(now)).Scan(&removed, nil); err != nil {
			return err
		}
		ended := sqlstore.Micros(now.Add(-ledger.RevocationGrace))
		return c.QueryRow(ctx, numbered(sweepRevocations), ended, int64(limit)-removed).Scan(&lapsed, nil)
	})
	removed += lapsed
	if err == nil && removed < int64(limit) {
		err = s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
			now := sqlstore.Micros(s.Now())
			return c.QueryRow(ctx, numbered(sweepAllowances), now, int64(limit)-removed, now).Scan(&used, nil)
		})
		removed += used
	}
	if err == nil && removed < int64(limit) {
		var over int64
		over, err = s.sweepObjects(ctx, int64(limit)-removed)
		removed += over
	}
	if err != nil || keep <= 0 || removed >= int64(limit) {
		return int(removed), err
	}
	err = s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, "SELECT x402_archive(x402_now($1) - $2, $3), x402_complete()",
			s.clock.given(), keep.Microseconds(), int64(limit)-removed).Scan(&archived, nil)
	})
	if err != nil {
		return 0, err
	}
	return int(removed + archived), nil
}

// Records implements ledger.Store.
func (s *Store) Records(ctx context.Context, after string, limit int) ([]ledger.Record, error) {
	return snapshot(ctx, s, func(run sqlstore.Query) ([]ledger.Record, error) { return sqlstore.Records(run, place(after), limit) })
}

// EachMisfiled implements ledger.Filed.
func (s *Store) EachMisfiled(ctx context.Context, f func(payment, how string) error) error {
	return sqlstore.EachMisfiled(s.reading(ctx), f)
}

// Wallets implements ledger.Store.
func (s *Store) Wallets(ctx context.Context) ([]ledger.Wallet, error) {
	return snapshot(ctx, s, sqlstore.Wallets)
}
