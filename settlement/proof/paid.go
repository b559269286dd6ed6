// Package proof says what the chain proves of a payment, whoever moved it: that it was made, that it can't be made any
// more, or why it would fail now.
package proof

import (
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Paid reports whether r shows the payment: a successful transaction in a block after the claim, and in it the token's
// AuthorizationUsed of this payer and nonce directly followed by the token's Transfer of the amount to the payee. Nothing
// less is proof. A batch succeeds although payments in it failed, a cancellation uses an authorization up as well, and
// whoever names a transaction may name another one's.
func Paid(in settlement.Intent, r *chain.Receipt) bool {
	if r == nil || !r.OK || r.Block <= in.ClaimBlock {
		return false
	}
	for i := 1; i < len(r.Logs); i++ {
		used, moved := &r.Logs[i-1], &r.Logs[i]
		if moved.Index == used.Index+1 && isUse(in, used) && isTransfer(in, moved) {
			return true
		}
	}
	return false
}

// isUse reports whether l says that the authorization of in was executed.
func isUse(in settlement.Intent, l *types.Log) bool {
	a := &in.Authorization
	return isOf(in, l, x402.TopicAuthorizationUsed) && l.Topics[1] == topic(a.From) && l.Topics[2] == a.Nonce
}

func isTransfer(in settlement.Intent, l *types.Log) bool {
	a := &in.Authorization
	return isOf(in, l, x402.TopicTransfer) && l.Topics[1] == topic(a.From) && l.Topics[2] == topic(a.To) &&
		len(l.Data) == common.HashLength && common.Hash(l.Data) == common.Hash(a.Value.Bytes32())
}

// isOf reports whether l is that event of the asset's contract, with its two indexed arguments.
func isOf(in settlement.Intent, l *types.Log, event common.Hash) bool {
	return !l.Removed && l.Address == in.Network.Asset.Address && len(l.Topics) == 3 && l.Topics[0] == event
}

func topic(a common.Address) common.Hash { return common.BytesToHash(a[:]) }

// Settled is the outcome that a receipt proves which is Paid.
func Settled(r *chain.Receipt) settlement.Outcome {
	return settlement.Outcome{Status: settlement.Settled, Transaction: r.Transaction, Block: r.Block, BlockHash: r.BlockHash}
}

// Failed is the outcome of a refusal, an *x402.Error. r is the transaction that was made in vain; it may be nil.
func Failed(why error, r *chain.Receipt) settlement.Outcome {
	out := settlement.Outcome{Status: settlement.Failed, Reason: x402.ReasonOf(why), Err: why}
	if r != nil {
		out.Transaction, out.Block, out.BlockHash = r.Transaction, r.Block, r.BlockHash
	}
	return out
}

// FinalBy is a settled outcome, final if its block is safe.
func FinalBy(out settlement.Outcome, safe chain.Head) settlement.Outcome {
	out.Final = out.Block <= safe.Number
	return out
}

// Expired reports whether no block after head can execute the authorization.
func Expired(in settlement.Intent, head chain.Head) bool {
	end, overflow := in.Authorization.ValidBefore.Uint64WithOverflow()
	return !overflow && head.Time >= end
}
