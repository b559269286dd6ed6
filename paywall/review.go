package paywall

import (
	"context"
	"errors"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
)

// review looks together at those of a round whose transfers were made, or were sent: thousands may wait for their block to be
// safe. What it does not tell of is looked at alone.
func (e *Engine) review(ctx context.Context, due []ledger.Payment) map[string]*settlement.Outcome {
	lists := make(map[*Payee][]settlement.Standing)
	for i := range due {
		p := &due[i]
		if p.Final || p.Settlement != ledger.Settled && p.Settlement != ledger.Settling {
			continue
		}
		if y := e.payee(p); y != nil {
			st := settlement.Standing{Intent: intent(p, y)}
			if p.Settlement == ledger.Settled {
				st.Transaction, st.Block, st.BlockHash = p.Transaction, p.Block, p.BlockHash
			}
			lists[y] = append(lists[y], st)
		}
	}
	known := make(map[string]*settlement.Outcome)
	for y, list := range lists {
		r, ok := y.Settler.(settlement.Reviewer)
		if !ok {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, resolveTimeout)
		outs, err := r.Review(asking, list)
		cancel()
		for i := range list {
			switch {
			case errors.Is(err, settlement.ErrUnavailable): // it will not answer for each of them either
				known[list[i].Intent.Payment] = &settlement.Outcome{Err: err}
			case err == nil && outs[i] != nil:
				known[list[i].Intent.Payment] = outs[i]
			}
		}
	}
	return known
}
