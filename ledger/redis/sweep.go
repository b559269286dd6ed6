package redis

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// claimMargin is how long the claim of a forgotten payment outlives its authorization.
const claimMargin = 24 * time.Hour

// swept are the states whose payments may be closed.
var swept = []ledger.State{
	ledger.StateDelivered, ledger.StateOwed, ledger.StateFailed, ledger.StateVoid, ledger.StateExpired, ledger.StateCancelled,
	ledger.StateRefunded,
}

// Sweep implements ledger.Store. A payment for a plan that has not ended yet stays, whatever its age.
func (s *Store) Sweep(ctx context.Context, keep time.Duration, limit int) (int, error) {
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	defer s.leave()
	n := 0
	for part := 0; part < partitions && n < limit; part++ {
		for _, list := range []struct{ name, prefix string }{{expiryKey, "r:"}, {usedUpKey, "q:"}} {
			gone, err := s.expire(ctx, part, list.name, list.prefix, limit-n)
			n += gone
			if err != nil {
				return n, err
			}
		}
	}
	if n < limit {
		gone, err := s.lapse(ctx, limit-n)
		n += gone
		if err != nil {
			return n, err
		}
	}
	if n < limit {
		gone, err := s.sweepObjects(ctx, limit-n)
		n += gone
		if err != nil {
			return n, err
		}
	}
	if keep <= 0 {
		return n, nil
	}
	before := s.clock.now().Add(-keep)
	for part := 0; part < partitions && n < limit; part++ {
		for _, state := range swept {
			gone, err := s.sweep(ctx, part, state, before, limit-n)
			n += gone
			if err != nil || n >= limit {
				return n, err
			}
		}
	}
	return n, nil
}

// expire removes what has expired of a part: the list name has it by its ends, and its keys begin with prefix.
func (s *Store) expire(ctx context.Context, part int, name, prefix string, limit int) (int, error) {
	var c *call
	err := s.dated(ctx, func(time.Time) ([]*call, error) {
		c = writing("expire", []string{s.keys.part(part, floorKey), s.keys.part(part, name)},
			strconv.Itoa(limit), s.keys.part(part, prefix))
		return []*call{c}, nil
	})
	if err == nil && c.what() == "INCOMPLETE" {
		err = ledger.ErrIncomplete
	}
	if err != nil || len(c.reply) < 2 {
		return 0, err
	}
	n, _ := c.reply[1].(int64)
	return int(n), nil
}

// sweep forgets payments of one list of a part. They are ordered by their making, which is before their last change.
func (s *Store) sweep(ctx context.Context, part int, state ledger.State, before time.Time, limit int) (int, error) {
	n, offset := 0, 0
	for n < limit {
		c := reading("list", []string{s.keys.part(part, floorKey), s.keys.state(part, state)}, s.keys.paymentPrefix(part),
			"ZRANGEBYSCORE", "-inf", micros(before), strconv.Itoa(offset), strconv.Itoa(listPage))
		if err := s.one(ctx, c); err != nil {
			return n, err
		}
		values := c.texts(1)
		for _, v := range values {
			offset++
			if v == "" || n >= limit {
				continue
			}
			p, err := parse(v)
			if err != nil {
				return n, err
			}
			if !s.sweepable(p, before) {
				continue
			}
			gone, err := s.forget(ctx, part, p)
			if err != nil {
				return n, err
			}
			if gone {
				n++
				offset--
			}
		}
		if len(values) < listPage {
			break
		}
	}
	return n, nil
}

// sweepable reports whether nothing can be wanted of a payment any more that has not changed since before.
func (s *Store) sweepable(p *stored, before time.Time) bool {
	q := &p.payment
	return len(p.mark) == 0 && q.Closed() &&
		!q.UpdatedAt.After(before) && !q.PlanUntil.After(s.clock.now())
}

// forget removes a payment with all that is its own; its transactions go first, so that nothing is left if that is as far as it comes.
func (s *Store) forget(ctx context.Context, part int, p *stored) (bool, error) {
	sent, err := s.sent(ctx, p.refs...)
	if err != nil {
		return false, err
	}
	for _, t := range sent {
		if t == nil {
			continue
		}
		wallet := s.keys.wallet(t.ChainID, t.Wallet)
		c := writing("drop", []string{wallet + ":f", wallet}, string(t.Hash[:]), nonceField(t.Nonce), short(p.payment.ID), strconv.Itoa(len(t.Payments)))
		if err := s.one(ctx, c); err != nil {
			return false, err
		}
	}
	entries, err := p.story()
	if err != nil {
		return false, err
	}
	k, q := s.keys, &p.payment
	var c *call
	err = s.dated(ctx, func(now time.Time) ([]*call, error) {
		claim, end := s.claimUntil(q, now)
		names := []string{
			k.part(part, floorKey), k.payment(part, q.ID), k.part(part, dueKey), k.part(part, heldKey), k.part(part, logKey),
			k.authorization(q.AuthorizationID), k.part(part, bornKey),
		}
		args := append([]any{short(q.ID), versionBytes(q.Version), claim, end}, logged(entries)...)
		names, args = k.indexed(names, args, q, nil)
		c = writing("forget", names, args...)
		return []*call{c}, nil
	})
	if err != nil {
		return false, err
	}
	return c.what() == "OK" || c.what() == "GONE", nil
}

// claimUntil is what is left of the claim of a forgotten payment, and when that ends by itself. Nothing is left when the
// authorization has ended long ago.
func (s *Store) claimUntil(p *ledger.Payment, now time.Time) (value, end string) {
	const far = 1 << 33 // in seconds; what is beyond never ends
	if p.ValidBefore > far {
		return "~" + strings.Repeat("9", checkWidth) + short(p.ID), ""
	}
	at := time.Unix(int64(p.ValidBefore), 0).Add(claimMargin)
	if !at.After(now) {
		return "", ""
	}
	return "~" + digits(at.UnixMicro()) + short(p.ID), s.ending(at)
}
