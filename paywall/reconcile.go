package paywall

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
)

const (
	actorReconciler = "reconciler"

	// reconcileBatch is how many payments one round leases, and reconcileLease for how long.
	reconcileBatch = 256
	reconcileLease = time.Minute
	// resolveTimeout bounds what one payment may cost the others of a round.
	resolveTimeout = 15 * time.Second
	// reconcileAtOnce is how many payments are looked for on the chain at the same time: one whose chain does not answer must
	// not keep all others waiting. Those of which all is known are written together, as the ledger can commit them.
	reconcileAtOnce = 16
	// leaveWithin is how long an engine that closes has to give back what it has leased.
	leaveWithin = 2 * time.Second
	// slowestRecheck is how seldom a payment is looked at that only time can end.
	slowestRecheck = 2 * time.Minute

	reasonInterrupted  = "delivery_interrupted"
	reasonNotCollected = "not_collected"
)

// reconcileLoop ends every open payment, whatever happened to the request that made it: at once, since a
// process that starts may have died before, and then by interval.
func (e *Engine) reconcileLoop(ctx context.Context) {
	defer close(e.reconciled)
	for {
		e.reconcile(ctx)
		t := time.NewTimer(e.current().ReconcileEvery)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-e.wake:
			t.Stop()
		case <-t.C:
		}
	}
}

func (e *Engine) reconcile(ctx context.Context) {
	for ctx.Err() == nil {
		due, err := e.store.Lease(ctx, reconcileBatch, reconcileLease)
		if err != nil {
			if ctx.Err() == nil {
				e.current().Logger.Error("the ledger can't be read; open payments wait", slog.Any("error", err))
				e.current().Observe(Observation{Event: "round", Outcome: "failed"})
			}
			return
		}
		e.reconcileAll(ctx, due, e.review(ctx, due))
		e.current().Observe(Observation{Event: "round", Outcome: "done"})
		if len(due) < reconcileBatch {
			return
		}
	}
}

// reconcileAll moves on all payments of a round, and says when each is looked at again; also where the engine closes meanwhile, or whoever
// comes after it would wait for the lease to end.
func (e *Engine) reconcileAll(ctx context.Context, due []ledger.Payment, known map[string]*settlement.Outcome) {
	leaving, cancel := outlive(ctx, leaveWithin)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	one := func(p ledger.Payment, out *settlement.Outcome) {
		next := e.reconcileOne(ctx, p, out)
		if next <= 0 {
			return
		}
		if err := e.store.Recheck(leaving, p.ID, next); err != nil {
			e.log(p.ID).Warn("a payment's next look could not be set", slog.Any("error", err))
		}
	}
	var asked []ledger.Payment
	for _, p := range due {
		if out := known[p.ID]; out != nil {
			wg.Go(func() { one(p, out) })
		} else {
			asked = append(asked, p)
		}
	}
	free := make(chan struct{}, reconcileAtOnce)
	for _, p := range asked {
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			one(p, nil)
		})
	}
}

// outlive gives a context that ends by some time after ctx: for what is left to say when there is no time to do more.
func outlive(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	longer, end := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(by, end) })
	return longer, func() {
		stop()
		end()
	}
}

// reconcileOne moves one payment on as far as the chain allows. next is when to look again; 0 where nobody needs to. out is what is
// known already; nil if nothing is.
func (e *Engine) reconcileOne(ctx context.Context, p ledger.Payment, out *settlement.Outcome) (next time.Duration) {
	if ctx.Err() != nil {
		return e.current().ReconcileEvery
	}
	asking, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	q, wait, err := e.resolvePayment(asking, p, out)
	// What is paid and was not served does not wait for the chain to be held for refund.
	q, derr := e.resolveDelivery(ctx, q)
	err = errors.Join(err, derr)
	next = max(e.recheckAfter(&q), min(wait, slowestRecheck))
	switch {
	case q.Refund == ledger.RefundPending && q.Final:
		next, derr = e.payBack(ctx, q)
	case q.PaysBack() && q.Settlement == ledger.Settled && q.Final:
		derr = e.closeRefund(ctx, &q)
	}
	err = errors.Join(err, derr)
	if err != nil && ctx.Err() == nil && !errors.Is(err, errGivenUp) {
		e.log(p.ID).Warn("a payment could not be reconciled; it is tried again", slog.Any("error", err))
	}
	switch {
	case next <= 0 || !q.Open(): // also where the engine closes: who is at a refund goes on with it, and says when to look again
		return 0
	case ctx.Err() != nil:
		return e.current().ReconcileEvery // it was not looked at to the end
	}
	return next
}

