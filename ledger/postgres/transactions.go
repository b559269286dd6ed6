package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

const (
	lockNonce    = sqlstore.SelectNonce + ` FOR UPDATE`
	lockPayments = `SELECT ` + sqlstore.PaymentColumns + `, audit_hash FROM payments WHERE id = ANY (?) ORDER BY id FOR UPDATE`
	isRecorded   = `SELECT EXISTS (SELECT 1 FROM transactions WHERE chain_id = ? AND hash = ?)`
	advanceNonce = `WITH raised AS (` + sqlstore.RaiseNonce + ` RETURNING 1) SELECT (SELECT count(*) FROM raised), x402_complete()`
	check        = `SELECT x402_check(?, ?)`
)

// insertTransaction fails where the hash is there, in spite of the wallet's lock: then it is another wallet's.
var insertTransaction = strings.TrimSuffix(sqlstore.InsertTransaction, ` ON CONFLICT DO NOTHING`)

// Nonce implements ledger.Store.
func (s *Store) Nonce(ctx context.Context, chainID uint64, wallet common.Address) (nonce uint64, known bool, err error) {
	err = s.read(ctx, func(ctx context.Context, c *pgx.Conn) (err error) {
		nonce, known, err = sqlstore.Nonce(queries(ctx, c), chainID, wallet)
		return err
	})
	if err != nil {
		return 0, false, err
	}
	return nonce, known, nil
}

// AdvanceNonce implements ledger.Store.
func (s *Store) AdvanceNonce(ctx context.Context, chainID uint64, wallet common.Address, to uint64) error {
	return s.write(ctx, func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, numbered(advanceNonce), chainID, sqlstore.Octets(wallet[:]), to)
		return err
	})
}

// Transactions implements ledger.Store.
func (s *Store) Transactions(ctx context.Context, paymentID string) ([]ledger.Transaction, error) {
	if !storable(paymentID) {
		paymentID = ""
	}
	return ask(ctx, s, func(run sqlstore.Query) ([]ledger.Transaction, error) {
		return sqlstore.Transactions(run, sqlstore.SelectByPayment, paymentID)
	})
}

// Record implements ledger.Store. It is one transaction of two round trips: the first locks the wallet and then its
// payments in the order of their ids, which all who record do, so that none waits for another in a circle; the second
// writes.
func (s *Store) Record(ctx context.Context, t ledger.Transaction, actor string) error {
	for _, id := range t.Payments {
		if !storable(id) {
			return fmt.Errorf("payment %q: %w", id, ledger.ErrNotFound)
		}
	}
	return s.write(ctx, undoing(func(ctx context.Context, c *pgx.Conn) error {
		r := &recording{t: &t, carried: map[string]carried{}}
		if err := r.lock(ctx, c, &s.clock); err != nil {
			return err
		}
		if done, err := r.judge(queries(ctx, c)); err != nil || done {
			return err
		}
		b := &pgx.Batch{}
		if err := r.write(b, actor); err != nil {
			return err
		}
		queue(b, check, sqlstore.Micros(r.at), s.clock.slack(patientSlack))
		queue(b, "COMMIT")
		return c.SendBatch(ctx, b).Close()
	}))
}

// undoing is for an f that begins a transaction and commits it, or leaves it to be undone.
func undoing(f func(context.Context, *pgx.Conn) error) func(context.Context, *pgx.Conn) error {
	return func(ctx context.Context, c *pgx.Conn) error {
		err := f(ctx, c)
		if !c.IsClosed() && c.PgConn().TxStatus() != 'I' {
			// If this fails, the connection is not used again, which undoes it too.
			_, _ = c.Exec(ctx, "ROLLBACK")
		}
		return err
	}
}

// queue adds a statement with question marks.
func queue(b *pgx.Batch, query string, args ...any) *pgx.QueuedQuery {
	return b.Queue(numbered(query), args...)
}

// recording is a Record under way.
type recording struct {
	t       *ledger.Transaction
	at      time.Time
	next    uint64 // the wallet's nonce; t's own if the wallet is new
	there   bool   // the hash is recorded
	carried map[string]carried
}

type carried struct {
	p     ledger.Payment
	audit common.Hash
}

