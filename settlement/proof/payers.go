package proof

import (
	"context"
	"fmt"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/x402"
)

// mostPayers bounds how many uses of a nonce are looked at: anybody can use any nonce, and pays for it.
const mostPayers = 32

// Payers are those who have made the payment in, whose payer is not known: by an authorization with its nonce, in a block after its claim.
// Where more have used the nonce than can be looked at, nobody can say.
func Payers(ctx context.Context, c *chain.Client, in settlement.Intent) (who []common.Address, err error) {
	head, err := c.Head(ctx)
	if err != nil || head.Number <= in.ClaimBlock {
		return nil, err
	}
	logs, err := c.Logs(ctx, chain.Filter{
		Address: in.Network.Asset.Address, From: in.ClaimBlock + 1, To: head.Number,
		Topics: [][]common.Hash{{x402.TopicAuthorizationUsed}, nil, {in.Authorization.Nonce}},
	})
	if err != nil {
		return nil, err
	}
	if len(logs) > mostPayers {
		return nil, fmt.Errorf("%w: %d authorizations have one nonce", settlement.ErrUnavailable, len(logs))
	}
	for i := range logs {
		if len(logs[i].Topics) != 3 || logs[i].Topics[2] != in.Authorization.Nonce {
			continue
		}
		r, err := c.Receipt(ctx, logs[i].TxHash)
		switch {
		case err != nil:
			return nil, err
		case r == nil:
			return nil, ErrReorganized
		}
		in.Authorization.From = common.BytesToAddress(logs[i].Topics[1][:])
		if Paid(in, r) {
			who = append(who, in.Authorization.From)
		}
	}
	return who, nil
}
