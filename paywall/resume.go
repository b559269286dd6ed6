package paywall

import (
	"context"
	"errors"
	"net/http"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// resumes reports whether this request is the one that p was claimed for, sent again: the byte-identical
// header with its random echo (rule 7), for the same thing.
func (a *attempt) resumes(p *ledger.Payment) (bool, error) {
	if a.hash == (common.Hash{}) || !a.sameRequest(p) {
		return false, nil
	}
	hash, err := a.hashFor(p.Binding.Plan)
	return err == nil && hash == p.HeaderHash, err
}

// hashFor is what a payment of this request for a plan, or for the request itself, remembers of the header that claims it; zero if that
// may not resume it. Where the price depends on more of the request than a binding has, that is a part of it: what was paid for one unit
// must not be served with a thousand. Its error is a *refusal.
func (a *attempt) hashFor(plan string) (common.Hash, error) {
	if a.hash == (common.Hash{}) || plan != "" || a.repays != "" || a.Route.moving == nil {
		return a.hash, nil
	}
	subject, err := a.subject()
	if err != nil {
		return common.Hash{}, err
	}
	return digest("header", string(a.hash[:]), subject), nil
}

func (a *attempt) sameRequest(p *ledger.Payment) bool {
	b := p.Binding
	sameRoute := b.Route == ledger.Text(a.Route.Name) || b.Plan != "" && b.Route == ledger.Text(a.Route.Scope)
	return sameRoute && b.Method == a.r.Method && b.Host == ledger.Text(a.Host) && b.URI == ledger.Text(a.URI)
}

// known is the way of an authorization that the ledger has: it goes on where it stood, whatever the offer
// or the clock say by now (rule 2).
func (a *attempt) known(p ledger.Payment) error {
	a.wasRead()
	a.met = true
	if a.repaysWith(&p) {
		return a.resumeRepayment(p)
	}
	if ok, err := a.resumes(&p); err != nil {
		return err
	} else if !ok {
		if p.Settlement == ledger.Claimed || p.Settlement == ledger.Settling {
			return busy("")
		}
		return refuse(errUsed())
	}
	if err := a.readBody(); err != nil {
		return err
	}
	a.wants = a.wanted(p.AuthorizationID, p.Binding)
	ctx, cancel := context.WithTimeout(a.r.Context(), a.engine.current().SettleTimeout)
	defer cancel()
	if done, err := a.serveByKey(ctx, p.ID, nil); done || err != nil {
		return err
	}
	return a.serveOr(ctx, p)
}

// serveOr serves this request with p, or says that p came to nothing.
func (a *attempt) serveOr(ctx context.Context, p ledger.Payment) error {
	done, err := a.serveWith(ctx, p, nil)
	if done || err != nil {
		return err
	}
	if p, err = a.engine.store.Payment(ctx, p.ID); err != nil {
		return unavailable(codeStore, err)
	}
	return refuse(x402.Refuse(orReason(p.Reason), "this authorization was given up and charged nothing; sign a new one")).of(p.ID)
}

// serveWith answers this request with the payment p, which is its payer's, whatever authorization that is, once whoever
// else holds it is done. done is false if p came to nothing; then nothing was charged for it. proof is the
// authorization of this request if the ledger does not know it yet: it is void where p serves in its place.
func (a *attempt) serveWith(ctx context.Context, p ledger.Payment, proof *proof) (done bool, err error) {
	a.leaveQueue()
	waited := false
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		if p, waited, err = a.settledDown(ctx, p, waited); err != nil {
			return true, err
		}
		if (p.Settlement == ledger.Failed || p.Settlement == ledger.Void) && p.Delivery != ledger.Delivered {
			return false, nil
		}
		if done, err := a.answered(ctx, &p, waited); done || err != nil {
			return true, err
		}
		if p.Settlement == ledger.Claimed && !a.carries(&p) {
			return false, a.supersede(ctx, p)
		}
		taken, err := a.take(ctx, p)
		switch {
		case err == nil:
			other, err := a.goOn(ctx, taken, proof)
			if err != nil || other == nil {
				return true, err
			}
			p = *other
		case errors.Is(err, ledger.ErrConflict), errors.Is(err, ledger.ErrFence), errors.Is(err, ledger.ErrTransition):
			// Somebody was faster, or the ledger's clock is not where we think.
			a.engine.pause(ctx, p.ID, pause)
			if p, err = a.engine.store.Payment(ctx, p.ID); err != nil {
				return true, unavailable(codeStore, err)
			}
		default:
			return true, unavailable(codeStore, err).of(p.ID)
		}
	}
}

// settledDown gives p, or what serves in its place, when nobody holds it any more.
func (a *attempt) settledDown(ctx context.Context, p ledger.Payment, before bool) (_ ledger.Payment, waited bool, err error) {
	waited = before
	for range maxServedBy {
		if p.Held(a.engine.store.Now()) {
			q, err := a.engine.wait(ctx, p.ID)
			if err != nil {
				return p, waited, a.underWay(p.ID)
			}
			p, waited = q, true
		}
		if p.ServedBy == "" {
			return p, waited, nil
		}
		// Its request was served by an earlier payment, if that came through.
		q, err := a.engine.store.Payment(ctx, p.ServedBy)
		if errors.Is(err, ledger.ErrNotFound) {
			return p, waited, nil
		}
		if err != nil {
			return p, waited, unavailable(codeStore, err)
		}
		p = q
	}
	return p, waited, nil
}

