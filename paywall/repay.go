package paywall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// chooseDebt gives what a payment for a debt pays, if the debt itself was signed: what is offered here may cost more, or less.
func (a *attempt) chooseDebt() (_ option, ok bool, err error) {
	if a.repays == "" {
		return option{}, false, nil
	}
	owed, err := a.engine.store.Payment(a.r.Context(), a.repays)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return option{}, false, nil
	case err != nil:
		return option{}, false, unavailable(codeStore, err)
	}
	a.debt = &owed
	if !a.owedBy(a.payload.Authorization.From) || !a.payload.Authorization.Value.Eq(&owed.Amount) {
		return option{}, false, nil
	}
	return option{price: Price{Payee: a.payee, Amount: owed.Amount}}, true, nil
}

// owedBy reports whether the debt that this request pays for is payer's, in the money that it pays with. Where that goes is the payTo of
// today.
func (a *attempt) owedBy(payer common.Address) bool {
	n := a.payee.Network
	return a.debt != nil && a.debt.Payer == payer && a.debt.ChainID == n.ChainID && a.debt.Asset == n.Asset.Address
}

// repay settles a new payment for one that its payer owes, a.debt, instead of for what the request asks for.
func (a *attempt) repay(ctx context.Context, f *proof) error {
	switch {
	case !a.owedBy(f.id.Payer) || !a.debt.Owes():
		return refuse(x402.Refuse(ReasonNotOwed, "the header %s names no payment that you owe; nothing was charged", headerOwed))
	case !a.debt.Final:
		return refuse(x402.Refuse(ReasonOwed, "the authorization of the owed payment has not ended for certain, so it may still be executed; "+
			"try again in some minutes; nothing was charged"))
	case f.opt.price.Amount.Lt(&a.debt.Amount):
		return refuse(x402.Refuse(ReasonOwed, "%s atomic units are owed, which is more than this costs: sign for that amount; nothing was charged", a.debt.Amount.Dec()))
	}
	p, err := a.newPayment(f.id, f.opt, f.head)
	if err != nil {
		return unavailable(codeStore, err)
	}
	p.Binding.Route, p.Binding.Plan = repayment+a.debt.ID, "" // good for nothing else
	if done, err := a.reserveRepayment(ctx, p.ID); done || err != nil {
		return err
	}
	p, err = a.engine.store.Claim(ctx, p, ledger.Change{Event: ledger.EventClaim, Actor: actorRequest, Hold: a.engine.current().HoldTTL})
	switch {
	case errors.Is(err, ledger.ErrExists):
		return busy("")
	case err != nil:
		return unavailable(codeStore, err)
	}
	return a.settleRepayment(p)
}

// repaymentTTL outlasts the settlement of a repayment, and what may go wrong between it and the record that it made good.
const repaymentTTL = 30 * 24 * time.Hour

// reserveRepayment makes sure that only one payment makes the debt good. done: one has, and its payer is told; nothing is charged.
func (a *attempt) reserveRepayment(ctx context.Context, id string) (done bool, err error) {
	key, over := digest("repaid", a.debt.ID), ""
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
			over = r.Payment
			continue
		case err != nil:
			return false, busy("").because(err)
		}
		if p, err = a.completeRepayment(ctx, p); err != nil {
			return false, err
		}
		switch {
		case p.Delivery == ledger.Delivered:
			return true, a.writeRepaid(ctx, &p)
		case p.Settlement == ledger.Failed, p.Settlement == ledger.Void, p.Delivery == ledger.Undelivered:
		case p.Settlement == ledger.Claimed && !p.Held(a.engine.store.Now()): // its request died before anything was sent
			if err := a.supersede(ctx, p); err != nil {
				return false, err
			}
		default:
			return false, busy("") // its outcome is not known yet
		}
		over = r.Payment
	}
	return false, busy("")
}