// lock begins the transaction and reads all that it decides by. A wallet that is new begins with t's nonce.
func (r *recording) lock(ctx context.Context, c *pgx.Conn, clock *clock) error {
	t := r.t
	wallet := []any{t.ChainID, sqlstore.Octets(t.Wallet[:])}
	var now, last int64
	var incomplete bool
	b := &pgx.Batch{}
	queue(b, "BEGIN")
	queue(b, sqlstore.InsertWallet, append(wallet, t.Nonce)...)
	queue(b, lockNonce, wallet...).QueryRow(func(row pgx.Row) error { return row.Scan(sqlstore.Natural{N: &r.next}) })
	queue(b, isRecorded, t.ChainID, sqlstore.Octets(t.Hash[:])).QueryRow(func(row pgx.Row) error { return row.Scan(&r.there) })
	queue(b, lockPayments, t.Payments).Query(func(rows pgx.Rows) error {
		return each(rows, func(row sqlstore.Row) error {
			var had carried
			if err := sqlstore.ScanPayment(row, &had.p, sqlstore.Fixed(had.audit[:])); err != nil {
				return err
			}
			r.carried[had.p.ID] = had
			return nil
		})
	})
	queue(b, "SELECT "+asked+", "+isIncomplete).QueryRow(func(row pgx.Row) error { return row.Scan(&now, &last, &incomplete) })
	if err := c.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	if incomplete {
		return ledger.ErrIncomplete
	}
	r.at = clock.at(now, last)
	return nil
}

// judge finds out whether t may be written, or is there already.
func (r *recording) judge(run sqlstore.Query) (done bool, err error) {
	t := r.t
	if r.there {
		had, err := sqlstore.Transactions(run, sqlstore.SelectByHash, t.ChainID, sqlstore.Octets(t.Hash[:]))
		if err != nil {
			return false, err
		}
		if len(had) != 1 || had[0].Wallet != t.Wallet || had[0].Nonce != t.Nonce || !t.Carries(had[0].Payments) {
			return false, fmt.Errorf("%w: transaction %s was recorded with other contents", ledger.ErrNonce, t.Hash)
		}
		return true, nil
	}
	if ids := slices.Sorted(slices.Values(t.Payments)); len(slices.Compact(ids)) != len(t.Payments) {
		return false, fmt.Errorf("%w: transaction %s names a payment twice", ledger.ErrTransition, t.Hash)
	}
	switch {
	case t.Nonce == r.next:
		return false, nil
	case t.Nonce > r.next:
		return false, fmt.Errorf("%w: %d leaves a gap, the next is %d", ledger.ErrNonce, t.Nonce, r.next)
	}
	rivals, err := sqlstore.Transactions(run, sqlstore.SelectByNonce, t.ChainID, sqlstore.Octets(t.Wallet[:]), t.Nonce)
	if err != nil {
		return false, err
	}
	for _, rival := range rivals {
		if len(t.Payments) == 0 || t.Carries(rival.Payments) {
			return false, nil
		}
	}
	return false, fmt.Errorf("%w: %d is used, the next is %d", ledger.ErrNonce, t.Nonce, r.next)
}

// write adds all statements to b.
func (r *recording) write(b *pgx.Batch, actor string) error {
	t := r.t
	if t.Nonce == r.next {
		queue(b, sqlstore.RaiseNonce, t.ChainID, sqlstore.Octets(t.Wallet[:]), t.Nonce+1)
	}
	queue(b, insertTransaction, sqlstore.TransactionValues(t, r.at)...)
	for i, id := range t.Payments {
		had, ok := r.carried[id]
		if !ok {
			return fmt.Errorf("payment %s: %w", id, ledger.ErrNotFound)
		}
		p, e, err := ledger.Send(had.p, had.audit, r.at, t, actor)
		if err != nil {
			return err
		}
		queue(b, sqlstore.InsertCarried, id, id, t.ChainID, sqlstore.Octets(t.Hash[:]), i)
		queue(b, sqlstore.UpdatePayment, sqlstore.ChangeValues(&p, e.Hash)...)
		queue(b, sqlstore.InsertEntry, sqlstore.EntryValues(&e)...)
	}
	return nil
}

// unique reports whether err says that something is there already.
func unique(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == codeUnique
}
