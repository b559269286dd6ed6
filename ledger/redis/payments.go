package redis

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

func newToken() string { return string(number(rand.Uint64())) } //nolint:gosec // it need not be secret, only rare

// Claim implements ledger.Store.
func (s *Store) Claim(ctx context.Context, p ledger.Payment, c ledger.Change) (ledger.Payment, error) {
	if err := s.enter(ctx); err != nil {
		return ledger.Payment{}, err
	}
	defer s.leave()
	token, made := newToken(), map[common.Hash]ledger.Payment{}
	var next ledger.Payment
	var run *call
	err := s.dated(ctx, func(now time.Time) (_ []*call, err error) {
		var e ledger.Entry
		if next, e, err = ledger.Create(p, c, now); err != nil {
			return nil, err
		}
		if _, ok := partitionOf(next.ID); !ok {
			return nil, fmt.Errorf("%w: %q is no id", ledger.ErrTransition, next.ID)
		}
		made[e.Hash] = next
		is := &stored{payment: next, check: next.CreatedAt.UnixMicro(), trail: appendEntry(nil, &e, token)}
		run = s.claim(is, []ledger.Entry{e}, false)
		return []*call{run}, nil
	})
	if err != nil {
		return ledger.Payment{}, err
	}
	switch run.what() {
	case "OK":
		return next, nil
	case "INCOMPLETE":
		return ledger.Payment{}, ledger.ErrIncomplete
	case "FORGOTTEN":
		return ledger.Payment{ID: idPrefix + run.text(1), AuthorizationID: p.AuthorizationID},
			fmt.Errorf("%w, by a payment that is forgotten", ledger.ErrExists)
	case "EXISTS":
		return s.claimed(ctx, run, token, made)
	case "TAKEN":
		return ledger.Payment{}, fmt.Errorf("%w: the id %s is taken", ledger.ErrTransition, p.ID)
	}
	return ledger.Payment{}, run.unexpected()
}

// claimed gives the payment that has the authorization. It may be this call's own, whose first answer was lost.
func (s *Store) claimed(ctx context.Context, run *call, token string, made map[common.Hash]ledger.Payment) (ledger.Payment, error) {
	had, err := parse(run.text(1))
	if err != nil {
		return ledger.Payment{}, err
	}
	entries, err := had.entries()
	if err != nil {
		return ledger.Payment{}, err
	}
	if len(entries) > 0 && entries[0].token == token {
		if next, ok := made[entries[0].Hash]; ok {
			return next, s.touch(ctx, next.ID)
		}
	}
	if had, err = s.seen(ctx, had); err != nil {
		return ledger.Payment{}, err
	}
	return had.payment, fmt.Errorf("%w, by payment %s", ledger.ErrExists, had.payment.ID)
}

// claim is the call that creates a payment.
func (s *Store) claim(p *stored, entries []ledger.Entry, imported bool) *call {
	part, _ := partitionOf(p.payment.ID)
	k := s.keys
	names := []string{
		k.part(part, floorKey), k.payment(part, p.payment.ID), k.part(part, dueKey), k.part(part, heldKey), k.part(part, logKey),
		k.authorization(p.payment.AuthorizationID), k.part(part, bornKey),
	}
	open, hold := waits(&p.payment)
	args := []any{short(p.payment.ID), p.value(), open, digits(p.check), hold, flag(imported), k.paymentPrefix(part)}
	args = append(args, logged(entries)...)
	names, args = k.indexed(names, args, nil, &p.payment)
	return writing("claim", names, args...)
}

// waits says whether and until when a payment is held.
func waits(p *ledger.Payment) (open, hold string) {
	if p.Hold.Until.IsZero() {
		return flag(p.Open()), "0"
	}
	return flag(p.Open()), micros(p.Hold.Until)
}

func flag(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

func micros(t time.Time) string { return strconv.FormatInt(t.UnixMicro(), 10) }

// logged are the entries for the log: how many, then time and version of each.
func logged(entries []ledger.Entry) []any {
	args := []any{strconv.Itoa(len(entries))}
	for i := range entries {
		args = append(args, micros(entries[i].At), logVersion(entries[i].Version))
	}
	return args
}

func logVersion(v uint64) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(v)))
}

// indexed adds the changes of the indexes when a payment is made (before is nil), changes, or is forgotten (after is nil).
func (k keys) indexed(names []string, args []any, before, after *ledger.Payment) ([]string, []any) {
	was, is := k.places(before), k.places(after)
	add := func(sign, key, score string) {
		names = append(names, key)
		args = append(args, sign, strconv.Itoa(len(names)), score)
	}
	for key := range was {
		if _, ok := is[key]; !ok {
			add("-", key, "")
		}
	}
	for key, score := range is {
		if had, ok := was[key]; !ok || had != score {
			add("+", key, score)
		}
	}
	return names, args
}

