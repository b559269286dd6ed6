package wallet

import (
	"context"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/proof"
	"github.com/caddy-x402/caddy-x402/x402"
)

// resolve is Resolve for whoever takes any block. head is the chain's newest block, and safe its newest safe one, before anything
// else was asked.
func (s *Settler) resolve(ctx context.Context, in settlement.Intent) (out settlement.Outcome, head, safe chain.Head) {
	txs, err := s.recorded(ctx, in.Payment)
	if err != nil {
		return unknown(err, nil), head, safe
	}
	// Asked first: what was safe then is judged by receipts and logs that are no older.
	if safe, err = s.chain.Safe(ctx); err != nil {
		return unknown(err, txs), head, safe
	}
	var sv survey
	if len(txs) > 0 {
		sv, err = s.survey(ctx, txs)
	} else {
		sv.head, err = s.chain.Head(ctx)
	}
	if err != nil {
		return unknown(err, txs), head, safe
	}
	out = s.conclude(ctx, in, txs, sv, safe)
	if len(sv.open) > 0 {
		s.push(ctx, &sv)
		// Nobody looks at a final payment again; its transaction would block the wallet for ever.
		out.Final = false
	}
	return out, sv.head, safe
}

// push sees to it that what is open is mined, unless it is carried here anyway.
func (s *Settler) push(ctx context.Context, sv *survey) {
	for len(sv.open) > 0 {
		at := placeOf(&sv.open[0])
		var here, rest []settlement.Transaction
		for _, tx := range sv.open {
			if placeOf(&tx) == at {
				here = append(here, tx)
			} else {
				rest = append(rest, tx)
			}
		}
		sv.open = rest
		if s.parcels.has(at) {
			continue
		}
		if next := s.tend(ctx, here, sv, false); next != nil {
			here = append(here, *next)
		}
		s.broadcast(ctx, here[len(here)-1])
	}
}

// conclude judges by what was found.
func (s *Settler) conclude(
	ctx context.Context, in settlement.Intent, txs []settlement.Transaction, sv survey, safe chain.Head,
) settlement.Outcome {
	for _, r := range sv.receipts {
		if proof.Paid(in, r) {
			return proof.FinalBy(proof.Settled(r), safe)
		}
	}
	tr, err := s.search(ctx, in, sv.head.Number)
	if err != nil {
		return unknown(err, txs)
	}
	reverted := lone(sv.receipts, txs)
	switch {
	case tr.Receipt != nil:
		return proof.FinalBy(proof.Settled(tr.Receipt), safe)
	case tr.Spent:
		out := proof.Failed(x402.Refuse(x402.ReasonNonceUsed, "the authorization was cancelled or used for something else"), reverted)
		out.Final = tr.Block <= safe.Number
		return out
	case proof.Expired(in, safe):
		out := proof.Failed(x402.Refuse(x402.ReasonValidBefore, "the authorization has expired unused"), reverted)
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
	why, err := s.why(ctx, in)
	if err != nil {
		return unknownReceipt(err, r)
	}
	return proof.Failed(why, r)
}