// resolvePayment asks what became of a payment's money, and writes it. wait is how long that will take, about, if it is known.
func (e *Engine) resolvePayment(
	ctx context.Context, p ledger.Payment, known *settlement.Outcome,
) (q ledger.Payment, wait time.Duration, err error) {
	if p.Final || p.Settlement == ledger.Pending || p.PaysBack() && p.Settlement == ledger.Claimed {
		return p, 0, nil
	}
	y := e.payee(&p)
	if y == nil {
		e.log(p.ID).Warn("a payment waits on a network that is not configured any more", slog.Uint64("chain", p.ChainID))
		return p, 0, nil
	}
	if p.Settlement == ledger.Claimed && p.State() == ledger.StateOwed {
		if e.collecting(p.ID) || e.collectsEnough() {
			return p, 0, nil
		}
		in, err := e.entrusted(ctx, &p, y)
		if err == nil {
			e.collect(ctx, p, y, in, nil) // beside the others: all that a process has left behind travels together
			return p, 0, nil
		}
		// Without what settles it somebody else may have; or it expires, and is lost.
		e.log(p.ID).Error("what would settle an owed payment can't be read", slog.Any("error", err))
	}
	if known == nil {
		out := y.Settler.Resolve(ctx, intent(&p, y))
		known = &out
	}
	q, err = e.found(ctx, p, y, known)
	return q, known.Wait, err
}

// found writes what a settler found out about p.
func (e *Engine) found(ctx context.Context, p ledger.Payment, y *Payee, out *settlement.Outcome) (ledger.Payment, error) {
	if out.Status == settlement.Unknown {
		return p, out.Err
	}
	if p.PaysBack() && p.Settlement != ledger.Settled {
		return e.foundBack(ctx, p, *out)
	}
	if p.Settlement == ledger.Settled && out.Status == settlement.Failed {
		e.log(p.ID).Error("a settled payment is not on chain any more", slog.String("transaction", p.Transaction.Hex()))
		e.current().Observe(Observation{Event: "reorg", Network: y.Network.ID, Outcome: "failed"})
		return p, nil
	}
	if p.Settlement == ledger.Claimed && out.Status == settlement.Failed && p.State() != ledger.StateOwed {
		return e.giveUp(ctx, p, *out)
	}
	return e.record(ctx, p, *out, actorReconciler)
}

// giveUp ends a claim for which nothing was sent. One that can still be executed is left alone: its client
// may come back with the same header.
func (e *Engine) giveUp(ctx context.Context, p ledger.Payment, out settlement.Outcome) (ledger.Payment, error) {
	if !out.Final {
		return p, nil
	}
	return e.update(ctx, p, func(p ledger.Payment) []ledger.Change {
		if p.Settlement != ledger.Claimed || p.Held(e.store.Now()) {
			return nil
		}
		return []ledger.Change{
			{Event: ledger.EventVoid, Actor: actorReconciler, Reason: string(out.Reason)},
			{Event: ledger.EventFinal, Actor: actorReconciler},
		}
	})
}

// resolveDelivery holds for refund what was paid and can't, or will not, be served any more.
func (e *Engine) resolveDelivery(ctx context.Context, p ledger.Payment) (ledger.Payment, error) {
	return e.update(ctx, p, func(p ledger.Payment) []ledger.Change {
		now := e.store.Now()
		if p.Settlement == ledger.Claimed && p.Delivery == ledger.Delivering && !replayable(p.Binding.Method) && !p.Held(now) {
			return interrupted(&p, actorReconciler) // the upstream may have done it; whoever held its answer is gone
		}
		if p.Facilitated() || p.PaysBack() || p.Settlement != ledger.Settled || p.Refund != ledger.NotRefunded || p.Held(now) {
			return nil
		}
		c := ledger.Change{Event: ledger.EventUndelivered, Actor: actorReconciler}
		switch {
		case p.Delivery == ledger.Delivering && !replayable(p.Binding.Method):
			c.Reason = reasonInterrupted
		case p.Delivery != ledger.NotDelivered && p.Delivery != ledger.Delivering:
			return nil
		case now.Sub(p.SettledAt) < e.current().CollectWithin:
			return nil
		default:
			c.Reason = reasonNotCollected
		}
		return []ledger.Change{c}
	})
}

// recheckAfter is soon for what a client may be waiting for, and later for what only time can end.
func (e *Engine) recheckAfter(p *ledger.Payment) time.Duration {
	every := e.current().ReconcileEvery
	switch p.Settlement {
	case ledger.Claimed:
		if p.PaysBack() {
			return slowestRefund // its payment goes on with it
		}
		if p.State() == ledger.StateOwed && e.collecting(p.ID) {
			return e.current().HoldTTL // who collects it says when to look again
		}
		if p.State() == ledger.StateOwed {
			return every
		}
	case ledger.Settling:
		return every
	case ledger.Settled:
		if p.Refund == ledger.NotRefunded && p.Delivery != ledger.Delivered && !p.Facilitated() && !p.PaysBack() {
			return every
		}
	}
	// The older, the less often: a safe block comes after minutes, an authorization's end after an hour at most.
	return max(8*every, min(e.store.Now().Sub(p.UpdatedAt)/2, slowestRecheck))
}
