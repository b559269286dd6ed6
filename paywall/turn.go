package paywall

import (
	"context"

	"github.com/ethereum/go-ethereum/common"
)

// turn is the right to look whether something that is bought once is bought already, and to claim a payment for it. Clients that
// send several requests at once pay with each of them. What decides between them is the reservation in the ledger; the
// turns only spare it the claims of those of this process who would lose.
type turn struct {
	free    chan struct{} // holds one token
	waiting int
}

// takeTurn waits until nobody else is between looking and claiming what is reserved by key, or ctx ends. done gives the
// turn back, once.
func (e *Engine) takeTurn(ctx context.Context, key common.Hash) (done func(), err error) {
	e.mu.Lock()
	t := e.turns[key]
	if t == nil {
		t = &turn{free: make(chan struct{}, 1)}
		t.free <- struct{}{}
		e.turns[key] = t
	}
	t.waiting++
	e.mu.Unlock()

	leave := func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if t.waiting--; t.waiting == 0 {
			delete(e.turns, key)
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
