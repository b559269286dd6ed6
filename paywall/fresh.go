package paywall

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// fresh is the way of an authorization that the ledger has never seen.
func (a *attempt) fresh(id x402.AuthorizationID) error {
	ctx := a.r.Context()
	if err := a.mayAsk(); err != nil {
		return err
	}
	opt, err := a.choose()
	if err != nil {
		return err
	}
	if opt.price.Payee != a.payee {
		return refuse(x402.Refuse(x402.ReasonNetworkMismatch, "asset and network don't belong together; choose one of accepts"))
	}
	if err := a.mayBuy(&opt); err != nil {
		return err
	}
	terms := x402.Terms{
		Network: a.payee.Network, PayTo: a.payee.PayTo, Amount: opt.price.Amount,
		MinRemaining: a.MinRemaining, MaxValidity: a.MaxValidity,
	}
	if _, err = a.payload.Verify(terms, a.signer, a.engine.current().Now()); err != nil {
		a.countRefused(a.engine)
		return refuse(err)
	}
	a.wasRead()
	// The simulation also proves that nobody has used the authorization yet, so it is not one that
	// somebody read in calldata. Only then does it prove who is asking.
	head, err := a.simulate(ctx)
	if limit, ok := errors.AsType[*refusal](err); ok {
		return limit
	}
	if errors.Is(err, settlement.ErrUnavailable) {
		return unavailable(codeChain, err)
	}
	if err != nil {
		// Another copy of this request may have claimed and settled it meanwhile: then that is why the chain refuses it.
		if p, e := a.engine.store.ByAuthorization(ctx, id); e == nil && sameAuthorization(&p, id) {
			return a.known(p)
		} else if !errors.Is(e, ledger.ErrNotFound) {
			return unavailable(codeStore, e)
		}
	}
	broke := x402.ReasonOf(err) == x402.ReasonInsufficientBalance && a.signer.Proven
	if err != nil && !broke {
		return a.refuseChecked(err)
	}
	if a.repays != "" {
		if broke {
			return refuse(err)
		}
		return a.repay(ctx, &proof{id: id, opt: opt, head: head})
	}
	if err := a.readBody(); err != nil {
		return err
	}
	return a.proven(ctx, &proof{id: id, opt: opt, head: head}, err)
}

// mayAsk refuses a new payment that is not even looked at, or whose answer could not be given.
func (a *attempt) mayAsk() error {
	if err := a.shutOut(a.engine); err != nil {
		return err
	}
	if err := a.countKey(a.engine); err != nil {
		return err
	}
	if err := a.noStream(); err != nil {
		return err
	}
	return a.needsKey()
}

// proven is the way of who has proven to be the payer of a new authorization. broke is why it can't pay; it may have paid already.
func (a *attempt) proven(ctx context.Context, f *proof, broke error) error {
	if broke == nil { // payers without money cost nothing to make up: they count as refused
		if err := a.count(ctx, a.engine, f.id.Payer); err != nil {
			return err
		}
	}
	if err := a.admitPayer(ctx, f.id.Payer); err != nil {
		return err
	}
	a.wants = a.wanted(f.id, a.binding(f.opt))
	if err := a.queue(ctx); err != nil {
		return err
	}
	defer a.leaveQueue()
	keyed, cancel := context.WithTimeout(ctx, a.engine.current().SettleTimeout)
	defer cancel()
	if done, err := a.serveByKey(keyed, "", f); done || err != nil {
		return err
	}
	if done, err := a.instead(ctx, f); done || err != nil {
		return err
	}
	if broke != nil {
		a.countRefused(a.engine)
		return refuse(broke)
	}
	if f.opt.plan != nil && f.opt.plan.Free {
		return a.serveFree(ctx, f)
	}
	return a.claim(ctx, f)
}

