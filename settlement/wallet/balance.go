package wallet

import (
	"context"
	"fmt"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/x402"
)

// TokenBalance implements settlement.Balancer.
func (s *Settler) TokenBalance(ctx context.Context, owner common.Address) (uint256.Int, error) {
	answer, err := s.chain.Call(ctx, chain.Message{To: s.network.Asset.Address, Data: x402.BalanceOfCalldata(owner)})
	if err != nil {
		return uint256.Int{}, fmt.Errorf("reading a balance: %w", err)
	}
	return x402.ParseUint256(answer)
}

var _ settlement.Balancer = (*Settler)(nil)

// Wallets implements settlement.Owner.
func (s *Settler) Wallets() []common.Address {
	list := make([]common.Address, 0, len(s.lanes))
	for _, l := range s.lanes {
		list = append(list, l.address)
	}
	return list
}

var _ settlement.Owner = (*Settler)(nil)
