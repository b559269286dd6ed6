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