// simulate asks the chain whether the payment would settle, within what the client may cost us.
func (a *attempt) simulate(ctx context.Context) (head uint64, err error) {
	end, ok := a.engine.limits.begin(clientKey(a.Client), time.Now())
	if !ok {
		return 0, limited()
	}
	refused := false
	defer func() { end(refused) }()
	ctx, s := a.engine.stage(ctx, StageSimulate, "")
	s.on(a.payee.Network.ID)
	head, err = a.payee.Settler.Check(ctx, a.intent(nil))
	s.failed(err)
	refused = x402.ReasonOf(err) != ""
	return head, err
}

// queue makes who buys what is bought once wait for those of this process who buy the same for the same payer.
func (a *attempt) queue(ctx context.Context) error {
	if len(a.wants) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.engine.current().SettleTimeout)
	defer cancel()
	var err error
	if a.yield, err = a.engine.takeTurn(ctx, a.wants[0].key); err != nil {
		return a.underWay("").because(err)
	}
	return nil
}

func (a *attempt) leaveQueue() {
	if a.yield != nil {
		a.yield()
	}
}

// refuseChecked tells a refusal by the chain from a chain that can't be asked.
func (a *attempt) refuseChecked(err error) error {
	if x402.ReasonOf(err) == "" {
		return unavailable(codeChain, err)
	}
	a.countRefused(a.engine)
	return refuse(err)
}

// choose finds which of our own offers the client means (rule 1).
func (a *attempt) choose() (option, error) {
	if opt, ok, err := a.chooseDebt(); ok || err != nil {
		return opt, err
	}
	f, err := a.offerPaid()
	if err != nil {
		return option{}, err
	}
	i, err := x402.Select(f.accepts, a.payload)
	if err != nil {
		a.countRefused(a.engine)
		return option{}, refuse(err)
	}
	return f.options[i], nil
}

func (a *attempt) binding(o option) ledger.Binding {
	b := ledger.Binding{Route: a.Route.Name, Method: a.r.Method, Host: a.Host, URI: a.URI}
	if o.plan != nil {
		b.Route, b.Plan = a.Route.Scope, o.plan.Name
	}
	return b
}

func (a *attempt) newPayment(id x402.AuthorizationID, o option, head uint64) (ledger.Payment, error) {
	pid, err := ledger.NewID(randomness, id.Payer)
	if err != nil {
		return ledger.Payment{}, fmt.Errorf("making a payment id: %w", err)
	}
	b := a.binding(o)
	hash, err := a.hashFor(b.Plan)
	if err != nil {
		return ledger.Payment{}, err
	}
	return ledger.Payment{
		ID: pid, AuthorizationID: id, PayTo: a.payee.PayTo, Amount: o.price.Amount,
		ValidBefore: a.payload.Authorization.ValidBefore.Uint64(),
		HeaderHash:  hash, Binding: b, Flow: a.Route.Flow, ClaimBlock: head,
	}, nil
}

// claim reserves the authorization, durably, before any work (rule 3), and goes on to settle it.
func (a *attempt) claim(ctx context.Context, f *proof) error {
	p, err := a.newPayment(f.id, f.opt, f.head)
	if err != nil {
		return unavailable(codeStore, err)
	}
	defer a.repaid()
	good, err := a.creditworthy(ctx, &p)
	if err != nil {
		return err
	}
	id := p.ID
	a.engine.hold(a.r.Context(), id) // before others can see it
	defer a.engine.letGo(id)
	lent := a.lend(ctx, p, good)
	_, s := a.engine.stage(ctx, StageClaim, id)
	p, err = a.engine.store.Claim(ctx, p, ledger.Change{
		Event: ledger.EventClaim, Actor: actorRequest, Hold: a.engine.current().HoldTTL,
	})
	s.claimed(err)
	a.loan = lent()
	if a.loan != nil && (err != nil || !a.loan.Covers(&p)) {
		a.engine.lendNothing(id, a.loan)
		a.loan = nil
	}
	switch {
	case errors.Is(err, ledger.ErrExists):
		a.leaveQueue()
		return a.known(p) // a copy was faster
	case err != nil:
		return unavailable(codeStore, err)
	}
	a.filed(id)
	return a.begun(ctx, p)
}
