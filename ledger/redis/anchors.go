package redis

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// Anchors are a list of JSON, each with the token of the call that wrote it before it.

func (s *Store) anchors(ctx context.Context, from, to int64) ([]ledger.Anchor, error) {
	c := reading("slice", []string{s.keys.anchors(), s.keys.anchors()}, strconv.FormatInt(from, 10), strconv.FormatInt(to, 10))
	if err := s.one(ctx, c); err != nil {
		return nil, err
	}
	var got []ledger.Anchor
	for _, v := range c.texts(1) {
		var a ledger.Anchor
		if len(v) < tokenLength {
			return nil, fmt.Errorf("%w: an anchor", errDamaged)
		}
		if err := json.Unmarshal([]byte(v[tokenLength:]), &a); err != nil {
			return nil, fmt.Errorf("%w: an anchor: %w", errDamaged, err)
		}
		got = append(got, a)
	}
	return got, nil
}

// Anchors implements ledger.Store.
func (s *Store) Anchors(ctx context.Context, after uint64, limit int) ([]ledger.Anchor, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	if limit <= 0 || after > 1<<53 {
		return nil, nil
	}
	from := int64(after)
	return s.anchors(ctx, from, from+int64(limit)-1)
}

// LastAnchor implements ledger.Store.
func (s *Store) LastAnchor(ctx context.Context) (ledger.Anchor, error) {
	if err := s.enter(ctx); err != nil {
		return ledger.Anchor{}, err
	}
	defer s.leave()
	return s.lastAnchor(ctx)
}

func (s *Store) lastAnchor(ctx context.Context) (ledger.Anchor, error) {
	got, err := s.anchors(ctx, -1, -1)
	if err != nil {
		return ledger.Anchor{}, err
	}
	if len(got) == 0 {
		return ledger.Anchor{}, fmt.Errorf("%w: there is no anchor", ledger.ErrNotFound)
	}
	return got[0], nil
}

// AddAnchor implements ledger.Store.
func (s *Store) AddAnchor(ctx context.Context, a ledger.Anchor) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	if err := s.complete(ctx); err != nil {
		return err
	}
	return s.addAnchor(ctx, a, false)
}

func (s *Store) addAnchor(ctx context.Context, a ledger.Anchor, imported bool) error {
	got, err := s.anchors(ctx, -1, -1)
	if err != nil {
		return err
	}
	var last *ledger.Anchor
	if len(got) > 0 {
		last = &got[0]
	}
	if !a.Follows(last) {
		return fmt.Errorf("%w: anchor %d does not follow the last one", ledger.ErrConflict, a.Sequence)
	}
	// First the floors: when the anchor is there, no entry may come below it. Floors alone do no harm.
	if err := s.raiseFloors(ctx, a); err != nil {
		return err
	}
	if !imported { // of what was forgotten since, an import has nothing
		if err := s.recount(ctx, last, a); err != nil {
			return err
		}
	}
	b, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("ledger/redis: anchor %d: %w", a.Sequence, err)
	}
	c := writing("anchor", []string{s.keys.anchors(), s.keys.anchors(), s.keys.meta()},
		strconv.FormatUint(a.Sequence, 10), newToken()+string(b), flag(imported))
	if err := s.one(ctx, c); err != nil {
		return err
	}
	switch c.what() {
	case "OK":
		return nil
	case "INCOMPLETE":
		return ledger.ErrIncomplete
	}
	return fmt.Errorf("%w: another was faster to make anchor %d", ledger.ErrConflict, a.Sequence)
}

// recount finds out whether a is about all entries there are: one may have come in after a was made, if it took longer than
// ledger.AnchorLag to write it. None comes any more.
func (s *Store) recount(ctx context.Context, last *ledger.Anchor, a ledger.Anchor) error {
	var after time.Time
	if last != nil {
		after = last.Until
	}
	var calls []*call
	for part := range partitions {
		calls = append(calls, reading("count", []string{s.keys.part(part, floorKey), s.keys.part(part, logKey)}, micros(after), micros(a.Until)))
	}
	if err := s.ask(ctx, calls...); err != nil {
		return err
	}
	var count uint64
	for _, c := range calls {
		if len(c.reply) < 2 {
			return c.unexpected()
		}
		n, _ := c.reply[1].(int64)
		count += uint64(n)
	}
	if count != a.Count {
		return fmt.Errorf("%w: anchor %d is about %d entries, there are %d", ledger.ErrConflict, a.Sequence, a.Count, count)
	}
	return nil
}

func (s *Store) raiseFloors(ctx context.Context, a ledger.Anchor) error {
	var calls []*call
	for part := range partitions {
		calls = append(calls, writing("floor", []string{s.keys.part(part, floorKey)}, micros(a.Until)))
	}
	if err := s.ask(ctx, calls...); err != nil {
		return err
	}
	s.clock.raise(a.Until)
	return nil
}
