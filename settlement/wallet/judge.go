package wallet

import (
	"context"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/proof"
	"github.com/caddy-x402/caddy-x402/x402"
)

func topic(a common.Address) common.Hash { return common.BytesToHash(a[:]) }

// unknown is the outcome of not having got an answer.
func unknown(err error, txs []settlement.Transaction) settlement.Outcome {
	out := settlement.Outcome{Err: err}
	if len(txs) > 0 {
		out.Transaction = txs[len(txs)-1].Hash
	}
	return out
}

// search looks for what the authorization has left in the token's logs, as proof.Search does.
func (s *Settler) search(ctx context.Context, in settlement.Intent, head uint64) (proof.Trace, error) {
	in.Network = s.network
	return proof.Search(ctx, s.chain, in, head)
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
		if tr.Receipt != nil {
			return proof.Settled(tr.Receipt)
		}
		why := cause
		if why == nil {
			if why, err = s.why(ctx, in); err != nil {
				return unknownReceipt(err, r)
			}
		}
		if tr.Spent || x402.ReasonOf(why) != x402.ReasonNonceUsed || try == searchTries {
			return proof.Failed(why, r)
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
