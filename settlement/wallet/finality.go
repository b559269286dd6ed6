package wallet

import (
	"context"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/proof"
)

var _ settlement.Reviewer = (*Settler)(nil)

// Settle makes the transfer, or goes on with the one that was made before, until its outcome is known or ctx ends. A transfer
// that has to lie deeper than the newest block is waited for when its transaction has landed: its lane, its nonce and the other
// payments of its batch have nothing to do with it any more.
func (s *Settler) Settle(ctx context.Context, in settlement.Intent) settlement.Outcome {
	done, err := s.enter()
	if err != nil {
		return unknown(err, nil)
	}
	defer done()
	if err := s.fits(in); err != nil {
		return unknown(err, nil)
	}
	return proof.Confirm(ctx, s.chain, in, func() settlement.Outcome { return s.land(ctx, in) })
}

// Resolve finds out what happened to a payment. Transactions that are recorded and not mined it broadcasts again, and
// replaces where they are stuck (see tend); it makes none with another nonce.
func (s *Settler) Resolve(ctx context.Context, in settlement.Intent) settlement.Outcome {
	done, err := s.enter()
	if err != nil {
		return unknown(err, nil)
	}
	defer done()
	if err := s.fits(in); err != nil {
		return unknown(err, nil)
	}
	out, head, safe := s.resolve(ctx, in)
	return proof.Confirmed(in, out, head, safe)
}

// Review implements settlement.Reviewer. A payment one of whose transactions may still be mined is left to Resolve, which sees to it:
// nobody looks at a final payment again, and its transaction would block the wallet for ever.
func (s *Settler) Review(ctx context.Context, list []settlement.Standing) ([]*settlement.Outcome, error) {
	done, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer done()
	for i := range list {
		if err := s.fits(list[i].Intent); err != nil {
			return nil, err
		}
		if list[i].Transaction != (common.Hash{}) {
			continue
		}
		txs, err := s.recorded(ctx, list[i].Intent.Payment)
		if err != nil {
			return nil, err
		}
		for _, tx := range txs {
			list[i].Candidates = append(list[i].Candidates, tx.Hash)
		}
	}
	outs, err := s.reviews.Review(ctx, s.chain, list)
	if err != nil {
		return nil, err
	}
	for i, out := range outs {
		if out == nil {
			continue
		}
		s.mined.put(out.Transaction, out.Block)
		if !out.Final {
			continue
		}
		lone, err := s.onlyOne(ctx, list[i].Intent.Payment, out.Transaction)
		if err != nil {
			return nil, err
		}
		if !lone {
			outs[i] = nil
		}
	}
	return outs, nil
}

// onlyOne reports whether nothing that was recorded for a payment can still be mined, now that hash is: all of it has the same nonce.
func (s *Settler) onlyOne(ctx context.Context, payment string, hash common.Hash) (bool, error) {
	txs, err := s.recorded(ctx, payment)
	if err != nil {
		return false, err
	}
	mined := false
	for i := range txs {
		mined = mined || txs[i].Hash == hash
		if placeOf(&txs[i]) != placeOf(&txs[0]) {
			return false, nil
		}
	}
	return mined || len(txs) == 0, nil
}

var _ settlement.Tracer = (*Settler)(nil)

// Payers implements settlement.Tracer.
func (s *Settler) Payers(ctx context.Context, in settlement.Intent) ([]common.Address, error) {
	done, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer done()
	if err := s.fits(in); err != nil {
		return nil, err
	}
	return proof.Payers(ctx, s.chain, in)
}
