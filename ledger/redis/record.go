package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

func isNotFound(err error) bool { return errors.Is(err, ledger.ErrNotFound) }

// errAgain: an attempt to record was given up, and nothing is left of it.
var errAgain = errors.New("ledger/redis: another was in the way")

// Record implements ledger.Store.
func (s *Store) Record(ctx context.Context, t ledger.Transaction, actor string) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	deadline := time.Now().Add(s.patience)
	for {
		err := s.attempt(ctx, t, actor)
		if !errors.Is(err, errAgain) {
			return s.unlessIncomplete(ctx, err)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("ledger/redis: the payments of transaction %s are never free", t.Hash)
		}
		s.sleep(ctx, time.Duration(rand.Int64N(int64(8*time.Millisecond))), false) //nolint:gosec // no secret
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// attempt tries to record t: it marks the payments, records with the wallet, and finishes the payments.
func (s *Store) attempt(ctx context.Context, t ledger.Transaction, actor string) error {
	began := s.clock.now()
	l, err := s.lane(ctx, &t)
	if err != nil {
		return err
	}
	if l.next != "" && (l.had != "" || len(t.Payments) == 0) { // else a part says so, or introduce
		if err := s.complete(ctx); err != nil {
			return err
		}
	}
	m := &mark{attempt: newToken(), ref: ref{t.ChainID, t.Wallet, t.Hash}}
	if l.had != "" {
		return s.recorded(ctx, l, &t)
	}
	if ids := slices.Sorted(slices.Values(t.Payments)); len(slices.Compact(ids)) != len(t.Payments) {
		return fmt.Errorf("%w: transaction %s names a payment twice", ledger.ErrTransition, t.Hash)
	}
	if _, err := s.next(ctx, l, &t); err != nil {
		return err
	}
	payments, err := s.prepare(ctx, &t, m, actor, began)
	if err != nil {
		return err
	}
	t.CreatedAt = began
	made, err := s.commit(ctx, l, &sent{t, m.attempt, actor}, began)
	switch {
	case err == nil:
		return s.finishAll(ctx, payments, m, made)
	case errors.Is(err, ErrUnanswered):
		return err // the marks stay: whoever meets them finds out
	}
	return errors.Join(err, s.release(context.WithoutCancel(ctx), m, t.Payments...))
}

// recorded decides about a transaction whose hash is recorded: the same again is a success, when its payments are finished.
func (s *Store) recorded(ctx context.Context, l *lane, t *ledger.Transaction) error {
	had, err := parseSent(l.had, ref{t.ChainID, t.Wallet, t.Hash})
	if err != nil {
		return err
	}
	if had.Nonce != t.Nonce || !t.Carries(had.Payments) {
		return fmt.Errorf("%w: transaction %s was recorded with other contents", ledger.ErrNonce, t.Hash)
	}
	// Whoever recorded it may not have been told that it is confirmed.
	c := l.fields("n")
	c.prove = true
	if err := s.one(ctx, c); err != nil {
		return err
	}
	for _, id := range had.Payments {
		if _, err := s.read(ctx, id); err != nil && !isNotFound(err) {
			return err
		}
	}
	return nil
}

// next finds the next nonce of the wallet if t is recorded: it is t's turn, or t may replace what was recorded with its nonce.
func (s *Store) next(ctx context.Context, l *lane, t *ledger.Transaction) (string, error) {
	if l.next == "" {
		return strconv.FormatUint(t.Nonce+1, 10), nil
	}
	next, err := strconv.ParseUint(l.next, 10, 64)
	switch {
	case err != nil:
		return "", fmt.Errorf("%w: the nonce of %s", errDamaged, t.Wallet)
	case t.Nonce == next:
		return strconv.FormatUint(t.Nonce+1, 10), nil
	case t.Nonce > next:
		return "", fmt.Errorf("%w: %d leaves a gap, the next is %d", ledger.ErrNonce, t.Nonce, next)
	}
	var refs []ref
	for _, h := range l.hashes() {
		refs = append(refs, ref{t.ChainID, t.Wallet, h})
	}
	rivals, err := s.sent(ctx, refs...)
	if err != nil {
		return "", err
	}
	for _, r := range rivals {
		if r != nil && (len(t.Payments) == 0 || t.Carries(r.Payments)) {
			return l.next, nil
		}
	}
	return "", fmt.Errorf("%w: %d is used, the next is %d", ledger.ErrNonce, t.Nonce, next)
}

// prepare marks the payments of t, all or none.
func (s *Store) prepare(ctx context.Context, t *ledger.Transaction, m *mark, actor string, now time.Time) ([]*stored, error) {
	if len(t.Payments) == 0 {
		return nil, nil
	}
	got, err := s.fetch(ctx, t.Payments...)
	if err != nil {
		return nil, err
	}
	calls := make([]*call, len(got))
	for i, p := range got {
		if p == nil {
			return nil, fmt.Errorf("%w: %s", ledger.ErrNotFound, t.Payments[i])
		}
		if len(p.mark) > 0 {
			if p, err = s.unmark(ctx, p); err != nil {
				return nil, err
			}
			got[i] = p
		}
		if _, _, err := ledger.Send(p.payment, common.Hash{}, now, t, actor); err != nil {
			return nil, err
		}
		calls[i] = s.marking(p.payment.ID, versionBytes(p.payment.Version), "", m.value())
	}
	err = s.ask(ctx, calls...)
	for i, c := range calls {
		if err == nil && c.what() == "INCOMPLETE" {
			err = ledger.ErrIncomplete
		}
		if err == nil && c.what() != "OK" {
			err = errAgain // it changed since it was read, or another is recording for it
		}
		got[i].mark = []byte(m.value())
	}
	if err != nil {
		// What is marked nobody will commit.
		return nil, errors.Join(err, s.release(context.WithoutCancel(ctx), m, t.Payments...))
	}
	return got, nil
}

// commit records t with its wallet; from then on it counts. It gives what is recorded.
func (s *Store) commit(ctx context.Context, l *lane, t *sent, began time.Time) (*sent, error) {
	for {
		next, err := s.next(ctx, l, &t.Transaction)
		if err != nil {
			return nil, err
		}
		if l.next == "" {
			if err := s.introduce(ctx, t.ChainID, t.Wallet, false); err != nil {
				return nil, err
			}
		}
		c := writing("commit", []string{l.key + ":f", l.key, s.keys.aborted(l.key, t.attempt), s.keys.freed(l.key)},
			t.attempt, string(t.Hash[:]), t.value(), nonceField(t.Nonce), l.next, l.rivals, next, flag(len(t.Payments) > 0))
		if err := s.askAt(ctx, began, c); err != nil {
			return nil, err
		}
		switch c.what() {
		case "OK":
			return t, nil
		case "HAD":
			had, err := parseSent(c.text(1), ref{t.ChainID, t.Wallet, t.Hash})
			if err != nil || had.attempt == t.attempt {
				return &had, err
			}
			return nil, errAgain
		case "CLOCK":
			// Too late: by now another may have forgotten that it gave this attempt up.
			s.wrong([]*call{c})
			return nil, errAgain
		case "ABORTED":
			return nil, errAgain
		case "CHANGED":
		default:
			return nil, c.unexpected()
		}
		if l, err = s.lane(ctx, &t.Transaction); err != nil {
			return nil, err
		}
	}
}

// finishAll moves the payments of a recorded transaction to settling. That it counts is decided already: what can't be
// finished now is finished by whoever reads it next.
func (s *Store) finishAll(ctx context.Context, payments []*stored, m *mark, t *sent) error {
	ctx = context.WithoutCancel(ctx)
	err := s.dated(ctx, func(now time.Time) ([]*call, error) {
		var calls []*call
		for _, p := range payments {
			c, err := s.sending(p, m, t, now)
			if err != nil {
				return nil, err
			}
			calls = append(calls, c)
		}
		return calls, nil
	})
	if err != nil {
		s.log.WarnContext(ctx, "a recorded transaction's payments will be finished when they are read", "transaction", t.Hash, "error", err)
	}
	return nil
}

// sending is the call that moves one payment to settling.
func (s *Store) sending(p *stored, m *mark, t *sent, now time.Time) (*call, error) {
	previous, err := p.last()
	if err != nil {
		return nil, err
	}
	next, e, err := ledger.Send(p.payment, previous, now, &t.Transaction, t.actor)
	if err != nil {
		return nil, err
	}
	w := writer{s: s, token: m.attempt}
	return w.apply(p, &next, []ledger.Entry{e}, &m.ref, now), nil
}
