package proof

import (
	"context"
	"fmt"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/x402"
)

// mostPayers bounds how many uses of a nonce are looked at.
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
		if logs, err = paying(ctx, c, in, head.Number, logs); err != nil {
			return nil, err
		}
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

// paying are those of the uses of a nonce in whose transactions the user pays the payee the amount. Anybody can use any nonce for next to
// nothing, many at once, and so could keep a refund from being paid; to pay for each costs as much, and the payee has it.
func paying(ctx context.Context, c *chain.Client, in settlement.Intent, head uint64, uses []types.Log) ([]types.Log, error) {
	moves, err := c.Logs(ctx, chain.Filter{
		Address: in.Network.Asset.Address, From: in.ClaimBlock + 1, To: head,
		Topics: [][]common.Hash{{x402.TopicTransfer}, nil, {topic(in.Authorization.To)}},
	})
	if err != nil {
		return nil, err
	}
	type move struct{ transaction, from common.Hash }
	paid := make(map[move]bool)
	for i := range moves {
		l := &moves[i]
		if isOf(in, l, x402.TopicTransfer) && len(l.Data) == common.HashLength && common.Hash(l.Data) == common.Hash(in.Authorization.Value.Bytes32()) {
			paid[move{l.TxHash, l.Topics[1]}] = true
		}
	}
	return slices.DeleteFunc(uses, func(l types.Log) bool {
		return len(l.Topics) != 3 || !paid[move{l.TxHash, l.Topics[1]}]
	}), nil
}
