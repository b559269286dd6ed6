package redis

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// Counts implements ledger.Store.
func (s *Store) Counts(ctx context.Context) (map[ledger.State]int64, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	var calls []*call
	for part := range partitions {
		calls = append(calls, reading("cards", append([]string{s.keys.part(part, floorKey)}, s.keys.states(part)...)))
	}
	if err := s.ask(ctx, calls...); err != nil {
		return nil, err
	}
	got := map[ledger.State]int64{}
	for _, c := range calls {
		if len(c.reply) < 2 {
			return nil, c.unexpected()
		}
		counts, _ := c.reply[1].([]any)
		for i, n := range counts {
			if n, _ := n.(int64); n > 0 && i < len(states) {
				got[states[i]] += n
			}
		}
	}
	return got, nil
}

// states names the lists of a part by state, in their order.
func (k keys) states(part int) []string {
	names := make([]string, len(states))
	for i, state := range states {
		names[i] = k.state(part, state)
	}
	return names
}

// place is where a payment, or an entry, stands in a list ordered by time.
type place struct {
	at      int64
	id      string
	version uint64
}

func (a place) compare(b place) int {
	return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.id, b.id), cmp.Compare(a.version, b.version))
}

// source is a list of places in one part, read a page at a time.
type source struct {
	part   int
	offset int     // how many were read, or by how much a page must be longer
	places []place // read and not taken
	last   place   // the last that was read
	ended  bool
}

// merge takes places from several lists in the order of them all. page reads the next page of sources that need one.
func merge(sources []*source, order func(a, b place) int, page func([]*source) error, take func(place) (bool, error)) error {
	for {
		var need []*source
		for _, r := range sources {
			if len(r.places) == 0 && !r.ended {
				need = append(need, r)
			}
		}
		if len(need) > 0 {
			if err := page(need); err != nil {
				return err
			}
			continue
		}
		var next *source
		for _, r := range sources {
			if len(r.places) > 0 && (next == nil || order(r.places[0], next.places[0]) < 0) {
				next = r
			}
		}
		if next == nil {
			return nil
		}
		p := next.places[0]
		next.places = next.places[1:]
		if more, err := take(p); err != nil || !more {
			return err
		}
	}
}

// pageOf is how many places to read of each list for limit in all.
func pageOf(limit, lists int) int { return max(limit/lists*2, 16) }

// pairs reads members with their scores.
func pairs(texts []string) ([]place, error) {
	got := make([]place, 0, len(texts)/2)
	for pair := range slices.Chunk(texts, 2) {
		at, err := strconv.ParseFloat(pair[len(pair)-1], 64)
		if err != nil {
			return nil, fmt.Errorf("%w: the time of %s", errDamaged, pair[0])
		}
		got = append(got, place{at: int64(at), id: pair[0]})
	}
	return got, nil
}

// List implements ledger.Store.
func (s *Store) List(ctx context.Context, q ledger.Query) ([]ledger.Payment, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	if q.Limit <= 0 {
		return nil, nil
	}
	parts, lists := s.lists(q)
	size := pageOf(q.Limit, len(parts))
	if q.Payer != (common.Address{}) && q.State != "" {
		size = max(size, listPage)
	}
	sources := make([]*source, len(parts))
	for i, part := range parts {
		sources[i] = &source{part: part}
	}
	var got []ledger.Payment
	seen := map[string]bool{}
	var batch []string
	flush := func() error {
		found, err := s.found(ctx, batch)
		batch = batch[:0]
		for _, p := range found {
			if (q.State == "" || p.payment.State() == q.State) && (q.Payer == common.Address{} || p.payment.Payer == q.Payer) && len(got) < q.Limit {
				got = append(got, p.payment)
			}
		}
		return err
	}
	newest := func(a, b place) int { return b.compare(a) }
	err := merge(sources, newest, func(need []*source) error { return s.newest(ctx, need, lists, q.Before, size) },
		func(p place) (bool, error) {
			if !seen[p.id] {
				seen[p.id] = true
				batch = append(batch, idPrefix+p.id)
			}
			if len(batch) < min(q.Limit-len(got), listPage) {
				return true, nil
			}
			err := flush()
			return len(got) < q.Limit, err
		})
	if err == nil && len(got) < q.Limit {
		err = flush()
	}
	if err != nil {
		return nil, err
	}
	return got, nil
}

// lists are the parts and their lists that have what q asks for.
func (s *Store) lists(q ledger.Query) (parts []int, lists func(part int) []string) {
	if q.Payer != (common.Address{}) && q.State == ledger.StateOwed { // few, of few payers; and asked on the way of requests
		return []int{partitionOfPayer(q.Payer)}, func(part int) []string { return []string{s.keys.state(part, q.State)} }
	}
	if q.Payer != (common.Address{}) {
		return []int{partitionOfPayer(q.Payer)}, func(int) []string { return []string{s.keys.payer(q.Payer)} }
	}
	for part := range partitions {
		parts = append(parts, part)
	}
	return parts, func(part int) []string {
		if q.State != "" {
			return []string{s.keys.state(part, q.State)}
		}
		return s.keys.states(part)
	}
}

// newest reads the next page of each source: what comes after the last that was read, or after before.
func (s *Store) newest(ctx context.Context, need []*source, lists func(part int) []string, before ledger.Mark, size int) error {
	calls := make([]*call, len(need))
	for i, r := range need {
		from := "+inf"
		switch {
		case r.last.id != "":
			from = strconv.FormatInt(r.last.at, 10)
		case !before.At.IsZero():
			from = micros(before.At)
		}
		calls[i] = reading("newest", append([]string{s.keys.part(r.part, floorKey)}, lists(r.part)...), from, strconv.Itoa(size+r.offset))
	}
	if err := s.ask(ctx, calls...); err != nil {
		return err
	}
	for i, c := range calls {
		if err := need[i].older(c, before, size); err != nil {
			return err
		}
	}
	return nil
}

