package wallet

import (
	"context"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/x402"
)

// paid reports whether the receipt shows the payment: a mined and successful transaction after the claim, and in
// it the token's AuthorizationUsed of this authorization directly followed by its Transfer of the
// amount to the payee. Nothing less proves it: a batch succeeds with payments in it that failed, and a
// cancellation uses an authorization up as well.
func paid(in settlement.Intent, r *chain.Receipt) bool {
	if r == nil || !r.OK || r.Block <= in.ClaimBlock {
		return false
	}
	for i := 0; i+1 < len(r.Logs); i++ {
		if isUsed(in, &r.Logs[i]) && isTransfer(in, &r.Logs[i+1]) && r.Logs[i+1].Index == r.Logs[i].Index+1 {
			return true
		}
	}
	return false
}

func isUsed(in settlement.Intent, l *types.Log) bool {
	a := in.Authorization
	return !l.Removed && l.Address == in.Network.Asset.Address && len(l.Topics) == 3 &&
		l.Topics[0] == x402.TopicAuthorizationUsed && l.Topics[1] == topic(a.From) && l.Topics[2] == a.Nonce
}

func isTransfer(in settlement.Intent, l *types.Log) bool {
	a := in.Authorization
	return !l.Removed && l.Address == in.Network.Asset.Address && len(l.Topics) == 3 && len(l.Data) == 32 &&
		l.Topics[0] == x402.TopicTransfer && l.Topics[1] == topic(a.From) && l.Topics[2] == topic(a.To) &&
		common.Hash(l.Data) == common.Hash(a.Value.Bytes32())
}

func topic(a common.Address) common.Hash { return common.BytesToHash(a[:]) }

// settled is the outcome of a receipt that shows the payment.
func settled(r *chain.Receipt) settlement.Outcome {
	return settlement.Outcome{Status: settlement.Settled, Transaction: r.Transaction, Block: r.Block, BlockHash: r.BlockHash}
}

// failed is the outcome of a refusal. r is the transaction that reverted, if there is one.
func failed(err error, r *chain.Receipt) settlement.Outcome {
	out := settlement.Outcome{Status: settlement.Failed, Reason: x402.ReasonOf(err), Err: err}
	if r != nil {
		out.Transaction, out.Block, out.BlockHash = r.Transaction, r.Block, r.BlockHash
	}
	return out
}

// unknown is the outcome of not having got an answer.
func unknown(err error, txs []settlement.Transaction) settlement.Outcome {
	out := settlement.Outcome{Err: err}
	if len(txs) > 0 {
		out.Transaction = txs[len(txs)-1].Hash
	}
	return out
}

// trace is what the token's logs tell of an authorization since the claim.
type trace struct {
	// paid is the receipt of the transaction that paid, whoever sent it.
	paid *chain.Receipt
	// spent: it was used otherwise, or cancelled, in block.
	spent bool
	block uint64
}

// search looks for the authorization in the token's logs of the blocks after the claim, up to head.
func (s *Settler) search(ctx context.Context, in settlement.Intent, head uint64) (trace, error) {
	var t trace
	if head <= in.ClaimBlock {
		return t, nil
	}
	logs, err := s.chain.Logs(ctx, chain.Filter{
		Address: s.network.Asset.Address,
		Topics: [][]common.Hash{
			{x402.TopicAuthorizationUsed, x402.TopicAuthorizationCanceled},
			{topic(in.Authorization.From)},
			{in.Authorization.Nonce},
		},
		From: in.ClaimBlock + 1, To: head,
	})
	if err != nil {
		return t, err
	}
	for i := range logs {
		t.spent, t.block = true, logs[i].BlockNumber
		if !isUsed(in, &logs[i]) {
			continue
		}
		r, err := s.chain.Receipt(ctx, logs[i].TxHash)
		if err != nil {
			return trace{}, err
		}
		if r == nil { // taken back meanwhile
			return trace{}, errReorganized
		}
		if paid(in, r) {
			t.paid = r
			return t, nil
		}
	}
	return t, nil
}

// A used authorization has left a log. Where none is found, the endpoint's logs are behind its state: it is asked again
// a few times before the payment is given up.
const (
	searchTries = 5
	searchPause = 300 * time.Millisecond
)

// elsewhere judges a payment that our own transactions did not make: somebody else may have made it.
// r is ours that reverted, cause what is known of why; both may be nil.
func (s *Settler) elsewhere(
	ctx context.Context, in settlement.Intent, r *chain.Receipt, cause error,
) settlement.Outcome {
	for try := 1; ; try++ {
		head, err := s.chain.Head(ctx)
		if err != nil {
			return unknownReceipt(err, r)
		}
		tr, err := s.search(ctx, in, head.Number)
		if err != nil {
			return unknownReceipt(err, r)
		}
		if tr.paid != nil {
			return settled(tr.paid)
		}
		why := cause
		if why == nil {
			if why, err = s.why(ctx, in); err != nil {
				return unknownReceipt(err, r)
			}
		}
		if tr.spent || x402.ReasonOf(why) != x402.ReasonNonceUsed || try == searchTries {
			return failed(why, r)
		}
		select {
		case <-ctx.Done():
			return unknownReceipt(unavailable(ctx.Err()), r)
		case <-time.After(searchPause):
		}
	}
}

// why asks the chain for the reason of a transaction's failure, an *x402.Error. err says that there was no answer.
func (s *Settler) why(ctx context.Context, in settlement.Intent) (reason, err error) {
	why := s.diagnose(ctx, in, nil)
	if x402.ReasonOf(why) == "" {
		return nil, why
	}
	return why, nil
}

func unknownReceipt(err error, r *chain.Receipt) settlement.Outcome {
	out := settlement.Outcome{Err: err}
	if r != nil {
		out.Transaction = r.Transaction
	}
	return out
}
