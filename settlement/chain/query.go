package chain

import (
	"encoding/json"
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
)

// Query is one question of a batch that Ask puts to one endpoint. It writes its answer where its
// constructor was told, once the endpoint is found fit to judge.
type Query struct {
	method string
	args   []any
	decode func(json.RawMessage) error
	// optional: an error is an answer too, and says nothing against the endpoint.
	optional bool
	// Err is set by Ask: a *RevertError, or an *RPCError of an optional query.
	Err error
}

// Message is a call that is only simulated.
type Message struct {
	From, To common.Address
	Data     []byte
	// Gas bounds the simulation.
	Gas uint64
}

func (m Message) object() map[string]any {
	o := map[string]any{"from": m.From, "to": m.To, "data": hexutil.Bytes(m.Data)}
	if m.Gas > 0 {
		o["gas"] = hexutil.Uint64(m.Gas)
	}
	return o
}

func into[T any](p *T) func(json.RawMessage) error {
	return func(b json.RawMessage) error {
		var v T
		if err := json.Unmarshal(b, &v); err != nil {
			return err
		}
		*p = v
		return nil
	}
}

// HeadQuery asks for the newest block.
func HeadQuery(h *Head) *Query {
	return &Query{method: "eth_getBlockByNumber", args: []any{"latest", false}, decode: intoHead(h)}
}

// SafeQuery asks for the block that the node calls safe; its Err is set where the node knows none. See Client.Safe.
func SafeQuery(h *Head) *Query {
	return &Query{method: "eth_getBlockByNumber", args: []any{"safe", false}, decode: intoHead(h), optional: true}
}

// blockQuery asks for the block of that number; h stays as it is where the node has none.
func blockQuery(number uint64, h *Head) *Query {
	decode := intoHead(h)
	return &Query{method: "eth_getBlockByNumber", args: []any{hexutil.Uint64(number), false}, decode: func(b json.RawMessage) error {
		if string(b) == "null" {
			return nil
		}
		return decode(b)
	}}
}

// CallQuery simulates m on the newest block. A call that fails gives a *RevertError.
func CallQuery(m Message, result *[]byte) *Query {
	return &Query{method: "eth_call", args: []any{m.object(), "latest"}, decode: into((*hexutil.Bytes)(result))}
}

// EstimateQuery asks for the gas that m needs. A call that fails gives a *RevertError.
func EstimateQuery(m Message, gas *uint64) *Query {
	return &Query{method: "eth_estimateGas", args: []any{m.object()}, decode: into((*hexutil.Uint64)(gas))}
}

// CodeQuery asks for the code at a.
func CodeQuery(a common.Address, code *[]byte) *Query {
	return &Query{method: "eth_getCode", args: []any{a, "latest"}, decode: into((*hexutil.Bytes)(code))}
}

// BalanceQuery asks for the wei that a has.
func BalanceQuery(a common.Address, wei *big.Int) *Query {
	return &Query{method: "eth_getBalance", args: []any{a, "latest"}, decode: func(b json.RawMessage) error {
		var v hexutil.Big
		if err := json.Unmarshal(b, &v); err != nil {
			return err
		}
		wei.Set((*big.Int)(&v))
		return nil
	}}
}

// CountQuery asks for the number of transactions of a that were mined: its next nonce.
func CountQuery(a common.Address, n *uint64) *Query {
	return &Query{method: "eth_getTransactionCount", args: []any{a, "latest"}, decode: into((*hexutil.Uint64)(n))}
}

// PendingCountQuery counts those that the node knows and nobody mined yet as well.
func PendingCountQuery(a common.Address, n *uint64) *Query {
	return &Query{method: "eth_getTransactionCount", args: []any{a, "pending"}, decode: into((*hexutil.Uint64)(n)), optional: true}
}

// ReceiptQuery asks for the receipt of a transaction; nil while it is not mined.
func ReceiptQuery(hash common.Hash, r **Receipt) *Query {
	return &Query{method: "eth_getTransactionReceipt", args: []any{hash}, decode: into(r)}
}

// IDQuery asks which chain the endpoint is on.
func IDQuery(id *uint64) *Query {
	return &Query{method: "eth_chainId", decode: into((*hexutil.Uint64)(id))}
}

// Filter selects logs of blocks From to To, both included.
type Filter struct {
	Address  common.Address
	Topics   [][]common.Hash
	From, To uint64
}

func logsQuery(f Filter, logs *[]types.Log) *Query {
	return &Query{
		method: "eth_getLogs",
		args: []any{map[string]any{
			"address": f.Address, "topics": f.Topics,
			"fromBlock": hexutil.Uint64(f.From), "toBlock": hexutil.Uint64(f.To),
		}},
		decode: into(logs), optional: true,
	}
}
