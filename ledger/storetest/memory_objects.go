package storetest

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

type objectName struct{ kind, id string }

func nameOf(o *ledger.Object) objectName { return objectName{o.Kind, o.ID} }

// shared is o with a body of its own.
func shared(o ledger.Object) ledger.Object {
	o.Body = bytes.Clone(o.Body)
	return o
}

func (m *Memory) object(name objectName) (ledger.Object, bool) {
	o, ok := m.objects[name]
	return o, ok && o.Live(m.now())
}

// Object implements ledger.Store.
func (m *Memory) Object(ctx context.Context, kind, id string) (ledger.Object, error) {
	if err := m.enter(ctx); err != nil {
		return ledger.Object{}, err
	}
	defer m.mu.Unlock()
	o, ok := m.object(objectName{kind, id})
	if !ok {
		return ledger.Object{}, ledger.ErrNoObject
	}
	return shared(o), nil
}

// PutObject implements ledger.Store.
func (m *Memory) PutObject(ctx context.Context, o ledger.Object) (ledger.Object, error) {
	if err := m.begin(ctx); err != nil {
		return ledger.Object{}, err
	}
	defer m.mu.Unlock()
	next, err := o.Next()
	if err != nil {
		return ledger.Object{}, err
	}
	had, ok := m.object(nameOf(&o))
	switch {
	case o.Version == 0 && ok:
		return shared(had), ledger.ErrObjectExists
	case o.Version != 0 && (!ok || had.Version != o.Version || had.Group != o.Group):
		return ledger.Object{}, ledger.ErrObjectChanged
	}
	m.objects[nameOf(&o)] = shared(next)
	return shared(next), nil
}

// DeleteObject implements ledger.Store.
func (m *Memory) DeleteObject(ctx context.Context, kind, id string, version int64) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	name := objectName{kind, id}
	had, ok := m.object(name)
	if ok && had.Version != version {
		return ledger.ErrObjectChanged
	}
	delete(m.objects, name)
	return nil
}

// liveObjects gives those that keep says, by id.
func (m *Memory) liveObjects(keep func(*ledger.Object) bool) []ledger.Object {
	var got []ledger.Object
	for name := range m.objects {
		if o, ok := m.object(name); ok && keep(&o) {
			got = append(got, shared(o))
		}
	}
	slices.SortFunc(got, func(a, b ledger.Object) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID)) })
	return got
}

// Objects implements ledger.Store.
func (m *Memory) Objects(ctx context.Context, kind, group, after string, limit int) ([]ledger.Object, error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	got := m.liveObjects(func(o *ledger.Object) bool {
		return o.Kind == kind && (group == "" || o.Group == group) && o.ID > after
	})
	return got[:min(max(limit, 0), len(got))], nil
}

// DueObjects implements ledger.Store.
func (m *Memory) DueObjects(ctx context.Context, kind string, until time.Time, limit int) ([]ledger.Object, error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	got := m.liveObjects(func(o *ledger.Object) bool { return o.Kind == kind && !o.Due.IsZero() && !o.Due.After(until) })
	slices.SortStableFunc(got, func(a, b ledger.Object) int { return a.Due.Compare(b.Due) })
	return got[:min(max(limit, 0), len(got))], nil
}

// EachObject implements ledger.Store.
func (m *Memory) EachObject(ctx context.Context, f func(ledger.Object) error) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	live := m.liveObjects(func(*ledger.Object) bool { return true })
	m.mu.Unlock()
	for _, o := range live {
		if err := f(o); err != nil {
			return err
		}
	}
	return nil
}

// sweepObjects removes what has expired.
func (m *Memory) sweepObjects(limit int) (n int) {
	for name := range m.objects {
		if _, live := m.object(name); !live && n < limit {
			delete(m.objects, name)
			n++
		}
	}
	return n
}

func (m *Memory) importObject(o ledger.Object) error {
	if err := o.Check(); err != nil {
		return err
	}
	if had, ok := m.objects[nameOf(&o)]; ok && !same(had, o) {
		return ledger.ErrObjectChanged
	}
	m.objects[nameOf(&o)] = shared(o)
	return nil
}
