package paywall

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/internal/faultpoint"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// The flow deferred: a payer that can pay is served at once, and its payment is settled afterwards. What is outstanding is bounded
// (see ledger.Credit); who is lent nothing pays up front, which no client notices but by the time that it takes.
//
// What is delivered and not settled is owed. It is settled by the process that served it, or, should that die, by any
// reconciler: what it needs for that, the signed authorization, is stored before anything is lent. It is the payer's
// secret until it is broadcast, so it is where answers to keys are, in no trail, export or log, and goes when it is settled.
//
// A payer whose owed payment failed is refused, until it is made good: by whoever executes the authorization, or, when that can't
// happen any more, by a payment that names it (headerOwed).

const (
	// ReasonOwed refuses a payer that owes something.
	ReasonOwed x402.Reason = "payment_owed"
	// ReasonNotOwed refuses a payment for something that its payer does not owe.
	ReasonNotOwed x402.Reason = "payment_not_owed"

	// headerOwed names, by its id, the owed payment that a request pays for, instead of what it asks for.
	headerOwed = "X-Payment-Owed"
	statusOwed = "owed"

	// leastToLend is how much of its validity an authorization must have left to be settled later.
	leastToLend = 30 * time.Second
	// owedLimit bounds how many owed payments of one payer are looked at; who has more is lent nothing.
	owedLimit = 256
)

// Lending is how much of what is owed on a network may be outstanding, in atomic units; zero: nothing is lent.
type Lending struct {
	PerPayer, Total uint256.Int
}

// lend makes p, which is not claimed yet, one that is served before it is paid, if its payer is good for it.
func (a *attempt) lend(ctx context.Context, p *ledger.Payment) error {
	if a.Route.Flow != ledger.FlowDeferred || a.payee.Lending.Total.IsZero() {
		return nil
	}
	list, err := a.owedBy(ctx, p)
	if err != nil {
		return err
	}
	end := time.Unix(int64(p.ValidBefore), 0) // it is not further away than MaxValidity
	now := a.engine.current().Now()
	// Who signs with a contract may take the signature back.
	if !a.signer.Proven || end.Sub(now) < leastToLend || len(list) >= owedLimit {
		return nil
	}
	if good, err := a.good(ctx, p, list); err != nil || !good {
		return err
	}
	credit := ledger.Credit{
		ChainID: p.ChainID, Asset: p.Asset, PerPayer: a.payee.Lending.PerPayer, Total: a.payee.Lending.Total,
	}
	trusted := make(chan error, 1)
	in := a.intent(p)
	go func() { trusted <- a.engine.entrust(ctx, p.ID, in, end.Sub(now)+time.Hour) }()
	loan, err := credit.Take(ctx, a.engine.store, p)
	err = errors.Join(err, <-trusted)
	switch {
	case errors.Is(err, ledger.ErrCredit):
		a.engine.current().Observe(Observation{Event: "credit", Network: a.payee.Network.ID, Outcome: "exhausted"})
		a.engine.lendNothing(p.ID, nil)
		return nil
	case err != nil:
		return unavailable(codeStore, err)
	}
	p.Flow, a.loan = ledger.FlowDeferred, loan
	return nil
}

// owedBy lists what the payer of p owes, in the same money. Who owes something that was not paid is refused.
func (a *attempt) owedBy(ctx context.Context, p *ledger.Payment) ([]ledger.Payment, error) {
	list, err := a.engine.store.List(ctx, ledger.Query{State: ledger.StateOwed, Payer: p.Payer, Limit: owedLimit})
	if err != nil {
		return nil, unavailable(codeStore, err)
	}
	for i := range list {
		q := &list[i]
		if !q.Owes() || q.ChainID != p.ChainID || q.Asset != p.Asset {
			continue
		}
		return nil, refuse(x402.Refuse(ReasonOwed, "the payment %s of %s atomic units was served and did not come through (%s); "+
			"when its authorization has expired, send a payment with the header %s: %s to pay it", q.ID, q.Amount.Dec(), q.Reason, headerOwed, q.ID))
	}
	return list, nil
}

// good reports whether the payer of p is known to have the money for it beside what it owes already. One that has it for one of them
// alone is refused: a payment up front would take what the owed one waits for.
func (a *attempt) good(ctx context.Context, p *ledger.Payment, owed []ledger.Payment) (bool, error) {
	b, ok := a.payee.Settler.(settlement.Balancer)
	if !ok {
		return false, nil
	}
	balance, err := b.TokenBalance(ctx, p.Payer)
	if err != nil {
		a.Logger.Warn("a payer's balance can't be read; it pays up front", slog.Any("error", err))
		return false, nil
	}
	var due uint256.Int
	for i := range owed {
		if q := &owed[i]; q.ChainID == p.ChainID && q.Asset == p.Asset && !q.Owes() {
			if _, overflow := due.AddOverflow(&due, &q.Amount); overflow {
				return false, nil
			}
		}
	}
	need, overflow := new(uint256.Int).AddOverflow(&due, &p.Amount)
	if overflow || balance.Lt(need) && !due.IsZero() {
		return false, refuse(x402.Refuse(x402.ReasonInsufficientBalance,
			"the balance does not cover this and the %s atomic units that are owed already; nothing was charged", due.Dec()))
	}
	return !balance.Lt(need), nil
}

// serveOwed serves the request with p, which is claimed and for which credit was taken.
func (a *attempt) serveOwed(p ledger.Payment) error {
	faultpoint.Reached("claimed")
	if !replayable(a.r.Method) { // should this process die, nobody asks the upstream again
		ctx, cancel := a.detached()
		defer cancel()
		fence, ttl := p.Hold.Fence, a.engine.current().HoldTTL
		q, err := a.engine.update(ctx, p, func(p ledger.Payment) []ledger.Change {
			if p.Hold.Fence != fence {
				return nil
			}
			return []ledger.Change{{Event: ledger.EventDeliver, Actor: actorRequest, Fence: fence, Hold: ttl}}
		})
		switch {
		case err != nil:
			return unavailable(codeStore, err).of(p.ID)
		case q.Hold.Fence != fence:
			return busy(p.ID)
		}
		p = q
		faultpoint.Reached("delivering")
	}
	return a.forward(p)
}