// completeRepayment delivers a repayment that is settled, and whose request has ended before that.
func (a *attempt) completeRepayment(ctx context.Context, p ledger.Payment) (ledger.Payment, error) {
	q, err := a.engine.update(ctx, p, func(p ledger.Payment) []ledger.Change {
		if p.Settlement != ledger.Settled || !p.Unserved() || p.Held(a.engine.store.Now()) {
			return nil
		}
		fence := p.Hold.Fence + 1
		return append([]ledger.Change{{Event: ledger.EventTake, Actor: actorRequest, Hold: writeTimeout}}, repaidSteps(fence)...)
	})
	if err != nil {
		return q, busy("").because(err)
	}
	return q, nil
}

// repaidSteps deliver a settled repayment: what it buys is that the debt is made good.
func repaidSteps(fence uint64) []ledger.Change {
	return []ledger.Change{
		{Event: ledger.EventDeliver, Actor: actorRequest, Fence: fence, Hold: time.Second},
		{Event: ledger.EventDelivered, Actor: actorRequest, Fence: fence},
	}
}

// repaysWith reports whether this request is the one that p was claimed for, sent again, and p pays for a debt.
func (a *attempt) repaysWith(p *ledger.Payment) bool {
	return a.hash != (common.Hash{}) && a.hash == p.HeaderHash && a.repays != "" && p.Binding.Route == ledger.Text(repayment+a.repays)
}

// resumeRepayment goes on with a repayment where it stood.
func (a *attempt) resumeRepayment(p ledger.Payment) error {
	ctx, cancel := context.WithTimeout(a.r.Context(), a.engine.current().SettleTimeout)
	defer cancel()
	debt, err := a.engine.store.Payment(ctx, a.repays)
	if err != nil {
		return unavailable(codeStore, err).of(p.ID)
	}
	a.debt = &debt
	if p, err = a.engine.wait(ctx, p.ID); err != nil {
		return busy(p.ID).because(err)
	}
	if p, err = a.completeRepayment(ctx, p); err != nil {
		return err
	}
	switch {
	case p.Delivery == ledger.Delivered:
		return a.writeRepaid(ctx, &p)
	case p.Settlement == ledger.Claimed, p.Settlement == ledger.Settling:
	default:
		if over := a.over(&p); over != nil {
			return over
		}
		return busy(p.ID)
	}
	if !a.carries(&p) || a.payee.Settler == nil {
		return busy(p.ID)
	}
	if p, err = a.take(ctx, p); err != nil {
		return busy(p.ID).because(err)
	}
	return a.settleRepayment(p)
}

// repayment begins the route of payments that make another good.
const repayment = "owed:"

func (a *attempt) settleRepayment(p ledger.Payment) error {
	a.engine.hold(a.r.Context(), p.ID)
	defer a.engine.letGo(p.ID)
	stop := a.engine.keep(a.r.Context(), p.ID, p.Hold.Fence)
	out, _ := a.engine.settle(context.WithoutCancel(a.r.Context()), p, a.payee, a.intent(&p))
	stop()
	ctx, cancel := a.detached()
	defer cancel()
	fence := p.Hold.Fence
	var steps []ledger.Change
	if out.Status == settlement.Settled {
		steps = repaidSteps(fence)
	}
	q, err := a.engine.record(ctx, p, out, actorRequest, steps...)
	switch {
	case err != nil:
		return unavailable(codeStore, err).of(p.ID)
	case out.Status == settlement.Failed && q.Settlement != ledger.Settled:
		return refuse(x402.Refuse(orReason(string(out.Reason)), "the transfer failed and charged nothing")).settled(p.ID, out)
	case q.Delivery != ledger.Delivered:
		a.engine.release(q, fence)
		return busy(p.ID).because(out.Err).after(out.Wait)
	}
	return a.writeRepaid(ctx, &q)
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

// writeRepaid records that p, which is settled, has made the debt good, and says so.
func (a *attempt) writeRepaid(ctx context.Context, p *ledger.Payment) error {
	if _, err := a.engine.makeGood(ctx, *a.debt, p.ID); err != nil {
		return unavailable(codeStore, err).of(p.ID)
	}
	a.decided("paid", "")
	body, err := json.Marshal(map[string]string{"payment": p.ID, "madeGood": a.debt.ID})
	if err != nil {
		return fmt.Errorf("writing an answer: %w", err)
	}
	a.addReceipt(a.w.Header(), p)
	return writeJSON(a.w, http.StatusOK, body)
}
