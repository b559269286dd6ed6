package paywall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/ethereum/go-ethereum/common/hexutil"
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
	end := time.Unix(int64(p.ValidBefore), 0) //nolint:gosec // it is not further away than MaxValidity
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

// entrusted is what settles a payment: the payer's secret until it is broadcast.
type entrusted struct {
	Authorization x402.Authorization `json:"authorization"`
	Signature     hexutil.Bytes      `json:"signature"`
}

// entrust stores what settles the payment id, for whoever will do it.
func (e *Engine) entrust(ctx context.Context, id string, in settlement.Intent, ttl time.Duration) error {
	raw, err := json.Marshal(entrusted{in.Authorization, in.Signature})
	if err != nil {
		return fmt.Errorf("encoding an authorization: %w", err)
	}
	_, err = e.store.Reserve(ctx, ledger.Reservation{Key: digest("owed", id), Payment: id, Answer: raw}, "", ttl)
	return err
}

// entrusted reads what settles p.
func (e *Engine) entrusted(ctx context.Context, p *ledger.Payment, n x402.Network) (settlement.Intent, error) {
	in := intent(p, n)
	r, err := e.store.Reservation(ctx, digest("owed", p.ID))
	if err != nil {
		return in, err
	}
	var s entrusted
	if err := json.Unmarshal(r.Answer, &s); err != nil || s.Authorization.ID(p.ChainID, p.Asset) != p.AuthorizationID {
		return in, errEntrusted
	}
	in.Authorization, in.Signature = s.Authorization, s.Signature
	return in, nil
}

var errEntrusted = errors.New("paywall: what is stored settles another payment")

// forget removes what settled the payment id: it is public, or no good any more.
func (e *Engine) forget(ctx context.Context, id string) {
	key := digest("owed", id)
	_, err := e.store.Reserve(ctx, ledger.Reservation{Key: key, Payment: id}, id, time.Microsecond)
	if err != nil && !errors.Is(err, ledger.ErrExists) {
		e.log(id).Debug("an authorization that is not needed any more stays until it expires", slog.Any("error", err))
	}
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

// collect settles what is owed, whether or not its client is there; no other instance tries meanwhile.
func (e *Engine) collect(p ledger.Payment, y *Payee, in settlement.Intent, loan *ledger.Loan) {
	s := e.current()
	e.mu.Lock()
	e.owed[p.ID] = struct{}{}
	e.mu.Unlock()
	e.background.Go(func() {
		defer func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			delete(e.owed, p.ID)
		}()
		faultpoint.Reached("owed")
		ctx, cancel := context.WithTimeout(context.Background(), s.SettleTimeout)
		defer cancel()
		if err := e.store.Recheck(ctx, p.ID, s.SettleTimeout); err != nil {
			e.log(p.ID).Warn("an owed payment's next look could not be set", slog.Any("error", err))
		}
		q, err := e.collectNow(ctx, p, y, in)
		switch {
		case err == nil && q.Settlement == ledger.Settled:
			e.giveBack(p.ID, loan)
		case err != nil || q.Settlement == ledger.Claimed || q.Settlement == ledger.Settling:
			e.log(p.ID).Warn("an owed payment is not settled yet; the reconciler goes on", slog.Any("error", err))
			ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
			defer cancel()
			_ = e.store.Recheck(ctx, p.ID, s.ReconcileEvery) // else it is looked at when the time is over
		}
	})
}

// giveBack frees credit; nil: there is none to be freed.
func (e *Engine) giveBack(id string, loan *ledger.Loan) {
	if loan == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	if err := loan.Give(ctx); err != nil {
		e.log(id).Debug("credit that is not needed any more is freed by whoever finds it", slog.Any("error", err))
	}
}

// lendNothing undoes what was done to lend to the payment id, while its client gets its answer.
func (e *Engine) lendNothing(id string, loan *ledger.Loan) {
	e.background.Go(func() {
		e.giveBack(id, loan)
		ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
		defer cancel()
		e.forget(ctx, id)
	})
}

// collecting reports whether this process is, or is about to be, at what is owed.
func (e *Engine) collecting(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, working := e.holders[id]
	_, owed := e.owed[id]
	return working || owed
}

// collectNow settles what is owed, and writes what came of it.
func (e *Engine) collectNow(ctx context.Context, p ledger.Payment, y *Payee, in settlement.Intent) (ledger.Payment, error) {
	started := time.Now()
	out := settle(ctx, y.Settler, in)
	e.current().Observe(Observation{
		Event: "settlement", Network: y.Network.ID, Outcome: out.Status.String(), Reason: string(out.Reason), Took: time.Since(started),
	})
	wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	q, err := e.record(wctx, p, out, actorReconciler)
	if err == nil && (q.Settlement == ledger.Settled || q.Settlement == ledger.Failed) {
		e.forget(wctx, p.ID)
	}
	return q, errors.Join(err, out.Err)
}

// lost counts what was served and will not be paid, when it turns out.
func (e *Engine) lost(p *ledger.Payment) {
	network := networkID(p.ChainID)
	e.current().Observe(Observation{Event: "loss", Network: network, Outcome: "failed", Reason: p.Reason, Amount: p.Amount})
	e.log(p.ID).Error("what was served before it was paid was not paid", slog.String("network", network),
		slog.String("amount", p.Amount.Dec()), slog.String("payer", p.Payer.Hex()), slog.String("reason", p.Reason))
}

