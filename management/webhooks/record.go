package webhooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// Store is what a Service needs of a ledger: see ledger.Objects.
type Store interface {
	Object(ctx context.Context, kind, id string) (ledger.Object, error)
	PutObject(ctx context.Context, o ledger.Object) (ledger.Object, error)
	DeleteObject(ctx context.Context, kind, id string, version int64) error
	Objects(ctx context.Context, kind, group, after string, limit int) ([]ledger.Object, error)
	DueObjects(ctx context.Context, kind string, until time.Time, limit int) ([]ledger.Object, error)
	Now() time.Time
}

// The kinds of objects. Endpoints are in the group "live" or "test", deliveries in that of their endpoint.
const (
	kindEndpoint = "webhook"
	kindDelivery = "webhook_delivery"
	kindCursor   = "webhook_cursor"
)

// record is an object with what its body says.
type record[T any] struct {
	object ledger.Object
	value  T
}

func decode[T any](o ledger.Object) (record[T], error) {
	r := record[T]{object: o}
	if err := json.Unmarshal(o.Body, &r.value); err != nil {
		return r, fmt.Errorf("reading a %s: %w", o.Kind, err)
	}
	return r, nil
}

func load[T any](ctx context.Context, s Store, kind, id string) (record[T], error) {
	if !ledger.IsObjectName(kind, id) {
		return record[T]{}, ledger.ErrNotFound
	}
	o, err := s.Object(ctx, kind, id)
	if err != nil {
		return record[T]{}, err
	}
	return decode[T](o)
}

// save stores r, which is then as it is stored.
func (r *record[T]) save(ctx context.Context, s Store) error {
	body, err := json.Marshal(r.value)
	if err != nil {
		return fmt.Errorf("writing a %s: %w", r.object.Kind, err)
	}
	o := r.object
	o.Body = body
	if o, err = s.PutObject(ctx, o); err != nil {
		return err
	}
	r.object = o
	return nil
}

// tries is how often a change is begun anew that somebody else was faster than.
const tries = 10

var errChanging = fail(ErrConflict, CodeChanging, "it keeps changing; try again")

// change makes a change of the object that f decides, reading it again whenever somebody was faster. f gives false if nothing is to be done.
func change[T any](ctx context.Context, s Store, kind, id string, f func(*record[T]) (bool, error)) (record[T], error) {
	for range tries {
		r, err := load[T](ctx, s, kind, id)
		if err != nil {
			return r, err
		}
		if do, err := f(&r); err != nil || !do {
			return r, err
		}
		if err := r.save(ctx, s); !errors.Is(err, ledger.ErrConflict) {
			return r, err
		}
	}
	return record[T]{}, errChanging
}
