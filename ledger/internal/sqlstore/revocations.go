package sqlstore

import (
	"math"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// The statements of revocations.
const (
	// OverrideRevocation takes id and until: one that ends earlier makes room.
	OverrideRevocation = `DELETE FROM revocations WHERE id = ? AND until_at < ?`
	// InsertRevocation takes id and until; one that is there stays, and no row is changed.
	InsertRevocation = `INSERT INTO revocations (id, until_at) VALUES (?, ?) ON CONFLICT (id) DO NOTHING`
	// SelectRevocations takes the number before and limit.
	SelectRevocations = `SELECT sequence, id, until_at FROM revocations WHERE sequence > ? ORDER BY sequence LIMIT ?`
	// SelectRevocation takes the id.
	SelectRevocation = `SELECT sequence, id, until_at FROM revocations WHERE id = ?`
	// SweepRevocations takes until when they must have ended, and limit.
	SweepRevocations = `DELETE FROM revocations WHERE sequence IN
		(SELECT sequence FROM revocations WHERE until_at <= ? ORDER BY until_at LIMIT ?)`
)

// ScanRevocation reads what SelectRevocations gives.
func ScanRevocation(row Row, r *ledger.Revocation) error {
	return row.Scan(Natural{&r.Number}, &r.ID, Instant{&r.Until})
}

// Revoked implements ledger.Revocations.
func Revoked(run Query, after uint64, limit int) ([]ledger.Revocation, error) {
	return rows(run, ScanRevocation, SelectRevocations, min(after, math.MaxInt64), max(limit, 0))
}

// SameRevocation finds out whether the revocation that is there is r.
func SameRevocation(run Query, r *ledger.Revocation) (bool, error) {
	got, err := rows(run, ScanRevocation, SelectRevocation, r.ID)
	if err != nil {
		return false, err
	}
	return len(got) == 1 && Micros(got[0].Until) == Micros(r.Until), nil
}
