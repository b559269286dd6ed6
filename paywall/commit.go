package paywall

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// commit writes the decision. While nobody can tell whether a write was made it is tried again: a payment that is delivered in the
// ledger is served by nobody else, so its answer must go out, and one that is not must not.
func (d *deliveryWriter) commit(c ledger.Change) error {
	e := d.attempt.engine
	patience, cancel := context.WithTimeout(context.WithoutCancel(d.attempt.r.Context()), e.current().SettleTimeout)
	defer cancel()
	var doubt error
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		p, err := d.write(c)
		if err != nil && doubt != nil {
			p, err = d.reread(c, err, doubt)
		}
		if err == nil {
			d.payment = p
			if p.Settlement == ledger.Void && d.attempt.loan != nil {
				e.lendNothing(p.ID, d.attempt.loan)
			}
			d.attempt.observeDelivery(deliveryOutcome(&p), c.Reason)
			return nil
		}
		if !uncertain(err) {
			return err
		}
		doubt = err
		select {
		case <-patience.Done():
			return err
		case <-time.After(pause):
		}
	}
}

func (d *deliveryWriter) write(c ledger.Change) (ledger.Payment, error) {
	ctx, cancel := d.attempt.detached()
	defer cancel()
	return d.attempt.engine.update(ctx, d.payment, func(p ledger.Payment) []ledger.Change {
		cs := outcomeChanges(p, d.out, actorRequest)
		if p.Flow == ledger.FlowDeferred && p.Delivery == ledger.NotDelivered && c.Event == ledger.EventDelivered { // what is owed is begun and done at once
			cs = append(cs, ledger.Change{Event: ledger.EventDeliver, Actor: actorRequest, Fence: d.fence, Hold: writeTimeout})
		}
		cs = append(cs, c) // a fence that was overtaken refuses it
		if c.Event == ledger.EventUndelivered && p.Settlement == ledger.Claimed {
			cs = append(cs, ledger.Change{Event: ledger.EventVoid, Actor: actorRequest, Reason: c.Reason}) // and never will be sent
		}
		return cs
	})
}

// uncertain reports whether a write that failed with err may have been made all the same (see ledger.Store).
func uncertain(err error) bool {
	for _, no := range []error{
		context.Canceled, context.DeadlineExceeded, ledger.ErrTransition, ledger.ErrFence, ledger.ErrConflict, ledger.ErrNotFound,
		ledger.ErrClosed, errGivenUp,
	} {
		if errors.Is(err, no) {
			return false
		}
	}
	return true
}

// reread finds out whether a change was made by a write before, whose outcome the ledger could not tell, when another try has
// failed with err. Only what the payment's state refuses can't come in any more.
func (d *deliveryWriter) reread(c ledger.Change, err, doubt error) (ledger.Payment, error) {
	ctx, cancel := d.attempt.detached()
	defer cancel()
	p, failed := d.attempt.engine.store.Payment(ctx, d.payment.ID)
	if failed != nil {
		return p, doubt
	}
	made := p.Delivery == ledger.Delivered && c.Event == ledger.EventDelivered ||
		p.Delivery == ledger.Undelivered && c.Event == ledger.EventUndelivered
	switch {
	case made && p.Hold.Fence == d.fence:
		return p, nil
	case errors.Is(err, ledger.ErrFence) && p.Hold.Fence == d.fence: // the hold has run out, which a write on its way need not have seen
		release := ledger.Change{Event: ledger.EventRelease, Actor: actorRequest, Fence: d.fence}
		if _, failed = d.attempt.engine.store.Update(ctx, p.ID, p.Version, release); failed == nil {
			return p, err // and it finds another version
		}
		return p, doubt
	case errors.Is(err, ledger.ErrTransition), errors.Is(err, ledger.ErrFence):
		return p, err
	}
	return p, doubt
}
