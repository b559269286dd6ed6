package redis

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// Lease implements ledger.Store. Each part is asked what is due there longest; of all that is said the first are leased.
func (s *Store) Lease(ctx context.Context, limit int, ttl time.Duration) ([]ledger.Payment, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	if err := s.adopt(ctx); err != nil {
		return nil, err
	}
	var leased []*stored
	for len(leased) < limit {
		share, err := s.due(ctx, limit-len(leased))
		if err != nil {
			return nil, err
		}
		got, all, err := s.lease(ctx, share, ttl)
		if err != nil {
			return nil, err
		}
		leased = append(leased, got...)
		if all {
			break
		}
		// Others leased at the same time: there may be more for us.
	}
	slices.SortStableFunc(leased, func(a, b *stored) int {
		return cmp.Or(cmp.Compare(a.check, b.check), a.payment.CreatedAt.Compare(b.payment.CreatedAt), cmp.Compare(a.payment.ID, b.payment.ID))
	})
	leased, err := s.all(ctx, leased)
	if err != nil {
		return nil, err
	}
	return plain(leased), nil
}

func plain(ps []*stored) []ledger.Payment {
	var got []ledger.Payment
	for _, p := range ps {
		got = append(got, p.payment)
	}
	return got
}

// due says how many of the limit payments that are due longest each part has.
func (s *Store) due(ctx context.Context, limit int) (map[int]int, error) {
	type since struct {
		at   float64
		id   string
		part int
	}
	var all []since
	var calls []*call
	err := s.dated(ctx, func(time.Time) ([]*call, error) {
		calls = nil
		for part := range partitions {
			calls = append(calls, writing("due",
				[]string{s.keys.part(part, floorKey), s.keys.part(part, dueKey), s.keys.part(part, heldKey)},
				strconv.Itoa(limit), s.keys.paymentPrefix(part)))
		}
		return calls, nil
	})
	if err != nil {
		return nil, err
	}
	for part, c := range calls {
		if c.what() == "INCOMPLETE" {
			return nil, ledger.ErrIncomplete
		}
		for pair := range slices.Chunk(c.texts(1), 2) {
			at, err := strconv.ParseFloat(pair[len(pair)-1], 64)
			if err != nil {
				return nil, fmt.Errorf("%w: the time of %s", errDamaged, pair[0])
			}
			all = append(all, since{at, pair[0], part})
		}
	}
	slices.SortFunc(all, func(a, b since) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.id, b.id)) })
	share := map[int]int{}
	for _, d := range all[:min(limit, len(all))] {
		share[d.part]++
	}
	return share, nil
}

// lease leases in each part as many as its share; all says that there were so many.
func (s *Store) lease(ctx context.Context, share map[int]int, ttl time.Duration) (got []*stored, all bool, err error) {
	if len(share) == 0 {
		return nil, true, nil
	}
	now, want := s.clock.now(), 0
	var calls []*call
	for part, n := range share {
		want += n
		calls = append(calls, writing("lease", []string{s.keys.part(part, floorKey), s.keys.part(part, dueKey)},
			strconv.Itoa(n), s.keys.paymentPrefix(part), digits(later(now, ttl))))
	}
	if err := s.askAt(ctx, now, calls...); err != nil {
		return nil, false, err
	}
	s.wrong(calls) // what was refused for its time is asked for again, and only that
	for _, c := range calls {
		if c.what() == "INCOMPLETE" {
			return nil, false, ledger.ErrIncomplete
		}
		for _, v := range c.texts(1) {
			p, err := parse(v)
			if err != nil {
				return nil, false, err
			}
			got = append(got, p)
		}
	}
	return got, len(got) >= want, nil
}

// later is the time after now, in microseconds, as far as a score can tell it.
func later(now time.Time, after time.Duration) int64 {
	const end = 1 << 53
	at := now.UnixMicro()
	if after.Microseconds() > math.MaxInt64-at {
		return end
	}
	return min(at+after.Microseconds(), end)
}

// Recheck implements ledger.Store.
func (s *Store) Recheck(ctx context.Context, id string, after time.Duration) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	part, ok := partitionOf(id)
	if !ok {
		return s.unlessIncomplete(ctx, fmt.Errorf("%w: %s", ledger.ErrNotFound, id))
	}
	k := s.keys
	var c *call
	err := s.dated(ctx, func(now time.Time) ([]*call, error) {
		c = writing("recheck", []string{k.part(part, floorKey), k.part(part, dueKey), k.part(part, heldKey), k.payment(part, id)},
			short(id), digits(later(now, after)))
		return []*call{c}, nil
	})
	switch {
	case err != nil:
		return err
	case c.what() == "INCOMPLETE":
		return ledger.ErrIncomplete
	case c.what() == "GONE":
		return fmt.Errorf("%w: %s", ledger.ErrNotFound, id)
	}
	return nil
}
