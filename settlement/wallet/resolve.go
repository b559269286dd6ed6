package wallet

import (
	"context"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Resolve finds out what happened to a payment. It makes no transaction; those that are recorded and not
// mined it broadcasts again, an expired one as well: it reverts, and frees its nonce for those behind it.
func (s *Settler) Resolve(ctx context.Context, in settlement.Intent) settlement.Outcome {
	done, err := s.enter()
	if err != nil {
		return unknown(err, nil)
	}
	defer done()
	if err := s.fits(in); err != nil {
		return unknown(err, nil)
	}
	return s.resolve(ctx, in)
}

func (s *Settler) resolve(ctx context.Context, in settlement.Intent) settlement.Outcome {
	txs, err := s.journal.Transactions(ctx, in.Payment)
	if err != nil {
		return unknown(unavailable(err), nil)
	}
	// Asked first: what was safe then is judged by receipts and logs that are no older.
	safe, err := s.chain.Safe(ctx)
	if err != nil {
		return unknown(err, txs)
	}
	var sv survey
	if len(txs) > 0 {
		sv, err = s.survey(ctx, txs)
	} else {
		var head chain.Head
		head, err = s.chain.Head(ctx)
		sv.head = head.Number
	}
	if err != nil {
		return unknown(err, txs)
	}
	out := s.conclude(ctx, in, txs, sv, safe)
	if len(sv.open) > 0 {
		s.broadcast(ctx, sv.open)
		// Nobody looks at a final payment again; its transaction would block the wallet for ever.
		out.Final = false
	}
	return out
}

// conclude judges by what was found.
func (s *Settler) conclude(
	ctx context.Context, in settlement.Intent, txs []settlement.Transaction, sv survey, safe chain.Head,
) settlement.Outcome {
	for _, r := range sv.receipts {
		if paid(in, r) {
			return finalBy(settled(r), safe)
		}
	}
	tr, err := s.search(ctx, in, sv.head)
	if err != nil {
		return unknown(err, txs)
	}
	var reverted *chain.Receipt
	if len(sv.receipts) > 0 {
		reverted = sv.receipts[len(sv.receipts)-1]
	}
	switch {
	case tr.paid != nil:
		return finalBy(settled(tr.paid), safe)
	case tr.spent:
		out := failed(x402.Refuse(x402.ReasonNonceUsed, "the authorization was cancelled or used for something else"), reverted)
		out.Final = tr.block <= safe.Number
		return out
	case expired(in, safe):
		out := failed(x402.Refuse(x402.ReasonValidBefore, "the authorization has expired unused"), reverted)
		out.Final = true
		return out
	case reverted != nil:
		return s.whyReverted(ctx, in, reverted)
	}
	out := unknown(nil, txs)
	if sv.vanished {
		out.Err = errVanished
	}
	return out
}

// whyReverted is the outcome of our transaction that failed while the authorization lives on.
func (s *Settler) whyReverted(ctx context.Context, in settlement.Intent, r *chain.Receipt) settlement.Outcome {
	t := transfer{proven: true}
	if len(in.Signature) > 0 {
		t = s.transfer(in)
	}
	why, err := s.why(ctx, in, t)
	if err != nil {
		return unknownReceipt(err, r)
	}
	return failed(why, r)
}

// finalBy makes a settled outcome final if its block is safe.
func finalBy(out settlement.Outcome, safe chain.Head) settlement.Outcome {
	out.Final = out.Block <= safe.Number
	return out
}

// expired reports whether no block after safe can execute the authorization.
func expired(in settlement.Intent, safe chain.Head) bool {
	end, overflow := in.Authorization.ValidBefore.Uint64WithOverflow()
	return !overflow && safe.Time >= end
}
