package postgres

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/internal/sqlstore"
)

const (
	// importPatience is how long a part may take.
	importPatience = 2 * time.Minute
	// importLock is the key of the advisory lock of who copies into the ledger.
	importLock = 40203
)

// Import implements ledger.Store. The whole part is written, or nothing of it. What is new in it takes a few round
// trips, however much it is; what is there already is compared one by one.
func (s *Store) Import(ctx context.Context, part ledger.Part) error {
	err := s.writeWithin(ctx, importPatience, undoing(func(ctx context.Context, c *pgx.Conn) error {
		i := &importing{ctx: ctx, c: c, run: queries(ctx, c), sent: map[sentKey][]any{}}
		return i.part(&part)
	}))
	if unique(err) {
		return fmt.Errorf("%w: %w", ledger.ErrConflict, err)
	}
	if n := len(part.Anchors); err == nil && n > 0 {
		s.clock.anchored(sqlstore.Micros(part.Anchors[n-1].Until))
	}
	return err
}

// importing is the import of one part.
type importing struct {
	ctx context.Context
	c   *pgx.Conn
	run sqlstore.Query
	// sent are the transactions that this part has brought so far, and their values.
	sent map[sentKey][]any
}

type sentKey struct {
	chainID uint64
	hash    common.Hash
}

func (i *importing) part(part *ledger.Part) error {
	if err := i.begin(); err != nil {
		return err
	}
	if err := i.records(part.Records); err != nil {
		return err
	}
	for n := range part.Wallets {
		if err := i.wallet(&part.Wallets[n]); err != nil {
			return fmt.Errorf("importing wallet %s: %w", part.Wallets[n].Address, err)
		}
	}
	if err := i.reservations(part.Reservations); err != nil {
		return fmt.Errorf("importing reservations: %w", err)
	}
	if err := i.revocations(part.Revocations); err != nil {
		return fmt.Errorf("importing revocations: %w", err)
	}
	if err := i.allowances(part.Allowances); err != nil {
		return fmt.Errorf("importing allowances: %w", err)
	}
	if err := i.objects(part.Objects); err != nil {
		return fmt.Errorf("importing objects: %w", err)
	}
	if err := i.anchors(part.Anchors); err != nil {
		return fmt.Errorf("importing anchors: %w", err)
	}
	b := &pgx.Batch{}
	if part.Complete {
		queue(b, sqlstore.MarkComplete)
	}
	queue(b, "COMMIT")
	return i.send(b)
}

func (i *importing) send(b *pgx.Batch) error {
	if b.Len() == 0 {
		return nil
	}
	return i.c.SendBatch(i.ctx, b).Close()
}

// begin begins the transaction, and marks the ledger as incomplete if it is empty. While it finds out whether it is, and
// until that is committed, nobody else writes.
func (i *importing) begin() error {
	var incomplete, used bool
	b := &pgx.Batch{}
	queue(b, "BEGIN")
	queue(b, "SELECT pg_advisory_xact_lock(?)", importLock)
	queue(b, "SELECT EXISTS (SELECT 1 FROM meta WHERE name = 'incomplete')").QueryRow(func(row pgx.Row) error { return row.Scan(&incomplete) })
	if err := i.send(b); err != nil || incomplete {
		return err
	}
	b = &pgx.Batch{}
	queue(b, "SELECT pg_advisory_xact_lock(?)", anchorLock)
	queue(b, sqlstore.SelectUsed).QueryRow(func(row pgx.Row) error { return row.Scan(sqlstore.Boolean{B: &used}) })
	queue(b, sqlstore.MarkIncomplete)
	if err := i.send(b); err != nil {
		return err
	}
	if used {
		return fmt.Errorf("ledger/postgres: the ledger is in use, nothing can be copied into it: %w", ledger.ErrExists)
	}
	return nil
}

