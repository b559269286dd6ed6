package chain

import (
	"encoding/json"
	"errors"
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
)

// Head is what is needed of a block.
type Head struct {
	Number uint64
	Hash   common.Hash
	// Parent is the hash of the block before.
	Parent common.Hash
	// Time is the block's, in unix seconds.
	Time uint64
	// BaseFee in wei; nil on a chain without EIP-1559.
	BaseFee *big.Int
}

func intoHead(h *Head) func(json.RawMessage) error {
	return func(b json.RawMessage) error {
		var v *struct {
			Number  *hexutil.Uint64 `json:"number"`
			Hash    *common.Hash    `json:"hash"`
			Parent  common.Hash     `json:"parentHash"`
			Time    *hexutil.Uint64 `json:"timestamp"`
			BaseFee *hexutil.Big    `json:"baseFeePerGas"`
		}
		if err := json.Unmarshal(b, &v); err != nil {
			return err
		}
		if v == nil || v.Number == nil || v.Hash == nil || v.Time == nil {
			return errNoBlock
		}
		*h = Head{Number: uint64(*v.Number), Hash: *v.Hash, Parent: v.Parent, Time: uint64(*v.Time), BaseFee: (*big.Int)(v.BaseFee)}
		return nil
	}
}

var errNoBlock = errors.New("the node has no such block")

// Receipt is what is needed of a transaction's receipt.
type Receipt struct {
	Transaction common.Hash
	// OK: the transaction ran to its end. What it did stands in Logs.
	OK        bool
	Block     uint64
	BlockHash common.Hash
	GasUsed   uint64
	// Cost is what was paid in wei, with the fee for the settlement layer where a rollup's node tells it (l1Fee).
	Cost *big.Int
	Logs []types.Log
}

// UnmarshalJSON reads the answer of eth_getTransactionReceipt.
func (r *Receipt) UnmarshalJSON(b []byte) error {
	var v struct {
		Transaction *common.Hash    `json:"transactionHash"`
		Status      *hexutil.Uint64 `json:"status"`
		Block       *hexutil.Uint64 `json:"blockNumber"`
		BlockHash   *common.Hash    `json:"blockHash"`
		GasUsed     hexutil.Uint64  `json:"gasUsed"`
		Price       hexutil.Big     `json:"effectiveGasPrice"`
		L1Fee       hexutil.Big     `json:"l1Fee"`
		Logs        []types.Log     `json:"logs"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	if v.Transaction == nil || v.Status == nil || v.Block == nil || v.BlockHash == nil {
		return errors.New("the receipt lacks a field")
	}
	cost := new(big.Int).Mul(new(big.Int).SetUint64(uint64(v.GasUsed)), (*big.Int)(&v.Price))
	cost.Add(cost, (*big.Int)(&v.L1Fee))
	*r = Receipt{
		Transaction: *v.Transaction, OK: *v.Status == 1, Block: uint64(*v.Block), BlockHash: *v.BlockHash,
		GasUsed: uint64(v.GasUsed), Cost: cost, Logs: v.Logs,
	}
	return nil
}