// repay settles a new payment for one that its payer owes, a.repays, instead of for what the request asks for.
func (a *attempt) repay(ctx context.Context, f *proof) error {
	owed, err := a.engine.store.Payment(ctx, a.repays)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return unavailable(codeStore, err)
	}
	same := owed.Payer == f.id.Payer && owed.ChainID == f.id.ChainID && owed.Asset == f.id.Asset && owed.PayTo == a.payee.PayTo
	switch {
	case err != nil || !same || !owed.Owes():
		return refuse(x402.Refuse(ReasonNotOwed, "the header %s names no payment that you owe; nothing was charged", headerOwed))
	case !owed.Final:
		return refuse(x402.Refuse(ReasonOwed, "the authorization of the owed payment has not expired, so it may still be executed; nothing was charged"))
	case f.opt.price.Amount.Lt(&owed.Amount):
		return refuse(x402.Refuse(ReasonOwed, "%s atomic units are owed, which is more than this costs; nothing was charged", owed.Amount.Dec()))
	}
	p, err := a.newPayment(f.id, f.opt, f.head)
	if err != nil {
		return unavailable(codeStore, err)
	}
	if done, err := a.reserveRepayment(ctx, p.ID, owed); done || err != nil {
		return err
	}
	p.Binding.Route = repayment + owed.ID // good for nothing else
	p, err = a.engine.store.Claim(ctx, p, ledger.Change{Event: ledger.EventClaim, Actor: actorRequest, Hold: a.engine.current().HoldTTL})
	switch {
	case errors.Is(err, ledger.ErrExists):
		return busy("")
	case err != nil:
		return unavailable(codeStore, err)
	}
	return a.settleRepayment(p, owed)
}

// repaymentTTL outlasts the settlement of a repayment, and what may go wrong between it and the record that it made good.
const repaymentTTL = 30 * 24 * time.Hour

// reserveRepayment makes sure that only one payment makes owed good. done: one has, and its payer is told; nothing is charged.
func (a *attempt) reserveRepayment(ctx context.Context, id string, owed ledger.Payment) (done bool, err error) {
	key, over := digest("repaid", owed.ID), ""
	for range mostHolders {
		r, err := a.engine.store.Reserve(ctx, ledger.Reservation{Key: key, Payment: id}, over, repaymentTTL)
		if err == nil {
			return false, nil
		}
		if !errors.Is(err, ledger.ErrExists) {
			return false, unavailable(codeStore, err)
		}
		p, err := a.engine.store.Payment(ctx, r.Payment)
		switch {
		case errors.Is(err, ledger.ErrNotFound) && a.engine.store.Now().Sub(r.CreatedAt) > a.engine.current().SettleTimeout:
		case err != nil:
			return false, busy("").because(err)
		case p.Delivery == ledger.Delivered:
			if owed, err = a.engine.makeGood(ctx, owed, p.ID); err != nil {
				return false, unavailable(codeStore, err)
			}
			return true, a.writeRepaid(&p, &owed)
		case p.Settlement == ledger.Failed, p.Settlement == ledger.Void, p.Delivery == ledger.Undelivered:
		default:
			return false, busy("") // its outcome is not known, or it goes back before long
		}
		over = r.Payment
	}
	return false, busy("")
}

// repayment begins the route of payments that make another good.
const repayment = "owed:"

func (a *attempt) settleRepayment(p, owed ledger.Payment) error {
	stop := a.engine.keep(a.r.Context(), p.ID, p.Hold.Fence)
	out, _ := a.engine.settle(context.WithoutCancel(a.r.Context()), p, a.payee, a.intent(&p))
	stop()
	ctx, cancel := a.detached()
	defer cancel()
	fence := p.Hold.Fence
	var steps []ledger.Change
	if out.Status == settlement.Settled {
		steps = []ledger.Change{
			{Event: ledger.EventDeliver, Actor: actorRequest, Fence: fence, Hold: time.Second},
			{Event: ledger.EventDelivered, Actor: actorRequest, Fence: fence},
		}
	}
	q, err := a.engine.record(ctx, p, out, actorRequest, steps...)
	switch {
	case err != nil:
		return unavailable(codeStore, err).of(p.ID)
	case out.Status == settlement.Failed:
		return refuse(x402.Refuse(orReason(string(out.Reason)), "the transfer failed and charged nothing")).settled(p.ID, out)
	case out.Status == settlement.Unknown:
		a.engine.release(p, fence)
		return busy(p.ID).because(out.Err)
	}
	if owed, err = a.engine.makeGood(ctx, owed, q.ID); err != nil {
		return unavailable(codeStore, err).of(q.ID)
	}
	return a.writeRepaid(&q, &owed)
}

// makeGood records that the payment by has made p good.
func (e *Engine) makeGood(ctx context.Context, p ledger.Payment, by string) (ledger.Payment, error) {
	return e.update(ctx, p, func(p ledger.Payment) []ledger.Change {
		if !p.Owes() {
			return nil
		}
		return []ledger.Change{{Event: ledger.EventMadeGood, Actor: actorRequest, ServedBy: by}}
	})
}

func (a *attempt) writeRepaid(p, owed *ledger.Payment) error {
	if a.Decided != nil {
		a.Decided(a.r, "paid", "")
	}
	body, err := json.Marshal(map[string]string{"payment": p.ID, "madeGood": owed.ID})
	if err != nil {
		return fmt.Errorf("writing an answer: %w", err)
	}
	h := a.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	a.addReceipt(h, p, "")
	a.w.WriteHeader(http.StatusOK)
	_, err = a.w.Write(body)
	return err
}
