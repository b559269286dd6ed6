package chain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
)

// Transaction is what is needed of a mined transaction.
type Transaction struct {
	Hash common.Hash
	From common.Address
	// To is nil where a contract was made.
	To    *common.Address
	Nonce uint64
	Input []byte
	// BlockHash is zero while it is not mined.
	BlockHash common.Hash
}

// UnmarshalJSON reads the answer of eth_getTransactionByHash.
func (t *Transaction) UnmarshalJSON(b []byte) error {
	var v struct {
		Hash      *common.Hash    `json:"hash"`
		From      *common.Address `json:"from"`
		To        *common.Address `json:"to"`
		Nonce     *hexutil.Uint64 `json:"nonce"`
		Input     *hexutil.Bytes  `json:"input"`
		BlockHash *common.Hash    `json:"blockHash"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	if v.Hash == nil || v.From == nil || v.Nonce == nil || v.Input == nil {
		return errors.New("the transaction lacks a field")
	}
	*t = Transaction{Hash: *v.Hash, From: *v.From, To: v.To, Nonce: uint64(*v.Nonce), Input: *v.Input}
	if v.BlockHash != nil {
		t.BlockHash = *v.BlockHash
	}
	return nil
}

// Transactions gives transactions in the order of their hashes; nil for those that the node does not know.
func (c *Client) Transactions(ctx context.Context, hashes []common.Hash) ([]*Transaction, error) {
	all := make([]*Transaction, len(hashes))
	for done := 0; done < len(hashes); {
		part := hashes[done:min(len(hashes), done+receiptBatch)]
		queries := make([]*Query, len(part))
		for i, h := range part {
			queries[i] = &Query{method: "eth_getTransactionByHash", args: []any{h}, decode: into(&all[done+i])}
		}
		if _, err := c.Ask(ctx, queries...); err != nil {
			return nil, fmt.Errorf("reading transactions: %w", err)
		}
		done += len(part)
	}
	return all, nil
}

// Block is the head as it was at number.
func (c *Client) Block(ctx context.Context, number uint64) (h Head, err error) {
	err = c.ask(ctx, &Query{
		method: "eth_getBlockByNumber", args: []any{hexutil.Uint64(number), false}, decode: intoHead(&h),
	})
	return h, err
}

// ErrNoState says that no endpoint that answered keeps the state of so old a block.
var ErrNoState = errors.New("chain: the state of that block is not kept")

// CountAt is the number of transactions of a that were mined up to block number, that included. Most nodes keep the
// states of their last 128 blocks only: ErrNoState.
func (c *Client) CountAt(ctx context.Context, a common.Address, number uint64) (n uint64, err error) {
	q := &Query{
		method: "eth_getTransactionCount", args: []any{a, hexutil.Uint64(number)}, decode: into((*hexutil.Uint64)(&n)), optional: true,
	}
	if _, err = c.Ask(ctx, q); err != nil {
		return 0, err
	}
	if q.Err != nil {
		return 0, fmt.Errorf("%w: block %d: %w", ErrNoState, number, q.Err)
	}
	return n, nil
}
