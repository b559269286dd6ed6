package paywall

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// resumes reports whether this request is the one that p was claimed for, sent again: the byte-identical
// header with its random echo (rule 7), for the same thing.
func (a *attempt) resumes(p *ledger.Payment) bool {
	return a.hash != (common.Hash{}) && a.hash == p.HeaderHash && a.sameRequest(p)
}

func (a *attempt) sameRequest(p *ledger.Payment) bool {
	b := p.Binding
	sameRoute := b.Route == a.Route.Name || b.Plan != "" && b.Route == a.Route.Scope
	return sameRoute && b.Method == a.r.Method && b.Host == a.Host && b.URI == a.URI
}

// known is the way of an authorization that the ledger has: it goes on where it stood, whatever the offer
// or the clock say by now (rule 2).
func (a *attempt) known(p ledger.Payment) error {
	if !a.resumes(&p) {
		if p.Settlement == ledger.Claimed || p.Settlement == ledger.Settling {
			return busy("")
		}
		return refuse(errUsed())
	}
	if err := a.readSmallBody(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(a.r.Context(), a.engine.current().SettleTimeout)
	defer cancel()
	if p.ServedBy != "" { // its request was served by an earlier payment, if that came through
		var err error
		if p, err = a.engine.store.Payment(ctx, p.ServedBy); err != nil {
			return unavailable(codeStore, err)
		}
	}
	waited := false
	for {
		if p.Held(time.Now()) {
			var err error
			if p, err = a.engine.wait(ctx, p.ID); err != nil {
				return busy(p.ID)
			}
			waited = true
		}
		switch over := a.over(&p); {
		case over != nil && waited:
			return busy(p.ID) // the first copy got the answer
		case over != nil:
			return over
		case p.Delivery == ledger.Delivered: // a plan: its buyer may have its token again
			return a.servePlan(p)
		}
		taken, err := a.take(ctx, p)
		switch {
		case err == nil:
			return a.proceed(taken)
		case errors.Is(err, ledger.ErrConflict), errors.Is(err, ledger.ErrFence):
			if p, err = a.engine.store.Payment(ctx, p.ID); err == nil {
				continue
			}
		}
		return unavailable(codeStore, err).of(p.ID)
	}
}

// over gives the answer to a request for a payment that can't be served (any more), or nil.
func (a *attempt) over(p *ledger.Payment) error {
	switch {
	case p.Refund != ledger.NotRefunded:
		return refuse(x402.Refuse(ReasonRefund, "this payment was not delivered and is held for refund; sign a new authorization to try again")).of(p.ID)
	case p.Delivery == ledger.Delivered && p.Binding.Plan == "":
		return refuse(errUsed()).of(p.ID)
	case p.Delivery == ledger.Delivered && !p.PlanUntil.After(a.Now()):
		return refuse(x402.Refuse(ReasonPlanOver, "the plan that was bought has ended")).of(p.ID)
	case p.Settlement == ledger.Failed, p.Settlement == ledger.Void:
		return refuse(x402.Refuse(orReason(p.Reason), "this authorization was given up and charged nothing; sign a new one")).of(p.ID)
	case p.Delivery == ledger.Delivering && !a.replays(p):
		return refuse(x402.Refuse(ReasonRefund, "the answer to this request was lost; its payment will be held for refund")).of(p.ID)
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

// proceed goes on with a payment that this request holds.
func (a *attempt) proceed(p ledger.Payment) error {
	a.leaveQueue()
	a.engine.hold(a.r.Context(), p.ID)
	defer a.engine.letGo(p.ID)
	if p.Settlement == ledger.Settled {
		return a.deliver(p, settlement.Outcome{})
	}
	if a.payload.Authorization.ID(p.ChainID, p.Asset) != p.AuthorizationID || a.payee.Settler == nil {
		// What this request carries would settle another payment than the one it is for.
		a.engine.release(p, p.Hold.Fence)
		return busy(p.ID)
	}
	return a.settle(p)
}

// takeUnserved takes an unserved payment that nobody holds. What the reconciler writes of it meanwhile is no reason to give up.
func (a *attempt) takeUnserved(ctx context.Context, p ledger.Payment) (ledger.Payment, error) {
	for range 5 {
		taken, err := a.take(ctx, p)
		if !errors.Is(err, ledger.ErrConflict) {
			return taken, err
		}
		if p, err = a.engine.store.Payment(ctx, p.ID); err != nil {
			return p, err
		}
		if p.Held(time.Now()) || !p.Unserved() {
			return p, ledger.ErrFence
		}
	}
	return p, ledger.ErrConflict
}

// unservedLimit bounds how many unserved payments of one payer are looked at.
const unservedLimit = 32

// instead is rule 6: before anything is claimed, a payer gets what it has paid for already. done: the
// request is answered. The new authorization is then void.
func (a *attempt) instead(ctx context.Context, id x402.AuthorizationID, o option, head uint64) (done bool, err error) {
	plans, err := a.engine.store.LivePlans(ctx, id.Payer, a.Route.Scope, ledger.Text(a.Host), unservedLimit)
	if err != nil {
		return false, unavailable(codeStore, err)
	}
	for _, p := range plans {
		if a.covers(&p) {
			return true, a.servePlan(p)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, a.engine.current().SettleTimeout)
	defer cancel()
	want := a.binding(o)
	list, err := a.engine.store.Unserved(ctx, ledger.Payment{AuthorizationID: id, Amount: o.price.Amount, Binding: want}, unservedLimit)
	if err != nil {
		return false, unavailable(codeStore, err)
	}
	for _, p := range list {
		if p.Held(time.Now()) {
			if want.Plan == "" && a.engine.serving(p.ID) {
				continue // another request of the same payer is being served with it
			}
			// Its client left, or its process died, or it is being served by another process: only time tells. And
			// of a plan that is being bought, nobody wants a second one.
			if p, err = a.engine.wait(ctx, p.ID); err != nil {
				return false, busy("").because(err)
			}
			if p.Delivery == ledger.Delivered && p.Binding.Plan != "" && a.covers(&p) {
				return true, a.servePlan(p)
			}
			if !p.Unserved() {
				continue
			}
		}
		served, err := a.adopt(ctx, p, id, o, head)
		if served || err != nil {
			return true, err
		}
	}
	return false, nil
}

func (a *attempt) covers(p *ledger.Payment) bool {
	if p.Binding.Route != a.Route.Scope || p.Binding.Host != a.Host || !p.PlanUntil.After(a.Now()) {
		return false
	}
	for i := range a.Route.Plans {
		if a.Route.Plans[i].Name == p.Binding.Plan {
			return true
		}
	}
	return false
}

// adopt serves this request with the unserved payment p, or clears p out of the way if nothing was
// charged for it. An unknown one is an error: 503, nothing claimed.
func (a *attempt) adopt(ctx context.Context, p ledger.Payment, id x402.AuthorizationID, o option, head uint64) (served bool, err error) {
	if p.Delivery == ledger.Delivering && !a.replays(&p) {
		return false, nil // lost; the reconciler holds it for refund
	}
	if p.Settlement == ledger.Claimed {
		return false, a.supersede(ctx, p)
	}
	p, err = a.takeUnserved(ctx, p)
	if errors.Is(err, ledger.ErrConflict) || errors.Is(err, ledger.ErrFence) || errors.Is(err, ledger.ErrTransition) {
		return false, busy("") // somebody else just took it: it is not clear yet what it will pay for
	}
	if err != nil {
		return false, unavailable(codeStore, err)
	}
	if p.Settlement != ledger.Settled {
		if p, err = a.resolve(ctx, p); err != nil {
			return false, err
		}
		if p.Settlement != ledger.Settled {
			return false, nil // it failed: nothing was charged
		}
	}
	if head == 0 { // whoever can't pay was not told the head; what was unused then was unused before
		head = p.ClaimBlock
	}
	if err := a.voidNew(ctx, id, o, head, p.ID); err != nil {
		a.engine.release(p, p.Hold.Fence)
		return false, err
	}
	return true, a.proceed(p)
}

// supersede gives up a claim for which nothing was ever sent, so that it can't be sent any more.
func (a *attempt) supersede(ctx context.Context, p ledger.Payment) error {
	_, err := a.engine.store.Update(ctx, p.ID, p.Version, ledger.Change{
		Event: ledger.EventVoid, Actor: actorRequest, Reason: string(ReasonSuperseded),
	})
	if errors.Is(err, ledger.ErrConflict) || errors.Is(err, ledger.ErrTransition) {
		return busy("")
	}
	if err != nil {
		return unavailable(codeStore, err)
	}
	return nil
}

// resolve asks what became of a payment that is under way and that this request holds.
func (a *attempt) resolve(ctx context.Context, p ledger.Payment) (ledger.Payment, error) {
	y := a.engine.payee(&p)
	if y == nil {
		y = a.payee
	}
	ctx, cancel := context.WithTimeout(ctx, a.engine.current().HoldTTL) // the hold is not renewed meanwhile
	defer cancel()
	out := y.Settler.Resolve(ctx, intent(&p, y.Network))
	if out.Status == settlement.Unknown {
		a.engine.release(p, p.Hold.Fence)
		return p, busy("").because(out.Err)
	}
	q, err := a.engine.record(ctx, p, out, actorRequest)
	if err != nil {
		return p, unavailable(codeStore, err)
	}
	return q, nil
}

// voidNew records the authorization that was only a proof: it is never broadcast, and should its payer send
// it to the chain after all, the money is seen and goes back.
func (a *attempt) voidNew(ctx context.Context, id x402.AuthorizationID, o option, head uint64, servedBy string) error {
	p, err := a.newPayment(id, o, head)
	if err != nil {
		return unavailable(codeStore, err)
	}
	// Held, so that no copy of this request takes the new authorization for one that is to be settled.
	p, err = a.engine.store.Claim(ctx, p, ledger.Change{
		Event: ledger.EventClaim, Actor: actorRequest, Hold: a.engine.current().HoldTTL,
	})
	if errors.Is(err, ledger.ErrExists) {
		return busy("") // a copy of this very request is at it
	}
	if err == nil {
		_, err = a.engine.store.Update(ctx, p.ID, p.Version, ledger.Change{
			Event: ledger.EventVoid, Actor: actorRequest, Reason: string(ReasonSuperseded), ServedBy: servedBy,
		})
	}
	if err != nil {
		return unavailable(codeStore, err)
	}
	return nil
}
