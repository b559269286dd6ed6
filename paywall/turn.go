package paywall

import (
	"context"

	"github.com/ethereum/go-ethereum/common"
)

// purchase is one plan as one payer buys it.
type purchase struct {
	payer             common.Address
	scope, plan, host string
}

// turn is the right to look whether a plan is bought already and to claim a payment for it. Clients that send
// several requests at once pay with each of them; of a pass they want one.
type turn struct {
	free    chan struct{} // holds one token
	waiting int
}

// takeTurn waits until nobody else is between looking and claiming, or ctx ends. done gives the turn back, once.
func (e *Engine) takeTurn(ctx context.Context, p purchase) (done func(), err error) {
	e.mu.Lock()
	t := e.turns[p]
	if t == nil {
		t = &turn{free: make(chan struct{}, 1)}
		t.free <- struct{}{}
		e.turns[p] = t
	}
	t.waiting++
	e.mu.Unlock()

	leave := func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if t.waiting--; t.waiting == 0 {
			delete(e.turns, p)
		}
	}
	select {
	case <-t.free:
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
	given := false
	return func() {
		if !given {
			given = true
			t.free <- struct{}{}
			leave()
		}
	}, nil
}