// maxServedBy bounds how many payments are looked at that gave way to another.
const maxServedBy = 8

// underWay is the answer to a request whose payment somebody else is at.
func (a *attempt) underWay(payment string) *refusal {
	if a.keyed() {
		return inProgress(payment)
	}
	return busy(payment)
}

// answered answers a request whose payment is over: by the stored answer, by the plan that was bought, or by saying so.
// copied: this request is a copy of one that was just answered.
func (a *attempt) answered(ctx context.Context, p *ledger.Payment, copied bool) (done bool, err error) {
	if done, err := a.recall(ctx, p); done || err != nil {
		return true, err
	}
	switch over := a.over(p); {
	case over != nil && copied:
		return true, busy(p.ID) // the first copy got the answer
	case over != nil:
		return true, over
	case p.Delivery == ledger.Delivered: // a plan: its buyer may have its token again
		if err := a.countHolder(ctx, p); err != nil {
			return true, err
		}
		return true, a.servePlan(*p, true)
	}
	return false, nil
}

// goOn goes on with p, which this request has just taken. other is the payment to go on with instead.
func (a *attempt) goOn(ctx context.Context, p ledger.Payment, proof *proof) (other *ledger.Payment, err error) {
	if p.Settlement != ledger.Settled && !a.carries(&p) {
		if p, err = a.resolve(ctx, p); err != nil {
			return nil, err
		}
		if p.Settlement != ledger.Settled {
			return &p, nil // it failed: nothing was charged
		}
	}
	return a.start(ctx, p, proof)
}

// carries reports whether p is the payment that this request's authorization is for.
func (a *attempt) carries(p *ledger.Payment) bool {
	return a.payload.Authorization.ID(p.ChainID, p.Asset) == p.AuthorizationID
}

// over gives the answer to a request for a payment that can't be served (any more), or nil.
func (a *attempt) over(p *ledger.Payment) error {
	switch {
	case p.Refund != ledger.NotRefunded:
		anew := "sign a new authorization to try again"
		if a.keyed() {
			anew = "sign a new authorization, under a new key, to try again"
		}
		return refuse(x402.Refuse(ReasonRefund, "this payment was not delivered and is held for refund; %s", anew)).of(p.ID)
	case p.Owes():
		return owes(p)
	case p.Delivery == ledger.Delivered && p.Binding.Plan == "":
		return refuse(errUsed()).of(p.ID)
	case p.Delivery == ledger.Delivered && !p.PlanUntil.After(a.Now()):
		return refuse(x402.Refuse(ReasonPlanOver, "the plan that was bought has ended")).of(p.ID)
	case p.Delivery == ledger.Delivered:
		return a.endedEarly(p)
	case p.Settlement == ledger.Failed, p.Settlement == ledger.Void:
		return refuse(x402.Refuse(orReason(p.Reason), "this authorization was given up and charged nothing; sign a new one")).of(p.ID)
	case p.Delivery == ledger.Delivering && !a.replays(p):
		return busy(p.ID) // its answer may be lost, but whoever holds it may be slow as well: the reconciler makes an end of it
	}
	return nil
}

// endedEarly gives the answer to who asks for a plan that was ended before its time, or nil.
func (a *attempt) endedEarly(p *ledger.Payment) error {
	revoked, err := a.hearsOf(p.ID)
	switch {
	case err != nil:
		return err
	case revoked:
		return refuse(x402.Refuse(ReasonTokenRevoked, "the plan that was bought was ended; sign a new authorization to buy another")).of(p.ID)
	}
	return nil
}

// replayable: the upstream may be asked again for these, since asking changes nothing.
func replayable(method string) bool { return method == http.MethodGet || method == http.MethodHead }

// replays reports whether the upstream may be asked again for p by this request. A payment may serve a request other than
// the one that claimed it, so both count.
func (a *attempt) replays(p *ledger.Payment) bool {
	return replayable(p.Binding.Method) && replayable(a.r.Method)
}

func (a *attempt) take(ctx context.Context, p ledger.Payment) (ledger.Payment, error) {
	return a.engine.store.Update(ctx, p.ID, p.Version, ledger.Change{
		Event: ledger.EventTake, Actor: actorRequest, Hold: a.engine.current().HoldTTL,
	})
}

// proceed goes on with a payment that this request holds, and that is its own to go on with.
func (a *attempt) proceed(p ledger.Payment) error {
	a.leaveQueue()
	a.engine.hold(a.r.Context(), p.ID)
	defer a.engine.letGo(p.ID)
	if p.Settlement == ledger.Settled {
		return a.deliver(p, settlement.Outcome{})
	}
	if !a.carries(&p) || a.payee.Settler == nil {
		// What this request carries would settle another payment than the one it is for.
		a.engine.release(p, p.Hold.Fence)
		return busy(p.ID)
	}
	switch {
	case a.servesFirst(&p):
		return a.serveFirst(p)
	case a.loan != nil && p.Flow == ledger.FlowDeferred && p.Settlement == ledger.Claimed:
		return a.serveOwed(p)
	}
	return a.settle(p)
}