// places are the indexes that a payment is in, and where.
func (k keys) places(p *ledger.Payment) map[string]string {
	if p == nil {
		return nil
	}
	part, created := partitionOfPayer(p.Payer), micros(p.CreatedAt)
	got := map[string]string{k.state(part, p.State()): created, k.payer(p.Payer): created}
	if p.Unserved() {
		got[k.unserved(p)] = created
	}
	if p.Delivery == ledger.Delivered && !p.PlanUntil.IsZero() {
		got[k.plans(p.Payer, p.Binding.Route, p.Binding.Host)] = micros(p.PlanUntil)
	}
	return got
}

// touch makes sure that what was written by a call whose answer was lost is confirmed as all is.
func (s *Store) touch(ctx context.Context, id string) error {
	part, _ := partitionOf(id)
	// It was made: the caller's context says nothing about that any more.
	return s.one(context.WithoutCancel(ctx), writing("touch", []string{s.keys.part(part, floorKey), s.keys.payment(part, id)}))
}

// Update implements ledger.Store.
func (s *Store) Update(ctx context.Context, id string, version uint64, changes ...ledger.Change) (ledger.Payment, error) {
	if err := s.enter(ctx); err != nil {
		return ledger.Payment{}, err
	}
	defer s.leave()
	p, err := s.update(ctx, id, version, changes)
	return p, s.unlessIncomplete(ctx, err)
}

func (s *Store) update(ctx context.Context, id string, version uint64, changes []ledger.Change) (ledger.Payment, error) {
	had, err := s.unmarked(ctx, id)
	if err != nil {
		return ledger.Payment{}, err
	}
	w := writer{s: s, token: newToken(), made: map[common.Hash]ledger.Payment{}}
	for {
		if had.payment.Version != version {
			return w.lost(ctx, had, version)
		}
		next, now, err := w.write(ctx, had, func(now time.Time, previous common.Hash) (ledger.Payment, []ledger.Entry, error) {
			return ledger.Advance(had.payment, previous, now, changes...)
		}, nil)
		if err != nil || now == nil {
			return next, err
		}
		// It was changed, or marked, since it was read.
		if had, err = s.unmark(ctx, now); err != nil {
			return ledger.Payment{}, err
		}
	}
}

// writer makes one change of a payment, in as many attempts as it takes.
type writer struct {
	s     *Store
	token string
	made  map[common.Hash]ledger.Payment // what the attempts would make of the payment, by its last audit hash
}

// write makes the change that step gives. If the payment is not as it was read, it gives the payment as it is now.
func (w *writer) write(
	ctx context.Context, had *stored, step func(now time.Time, previous common.Hash) (ledger.Payment, []ledger.Entry, error), add *ref,
) (ledger.Payment, *stored, error) {
	previous, err := had.last()
	if err != nil {
		return ledger.Payment{}, nil, err
	}
	var next ledger.Payment
	var run *call
	err = w.s.dated(ctx, func(now time.Time) ([]*call, error) {
		run = nil
		var entries []ledger.Entry
		if next, entries, err = step(now, previous); err != nil || len(entries) == 0 {
			return nil, err
		}
		w.made[entries[len(entries)-1].Hash] = next
		run = w.apply(had, &next, entries, add, now)
		return []*call{run}, nil
	})
	switch {
	case err != nil:
		return ledger.Payment{}, nil, err
	case run == nil || run.what() == "OK":
		return next, nil, nil
	case run.what() == "GONE":
		return ledger.Payment{}, nil, ledger.ErrNotFound
	case run.what() == "INCOMPLETE":
		return ledger.Payment{}, nil, ledger.ErrIncomplete
	case run.what() != "CHANGED":
		return ledger.Payment{}, nil, run.unexpected()
	}
	is, err := parse(run.text(1))
	return ledger.Payment{}, is, err
}

// apply is the call that writes next over had.
func (w *writer) apply(had *stored, next *ledger.Payment, entries []ledger.Entry, add *ref, now time.Time) *call {
	is := &stored{payment: *next, refs: had.refs}
	if add != nil {
		is.refs = append(append([]ref{}, had.refs...), *add)
	}
	var trail []byte
	for i := range entries {
		trail = appendEntry(trail, &entries[i], w.token)
	}
	check := ""
	if !had.payment.Open() && next.Open() {
		check = digits(now.UnixMicro()) // one that opens again is due at once
	}
	part, _ := partitionOf(next.ID)
	k := w.s.keys
	names := []string{
		k.part(part, floorKey), k.payment(part, next.ID), k.part(part, dueKey), k.part(part, heldKey), k.part(part, logKey),
		k.part(part, markedKey),
	}
	open, hold := waits(next)
	args := []any{
		short(next.ID), versionBytes(had.payment.Version), string(had.mark), check,
		versionBytes(next.Version), string(is.body()), string(trail), open, hold,
	}
	names, args = k.indexed(names, append(args, logged(entries)...), &had.payment, next)
	return writing("apply", names, args...)
}

