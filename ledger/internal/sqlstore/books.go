package sqlstore

import (
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// The statements of lists and anchors.
const (
	// SelectEntries takes EntriesValues.
	SelectEntries = `SELECT ` + EntryColumns + ` FROM audit WHERE (at, payment_id, version) > (?, ?, ?) AND at <= ?
		UNION ALL SELECT ` + EntryColumns + ` FROM audit_archive WHERE (at, payment_id, version) > (?, ?, ?) AND at <= ?
		ORDER BY at, payment_id, version LIMIT ?`
	// CountEntries takes the Until of two anchors, twice, and gives the number of entries between.
	CountEntries = `SELECT (SELECT count(*) FROM audit WHERE at > ? AND at <= ?)
		+ (SELECT count(*) FROM audit_archive WHERE at > ? AND at <= ?)`

	anchorColumns = `sequence, until_at, entry_count, entries, previous, hash`
	// SelectAnchors takes after and limit.
	SelectAnchors = `SELECT ` + anchorColumns + ` FROM anchors WHERE sequence > ? ORDER BY sequence LIMIT ?`
	// SelectLastAnchor takes nothing.
	SelectLastAnchor = `SELECT ` + anchorColumns + ` FROM anchors ORDER BY sequence DESC LIMIT 1`
	// InsertAnchor takes AnchorValues.
	InsertAnchor = `INSERT INTO anchors (` + anchorColumns + `) VALUES (?, ?, ?, ?, ?, ?)`
)

// The statements that move what belongs to closed payments to the archive.
const (
	// SelectClosed takes the time of the last change, and limit; it gives ids.
	SelectClosed = `SELECT id FROM payments WHERE is_closed = 1 AND is_archived = 0 AND updated_at <= ? ORDER BY updated_at LIMIT ?`
	// ArchiveTrail, ForgetTrail and MarkArchived each take the payment.
	ArchiveTrail = `INSERT INTO audit_archive (` + EntryColumns + `) SELECT ` + EntryColumns + ` FROM audit WHERE payment_id = ?`
	ForgetTrail  = `DELETE FROM audit WHERE payment_id = ?`
	MarkArchived = `UPDATE payments SET is_archived = 1 WHERE id = ?`
	// ArchiveRaw, after MarkArchived, takes the payment, and copies its raw transactions all of whose payments are archived.
	ArchiveRaw = `INSERT INTO transaction_archive (chain_id, hash, raw)
		SELECT t.chain_id, t.hash, t.raw FROM transaction_payments tp
		JOIN transactions t ON t.chain_id = tp.chain_id AND t.hash = tp.hash
		WHERE tp.payment_id = ? AND NOT EXISTS (
			SELECT 1 FROM transaction_payments other JOIN payments p ON p.id = other.payment_id
			WHERE other.chain_id = t.chain_id AND other.hash = t.hash AND p.is_archived = 0)
		ON CONFLICT DO NOTHING`
	// ForgetRaw takes no bytes, and the payment: what is in the archive need not be here.
	ForgetRaw = `UPDATE transactions SET raw = ? WHERE (chain_id, hash) IN (
		SELECT a.chain_id, a.hash FROM transaction_payments tp
		JOIN transaction_archive a ON a.chain_id = tp.chain_id AND a.hash = tp.hash WHERE tp.payment_id = ?)`
)

// The statements of copies.
const (
	// SelectUsed gives 1 if there is anything in the store that a copy brings, else 0.
	SelectUsed = `SELECT CASE WHEN EXISTS (SELECT 1 FROM payments) OR EXISTS (SELECT 1 FROM wallets)
		OR EXISTS (SELECT 1 FROM anchors) OR EXISTS (SELECT 1 FROM reservations) OR EXISTS (SELECT 1 FROM revocations)
		OR EXISTS (SELECT 1 FROM allowances) OR EXISTS (SELECT 1 FROM objects) THEN 1 ELSE 0 END`
	// MarkIncomplete and MarkComplete begin and end a copy.
	MarkIncomplete = `INSERT INTO meta (name, value) VALUES ('incomplete', '') ON CONFLICT (name) DO NOTHING`
	MarkComplete   = `DELETE FROM meta WHERE name = 'incomplete'`
	// InsertWallet takes chain, wallet and nonce; one that is there stays, and no row is changed.
	InsertWallet = `INSERT INTO wallets (chain_id, address, next_nonce) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`
	// InsertCarriedAs takes the payment, seq, chain, hash and position.
	InsertCarriedAs = `INSERT INTO transaction_payments (payment_id, seq, chain_id, hash, position) VALUES (?, ?, ?, ?, ?)`
	// SelectCarriedAs takes the payment, and gives chain, hash and position of its transactions, oldest first.
	SelectCarriedAs = `SELECT chain_id, hash, position FROM transaction_payments WHERE payment_id = ? ORDER BY seq`

	// SelectPage takes the id before and limit: the payments of a page of records.
	SelectPage = `SELECT ` + PaymentColumns + ` FROM payments WHERE id > ? ORDER BY id LIMIT ?`
	// SelectTrails takes the first and the last id of the page, twice: its trails.
	SelectTrails = `SELECT ` + EntryColumns + ` FROM audit WHERE payment_id >= ? AND payment_id <= ?
		UNION ALL SELECT ` + EntryColumns + ` FROM audit_archive WHERE payment_id >= ? AND payment_id <= ?
		ORDER BY payment_id, version`
	// SelectRecorded takes the first and the last id of the page: its transactions, each with the payment.
	SelectRecorded = `SELECT ` + transactionColumns + `, tp.payment_id FROM transaction_payments tp
		JOIN transactions t ON t.chain_id = tp.chain_id AND t.hash = tp.hash
		LEFT JOIN transaction_archive a ON a.chain_id = t.chain_id AND a.hash = t.hash
		WHERE tp.payment_id >= ? AND tp.payment_id <= ? ORDER BY tp.payment_id, tp.seq`
)

// ListStatement is the statement for q, of its four possible ones, with its arguments. It gives PaymentColumns.
func ListStatement(q ledger.Query) (query string, args []any) {
	var b strings.Builder
	b.WriteString(`SELECT ` + PaymentColumns + ` FROM payments WHERE `)
	if q.Payer != (ledger.Payment{}).Payer {
		b.WriteString(`payer = ? AND `)
		args = append(args, q.Payer[:])
	}
	switch q.State {
	case "":
	case ledger.StateOwed: // as a literal, which the index of what is owed needs
		b.WriteString(`state = 'OWED' AND `)
	default:
		b.WriteString(`state = ? AND `)
		args = append(args, string(q.State))
	}
	b.WriteString(`(created_at, id) < (?, ?) ORDER BY created_at DESC, id DESC LIMIT ?`)
	at, id := end, ""
	if q.Before != (ledger.Mark{}) {
		at, id = Micros(q.Before.At), valid(q.Before.Payment)
	}
	return b.String(), append(args, at, id, max(q.Limit, 0))
}

// List implements ledger.Books.
func List(run Query, q ledger.Query) ([]ledger.Payment, error) {
	query, args := ListStatement(q)
	return Payments(run, query, args...)
}

// EntriesValues are the arguments of SelectEntries.
func EntriesValues(after ledger.Mark, until time.Time, limit int) []any {
	at, id, version, to := Micros(after.At), valid(after.Payment), min(after.Version, math.MaxInt64), Micros(until)
	return []any{at, id, version, to, at, id, version, to, max(limit, 0)}
}

// Entries implements ledger.Books.
func Entries(run Query, after ledger.Mark, until time.Time, limit int) ([]ledger.Entry, error) {
	return rows(run, ScanEntry, SelectEntries, EntriesValues(after, until, limit)...)
}

// valid is an id of a mark as PostgreSQL takes it: a mark behind all ids of a time has one that is no UTF-8.
func valid(id string) string {
	if utf8.ValidString(id) {
		return id
	}
	return strings.ToValidUTF8(id, string(utf8.MaxRune))
}

// ScanAnchor reads what SelectAnchors gives.
func ScanAnchor(row Row, a *ledger.Anchor) error {
	return row.Scan(Natural{&a.Sequence}, Instant{&a.Until}, Natural{&a.Count}, Fixed(a.Entries[:]), Fixed(a.Previous[:]), Fixed(a.Hash[:]))
}

// AnchorValues are the arguments of InsertAnchor.
func AnchorValues(a *ledger.Anchor) []any {
	return []any{a.Sequence, Micros(a.Until), a.Count, Octets(a.Entries[:]), Octets(a.Previous[:]), Octets(a.Hash[:])}
}

// Anchors implements ledger.Books.
func Anchors(run Query, after uint64, limit int) ([]ledger.Anchor, error) {
	return rows(run, ScanAnchor, SelectAnchors, min(after, math.MaxInt64), max(limit, 0))
}

// LastAnchor implements ledger.Books.
func LastAnchor(run Query) (ledger.Anchor, error) {
	got, err := rows(run, ScanAnchor, SelectLastAnchor)
	if err != nil {
		return ledger.Anchor{}, err
	}
	if len(got) == 0 {
		return ledger.Anchor{}, ledger.ErrNotFound
	}
	return got[0], nil
}

// Records implements ledger.Books. All that run reads must be of one moment: a transaction that sees a snapshot.
func Records(run Query, after string, limit int) ([]ledger.Record, error) {
	payments, err := Payments(run, SelectPage, valid(after), max(limit, 0))
	if err != nil || len(payments) == 0 {
		return nil, err
	}
	got := make([]ledger.Record, len(payments))
	place := make(map[string]*ledger.Record, len(payments))
	for i, p := range payments {
		got[i].Payment = p
		place[p.ID] = &got[i]
	}
	first, last := payments[0].ID, payments[len(payments)-1].ID
	err = run(SelectTrails, func(row Row) error {
		var e ledger.Entry
		if err := ScanEntry(row, &e); err != nil {
			return err
		}
		if r := place[e.Payment]; r != nil {
			r.Trail = append(r.Trail, e)
		}
		return nil
	}, first, last, first, last)
	if err != nil {
		return nil, err
	}
	err = run(SelectRecorded, func(row Row) error {
		var t ledger.Transaction
		var id string
		if err := ScanTransaction(row, &t, &id); err != nil {
			return err
		}
		if r := place[id]; r != nil {
			r.Transactions = append(r.Transactions, t)
		}
		return nil
	}, first, last)
	if err != nil {
		return nil, err
	}
	return got, nil
}
