package redis

import (
	"context"
	"strconv"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

const (
	// adoptEvery is how often it is looked whether an instance of an older version has left something behind.
	adoptEvery = 10 * time.Minute
	adoptPage  = 1000
)

// adopt puts payments that are to be paid back among what is due, where they are not: the versions that knew no refunds took them for done
// when their settlement was final. Such a version may have written the ledger, and may still run beside this one.
func (s *Store) adopt(ctx context.Context) error {
	now := s.clock.now()
	s.mu.Lock()
	done := !s.adopted.IsZero() && now.Sub(s.adopted) < adoptEvery
	s.mu.Unlock()
	if done {
		return nil
	}
	for from, more := 0, true; more; from += adoptPage {
		var err error
		if more, err = s.adoptFrom(ctx, from); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.adopted = now
	s.mu.Unlock()
	return nil
}

// adoptFrom looks at a page of each part's list; more says that one of them goes on.
func (s *Store) adoptFrom(ctx context.Context, from int) (more bool, err error) {
	var calls []*call
	err = s.dated(ctx, func(now time.Time) ([]*call, error) {
		calls = nil
		for part := range partitions {
			k := s.keys
			calls = append(calls, writing("adopt",
				[]string{k.part(part, floorKey), k.part(part, dueKey), k.part(part, heldKey), k.state(part, ledger.StateRefundPending)},
				k.paymentPrefix(part), digits(now.UnixMicro()), strconv.Itoa(from), strconv.Itoa(adoptPage)))
		}
		return calls, nil
	})
	if err != nil {
		return false, err
	}
	for _, c := range calls {
		if c.what() == "INCOMPLETE" {
			return false, ledger.ErrIncomplete
		}
		if len(c.reply) < 2 {
			return false, c.unexpected()
		}
		n, _ := c.reply[1].(int64)
		more = more || n == adoptPage
	}
	return more, nil
}
