package sqlstore

import (
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// SQLite's driver gives nil for an answer of no bytes as it does for none.
const reservationColumns = `key, fingerprint, payment_id, answer, CASE WHEN answer IS NULL THEN 0 ELSE 1 END, created_at, expires_at`

// The statements of reservations.
const (
	// Reserve takes ReserveValues; if it changes no row, the key is reserved for another.
	Reserve = `INSERT INTO reservations (key, fingerprint, payment_id, answer, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, payment_id = excluded.payment_id,
			answer = excluded.answer, created_at = excluded.created_at, expires_at = excluded.expires_at
		WHERE reservations.expires_at <= ? OR reservations.payment_id = NULLIF(CAST(? AS TEXT), '')`
	// InsertReservation takes ReservationValues; one that is there stays, and no row is changed.
	InsertReservation = `INSERT INTO reservations (key, fingerprint, payment_id, answer, created_at, expires_at)
		VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING`
	// SelectReservation takes key and now.
	SelectReservation = `SELECT ` + reservationColumns + ` FROM reservations WHERE key = ? AND expires_at > ?`
	// SelectReservations takes the key before, now and limit.
	SelectReservations = `SELECT ` + reservationColumns + ` FROM reservations WHERE key > ? AND expires_at > ? ORDER BY key LIMIT ?`
	// KeepAnswer takes the answer, when it expires, key, payment and now.
	KeepAnswer = `UPDATE reservations SET answer = ?, expires_at = ?
		WHERE key = ? AND payment_id = ? AND expires_at > ? AND answer IS NULL`
	// SweepReservations takes now, limit and now. One that is made again at this moment stays; the plus keeps
	// that question from choosing the index.
	SweepReservations = `DELETE FROM reservations WHERE key IN
		(SELECT key FROM reservations WHERE expires_at <= ? ORDER BY expires_at LIMIT ?) AND +expires_at <= ?`
)

// ReservationValues are the arguments of InsertReservation.
func ReservationValues(r *ledger.Reservation) []any {
	var answer any // NULL
	if r.Answer != nil {
		answer = r.Answer
	}
	return []any{r.Key[:], Octets(r.Fingerprint[:]), r.Payment, answer, Micros(r.CreatedAt), Micros(r.ExpiresAt)}
}

// ReserveValues are the arguments of Reserve, for a reservation with its times.
func ReserveValues(r *ledger.Reservation, over string) []any {
	return append(ReservationValues(r), Micros(r.CreatedAt), over)
}

// ScanReservation reads what SelectReservation gives.
func ScanReservation(row Row, r *ledger.Reservation) error {
	var answered bool
	err := row.Scan(Fixed(r.Key[:]), Fixed(r.Fingerprint[:]), &r.Payment, Bytes{&r.Answer}, Boolean{&answered},
		Instant{&r.CreatedAt}, Instant{&r.ExpiresAt})
	if answered && r.Answer == nil {
		r.Answer = []byte{}
	}
	return err
}

// Reservation implements ledger.Reservations.
func Reservation(run Query, key common.Hash, now time.Time) (ledger.Reservation, error) {
	got, err := rows(run, ScanReservation, SelectReservation, key[:], Micros(now))
	if err != nil {
		return ledger.Reservation{}, err
	}
	if len(got) == 0 {
		return ledger.Reservation{}, ledger.ErrNotFound
	}
	return got[0], nil
}

// EachReservation implements ledger.Books. No query is open while f runs.
func EachReservation(run Query, now time.Time, f func(ledger.Reservation) error) error {
	return eachByKey(run, SelectReservations, ScanReservation, func(r *ledger.Reservation) []byte { return r.Key[:] }, now, f)
}

// eachByKey calls f with what a query gives that takes the key before, now and limit, page by page.
func eachByKey[T any](
	run Query, query string, scan func(Row, *T) error, key func(*T) []byte, now time.Time, f func(T) error,
) error {
	const page = 500
	for after := []byte{}; ; {
		got, err := rows(run, scan, query, after, Micros(now), page)
		if err != nil {
			return err
		}
		for _, v := range got {
			if err := f(v); err != nil {
				return err
			}
		}
		if len(got) < page {
			return nil
		}
		after = key(&got[len(got)-1])
	}
}
