package paywall

import (
	"context"
	"errors"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// proof is a valid authorization that the ledger has never seen: it proves who asks, and can pay for what is asked.
type proof struct {
	id   x402.AuthorizationID
	opt  option
	head uint64 // the chain's, when the authorization was seen unused; 0 if that was not told
}

// unservedLimit bounds how many unserved payments of one payer are looked at.
const unservedLimit = 32

// instead is rule 6: before anything is claimed, a payer gets what it has paid for already. done: the
// request is answered. The new authorization is then void.
func (a *attempt) instead(ctx context.Context, f *proof) (done bool, err error) {
	if done, err := a.underLivePlan(ctx, f.id.Payer); done || err != nil {
		return done, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.engine.current().SettleTimeout)
	defer cancel()
	want := a.binding(f.opt)
	list, err := a.engine.store.Unserved(ctx, ledger.Payment{AuthorizationID: f.id, Amount: f.opt.price.Amount, Binding: want}, unservedLimit)
	if err != nil {
		return false, unavailable(codeStore, err)
	}
	for _, p := range list {
		if a.keyed() && want.Plan == "" && !a.sameRequest(&p) {
			continue // who names its requests wants each for itself; that one's has what is left of its payment
		}
		if p.Held(a.engine.store.Now()) {
			if want.Plan == "" && a.engine.serving(p.ID) {
				continue // another request of the same payer is being served with it
			}
			// Its client left, or its process died, or it is being served by another process: only time tells. And
			// of a plan that is being bought, nobody wants a second one.
			if p, err = a.engine.wait(ctx, p.ID); err != nil {
				return false, busy("").because(err)
			}
			if done, err := a.underPlan(&p); done || err != nil {
				return done, err
			}
			if !p.Unserved() {
				continue
			}
		}
		served, err := a.adopt(ctx, p, f)
		if served || err != nil {
			return true, err
		}
	}
	return false, nil
}

// underLivePlan serves under a plan that the payer has bought before, if one opens this route.
func (a *attempt) underLivePlan(ctx context.Context, payer common.Address) (done bool, err error) {
	if len(a.Route.Plans) == 0 {
		return false, nil
	}
	plans, err := a.engine.store.LivePlans(ctx, payer, ledger.Text(a.Route.Scope), ledger.Text(a.Host), unservedLimit)
	if err != nil {
		return false, unavailable(codeStore, err)
	}
	for i := range plans {
		if done, err := a.underPlan(&plans[i]); done || err != nil {
			return done, err
		}
	}
	return false, nil
}

// underPlan serves under the plan that p bought, if it did, the plan opens this route and is not used up.
func (a *attempt) underPlan(p *ledger.Payment) (done bool, err error) {
	if p.Delivery != ledger.Delivered || p.Binding.Plan == "" {
		return false, nil
	}
	if covered, err := a.covers(p); err != nil || !covered {
		return false, err
	}
	if err := a.servePlan(*p, false); !usedUp(err) {
		return true, err
	}
	return false, nil
}

// covers reports whether the plan that p bought opens this route now.
func (a *attempt) covers(p *ledger.Payment) (bool, error) {
	if p.Binding.Route != ledger.Text(a.Route.Scope) || p.Binding.Host != ledger.Text(a.Host) || !p.PlanUntil.After(a.Now()) {
		return false, nil
	}
	if a.plan(p.Binding.Plan) == nil {
		return false, nil
	}
	revoked, err := a.hearsOf(p.ID)
	return !revoked, err
}

// adopt serves this request with the unserved payment p, or clears p out of the way if nothing was
// charged for it. An unknown one is an error: 503, nothing claimed.
func (a *attempt) adopt(ctx context.Context, p ledger.Payment, f *proof) (served bool, err error) {
	if p.Delivery == ledger.Delivering && !a.replays(&p) {
		if replayable(p.Binding.Method) {
			return false, nil // it is there for whoever asks again as it was asked
		}
		return false, a.interrupt(ctx, p)
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
	other, err := a.goOn(ctx, p, f)
	if err != nil || other == nil {
		return true, err
	}
	return a.serveWith(ctx, *other, f)
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
		if p.Held(a.engine.store.Now()) || !p.Unserved() {
			return p, ledger.ErrFence
		}
	}
	return p, ledger.ErrConflict
}

// interrupt holds p for refund: its delivery was broken off. Who held it may only be slow, and may still deliver it as long as the
// ledger does not say that it can't; before that, nothing else may be charged for the same thing.
func (a *attempt) interrupt(ctx context.Context, p ledger.Payment) error {
	steps := interrupted(&p, actorRequest)
	q, err := a.engine.store.Update(ctx, p.ID, p.Version, steps...)
	if errors.Is(err, ledger.ErrConflict) || errors.Is(err, ledger.ErrTransition) || errors.Is(err, ledger.ErrFence) {
		return busy("")
	}
	if err != nil {
		return unavailable(codeStore, err)
	}
	a.engine.happened(&q, steps)
	return nil
}

// interrupted is how a delivery ends of which nobody knows how far it went. What was not sent yet will not be.
func interrupted(p *ledger.Payment, actor string) []ledger.Change {
	cs := []ledger.Change{{Event: ledger.EventUndelivered, Actor: actor, Reason: reasonInterrupted}}
	if p.Settlement == ledger.Claimed {
		cs = append(cs, ledger.Change{Event: ledger.EventVoid, Actor: actor, Reason: reasonInterrupted})
	}
	return cs
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
	if y.Settler == nil { // of a network that is not configured any more
		a.engine.release(p, p.Hold.Fence)
		return p, busy("")
	}
	ctx, cancel := context.WithTimeout(ctx, a.engine.current().HoldTTL) // the hold is not renewed meanwhile
	defer cancel()
	out := y.Settler.Resolve(ctx, intent(&p, y))
	if out.Status == settlement.Unknown {
		a.engine.release(p, p.Hold.Fence)
		return p, busy("").because(out.Err).after(out.Wait)
	}
	q, err := a.engine.record(ctx, p, out, actorRequest)
	if err != nil {
		return p, unavailable(codeStore, err)
	}
	return q, nil
}

// voidNew records the authorization that was only a proof: it is never broadcast, and should its payer send
// it to the chain after all, the money is seen and goes back.
func (a *attempt) voidNew(ctx context.Context, f *proof, servedBy *ledger.Payment) error {
	head := f.head
	if head == 0 { // whoever can't pay was not told the head; what is unused now was unused before
		head = servedBy.ClaimBlock
	}
	p, err := a.newPayment(f.id, f.opt, head)
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
			Event: ledger.EventVoid, Actor: actorRequest, Reason: string(ReasonSuperseded), ServedBy: servedBy.ID,
		})
	}
	if err != nil {
		return unavailable(codeStore, err)
	}
	return nil
}