// lost decides what it means that a payment has another version than expected: another was faster, unless this call
// itself was, in an attempt whose answer was lost.
func (w *writer) lost(ctx context.Context, is *stored, version uint64) (ledger.Payment, error) {
	if len(w.made) > 0 && is.payment.Version > version {
		entries, err := is.entries()
		if err != nil {
			return ledger.Payment{}, err
		}
		for _, e := range entries {
			if next, ok := w.made[e.Hash]; ok && e.token == w.token {
				return next, w.s.touch(ctx, next.ID)
			}
		}
	}
	return ledger.Payment{}, fmt.Errorf("%w: payment %s has version %d, not %d", ledger.ErrConflict, is.payment.ID, is.payment.Version, version)
}

// Payment implements ledger.Store.
func (s *Store) Payment(ctx context.Context, id string) (ledger.Payment, error) {
	if err := s.enter(ctx); err != nil {
		return ledger.Payment{}, err
	}
	defer s.leave()
	got, err := s.read(ctx, id)
	if err != nil {
		return ledger.Payment{}, err
	}
	return got.payment, nil
}

// read reads a payment as everybody may see it.
func (s *Store) read(ctx context.Context, id string) (*stored, error) {
	got, err := s.stored(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.seen(ctx, got)
}

// stored reads a payment as it is in Redis, with its mark; ErrNotFound.
func (s *Store) stored(ctx context.Context, id string) (*stored, error) {
	got, err := s.fetch(ctx, id)
	if err != nil {
		return nil, err
	}
	if got[0] == nil {
		return nil, fmt.Errorf("%w: %s", ledger.ErrNotFound, id)
	}
	return got[0], nil
}

// fetch reads payments as they are in Redis; one that is not there is nil.
func (s *Store) fetch(ctx context.Context, ids ...string) ([]*stored, error) {
	return s.look(ctx, true, ids...)
}

// look is fetch; decides is false for what is only shown.
func (s *Store) look(ctx context.Context, decides bool, ids ...string) ([]*stored, error) {
	got, calls := make([]*stored, len(ids)), make([]*call, 0, len(ids))
	at := make([]int, 0, len(ids))
	for i, id := range ids {
		if part, ok := partitionOf(id); ok {
			c := reading("get", []string{s.keys.part(part, floorKey), s.keys.payment(part, id)})
			c.decides = decides
			calls = append(calls, c)
			at = append(at, i)
		}
	}
	if len(calls) == 0 {
		return got, ctx.Err()
	}
	if err := s.ask(ctx, calls...); err != nil {
		return nil, err
	}
	for i, c := range calls {
		v := c.texts(1)
		if len(v) == 0 || v[0] == "" {
			continue
		}
		var err error
		if got[at[i]], err = parse(v[0]); err != nil {
			return nil, fmt.Errorf("%w: payment %s", err, ids[at[i]])
		}
	}
	return got, nil
}

// ByAuthorization implements ledger.Store.
func (s *Store) ByAuthorization(ctx context.Context, id x402.AuthorizationID) (ledger.Payment, error) {
	if err := s.enter(ctx); err != nil {
		return ledger.Payment{}, err
	}
	defer s.leave()
	part := partitionOfPayer(id.Payer)
	c := reading("read", []string{s.keys.part(part, floorKey), s.keys.authorization(id)}, s.keys.paymentPrefix(part))
	if err := s.one(ctx, c); err != nil {
		return ledger.Payment{}, err
	}
	if c.what() != "OK" {
		return ledger.Payment{}, ledger.ErrNotFound
	}
	got, err := parse(c.text(1))
	if err != nil {
		return ledger.Payment{}, err
	}
	if got, err = s.seen(ctx, got); err != nil {
		return ledger.Payment{}, err
	}
	return got.payment, nil
}

// Audit implements ledger.Store.
func (s *Store) Audit(ctx context.Context, id string) ([]ledger.Entry, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	got, err := s.read(ctx, id)
	if err != nil {
		return nil, err
	}
	return got.story()
}

// story is the trail without what is the store's own.
func (s *stored) story() ([]ledger.Entry, error) {
	entries, err := s.entries()
	if err != nil {
		return nil, err
	}
	got := make([]ledger.Entry, 0, len(entries))
	for _, e := range entries {
		got = append(got, e.Entry)
	}
	return got, nil
}