func (i *importing) records(records []ledger.Record) error {
	fresh := make([]bool, len(records))
	b := &pgx.Batch{}
	for n := range records {
		r := &records[n]
		if len(r.Trail) == 0 {
			return fmt.Errorf("importing payment %s: %w: it is missing", r.Payment.ID, ledger.ErrAudit)
		}
		queue(b, sqlstore.InsertPayment, sqlstore.PaymentValues(&r.Payment, r.Trail[len(r.Trail)-1].Hash)...).
			Exec(func(tag pgconn.CommandTag) error {
				fresh[n] = tag.RowsAffected() == 1
				return nil
			})
	}
	if err := i.send(b); err != nil {
		return err
	}
	var transactions []ledger.Transaction
	for n := range records {
		transactions = append(transactions, records[n].Transactions...)
	}
	if err := i.transactions(transactions); err != nil {
		return err
	}
	b = &pgx.Batch{}
	for n := range records {
		var err error
		if fresh[n] {
			err = queueRecord(b, &records[n])
		} else {
			err = i.compare(&records[n])
		}
		if err != nil {
			return fmt.Errorf("importing payment %s: %w", records[n].Payment.ID, err)
		}
	}
	return i.send(b)
}

// queueRecord writes what belongs to a payment that is new.
func queueRecord(b *pgx.Batch, r *ledger.Record) error {
	for n := range r.Trail {
		queue(b, sqlstore.InsertEntry, sqlstore.EntryValues(&r.Trail[n])...)
	}
	for n := range r.Transactions {
		t := &r.Transactions[n]
		position := slices.Index(t.Payments, r.Payment.ID)
		if position < 0 {
			return fmt.Errorf("%w: transaction %s does not carry it", ledger.ErrConflict, t.Hash)
		}
		queue(b, sqlstore.InsertCarriedAs, r.Payment.ID, n, t.ChainID, sqlstore.Octets(t.Hash[:]), position)
	}
	return nil
}

// compare finds out whether what is there of a payment is r. Of its transactions those payments are not compared that may
// still come: each is compared, or written, with its own record.
func (i *importing) compare(r *ledger.Record) error {
	differs := fmt.Errorf("%w: it is here, and different", ledger.ErrConflict)
	var had ledger.Payment
	var audit common.Hash
	err := i.run(sqlstore.SelectByID, func(row sqlstore.Row) error { return sqlstore.ScanPayment(row, &had, sqlstore.Fixed(audit[:])) }, r.Payment.ID)
	switch {
	case err != nil:
		return err
	case had.ID == "":
		return fmt.Errorf("%w: its authorization belongs to another payment here", ledger.ErrConflict)
	case !reflect.DeepEqual(sqlstore.PaymentValues(&had, audit), sqlstore.PaymentValues(&r.Payment, r.Trail[len(r.Trail)-1].Hash)):
		return differs
	}
	trail, err := sqlstore.Audit(i.run, had.ID)
	if err != nil {
		if errors.Is(err, ledger.ErrNotFound) {
			return differs
		}
		return err
	}
	if !slices.EqualFunc(trail, r.Trail, func(a, b ledger.Entry) bool {
		return reflect.DeepEqual(sqlstore.EntryValues(&a), sqlstore.EntryValues(&b))
	}) {
		return differs
	}
	type place struct {
		key      sentKey
		position uint64
	}
	var want, got []place
	for n := range r.Transactions {
		t := &r.Transactions[n]
		want = append(want, place{sentKey{t.ChainID, t.Hash}, uint64(slices.Index(t.Payments, had.ID))})
	}
	err = i.run(sqlstore.SelectCarriedAs, func(row sqlstore.Row) error {
		var p place
		err := row.Scan(sqlstore.Natural{N: &p.key.chainID}, sqlstore.Fixed(p.key.hash[:]), sqlstore.Natural{N: &p.position})
		got = append(got, p)
		return err
	}, had.ID)
	if err == nil && !slices.Equal(got, want) {
		err = differs
	}
	return err
}

