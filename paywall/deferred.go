package paywall

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
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

	lastSecond = 253_402_300_799 // of the year 9999, the last that can be written
)

// Lending is how much of what is owed on a network may be outstanding, in atomic units; zero: nothing is lent.
type Lending struct {
	PerPayer, Total uint256.Int
}

// creditworthy reports whether p, which is not claimed yet, may be served before it is paid, as far as its payer is concerned. One who
// owes what did not come through is refused.
func (a *attempt) creditworthy(ctx context.Context, p *ledger.Payment) (bool, error) {
	if a.Route.Flow != ledger.FlowDeferred || a.payee.Lending.Total.IsZero() {
		return false, nil
	}
	var others uint256.Int // before the ledger is asked: what is served meanwhile is then found in the one or in the other
	others, a.unlend = a.engine.lendTo(p)
	list, err := a.engine.store.List(ctx, ledger.Query{State: ledger.StateOwed, Payer: p.Payer, Limit: owedLimit})
	if err != nil {
		return false, unavailable(codeStore, err)
	}
	elsewhere := false
	for i := range list {
		q := &list[i]
		switch {
		case !q.Owes():
		case q.ChainID == p.ChainID && q.Asset == p.Asset:
			return false, owes(q)
		default:
			elsewhere = true
		}
	}
	left := time.Unix(int64(p.ValidBefore), 0).Sub(a.engine.current().Now()) // it is not further away than MaxValidity
	// Who signs with a contract may take the signature back.
	if !a.signer.Proven || left < leastToLend || len(list) >= owedLimit || elsewhere {
		return false, nil
	}
	return a.good(ctx, p, list, others)
}

// owes refuses the payer of q, and says what to do.
func owes(q *ledger.Payment) *refusal {
	from := time.Unix(int64(min(q.ValidBefore, lastSecond)), 0).UTC().Format(time.RFC3339)
	return refuse(x402.Refuse(ReasonOwed, "you were served with the payment %s, of %s atomic units, which did not come through (%s); nothing "+
		"more is served on credit, or charged, here until it is made good: when its authorization has ended for certain, some minutes after %s, "+
		"send a payment of that amount with the header %s: %s", q.ID, q.Amount.Dec(), q.Reason, from, headerOwed, q.ID,
	)).settled(q.ID, settlement.Outcome{Status: settlement.Failed, Transaction: q.Transaction})
}

// good reports whether the payer of p is known to have the money for it beside what it owes already: what was served, and others, which
// this process is serving. One that has it for one of them alone is refused: a payment up front would take what the owed one waits for.
func (a *attempt) good(ctx context.Context, p *ledger.Payment, owed []ledger.Payment, others uint256.Int) (bool, error) {
	b, ok := a.payee.Settler.(settlement.Balancer)
	if !ok {
		return false, nil
	}
	balance, err := b.TokenBalance(ctx, p.Payer)
	if err != nil {
		a.Logger.Warn("a payer's balance can't be read; it pays up front", slog.String("payment", p.ID), slog.Any("error", err))
		return false, nil
	}
	due := others
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

// lend takes credit for p, while it is claimed, and stores what settles it. The loan is nil if there is none, and p is then paid up front.
func (a *attempt) lend(ctx context.Context, p ledger.Payment, good bool) (loan func() *ledger.Loan) {
	if !good {
		return func() *ledger.Loan { return nil }
	}
	credit := ledger.Credit{
		ChainID: p.ChainID, Asset: p.Asset, PerPayer: a.payee.Lending.PerPayer, Total: a.payee.Lending.Total,
	}
	left := time.Unix(int64(p.ValidBefore), 0).Sub(a.engine.current().Now())
	in := a.intent(&p)
	var l *ledger.Loan
	var lost, unsaid error
	var wg sync.WaitGroup
	wg.Go(func() { l, lost = credit.Take(ctx, a.engine.store, &p) })
	wg.Go(func() { unsaid = a.engine.entrust(ctx, p.ID, in, left+time.Hour) })
	return func() *ledger.Loan {
		wg.Wait()
		if lost == nil && unsaid == nil {
			return l
		}
		if errors.Is(lost, ledger.ErrCredit) {
			a.engine.current().Observe(Observation{Event: "credit", Network: a.payee.Network.ID, Outcome: "exhausted"})
		} else {
			a.Logger.Warn("nothing could be lent; the payment is settled up front", slog.String("payment", p.ID), slog.Any("error", errors.Join(lost, unsaid)))
		}
		a.engine.lendNothing(p.ID, l)
		return nil
	}
}

// money is what a payer has of one asset.
type money struct {
	chainID      uint64
	asset, payer common.Address
}

// lendTo notes that p may be served before it is paid, until done is called: at the latest when the ledger says that it is owed, or won't
// be. others is what else is noted of its payer.
func (e *Engine) lendTo(p *ledger.Payment) (others uint256.Int, done func()) {
	m, amount := money{p.ChainID, p.Asset, p.Payer}, p.Amount
	e.mu.Lock()
	defer e.mu.Unlock()
	others = e.lending[m]
	sum, overflow := new(uint256.Int).AddOverflow(&others, &amount)
	if overflow {
		return others, func() {}
	}
	e.lending[m] = *sum
	return others, sync.OnceFunc(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		left := e.lending[m]
		if left.Sub(&left, &amount); left.IsZero() {
			delete(e.lending, m)
			return
		}
		e.lending[m] = left
	})
}

// repaid notes that what was asked for is owed by now, or won't be.
func (a *attempt) repaid() {
	if a.unlend != nil {
		a.unlend()
	}
}

// serveOwed serves the request with p, which is claimed and for which credit was taken.
func (a *attempt) serveOwed(p ledger.Payment) error {
	faultpoint.Reached("claimed")
	if !replayable(a.r.Method) { // should this process die, nobody asks the upstream again
		ctx, cancel := a.detached()
		defer cancel()
		q, err := a.begin(ctx, p)
		switch {
		case err != nil:
			return unavailable(codeStore, err).of(p.ID)
		case q.Hold.Fence != p.Hold.Fence:
			return busy(p.ID)
		}
		p = q
		faultpoint.Reached("delivering")
	}
	return a.forward(p)
}
