package paywall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

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
		return busy(p.ID).because(out.Err).after(out.Wait)
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
	a.decided("paid", "")
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