// older takes the places of a page that come after the last that was read.
func (r *source) older(c *call, before ledger.Mark, size int) error {
	if len(c.reply) < 2 {
		return c.unexpected()
	}
	var all []place
	limit, full := place{}, false
	lists, _ := c.reply[1].([]any)
	asked := size + r.offset
	for _, list := range lists {
		sub := call{script: c.script, reply: []any{"OK", list}}
		got, err := pairs(sub.texts(1))
		if err != nil {
			return err
		}
		if len(got) >= asked {
			// What is older than the end of a list that goes on is not known yet.
			if end := got[len(got)-1]; !full || end.compare(limit) > 0 {
				limit = end
			}
			full = true
		}
		all = append(all, got...)
	}
	slices.SortFunc(all, func(a, b place) int { return b.compare(a) })
	mark := place{at: before.At.UnixMicro(), id: short(before.Payment)}
	fresh := 0
	for _, p := range all {
		switch {
		case full && p.compare(limit) < 0,
			!before.At.IsZero() && p.compare(mark) >= 0,
			r.last.id != "" && p.compare(r.last) >= 0:
			continue
		}
		r.places = append(r.places, p)
		fresh++
	}
	if fresh > 0 {
		r.last = r.places[len(r.places)-1]
	}
	switch {
	case !full:
		r.ended = true
	case fresh == 0:
		r.offset = max(2*r.offset, size) // there are as many of one time as fill a page
	default:
		r.offset = 0
	}
	return nil
}

// found reads payments, and leaves out those that are not there any more.
func (s *Store) found(ctx context.Context, ids []string) ([]*stored, error) {
	var got []*stored
	for chunk := range slices.Chunk(ids, listPage) {
		some, err := s.look(ctx, false, chunk...)
		if err != nil {
			return nil, err
		}
		for _, p := range some {
			if p == nil {
				continue
			}
			if p, err = s.seen(ctx, p); isNotFound(err) {
				continue
			} else if err != nil {
				return nil, err
			}
			got = append(got, p)
		}
	}
	return got, nil
}

// Entries implements ledger.Store.
func (s *Store) Entries(ctx context.Context, after ledger.Mark, until time.Time, limit int) ([]ledger.Entry, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	if limit <= 0 {
		return nil, nil
	}
	// An entry that counts already belongs to the list, even if whoever caused it died before writing it.
	if err := s.finishMarked(ctx); err != nil {
		return nil, err
	}
	sources := make([]*source, partitions)
	for part := range partitions {
		sources[part] = &source{part: part}
	}
	size := pageOf(limit, partitions)
	var got []ledger.Entry
	// A payment may be forgotten between the two reads. Its entries are made up for: a page that is short means that it is the last.
	for {
		missing := limit - len(got)
		var want []place
		err := merge(sources, place.compare,
			func(need []*source) error { return s.logged(ctx, need, after, until, size) },
			func(p place) (bool, error) {
				want = append(want, p)
				return len(want) < missing, nil
			})
		if err != nil {
			return nil, err
		}
		some, err := s.entriesAt(ctx, want)
		if err != nil {
			return nil, err
		}
		if got = append(got, some...); len(want) < missing || len(got) == limit {
			return got, nil
		}
	}
}

// logged reads the next page of each part's log.
func (s *Store) logged(ctx context.Context, need []*source, after ledger.Mark, until time.Time, size int) error {
	calls := make([]*call, len(need))
	for i, r := range need {
		calls[i] = reading("range", []string{s.keys.part(r.part, floorKey), s.keys.part(r.part, logKey)},
			micros(after.At), micros(until), strconv.Itoa(r.offset), strconv.Itoa(size))
	}
	if err := s.ask(ctx, calls...); err != nil {
		return err
	}
	mark := place{at: after.At.UnixMicro(), id: short(after.Payment), version: after.Version}
	for i, c := range calls {
		r := need[i]
		got, err := pairs(c.texts(1))
		if err != nil {
			return err
		}
		r.offset += len(got)
		r.ended = len(got) < size
		for _, p := range got {
			if len(p.id) < 4 {
				return fmt.Errorf("%w: the log", errDamaged)
			}
			version := p.id[len(p.id)-4:]
			p.id = strings.TrimSuffix(p.id, version)
			p.version = uint64(version[0])<<24 | uint64(version[1])<<16 | uint64(version[2])<<8 | uint64(version[3])
			if p.compare(mark) > 0 && p.compare(r.last) > 0 {
				r.places = append(r.places, p)
				r.last = p
			}
		}
	}
	return nil
}

// entriesAt reads the entries of places.
func (s *Store) entriesAt(ctx context.Context, want []place) ([]ledger.Entry, error) {
	var ids []string
	trails := map[string][]entry{}
	for _, p := range want {
		if _, ok := trails[p.id]; !ok {
			trails[p.id] = nil
			ids = append(ids, idPrefix+p.id)
		}
	}
	found, err := s.found(ctx, ids)
	if err != nil {
		return nil, err
	}
	for _, p := range found {
		if trails[short(p.payment.ID)], err = p.entries(); err != nil {
			return nil, err
		}
	}
	var got []ledger.Entry
	for _, p := range want {
		if trail := trails[p.id]; p.version >= 1 && p.version <= uint64(len(trail)) {
			got = append(got, trail[p.version-1].Entry)
		}
	}
	return got, nil
}
