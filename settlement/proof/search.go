package proof

import (
	"context"
	"fmt"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Trace is what an authorization left in the token's logs since its claim.
type Trace struct {
	// Receipt is that of the transaction that paid, whoever sent it; nil if none did.
	Receipt *chain.Receipt
	// Spent: it was used, or cancelled, in Block. Without a Receipt it will never pay.
	Spent bool
	Block uint64
}

// ErrReorganized says that a log's transaction was taken back while it was looked at; ask again.
var ErrReorganized = fmt.Errorf("%w: the chain is being reorganized", settlement.ErrUnavailable)

// Search looks for the authorization of in in the token's logs of the blocks after its claim, up to head. An error wraps
// settlement.ErrUnavailable and says nothing about the payment.
func Search(ctx context.Context, c *chain.Client, in settlement.Intent, head uint64) (Trace, error) {
	var t Trace
	if head <= in.ClaimBlock {
		return t, nil
	}
	if alive, err := unused(ctx, c, in, head); err != nil || alive {
		return t, err
	}
	logs, err := c.Logs(ctx, chain.Filter{
		Address: in.Network.Asset.Address,
		Topics: [][]common.Hash{
			{x402.TopicAuthorizationUsed, x402.TopicAuthorizationCanceled},
			{topic(in.Authorization.From)},
			{in.Authorization.Nonce},
		},
		From: in.ClaimBlock + 1, To: head,
	})
	if err != nil {
		return Trace{}, err
	}
	for i := range logs {
		t.Spent, t.Block = true, logs[i].BlockNumber
		if !isUse(in, &logs[i]) {
			continue
		}
		r, err := c.Receipt(ctx, logs[i].TxHash)
		switch {
		case err != nil:
			return Trace{}, err
		case r == nil:
			return Trace{}, ErrReorganized
		case Paid(in, r):
			t.Receipt = r
			return t, nil
		}
	}
	return t, nil
}

// unused reports whether the authorization was still good in a block that is no older than head. To ask this costs a node next to
// nothing, to search its logs costs much, and most of what is looked for was never used. Used it may also have been before
// the claim, or been cancelled: that tell the logs.
func unused(ctx context.Context, c *chain.Client, in settlement.Intent, head uint64) (bool, error) {
	a, token := in.Authorization, in.Network.Asset.Address
	var state []byte
	q := chain.CallQuery(chain.Message{
		From: a.To, To: token, Data: a.ID(in.Network.ChainID, token).AuthorizationStateCalldata(), Gas: viewGas,
	}, &state)
	at, err := c.Ask(ctx, q)
	if err != nil {
		return false, err
	}
	used, err := x402.ParseBool(state)
	return q.Err == nil && err == nil && !used && at >= head, nil
}
