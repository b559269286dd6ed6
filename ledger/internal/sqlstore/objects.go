package sqlstore

import (
	"reflect"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

const (
	objectColumns = `kind, id, group_id, version, body, due_at, expires_at`
	isObject      = `kind = ? AND id = ? AND (expires_at = 0 OR expires_at > ?)`
	selectObjects = `SELECT ` + objectColumns + ` FROM objects WHERE `
	insertObject  = `INSERT INTO objects (` + objectColumns + `) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kind, id) DO`
)

// The statements of objects.
const (
	// SelectObject takes kind, id and now.
	SelectObject = selectObjects + isObject
	// MakeObject takes ObjectValues and now; if it changes no row, the id is not free.
	MakeObject = insertObject + ` UPDATE SET group_id = excluded.group_id, version = excluded.version, body = excluded.body,
			due_at = excluded.due_at, expires_at = excluded.expires_at
		WHERE objects.expires_at > 0 AND objects.expires_at <= ?`
	// ChangeObject takes ChangeObjectValues; if it changes no row, what is there is not what was expected.
	ChangeObject = `UPDATE objects SET version = ?, body = ?, due_at = ?, expires_at = ? WHERE ` + isObject + ` AND group_id = ? AND version = ?`
	// RemoveObject takes kind, id, version and now; an object that has expired goes with any version.
	RemoveObject = `DELETE FROM objects WHERE kind = ? AND id = ? AND (version = ? OR expires_at > 0 AND expires_at <= ?)`
	// SelectObjects takes kind, the id before, now and limit.
	SelectObjects = selectObjects + `kind = ? AND id > ? AND (expires_at = 0 OR expires_at > ?) ORDER BY id LIMIT ?`
	// SelectGroup takes kind, group, the id before, now and limit.
	SelectGroup = selectObjects + `kind = ? AND group_id = ? AND group_id <> '' AND id > ? AND (expires_at = 0 OR expires_at > ?) ORDER BY id LIMIT ?`
	// SelectDueObjects takes kind, until, now and limit.
	SelectDueObjects = selectObjects + `kind = ? AND due_at > 0 AND due_at <= ? AND (expires_at = 0 OR expires_at > ?) ORDER BY due_at, id LIMIT ?`
	// SelectEveryObject takes the kind and the id before, now and limit.
	SelectEveryObject = selectObjects + `(kind, id) > (?, ?) AND (expires_at = 0 OR expires_at > ?) ORDER BY kind, id LIMIT ?`
	// ImportObject takes ObjectValues; one that is there stays, and no row is changed.
	ImportObject = insertObject + ` NOTHING`
	// SweepObjects takes now, limit and now. One that is made again at this moment stays.
	SweepObjects = `DELETE FROM objects WHERE (kind, id) IN
		(SELECT kind, id FROM objects WHERE expires_at > 0 AND expires_at <= ? ORDER BY expires_at LIMIT ?)
		AND +expires_at > 0 AND +expires_at <= ?`
)

// ObjectValues are the arguments of ImportObject.
func ObjectValues(o *ledger.Object) []any {
	return []any{o.Kind, o.ID, o.Group, o.Version, o.Body, Micros(o.Due), Micros(o.Expires)}
}

// ChangeObjectValues are the arguments of ChangeObject, which stores next in place of the version before it.
func ChangeObjectValues(next *ledger.Object, now time.Time) []any {
	return []any{
		next.Version, next.Body, Micros(next.Due), Micros(next.Expires),
		next.Kind, next.ID, Micros(now), next.Group, next.Version - 1,
	}
}

// ScanObject reads what SelectObject gives.
func ScanObject(row Row, o *ledger.Object) error {
	return row.Scan(&o.Kind, &o.ID, &o.Group, &o.Version, Bytes{&o.Body}, Instant{&o.Due}, Instant{&o.Expires})
}

// Object implements ledger.Objects.
func Object(run Query, kind, id string, now time.Time) (ledger.Object, error) {
	if !ledger.IsObjectName(kind, id) {
		return ledger.Object{}, ledger.ErrNoObject
	}
	got, err := rows(run, ScanObject, SelectObject, kind, id, Micros(now))
	if err != nil {
		return ledger.Object{}, err
	}
	if len(got) == 0 {
		return ledger.Object{}, ledger.ErrNoObject
	}
	return got[0], nil
}

// Objects implements ledger.Objects.
func Objects(run Query, kind, group, after string, limit int, now time.Time) ([]ledger.Object, error) {
	switch after = valid(after); {
	case !ledger.IsObjectGroup(kind, group):
		return nil, nil
	case group == "":
		return rows(run, ScanObject, SelectObjects, kind, after, Micros(now), max(limit, 0))
	}
	return rows(run, ScanObject, SelectGroup, kind, group, after, Micros(now), max(limit, 0))
}

// DueObjects implements ledger.Objects.
func DueObjects(run Query, kind string, until time.Time, limit int, now time.Time) ([]ledger.Object, error) {
	if !ledger.IsObjectGroup(kind, "") {
		return nil, nil
	}
	return rows(run, ScanObject, SelectDueObjects, kind, Micros(until), Micros(now), max(limit, 0))
}

// EachObject implements ledger.Books. No query is open while f runs.
func EachObject(run Query, now time.Time, f func(ledger.Object) error) error {
	const page = 50 // they may be large
	for kind, id := "", ""; ; {
		got, err := rows(run, ScanObject, SelectEveryObject, kind, id, Micros(now), page)
		if err != nil {
			return err
		}
		for _, o := range got {
			if err := f(o); err != nil {
				return err
			}
		}
		if len(got) < page {
			return nil
		}
		kind, id = got[len(got)-1].Kind, got[len(got)-1].ID
	}
}

// SameObject finds out whether the object that is there is o, though it may have expired.
func SameObject(run Query, o *ledger.Object) (bool, error) {
	got, err := rows(run, ScanObject, SelectObject, o.Kind, o.ID, int64(-1))
	if err != nil {
		return false, err
	}
	return len(got) == 1 && reflect.DeepEqual(ObjectValues(&got[0]), ObjectValues(o)), nil
}
