package redis

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// All objects of a kind are in one part, with their lists: ids by their bytes (l), those of a group (g), and by when they are due (d). The
// part lists its kinds, and its objects by when they expire. An object is one string:
//
//	token 8 | version 19 digits | expires 18 digits | due 18 digits | length of group 1 | group | body
//
// Times are in microseconds, 0 for none. One that has expired stays until it is swept or made again: its lists are found through it.
const objectVersionWidth = 19

// objects is where the objects of a kind are: the part, and what their keys begin with. The scripts know the names too.
func (k keys) objects(kind string) (part int, base string) {
	sum := sha256.Sum256([]byte(kind))
	part = int(sum[0] >> 2)
	return part, k.part(part, "o:") + kind + ":"
}

func (k keys) object(kind, id string) (part int, name string) {
	part, base := k.objects(kind)
	return part, base + "v:" + id
}

func objectVersion(n int64) string { return fmt.Sprintf("%0*d", objectVersionWidth, n) }

func objectTime(t time.Time) string {
	if t.IsZero() {
		return digits(0)
	}
	return digits(t.UnixMicro())
}

func objectValue(o *ledger.Object, token string) string {
	b := append([]byte(token), objectVersion(o.Version)...)
	b = append(b, objectTime(o.Expires)...)
	b = append(b, objectTime(o.Due)...)
	b = append(b, byte(len(o.Group)))
	b = append(b, o.Group...)
	return string(append(b, o.Body...))
}

// parseObject reads what objectValue made. What is wrong with it is told without what is in it.
func parseObject(kind, id, v string) (ledger.Object, error) {
	d := decoder{b: []byte(v)}
	d.raw(tokenLength)
	version, err := strconv.ParseInt(string(d.raw(objectVersionWidth)), 10, 64)
	expires, err2 := strconv.ParseInt(string(d.raw(checkWidth)), 10, 64)
	due, err3 := strconv.ParseInt(string(d.raw(checkWidth)), 10, 64)
	group := string(d.raw(uint64(d.byte())))
	if d.err != nil || err != nil || err2 != nil || err3 != nil {
		return ledger.Object{}, fmt.Errorf("%w: an object", errDamaged)
	}
	o := ledger.Object{Kind: kind, ID: id, Group: group, Version: version, Body: d.b}
	if due != 0 {
		o.Due = time.UnixMicro(due).UTC()
	}
	if expires != 0 {
		o.Expires = time.UnixMicro(expires).UTC()
	}
	return o, nil
}

// parseObjects reads ids with their values.
func parseObjects(kind string, texts []string) ([]ledger.Object, error) {
	got := make([]ledger.Object, 0, len(texts)/2)
	for pair := range slices.Chunk(texts, 2) {
		o, err := parseObject(kind, pair[0], pair[len(pair)-1])
		if err != nil {
			return nil, err
		}
		got = append(got, o)
	}
	return got, nil
}

// Object implements ledger.Store.
func (s *Store) Object(ctx context.Context, kind, id string) (ledger.Object, error) {
	if err := s.enter(ctx); err != nil {
		return ledger.Object{}, err
	}
	defer s.leave()
	if !ledger.IsObjectName(kind, id) {
		return ledger.Object{}, ledger.ErrNoObject
	}
	part, name := s.keys.object(kind, id)
	c := reading("get", []string{s.keys.part(part, floorKey), name})
	if err := s.one(ctx, c); err != nil {
		return ledger.Object{}, err
	}
	v := append(c.texts(1), "")[0]
	if v == "" {
		return ledger.Object{}, ledger.ErrNoObject
	}
	o, err := parseObject(kind, id, v)
	if err == nil && !o.Live(s.clock.now()) {
		return ledger.Object{}, ledger.ErrNoObject
	}
	return o, err
}

// errSince: a change whose answer was lost, and that others have written over if it was made.
var errSince = fmt.Errorf("%w: others have changed the object since", ErrUnanswered)

// changeObject makes the call that build gives. doubt: it may have been made though its answer says that it was not.
func (s *Store) changeObject(ctx context.Context, build func() *call) (c *call, doubt bool, err error) {
	err = s.datedNow(ctx, func(time.Time) *call {
		doubt = doubt || c != nil && c.sent
		c = build()
		return c
	})
	return c, doubt || c != nil && c.sent, err
}

// storeObject stores o if the version before is the expected one; empty: if there is none.
func (s *Store) storeObject(ctx context.Context, o *ledger.Object, expected string, imported bool) (c *call, doubt bool, err error) {
	part, name := s.keys.object(o.Kind, o.ID)
	value := objectValue(o, newToken())
	return s.changeObject(ctx, func() *call {
		return writing("putobject", []string{s.keys.part(part, floorKey), name}, o.Kind, o.ID, expected, value, flag(imported))
	})
}

// PutObject implements ledger.Store.
func (s *Store) PutObject(ctx context.Context, o ledger.Object) (ledger.Object, error) {
	if err := s.enter(ctx); err != nil {
		return ledger.Object{}, err
	}
	defer s.leave()
	next, err := o.Next()
	if err != nil {
		return ledger.Object{}, err
	}
	expected := ""
	if o.Version > 0 {
		expected = objectVersion(o.Version)
	}
	c, doubt, err := s.storeObject(ctx, &next, expected, false)
	switch {
	case err != nil:
		return ledger.Object{}, err
	case c.what() == "OK":
		return next, nil
	case c.what() == "INCOMPLETE":
		return ledger.Object{}, ledger.ErrIncomplete
	case doubt:
		return ledger.Object{}, errSince
	case c.what() == "CHANGED":
		return ledger.Object{}, ledger.ErrObjectChanged
	case c.what() != "EXISTS":
		return ledger.Object{}, c.unexpected()
	}
	had, err := parseObject(o.Kind, o.ID, c.text(1))
	if err != nil {
		return ledger.Object{}, err
	}
	return had, ledger.ErrObjectExists
}

