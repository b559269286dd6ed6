package facilitator

import (
	"context"
	"errors"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/proof"
)

var _ settlement.Reviewer = (*Settler)(nil)

// Settle has the payment settled, or goes on with what was begun before, until its outcome is known or ctx ends. How deep a transfer
// lies is seen on the chain alone, whomever the operator trusts.
func (s *Settler) Settle(ctx context.Context, in settlement.Intent) settlement.Outcome {
	done, err := s.enter(&in)
	if err != nil {
		return settlement.Outcome{Err: err}
	}
	defer done()
	var lost common.Hash // a transaction that the chain has taken back
	return proof.Confirm(ctx, s.chain, in, func() settlement.Outcome {
		if lost != (common.Hash{}) {
			// It waits for another block, most probably. Whoever made it is not asked for a second one at once.
			short, cancel := context.WithTimeout(ctx, s.patient)
			defer cancel()
			if out, _ := s.watch(short, in, lost); out.Status == settlement.Settled {
				return out
			}
		}
		out := s.shown(ctx, in, s.begin(ctx, in))
		lost = out.Transaction
		return out
	})
}

// shown is an outcome as the chain shows it, where a facilitator was believed and that is not enough.
func (s *Settler) shown(ctx context.Context, in settlement.Intent, out settlement.Outcome) settlement.Outcome {
	if out.Status != settlement.Settled || out.BlockHash != (common.Hash{}) || in.Finality.Newest() {
		return out
	}
	seen, wrong := s.watch(ctx, in, out.Transaction)
	if wrong != nil && seen.Status == settlement.Unknown {
		seen.Err = errors.Join(errLie, seen.Err)
	}
	return seen
}

// Resolve finds out what happened to a payment, by the token's logs: whoever made the transfer, it is there.
func (s *Settler) Resolve(ctx context.Context, in settlement.Intent) settlement.Outcome {
	done, err := s.enter(&in)
	if err != nil {
		return settlement.Outcome{Err: err}
	}
	defer done()
	out, head, safe := s.resolve(ctx, in)
	return proof.Confirmed(in, out, head, safe)
}

// Review implements settlement.Reviewer. What a trusted facilitator has settled, and nobody has seen, needs Resolve.
func (s *Settler) Review(ctx context.Context, list []settlement.Standing) ([]*settlement.Outcome, error) {
	done, err := s.enter(nil)
	if err != nil {
		return nil, err
	}
	defer done()
	return s.reviews.Review(ctx, s.chain, list)
}

var _ settlement.Tracer = (*Settler)(nil)

// Payers implements settlement.Tracer.
func (s *Settler) Payers(ctx context.Context, in settlement.Intent) ([]common.Address, error) {
	done, err := s.enter(&in)
	if err != nil {
		return nil, err
	}
	defer done()
	return proof.Payers(ctx, s.chain, in)
}
