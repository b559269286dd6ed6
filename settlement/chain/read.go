package chain

import (
	"context"
	"fmt"
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
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

// Safe is the newest block that will stay. Where the node knows no "safe" block, it is the one SafeDepth
// below the head.
func (c *Client) Safe(ctx context.Context) (Head, error) {
	var h Head
	q := SafeQuery(&h)
	head, err := c.Ask(ctx, q)
	if err != nil || q.Err == nil {
		return h, err
	}
	number := head - min(head, c.cfg.SafeDepth)
	err = c.ask(ctx, &Query{
		method: "eth_getBlockByNumber", args: []any{hexutil.Uint64(number), false}, decode: intoHead(&h),
	})
	return h, err
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