// DeleteObject implements ledger.Store.
func (s *Store) DeleteObject(ctx context.Context, kind, id string, version int64) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	if !ledger.IsObjectName(kind, id) {
		return s.complete(ctx) // nobody has it
	}
	part, name := s.keys.object(kind, id)
	c, doubt, err := s.changeObject(ctx, func() *call {
		return writing("dropobject", []string{s.keys.part(part, floorKey), name}, kind, id, objectVersion(version))
	})
	switch {
	case err != nil || c.what() == "OK":
		return err
	case c.what() == "INCOMPLETE":
		return ledger.ErrIncomplete
	case c.what() != "CHANGED":
		return c.unexpected()
	case doubt:
		return errSince
	}
	return ledger.ErrObjectChanged
}

// objectsPage is how many objects are read at once; the scripts give fewer where they are large.
const objectsPage = 500

// Objects implements ledger.Store.
func (s *Store) Objects(ctx context.Context, kind, group, after string, limit int) ([]ledger.Object, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	if !ledger.IsObjectGroup(kind, group) {
		return nil, nil
	}
	var got []ledger.Object
	for len(got) < limit {
		page, next, err := s.objectsAfter(ctx, kind, group, after, limit-len(got))
		if err != nil {
			return nil, err
		}
		got = append(got, page...)
		if next == "" {
			break
		}
		after = next
	}
	return got, nil
}

// objectsAfter reads a page of objects, and after which id the next begins; none if that is empty.
func (s *Store) objectsAfter(ctx context.Context, kind, group, after string, limit int) (page []ledger.Object, next string, err error) {
	part, base := s.keys.objects(kind)
	list := base + "l"
	if group != "" {
		list = base + "g:" + group
	}
	c := reading("objects", []string{s.keys.part(part, floorKey), list}, base+"v:", after, strconv.Itoa(min(limit, objectsPage)))
	if err := s.one(ctx, c); err != nil {
		return nil, "", err
	}
	page, err = parseObjects(kind, c.texts(1))
	return page, c.text(2), err
}

// DueObjects implements ledger.Store.
func (s *Store) DueObjects(ctx context.Context, kind string, until time.Time, limit int) ([]ledger.Object, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	if !ledger.IsObjectGroup(kind, "") {
		return nil, nil
	}
	part, base := s.keys.objects(kind)
	var got []ledger.Object
	for offset := "0"; len(got) < limit && offset != ""; {
		c := reading("dueobjects", []string{s.keys.part(part, floorKey), base + "d"},
			base+"v:", micros(until), strconv.Itoa(min(limit-len(got), objectsPage)), offset)
		if err := s.one(ctx, c); err != nil {
			return nil, err
		}
		page, err := parseObjects(kind, c.texts(1))
		if err != nil {
			return nil, err
		}
		got, offset = append(got, page...), c.text(2)
	}
	return got, nil
}

// EachObject implements ledger.Store.
func (s *Store) EachObject(ctx context.Context, f func(ledger.Object) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	for part := range partitions {
		c := reading("members", []string{s.keys.part(part, floorKey), s.keys.part(part, kindsKey)})
		if err := s.one(ctx, c); err != nil {
			return err
		}
		for _, kind := range c.texts(1) {
			if err := s.eachOfKind(ctx, kind, f); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) eachOfKind(ctx context.Context, kind string, f func(ledger.Object) error) error {
	for after := ""; ; {
		page, next, err := s.objectsAfter(ctx, kind, "", after, objectsPage)
		if err != nil {
			return err
		}
		for i := range page {
			if err := f(page[i]); err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		after = next
	}
}

// sweepObjects removes what has expired.
func (s *Store) sweepObjects(ctx context.Context, limit int) (int, error) {
	calls := make([]*call, partitions)
	for part := range partitions {
		calls[part] = reading("overdue", []string{s.keys.part(part, floorKey), s.keys.part(part, overdueKey)})
	}
	if err := s.ask(ctx, calls...); err != nil {
		return 0, err
	}
	n := 0
	for part := 0; part < partitions && n < limit; part++ {
		if calls[part].number(1) == 0 {
			continue
		}
		var c *call
		err := s.datedNow(ctx, func(time.Time) *call {
			c = writing("sweepobjects", []string{s.keys.part(part, floorKey), s.keys.part(part, overdueKey)},
				strconv.Itoa(limit-n))
			return c
		})
		if err == nil && c.what() == "INCOMPLETE" {
			err = ledger.ErrIncomplete
		}
		if err != nil {
			return n, err
		}
		n += int(c.number(1))
	}
	return n, nil
}

// importObject stores an object as it is, or finds it so.
func (s *Store) importObject(ctx context.Context, o *ledger.Object) error {
	if err := o.Check(); err != nil {
		return err
	}
	c, _, err := s.storeObject(ctx, o, "", true)
	if err != nil || c.what() == "OK" {
		return err
	}
	had, err := parseObject(o.Kind, o.ID, c.text(1))
	if err != nil {
		return err
	}
	if !same(had, *o) {
		return ledger.ErrObjectChanged
	}
	return nil
}
