package sqlstore

import (
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

const allowanceColumns = `key, most, used, created_at, expires_at`

// The statements of allowances.
const (
	// SelectAllowance takes key.
	SelectAllowance = `SELECT ` + allowanceColumns + ` FROM allowances WHERE key = ?`
	// SelectAllowances takes the key before, now and limit.
	SelectAllowances = `SELECT ` + allowanceColumns + ` FROM allowances WHERE key > ? AND expires_at > ? ORDER BY key LIMIT ?`
	// StoreAllowance takes StoreAllowanceValues; if it changes no row, what is there is not what was expected.
	StoreAllowance = `INSERT INTO allowances (` + allowanceColumns + `) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (key) DO UPDATE SET most = excluded.most, used = excluded.used,
			created_at = excluded.created_at, expires_at = excluded.expires_at
		WHERE allowances.used = CAST(? AS TEXT) AND allowances.created_at = ?`
	// InsertAllowance takes AllowanceValues; one that is there stays, and no row is changed.
	InsertAllowance = `INSERT INTO allowances (` + allowanceColumns + `) VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING`
	// SweepAllowances takes now, limit and now. One that begins anew at this moment stays.
	SweepAllowances = `DELETE FROM allowances WHERE key IN
		(SELECT key FROM allowances WHERE expires_at <= ? ORDER BY expires_at LIMIT ?) AND +expires_at <= ?`
)

// AllowanceValues are the arguments of InsertAllowance.
func AllowanceValues(a *ledger.Allowance) []any {
	return []any{a.Key[:], a.Limit.Dec(), a.Used.Dec(), Micros(a.CreatedAt), Micros(a.ExpiresAt)}
}

// StoreAllowanceValues are the arguments of StoreAllowance: what is stored in place of had, which is zero where nothing is
// expected to be there.
func StoreAllowanceValues(next, had *ledger.Allowance) []any {
	if *had == (ledger.Allowance{}) {
		return append(AllowanceValues(next), "", int64(0))
	}
	return append(AllowanceValues(next), had.Used.Dec(), Micros(had.CreatedAt))
}

// ScanAllowance reads what SelectAllowance gives.
func ScanAllowance(row Row, a *ledger.Allowance) error {
	return row.Scan(Fixed(a.Key[:]), Decimal{&a.Limit}, Decimal{&a.Used}, Instant{&a.CreatedAt}, Instant{&a.ExpiresAt})
}

// Allowance gives what is there by key, though it may have expired; zero if nothing is.
func Allowance(run Query, key common.Hash) (ledger.Allowance, error) {
	got, err := rows(run, ScanAllowance, SelectAllowance, key[:])
	if err != nil || len(got) == 0 {
		return ledger.Allowance{}, err
	}
	return got[0], nil
}

// EachAllowance implements ledger.Books. No query is open while f runs.
func EachAllowance(run Query, now time.Time, f func(ledger.Allowance) error) error {
	return eachByKey(run, SelectAllowances, ScanAllowance, func(a *ledger.Allowance) []byte { return a.Key[:] }, now, f)
}
