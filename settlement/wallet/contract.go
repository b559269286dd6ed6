package wallet

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement/chain"
)

// lookAgain is how long a contract that was not there is taken for missing.
const lookAgain = time.Minute

// contract is one that must be there: calls of an address without code succeed, and do nothing.
type contract struct {
	address common.Address
	turn    lock
	there   atomic.Bool
	absent  atomic.Int64 // when it was last found missing, in Unix nanoseconds
}

func (c *contract) init(address common.Address) { c.address, c.turn = address, newLock() }

// missing reports whether it was found missing a moment ago.
func (c *contract) missing() bool {
	at := c.absent.Load()
	return at != 0 && time.Since(time.Unix(0, at)) < lookAgain
}

// exists asks until it was found once. One asks, the others wait for the answer. The error wraps settlement.ErrUnavailable.
func (c *contract) exists(ctx context.Context, ch *chain.Client) (bool, error) {
	if c.there.Load() {
		return true, nil
	}
	if err := c.turn.lock(ctx); err != nil {
		return false, unavailable(err)
	}
	defer c.turn.unlock()
	if c.there.Load() {
		return true, nil
	}
	code, err := ch.Code(ctx, c.address)
	if err != nil {
		return false, err
	}
	if len(code) == 0 {
		c.absent.Store(time.Now().UnixNano())
		return false, nil
	}
	c.there.Store(true)
	return true, nil
}
