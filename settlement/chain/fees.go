package chain

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/ethereum/go-ethereum/common/hexutil"
)

// fallbackTip, in wei, serves where a node suggests none; it is what quiet rollups ask.
const fallbackTip = 1_000_000

// Fees holds the questions whose answers make a transaction's fees. Its Queries go into a batch.
type Fees struct {
	head    Head
	tip     big.Int
	rewards []*big.Int
	q       [3]*Query
}

// Queries are the questions to ask.
func (f *Fees) Queries() []*Query {
	f.q[0] = HeadQuery(&f.head)
	f.q[1] = &Query{method: "eth_maxPriorityFeePerGas", decode: func(b json.RawMessage) error {
		var v hexutil.Big
		if err := json.Unmarshal(b, &v); err != nil {
			return err
		}
		f.tip.Set((*big.Int)(&v))
		return nil
	}, optional: true}
	f.q[2] = &Query{
		method: "eth_feeHistory", args: []any{hexutil.Uint64(10), "latest", []float64{50}},
		decode: f.decodeHistory, optional: true,
	}
	return f.q[:]
}

func (f *Fees) decodeHistory(b json.RawMessage) error {
	var v struct {
		Reward [][]*hexutil.Big `json:"reward"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	f.rewards = f.rewards[:0]
	for _, r := range v.Reward {
		if len(r) == 1 && r[0] != nil {
			f.rewards = append(f.rewards, (*big.Int)(r[0]))
		}
	}
	return nil
}

// Head is the block that the fees were read at.
func (f *Fees) Head() Head { return f.head }

// Result gives the fees of a transaction (EIP-1559) in wei per gas: the tip that the node suggests, else
// the median of the last blocks, and twice the base fee on top of it as the most to be paid.
func (f *Fees) Result() (maxFee, tip *big.Int, err error) {
	if f.q[0] == nil || f.q[0].Err != nil {
		return nil, nil, errors.New("chain: the fees were not asked for")
	}
	if f.head.BaseFee == nil {
		return nil, nil, fmt.Errorf("chain: block %d has no base fee: chains without EIP-1559 are not supported", f.head.Number)
	}
	switch {
	case f.q[1].Err == nil:
		tip = new(big.Int).Set(&f.tip)
	case len(f.rewards) > 0:
		tip = new(big.Int).Set(slices.SortedFunc(slices.Values(f.rewards), (*big.Int).Cmp)[len(f.rewards)/2])
	default:
		tip = big.NewInt(fallbackTip)
	}
	maxFee = new(big.Int).Lsh(f.head.BaseFee, 1)
	return maxFee.Add(maxFee, tip), tip, nil
}
