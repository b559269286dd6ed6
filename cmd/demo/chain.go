package main

import (
	"context"
	"fmt"
	"math/big"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/x402"
)

// receipt is what the chain says of the settling transaction.
type receipt struct {
	*types.Receipt
	fee *uint256.Int // in wei
}

// mined asks the chain itself, past Caddy and the client.
func (s *story) mined(ctx context.Context) error {
	hash := common.HexToHash(s.report.Settlement.Transaction)
	r, err := s.rpc.TransactionReceipt(ctx, hash)
	if err != nil {
		return fmt.Errorf("asking for the receipt of %s: %w", hash, err)
	}
	tx, _, err := s.rpc.TransactionByHash(ctx, hash)
	if err != nil {
		return fmt.Errorf("asking for the transaction %s: %w", hash, err)
	}
	from, err := types.Sender(types.LatestSignerForChainID(tx.ChainId()), tx)
	if err != nil {
		return fmt.Errorf("who sent %s: %w", hash, err)
	}
	head, err := s.rpc.HeaderByHash(ctx, r.BlockHash)
	if err != nil {
		return fmt.Errorf("asking for the block: %w", err)
	}
	fee, _ := uint256.FromBig(new(big.Int).Mul(r.EffectiveGasPrice, new(big.Int).SetUint64(r.GasUsed)))
	s.receipt = receipt{Receipt: r, fee: fee}
	s.field("hash", "%s", hash)
	s.field("block", "%s of %s", r.BlockNumber, time.Unix(int64(head.Time), 0).UTC().Format(time.RFC3339))
	s.field("from", "%s (the gas wallet, nonce %d)", from, tx.Nonce())
	s.field("gas", "%d used, %s ETH", r.GasUsed, x402.FormatAmount(fee, 18))
	same(s.paper, "its status is 1", r.Status, types.ReceiptStatusSuccessful)
	same(s.paper, "the gas wallet sent it", from, gas.Address)
	return s.logs(r)
}

// logs judges the pair of logs that makes a payment.
func (s *story) logs(r *types.Receipt) error {
	if len(r.Logs) != 2 {
		return fmt.Errorf("the transaction has %d logs, and should have 2", len(r.Logs))
	}
	used, moved := r.Logs[0], r.Logs[1]
	if len(used.Topics) != 3 || len(moved.Topics) != 3 {
		return fmt.Errorf("the logs have %d and %d topics, and should have 3 each", len(used.Topics), len(moved.Topics))
	}
	a := s.report.Authorization
	s.say("Its logs:")
	s.field("AuthorizationUsed", "authorizer %s", common.BytesToAddress(used.Topics[1][:]))
	s.field("", "nonce      %s", used.Topics[2])
	value := new(uint256.Int).SetBytes(moved.Data)
	s.field("Transfer", "from       %s", common.BytesToAddress(moved.Topics[1][:]))
	s.field("", "to         %s", common.BytesToAddress(moved.Topics[2][:]))
	s.field("", "value      %s", value.Dec())
	s.check(used.Address == devnet.TokenAddress && used.Topics[0] == x402.TopicAuthorizationUsed &&
		common.BytesToAddress(used.Topics[1][:]) == buyer.Address && used.Topics[2] == a.Nonce,
		"USDC used up the authorization that the buyer signed")
	s.check(moved.Address == devnet.TokenAddress && moved.Topics[0] == x402.TopicTransfer && moved.Index == used.Index+1 &&
		common.BytesToAddress(moved.Topics[1][:]) == buyer.Address && common.BytesToAddress(moved.Topics[2][:]) == seller &&
		value.Eq(&a.Value), "and right after it moved the price from buyer to seller")
	return nil
}

func (s *story) recount(ctx context.Context) error {
	after, err := s.balances(ctx)
	if err != nil {
		return err
	}
	s.show(after)
	amount := units(price)
	gained := func(now, then *uint256.Int) string { return new(uint256.Int).Sub(now, then).Dec() }
	same(s.paper, "the seller has the price", gained(after.seller, s.before.seller), amount.Dec())
	same(s.paper, "the buyer has that much less, and paid no gas", gained(s.before.buyer, after.buyer), amount.Dec())
	same(s.paper, "the gas wallet paid the transaction's fee and nothing else", gained(s.before.gas, after.gas), s.receipt.fee.Dec())
	return nil
}

// transfers counts what went from the buyer to the seller since the chain began.
func (s *story) transfers(ctx context.Context) (int, error) {
	found, err := s.rpc.FilterLogs(ctx, ethereum.FilterQuery{
		Addresses: []common.Address{devnet.TokenAddress},
		Topics: [][]common.Hash{
			{x402.TopicTransfer}, {common.BytesToHash(buyer.Address[:])}, {common.BytesToHash(seller[:])},
		},
	})
	if err != nil {
		return 0, fmt.Errorf("asking for the token's logs: %w", err)
	}
	return len(found), nil
}
