package chain

import (
	"context"
	"fmt"
	"math/big"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
)

// ask is Ask for one query.
func (c *Client) ask(ctx context.Context, q *Query) error {
	if _, err := c.Ask(ctx, q); err != nil {
		return err
	}
	return q.Err
}

// ChainID asks which chain this is.
func (c *Client) ChainID(ctx context.Context) (id uint64, err error) {
	err = c.ask(ctx, IDQuery(&id))
	return id, err
}

// Head is the newest block.
func (c *Client) Head(ctx context.Context) (h Head, err error) {
	err = c.ask(ctx, HeadQuery(&h))
	c.floor.saw(h.Number)
	return h, err
}

// Safe is the newest block that will stay. Where no node has ever told of a "safe" block, it is the one SafeDepth below the head;
// where one has, and this one does not know, it is that.
func (c *Client) Safe(ctx context.Context) (Head, error) {
	var h Head
	q := SafeQuery(&h)
	head, err := c.Ask(ctx, q)
	if err == nil {
		err = c.safe(ctx, q.Err, head, &h)
	}
	return h, err
}

// safe takes the node's answer to the question for the safe block, h or an error, on a chain whose newest block is head. A node that
// is short of breath answers some questions of many with an error: how deep a payment must lie does not depend on that.
func (c *Client) safe(ctx context.Context, answer error, head uint64, h *Head) error {
	if answer == nil {
		last := *h
		c.lastSafe.Store(&last)
		return nil
	}
	if last := c.lastSafe.Load(); last != nil && last.Number <= head {
		*h = *last
		return nil
	}
	err := c.ask(ctx, blockQuery(head-min(head, c.cfg.SafeDepth), h))
	if err == nil && h.Hash == (common.Hash{}) {
		err = fmt.Errorf("%w: the safe block: %w", settlement.ErrUnavailable, errNoBlock)
	}
	return err
}

// Receipt is that of a transaction; nil while it is not mined.
func (c *Client) Receipt(ctx context.Context, hash common.Hash) (r *Receipt, err error) {
	err = c.ask(ctx, ReceiptQuery(hash, &r))
	if r != nil {
		c.floor.saw(r.Block)
	}
	return r, err
}

// Call simulates m on the newest block. A *RevertError is the chain's answer; any other error is none.
func (c *Client) Call(ctx context.Context, m Message) (result []byte, err error) {
	err = c.ask(ctx, CallQuery(m, &result))
	return result, err
}

// EstimateGas is the gas that m needs, at most m.Gas. A *RevertError is the chain's answer; any other error is none.
func (c *Client) EstimateGas(ctx context.Context, m Message) (gas uint64, err error) {
	err = c.ask(ctx, EstimateQuery(m, &gas))
	return gas, err
}

// Code is the code at a, on the newest block.
func (c *Client) Code(ctx context.Context, a common.Address) (code []byte, err error) {
	err = c.ask(ctx, CodeQuery(a, &code))
	return code, err
}

// Balance is what a has, in wei, on the newest block.
func (c *Client) Balance(ctx context.Context, a common.Address) (*big.Int, error) {
	wei := new(big.Int)
	err := c.ask(ctx, BalanceQuery(a, wei))
	return wei, err
}

// TransactionCount is the next nonce of a: by mined transactions, and by those that the node knows
// besides. pending is never below mined; a node that tells nothing of pending ones gives mined.
func (c *Client) TransactionCount(ctx context.Context, a common.Address) (mined, pending uint64, err error) {
	m, p := CountQuery(a, &mined), PendingCountQuery(a, &pending)
	if _, err = c.Ask(ctx, m, p); err != nil {
		return 0, 0, err
	}
	if m.Err != nil {
		return 0, 0, fmt.Errorf("counting transactions: %w", m.Err)
	}
	return mined, max(mined, pending), nil
}
