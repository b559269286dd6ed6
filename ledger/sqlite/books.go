package sqlite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

// List implements ledger.Store.
func (s *Store) List(ctx context.Context, q ledger.Query) ([]ledger.Payment, error) {
	return sqlstore.List(s.reading(ctx), q)
}

// Entries implements ledger.Store.
func (s *Store) Entries(ctx context.Context, after ledger.Mark, until time.Time, limit int) ([]ledger.Entry, error) {
	return sqlstore.Entries(s.reading(ctx), after, until, limit)
}

// Anchors implements ledger.Store.
func (s *Store) Anchors(ctx context.Context, after uint64, limit int) ([]ledger.Anchor, error) {
	return sqlstore.Anchors(s.reading(ctx), after, limit)
}

// LastAnchor implements ledger.Store.
func (s *Store) LastAnchor(ctx context.Context) (ledger.Anchor, error) {
	return sqlstore.LastAnchor(s.reading(ctx))
}

// AddAnchor implements ledger.Store. Since nobody else writes meanwhile, it also finds out whether a is about all entries
// there are: one may have come in after a was made, if the disk took longer than ledger.AnchorLag to commit it.
func (s *Store) AddAnchor(ctx context.Context, a ledger.Anchor) error {
	return s.write(ctx, func(w *writer) error {
		last, err := w.lastAnchor()
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
		err = w.query(sqlstore.CountEntries, func(row sqlstore.Row) error { return row.Scan(sqlstore.Natural{N: &count}) },
			from, until, from, until)
		if err != nil {
			return fmt.Errorf("ledger/sqlite: counting entries: %w", err)
		}
		if count != a.Count {
			return fmt.Errorf("%w: anchor %d is about %d entries, there are %d", ledger.ErrConflict, a.Sequence, a.Count, count)
		}
		return w.addAnchor(&a)
	})
}

// lastAnchor is nil if there is none.
func (w *writer) lastAnchor() (*ledger.Anchor, error) {
	last, err := sqlstore.LastAnchor(w.query)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("ledger/sqlite: reading the last anchor: %w", err)
	}
	return &last, nil
}

func (w *writer) addAnchor(a *ledger.Anchor) error {
	if _, err := w.exec(sqlstore.InsertAnchor, sqlstore.AnchorValues(a)...); err != nil {
		return fmt.Errorf("ledger/sqlite: storing an anchor: %w", err)
	}
	w.clock.anchored(a.Until)
	return nil
}

// Sweep implements ledger.Store.
func (s *Store) Sweep(ctx context.Context, keep time.Duration, limit int) (int, error) {
	return write(ctx, s, func(w *writer) (int, error) {
		now, limit := w.now(), int64(max(limit, 0))
		n, err := w.exec(sqlstore.SweepReservations, sqlstore.Micros(now), limit, sqlstore.Micros(now))
		if err != nil {
			return 0, fmt.Errorf("ledger/sqlite: removing reservations: %w", err)
		}
		lapsed, err := w.exec(sqlstore.SweepRevocations, sqlstore.Micros(now.Add(-ledger.RevocationGrace)), limit-n)
		if err != nil {
			return 0, fmt.Errorf("ledger/sqlite: removing revocations: %w", err)
		}
		n += lapsed
		used, err := w.exec(sqlstore.SweepAllowances, sqlstore.Micros(now), limit-n, sqlstore.Micros(now))
		if err != nil {
			return 0, fmt.Errorf("ledger/sqlite: removing allowances: %w", err)
		}
		n += used
		over, err := w.exec(sqlstore.SweepObjects, sqlstore.Micros(now), limit-n, sqlstore.Micros(now))
		if err != nil {
			return 0, fmt.Errorf("ledger/sqlite: removing objects: %w", err)
		}
		n += over
		if keep <= 0 || n >= limit {
			return int(n), nil
		}
		var closed []string
		err = w.query(sqlstore.SelectClosed, func(row sqlstore.Row) error {
			var id string
			err := row.Scan(&id)
			closed = append(closed, id)
			return err
		}, sqlstore.Micros(now.Add(-keep)), limit-n)
		if err != nil {
			return 0, fmt.Errorf("ledger/sqlite: reading what is closed: %w", err)
		}
		for _, id := range closed {
			if err := w.archive(id); err != nil {
				return 0, fmt.Errorf("ledger/sqlite: archiving payment %s: %w", id, err)
			}
		}
		return int(n) + len(closed), nil
	})
}

// archive moves what belongs to a payment to the archive. A transaction goes with the last of its payments.
func (w *writer) archive(id string) error {
	for _, statement := range []struct {
		query string
		args  []any
	}{
		{sqlstore.ArchiveTrail, []any{id}},
		{sqlstore.ForgetTrail, []any{id}},
		{sqlstore.MarkArchived, []any{id}},
		{sqlstore.ArchiveRaw, []any{id}},
		{sqlstore.ForgetRaw, []any{[]byte{}, id}},
	} {
		if _, err := w.exec(statement.query, statement.args...); err != nil {
			return err
		}
	}
	return nil
}

// Records implements ledger.Store.
func (s *Store) Records(ctx context.Context, after string, limit int) (got []ledger.Record, err error) {
	err = s.reads.snapshot(ctx, func(run sqlstore.Query) error {
		got, err = sqlstore.Records(run, after, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	return got, nil
}

// EachMisfiled implements ledger.Filed.
func (s *Store) EachMisfiled(ctx context.Context, f func(payment, how string) error) error {
	return sqlstore.EachMisfiled(s.reading(ctx), f)
}

// Wallets implements ledger.Store.
func (s *Store) Wallets(ctx context.Context) (got []ledger.Wallet, err error) {
	err = s.reads.snapshot(ctx, func(run sqlstore.Query) error {
		got, err = sqlstore.Wallets(run)
		return err
	})
	if err != nil {
		return nil, err
	}
	return got, nil
}
