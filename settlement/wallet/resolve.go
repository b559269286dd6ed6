package wallet

import (
	"context"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/x402"
)

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
	return s.resolve(ctx, in)
}

func (s *Settler) resolve(ctx context.Context, in settlement.Intent) settlement.Outcome {
	txs, err := s.recorded(ctx, in.Payment)
	if err != nil {
		return unknown(err, nil)
	}
	if r := s.safe.of(txs); r != nil && paid(in, r) {
		out := settled(r)
		out.Final = true
		return out
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
		sv.head = head
	}
	if err != nil {
		return unknown(err, txs)
	}
	out := s.conclude(ctx, in, txs, sv, safe)
	if len(sv.open) > 0 {
		s.push(ctx, &sv)
		// Nobody looks at a final payment again; its transaction would block the wallet for ever.
		out.Final = false
	}
	return out
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
		if paid(in, r) {
			out := finalBy(settled(r), safe)
			if out.Final {
				s.safe.put(r)
			}
			return out
		}
	}
	tr, err := s.search(ctx, in, sv.head.Number)
	if err != nil {
		return unknown(err, txs)
	}
	reverted := lone(sv.receipts, txs)
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
