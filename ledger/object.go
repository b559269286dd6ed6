package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"
)

// Objects keep what belongs to the operator's side of a ledger: small documents that are found by their ids, listed and waited
// for. The store does not know what is in them.
//
// Every change is a compare-and-set on the object's version, atomic and durable. An object whose Expires is over by the store's clock is not
// found by any of these methods, whether it was swept or not, and its id is free. Whoever reads sees all that was answered before
// it began to read.
type Objects interface {
	// Object reads by kind and id; ErrNotFound.
	Object(ctx context.Context, kind, id string) (Object, error)
	// PutObject stores o and gives it as it is stored: with its next version, and its times in UTC and whole microseconds. With
	// Version 0 the id must be free, else it gives the object that is there and an error wrapping ErrExists. With another the object must be
	// there with just that version, and the same group, else ErrConflict, also where it is gone. An object that is made again under an id
	// that became free begins again at version 1: who could take it for the one before gives each an id of its own. An error that wraps ErrObject says that o
	// breaks the rules of its fields.
	PutObject(ctx context.Context, o Object) (Object, error)
	// DeleteObject removes an object that has just this version, else ErrConflict. What is gone already is no error.
	DeleteObject(ctx context.Context, kind, id string, version int64) error
	// Objects lists those of a kind, and where group is not empty those of it, by id (bytewise) ascending, those whose id is greater than
	// after, at most limit. It is no snapshot: of what is made or removed between two pages the next one may tell or not.
	Objects(ctx context.Context, kind, group, after string, limit int) ([]Object, error)
	// DueObjects lists those of a kind whose Due is not zero and not after until, by Due and then id, at most limit. It hands nothing out: of
	// several who see one due, the one does it that moves its Due by PutObject first.
	DueObjects(ctx context.Context, kind string, until time.Time, limit int) ([]Object, error)
}

// Object is something that the operator's side keeps: an API key, a webhook endpoint, a delivery, the answer to an idempotency key.
// What is printed or logged of it is neither its body nor its id, which may be secrets.
type Object struct {
	// Kind is what it is: [a-z_]{1,32}.
	Kind string `json:"kind"`
	// ID is unique within its kind: printable ASCII without spaces, 1 to 128 bytes. Ids that begin with a time sort by age.
	ID string `json:"id"`
	// Group is what lists are filtered by, like an endpoint's id or a network. It may be empty, else it is like an ID; it never changes.
	Group string `json:"group,omitempty"`
	// Version counts its changes, from 1.
	Version int64 `json:"version"`
	// Body is JSON, MaxObjectBody bytes at most. It is given back byte by byte as it was.
	Body []byte `json:"body"`
	// Due is when something has to be done with it; zero: never.
	Due time.Time `json:"due,omitzero"`
	// Expires is when Sweep forgets it; zero: never.
	Expires time.Time `json:"expires,omitzero"`
}

const (
	// MaxObjectBody is how many bytes the body of an object has at most.
	MaxObjectBody = 64 << 10

	maxObjectKind = 32
	maxObjectID   = 128
)

// ErrObject: the kind, id, group, version or body is none that an object can have.
var ErrObject = errors.New("ledger: no object can be like this")

// What stores say of objects. Callers ask for what each wraps: ErrNotFound, ErrExists and ErrConflict.
var (
	ErrNoObject      error = &objectError{"ledger: there is no such object", ErrNotFound}
	ErrObjectExists  error = &objectError{"ledger: the object is there already", ErrExists}
	ErrObjectChanged error = &objectError{"ledger: the object changed meanwhile, or is gone", ErrConflict}
)

// objectError is an error of payments in the words of objects.
type objectError struct {
	text string
	kind error
}

func (e *objectError) Error() string { return e.text }
func (e *objectError) Unwrap() error { return e.kind }

// IsObjectName reports whether an object may have this kind and id; there is none that has others.
func IsObjectName(kind, id string) bool { return isObjectKind(kind) && id != "" && isObjectID(id) }

// IsObjectGroup reports whether objects of this kind may be in this group, which may be empty.
func IsObjectGroup(kind, group string) bool { return isObjectKind(kind) && isObjectID(group) }

func isObjectKind(kind string) bool {
	return kind != "" && len(kind) <= maxObjectKind && strings.Trim(kind, "abcdefghijklmnopqrstuvwxyz_") == ""
}

func isObjectID(id string) bool {
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return len(id) <= maxObjectID
}

// Next is o as PutObject stores it, with a body of its own; an error wraps ErrObject.
func (o Object) Next() (Object, error) {
	switch {
	case !isObjectKind(o.Kind):
		return Object{}, fmt.Errorf("%w: its kind", ErrObject)
	case !IsObjectName(o.Kind, o.ID):
		return Object{}, fmt.Errorf("%w: its id (of %d bytes)", ErrObject, len(o.ID))
	case !isObjectID(o.Group):
		return Object{}, fmt.Errorf("%w: its group (of %d bytes)", ErrObject, len(o.Group))
	case o.Version < 0 || o.Version == math.MaxInt64:
		return Object{}, fmt.Errorf("%w: its version %d", ErrObject, o.Version)
	case len(o.Body) > MaxObjectBody:
		return Object{}, fmt.Errorf("%w: its body has %d bytes, more than %d", ErrObject, len(o.Body), MaxObjectBody)
	case !json.Valid(o.Body):
		return Object{}, fmt.Errorf("%w: its body is no JSON", ErrObject)
	}
	o.Version++
	o.Body = bytes.Clone(o.Body)
	o.Due, o.Expires = storable(o.Due), storable(o.Expires)
	return o, nil
}

// Check finds out whether o, which another store has exported, can be stored as it is; an error wraps ErrObject.
func (o Object) Check() error {
	before := o
	before.Version--
	next, err := before.Next()
	if err != nil {
		return err
	}
	if !next.Due.Equal(o.Due) || !next.Expires.Equal(o.Expires) {
		return fmt.Errorf("%w: its times", ErrObject)
	}
	return nil
}

// Live reports whether o is there at the time now.
func (o *Object) Live(now time.Time) bool { return o.Expires.IsZero() || o.Expires.After(now) }

// storable is t as every store can tell it.
func storable(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	if t = moment(t); t.After(latestEnd) {
		return latestEnd
	}
	if earliest := time.UnixMicro(1).UTC(); t.Before(earliest) {
		return earliest
	}
	return t
}

// String tells what may be told of o.
func (o Object) String() string {
	return fmt.Sprintf("%s of %d bytes, version %d", o.Kind, len(o.Body), o.Version)
}

// GoString is String.
func (o Object) GoString() string { return o.String() }

// LogValue implements slog.LogValuer.
func (o Object) LogValue() slog.Value { return slog.StringValue(o.String()) }
