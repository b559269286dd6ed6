package redis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// mark says for which attempt to record which transaction a payment is set aside.
type mark struct {
	attempt string
	ref
}

func (m *mark) value() string {
	var e encoder
	e.raw([]byte(m.attempt))
	e.uint(m.chain)
	e.raw(m.wallet[:])
	e.raw(m.hash[:])
	return string(e.b)
}

func parseMark(b []byte) (mark, error) {
	d := decoder{b: b}
	var m mark
	m.attempt, m.chain = string(d.raw(tokenLength)), d.uint()
	d.fixed(m.wallet[:])
	d.fixed(m.hash[:])
	return m, d.end()
}

// markWait is how long an attempt to record is given to end by itself before a writer who is waiting for the payment
// gives it up for it: many times what it takes.
const markWait = 250 * time.Millisecond

// seen gives a payment as everybody may see it: one that is marked for a transaction that counts is finished first.
func (s *Store) seen(ctx context.Context, p *stored) (*stored, error) {
	for len(p.mark) > 0 {
		m, err := parseMark(p.mark)
		if err != nil {
			return nil, fmt.Errorf("%w: payment %s", err, p.payment.ID)
		}
		t, err := s.committed(ctx, &m)
		if err != nil {
			return nil, err
		}
		if t == nil {
			return p, nil // it is as it was before
		}
		if p, err = s.finish(ctx, p, &m, t); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// all gives payments as everybody may see them.
func (s *Store) all(ctx context.Context, ps []*stored) ([]*stored, error) {
	for i := range ps {
		var err error
		if ps[i], err = s.seen(ctx, ps[i]); err != nil {
			return nil, err
		}
	}
	return ps, nil
}

// unmarked reads a payment for a writer, which waits for whoever is recording a transaction for it.
func (s *Store) unmarked(ctx context.Context, id string) (*stored, error) {
	got, err := s.stored(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.unmark(ctx, got)
}

func (s *Store) unmark(ctx context.Context, p *stored) (*stored, error) {
	begun := time.Now()
	for len(p.mark) > 0 {
		m, err := parseMark(p.mark)
		if err != nil {
			return nil, fmt.Errorf("%w: payment %s", err, p.payment.ID)
		}
		t, err := s.committed(ctx, &m)
		switch {
		case err != nil:
			return nil, err
		case t != nil:
			if p, err = s.finish(ctx, p, &m, t); err != nil {
				return nil, err
			}
			continue
		case time.Since(begun) > markWait:
			if err := s.abort(ctx, p, &m); err != nil {
				return nil, err
			}
		default:
			s.sleep(ctx, time.Millisecond+time.Duration(rand.Int64N(int64(4*time.Millisecond))), false) //nolint:gosec // no secret
			if err := ctx.Err(); err != nil {
				return nil, err
			}
		}
		if p, err = s.stored(ctx, p.payment.ID); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// committed gives the transaction if the attempt of m has recorded it.
func (s *Store) committed(ctx context.Context, m *mark) (*sent, error) {
	got, err := s.sent(ctx, m.ref)
	if err != nil || got[0] == nil || got[0].attempt != m.attempt {
		return nil, err
	}
	return got[0], nil
}

// finish moves a marked payment to settling, for a transaction that counts already. Whoever else does the same does it no harm.
func (s *Store) finish(ctx context.Context, p *stored, m *mark, t *sent) (*stored, error) {
	w := writer{s: s, token: m.attempt, made: map[common.Hash]ledger.Payment{}}
	_, now, err := w.write(ctx, p, func(at time.Time, previous common.Hash) (ledger.Payment, []ledger.Entry, error) {
		next, e, err := ledger.Send(p.payment, previous, at, &t.Transaction, t.actor)
		return next, []ledger.Entry{e}, err
	}, &m.ref)
	if err != nil || now != nil {
		return now, err
	}
	return s.stored(ctx, p.payment.ID)
}

// abort gives an attempt to record up and takes its mark away, unless it has come to count meanwhile.
func (s *Store) abort(ctx context.Context, p *stored, m *mark) error {
	wallet := s.keys.wallet(m.chain, m.wallet)
	c := writing("abort", []string{wallet + ":f", wallet, s.keys.aborted(wallet, m.attempt)}, m.attempt, string(m.hash[:]))
	if err := s.one(ctx, c); err != nil || c.what() != "OK" {
		return err
	}
	return s.release(ctx, m, p.payment.ID)
}

// release takes the marks of an attempt away that will never count.
func (s *Store) release(ctx context.Context, m *mark, ids ...string) error {
	var calls []*call
	for _, id := range ids {
		calls = append(calls, s.marking(id, "", m.value(), ""))
	}
	return s.ask(ctx, calls...)
}

// marking is the call that replaces the mark of a payment.
func (s *Store) marking(id, version, had, is string) *call {
	part, _ := partitionOf(id)
	return writing("mark", []string{s.keys.part(part, floorKey), s.keys.payment(part, id), s.keys.part(part, markedKey)},
		version, had, is, short(id))
}

// finishMarked finishes, in all parts, the payments of transactions that count already.
func (s *Store) finishMarked(ctx context.Context) error {
	calls := make([]*call, partitions)
	for part := range partitions {
		calls[part] = reading("set", []string{s.keys.part(part, floorKey), s.keys.part(part, markedKey)})
	}
	if err := s.ask(ctx, calls...); err != nil {
		return err
	}
	var ids []string
	for _, c := range calls {
		for _, id := range c.texts(1) {
			ids = append(ids, idPrefix+id)
		}
	}
	_, err := s.found(ctx, ids)
	return err
}