// transactions writes transactions without their payments, or finds that they are there.
func (i *importing) transactions(all []ledger.Transaction) error {
	var there []ledger.Transaction
	b := &pgx.Batch{}
	for n := range all {
		t := all[n]
		values := sqlstore.TransactionValues(&t, t.CreatedAt)
		key := sentKey{t.ChainID, t.Hash}
		if had, ok := i.sent[key]; ok {
			if !reflect.DeepEqual(had, values) {
				return fmt.Errorf("%w: there are two different transactions %s", ledger.ErrConflict, t.Hash)
			}
			continue
		}
		i.sent[key] = values
		queue(b, sqlstore.InsertTransaction, values...).Exec(func(tag pgconn.CommandTag) error {
			if tag.RowsAffected() == 0 {
				there = append(there, t)
			}
			return nil
		})
	}
	if err := i.send(b); err != nil {
		return err
	}
	for n := range there {
		t := &there[n]
		had, err := sqlstore.Transactions(i.run, sqlstore.SelectByHash, t.ChainID, sqlstore.Octets(t.Hash[:]))
		if err != nil {
			return err
		}
		if len(had) != 1 || !reflect.DeepEqual(sqlstore.TransactionValues(&had[0], had[0].CreatedAt), i.sent[sentKey{t.ChainID, t.Hash}]) {
			return fmt.Errorf("%w: transaction %s is here, and different", ledger.ErrConflict, t.Hash)
		}
	}
	return nil
}

func (i *importing) wallet(g *ledger.Wallet) error {
	tag, err := i.c.Exec(i.ctx, numbered(sqlstore.InsertWallet), g.ChainID, sqlstore.Octets(g.Address[:]), g.NextNonce)
	if err != nil {
		return err
	}
	if tag.RowsAffected() == 0 {
		next, _, err := sqlstore.Nonce(i.run, g.ChainID, g.Address)
		if err != nil {
			return err
		}
		if next != g.NextNonce {
			return fmt.Errorf("%w: its next nonce here is %d, not %d", ledger.ErrConflict, next, g.NextNonce)
		}
	}
	return i.transactions(g.Freed)
}

func (i *importing) reservations(all []ledger.Reservation) error {
	var there []*ledger.Reservation
	b := &pgx.Batch{}
	for n := range all {
		queue(b, sqlstore.InsertReservation, sqlstore.ReservationValues(&all[n])...).Exec(func(tag pgconn.CommandTag) error {
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
		had, err := sqlstore.Reservation(i.run, r.Key, time.Time{}) // even one that has expired
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(sqlstore.ReservationValues(&had), sqlstore.ReservationValues(r)) {
			return fmt.Errorf("%w: the reservation for payment %s is here, and different", ledger.ErrConflict, r.Payment)
		}
	}
	return nil
}

func (i *importing) anchors(all []ledger.Anchor) error {
	if len(all) == 0 {
		return nil
	}
	last, err := lastAnchor(i.run)
	if err != nil {
		return err
	}
	b := &pgx.Batch{}
	for n := range all {
		a := &all[n]
		if last == nil || a.Sequence > last.Sequence {
			if !a.Follows(last) {
				return fmt.Errorf("%w: anchor %d does not follow the last one", ledger.ErrConflict, a.Sequence)
			}
			queue(b, sqlstore.InsertAnchor, sqlstore.AnchorValues(a)...)
			last = a
			continue
		}
		had, err := sqlstore.Anchors(i.run, a.Sequence-1, 1)
		if err != nil {
			return err
		}
		if len(had) != 1 || !reflect.DeepEqual(sqlstore.AnchorValues(&had[0]), sqlstore.AnchorValues(a)) {
			return fmt.Errorf("%w: anchor %d is here, and different", ledger.ErrConflict, a.Sequence)
		}
	}
	return i.send(b)
}
