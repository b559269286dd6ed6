package paywall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/internal/faultpoint"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/refund"
	"github.com/caddy-x402/caddy-x402/x402"
)

// returning is one refund that this process is at. No other instance looks at it meanwhile; should one do so all the same, it goes on
// with the same transfer.
type returning struct {
	e      *Engine
	s      *Refunds
	y      *Payee
	p      ledger.Payment // what goes back
	wallet refund.Signer
}

// run does what can be done now, and says when to look again.
func (r *returning) run() {
	ctx, cancel := context.WithTimeout(context.Background(), r.e.current().SettleTimeout+resolveTimeout)
	defer cancel()
	stop := r.e.putOff(ctx, r.p.ID, r.e.current().HoldTTL)
	wait, err := r.goOn(ctx)
	stop()
	if err != nil {
		r.waits("error", err)
	}
	now := r.e.store.Now()
	if wait <= 0 {
		wait = nextRound(now, r.s.Interval).Sub(now)
	}
	r.e.refunds.end(r.p.ID) // before it may be looked at again
	r.e.lookAgain(r.p.ID, wait)
}

// goOn takes the refund one step further. wait is when to look again; 0: at the next round.
func (r *returning) goOn(ctx context.Context) (wait time.Duration, err error) {
	if ok, err := r.received(ctx); err != nil || !ok {
		return 0, err
	}
	if r.wallet, err = r.s.Signer(ctx); err != nil {
		return 0, fmt.Errorf("opening the refund wallet: %w", err)
	}
	pin, back, err := r.e.pinned(ctx, &r.p)
	if err != nil {
		return 0, err
	}
	if back == nil {
		if pin.Payment != "" && pin.Fingerprint != walletOf(r.wallet.Address()) {
			return 0, fmt.Errorf("%w: the ledger has lost %s, by which another wallet has begun to pay it back", errForgotten, pin.Payment)
		}
		if back, err = r.prepare(ctx, pin.Payment); err != nil || back == nil {
			return 0, err
		}
	}
	over := back.Settlement == ledger.Failed || back.Settlement == ledger.Void
	switch {
	case back.Settlement == ledger.Settled:
		r.e.lookAgain(back.ID, 0)
		return r.e.untilSafe(back), nil
	case back.Payer != r.wallet.Address():
		return r.replace(ctx, *back)
	case over:
		return 0, r.fail(ctx, reasonGivenUp, nil)
	}
	if r.p.Binding.Plan != "" { // an instance that does not reach the ledger lets the token pass for max_stale
		if left := back.CreatedAt.Add(r.e.current().MaxStale).Sub(r.e.store.Now()); left > 0 {
			return left, nil
		}
		if drawn, err := r.drawn(ctx, back); err != nil || drawn {
			return 0, err
		}
	}
	return r.send(ctx)
}

// drawn reports whether somebody has got something of the plan that was bought, though it counts as undelivered: then nothing goes back
// by itself. A transfer back that may have been sent already goes on.
func (r *returning) drawn(ctx context.Context, back *ledger.Payment) (bool, error) {
	if back.Settlement != ledger.Claimed {
		return false, nil
	}
	drawn, err := r.e.touched(ctx, r.p.ID)
	if err == nil && drawn {
		err = r.fail(ctx, reasonDrawn, nil)
	}
	return drawn, err
}

// received reads the payment's own receipt again: what goes back is what the chain has, in a block that is safe.
func (r *returning) received(ctx context.Context) (bool, error) {
	asking, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	out := r.y.Settler.Resolve(asking, intent(&r.p, r.y))
	if out.Status == settlement.Settled && out.Final {
		return true, nil
	}
	if out.Err == nil {
		r.waits("payment_not_safe", errors.New("the chain does not show the payment in a safe block"))
	}
	return false, out.Err
}

// prepare claims the transfer back, and pins the payment to it. Nil without an error: it may not be paid, or not now.
func (r *returning) prepare(ctx context.Context, over string) (*ledger.Payment, error) {
	limits := &r.y.Refund
	if by, err := r.paidBy(ctx); err != nil || by != r.wallet.Address() {
		if err != nil {
			return nil, err
		}
		back, err := r.claim(ctx, by)
		if err != nil {
			return nil, err
		}
		return r.pin(ctx, back, over)
	}
	switch {
	case limits.tooDear(&r.p):
		return nil, r.fail(ctx, ReasonRefundTooDear, nil)
	case !limits.PerDay.IsZero() && r.p.Amount.Gt(&limits.PerDay):
		return nil, r.fail(ctx, reasonOverDay, nil)
	}
	if r.p.Binding.Plan != "" {
		until := r.p.PlanUntil
		if until.IsZero() {
			until = r.e.store.Now().Add(revokedFor)
		}
		if err := r.e.Revoke(ctx, r.p.ID, until); err != nil {
			return nil, fmt.Errorf("revoking the token that was bought: %w", err)
		}
	}
	if ok, err := r.spend(ctx); err != nil || !ok {
		return nil, err
	}
	back, err := r.claim(ctx, r.wallet.Address())
	if err != nil {
		return nil, err
	}
	return r.pin(ctx, back, over)
}

// paidBy is the wallet that is to pay the payment back: the configured one, or that which has done so already, as the chain shows. A
// ledger that was restored from an older copy does not know that, nor which wallet was configured then.
func (r *returning) paidBy(ctx context.Context) (common.Address, error) {
	configured := r.wallet.Address()
	t, ok := r.y.Settler.(settlement.Tracer)
	if !ok {
		return configured, nil
	}
	back := transferBack(&r.p, configured)
	payers, err := t.Payers(ctx, intent(&back, r.y))
	if err != nil {
		return configured, fmt.Errorf("looking whether it was paid back already: %w", err)
	}
	for _, who := range payers {
		if who != r.p.Payer { // who pays himself has not been paid back
			return who, nil
		}
	}
	return configured, nil
}

// errForgotten: nobody can say that the payment was not paid back.
var errForgotten = errors.New("paywall: the refund is not what was written")

// walletOf is how a pin names the wallet of its transfer back.
func walletOf(a common.Address) common.Hash { return common.BytesToHash(a[:]) }

// transferBack is the payment that pays p back from a wallet.
func transferBack(p *ledger.Payment, from common.Address) ledger.Payment {
	return ledger.Payment{
		PayTo: p.Payer, Amount: p.Amount, ValidBefore: math.MaxInt64, // it may be signed again
		AuthorizationID: x402.AuthorizationID{ChainID: p.ChainID, Asset: p.Asset, Payer: from, Nonce: refund.Nonce(p.AuthorizationID)},
		Binding:         ledger.Binding{Route: refundRoute, URI: p.ID}, Flow: ledger.FlowRefund,
		// Nothing was to be paid back before, so that a transfer which the ledger has forgotten is found.
		ClaimBlock: p.Block,
	}
}

// claim makes the transfer back from a wallet, or gives the one that there is.
func (r *returning) claim(ctx context.Context, from common.Address) (*ledger.Payment, error) {
	p, back := &r.p, transferBack(&r.p, from)
	var err error
	if back.ID, err = ledger.NewID(randomness, from); err != nil {
		return nil, fmt.Errorf("making a payment id: %w", err)
	}
	back, err = r.e.store.Claim(ctx, back, ledger.Change{Event: ledger.EventClaim, Actor: actorRefunder})
	if err != nil && !errors.Is(err, ledger.ErrExists) {
		return nil, fmt.Errorf("claiming a refund: %w", err)
	}
	return &back, returns(&back, p)
}

// pin makes back the transfer that pays the payment back, if that is none yet, or over, which is done with. It gives the one that is.
func (r *returning) pin(ctx context.Context, back *ledger.Payment, over string) (*ledger.Payment, error) {
	pin := ledger.Reservation{Key: pinOf(&r.p), Payment: back.ID, Fingerprint: walletOf(back.Payer)}
	_, err := r.e.store.Reserve(ctx, pin, over, refundPin)
	if err != nil && !errors.Is(err, ledger.ErrExists) {
		return nil, fmt.Errorf("pinning a refund: %w", err)
	}
	faultpoint.Reached("pinned")
	_, back, err = r.e.pinned(ctx, &r.p)
	return back, err
}

// send signs the transfer back, and has it settled.
func (r *returning) send(ctx context.Context) (wait time.Duration, err error) {
	at := r.e.store.Now() // before it is known that it may be signed: see signedUntil
	back, err := r.mayBeSigned(ctx)
	if err != nil || back == nil {
		return 0, err
	}
	in := intent(back, r.y)
	in.Authorization.ValidBefore.SetUint64(uint64(at.Add(refundValidity).Unix()))
	if err := refund.Sign(ctx, r.wallet, &in); err != nil {
		return 0, err
	}
	if in.Exchange, err = refund.Exchange(&in, refundValidity); err != nil {
		return 0, err
	}
	if back.Settlement == ledger.Claimed {
		_, err := r.y.Settler.Check(ctx, in)
		switch why := x402.ReasonOf(err); {
		case why == x402.ReasonNonceUsed: // it was paid, and forgotten
		case why != "":
			return 0, r.refused(ctx, *back, in, why, err)
		case err != nil:
			return 0, err
		}
	}
	faultpoint.Reached("refunding")
	out := settle(ctx, r.y.Settler, in)
	switch out.Status {
	case settlement.Settled:
		faultpoint.Reached("returned")
		q, err := r.e.record(context.WithoutCancel(ctx), *back, out, actorRefunder)
		r.e.lookAgain(q.ID, r.e.untilSafe(&q))
		return r.e.untilSafe(&q), err
	case settlement.Failed:
		return 0, r.refused(ctx, *back, in, out.Reason, out.Err)
	}
	if out.Err == nil {
		out.Err = errors.New("nobody knows yet whether it was paid")
	}
	return 0, out.Err
}

// mayBeSigned reads, afresh, whether the payment still is to go back, and by which transfer of this wallet. Nil: it is not.
func (r *returning) mayBeSigned(ctx context.Context) (*ledger.Payment, error) {
	p, err := r.e.store.Payment(ctx, r.p.ID)
	if err != nil || p.Refund != ledger.RefundPending {
		return nil, err
	}
	_, back, err := r.e.pinned(ctx, &p)
	if err != nil || back == nil || back.Payer != r.wallet.Address() {
		return nil, err
	}
	if back.Settlement != ledger.Claimed && back.Settlement != ledger.Settling {
		return nil, nil
	}
	return back, nil
}

// refused decides what it means that the transfer back would not be made now. Where the refund wallet, the gas wallet or the token is
// the cause, it waits; a payer that the token refuses is for the operator.
func (r *returning) refused(ctx context.Context, back ledger.Payment, in settlement.Intent, why x402.Reason, cause error) error {
	switch why {
	case x402.ReasonInsufficientBalance:
		r.waits(waitsEmpty, cause)
		return nil
	case x402.ReasonSimulationFailed:
		if passing := r.passing(ctx, cause); passing != "" {
			r.waits(passing, cause)
			return nil
		}
		// The cause is looked for after the refusal, and may be gone by then: the wallet was just filled. Only what is refused again is for
		// the operator.
		if _, again := r.y.Settler.Check(ctx, in); x402.ReasonOf(again) != why {
			r.waits("not_settled", cause)
			return nil
		}
		return r.fail(ctx, reasonRefused, cause)
	case x402.ReasonNonceUsed:
		out := r.y.Settler.Resolve(ctx, intent(&back, r.y))
		if out.Status == settlement.Failed && out.Final {
			return r.fail(ctx, reasonCancelled, out.Err)
		}
		_, err := r.e.foundBack(ctx, back, out)
		return errors.Join(err, out.Err)
	}
	r.waits("not_settled", fmt.Errorf("%s: %w", why, cause))
	return nil
}

// passing says why the token refuses all transfers of the refund wallet for now; empty if it may be this one's payee that it refuses. That the
// wallet has too little is told by the simulation where others took what was there when its balance was read.
func (r *returning) passing(ctx context.Context, cause error) string {
	said := ""
	if cause != nil {
		said = strings.ToLower(cause.Error())
	}
	switch {
	case strings.Contains(said, "pause"):
		return "token_paused"
	case strings.Contains(said, "exceeds balance"):
		return waitsEmpty
	}
	if balance, err := r.e.refundBalance(ctx, r.y, r.wallet); err == nil && balance != nil && balance.Lt(&r.p.Amount) {
		return waitsEmpty
	}
	return ""
}

// waitsEmpty is why refunds wait that the refund wallet has too little for.
const waitsEmpty = "wallet_empty"

// waits counts a refund that can't be paid now, and says why, once for all that wait for the same.
func (r *returning) waits(why string, cause error) {
	r.e.current().Observe(Observation{
		Event: "refund", Network: r.y.Network.ID, Asset: r.y.Network.Asset.Symbol, Outcome: "waiting", Reason: why, Amount: r.p.Amount,
	})
	if r.e.refunds.speaks(r.y.Network.ID+" "+why, r.s.Interval) {
		log := r.e.log(r.p.ID).With(slog.String("network", r.y.Network.ID), slog.String("reason", why))
		if r.wallet != nil {
			log = log.With(slog.String("wallet", r.wallet.Address().Hex()))
		}
		log.Warn("a refund waits; it is tried again", slog.Any("error", cause))
	}
}

// fail gives the refund up until the operator wants it tried again.
func (r *returning) fail(ctx context.Context, why string, cause error) error {
	wrote := false
	q, err := r.e.update(ctx, r.p, func(p ledger.Payment) []ledger.Change {
		if wrote = p.Refund == ledger.RefundPending; !wrote {
			return nil
		}
		return []ledger.Change{{Event: ledger.EventRefundFailed, Actor: actorRefunder, Reason: why}}
	})
	if err != nil || !wrote {
		return err
	}
	log := r.e.log(q.ID).With(slog.String("network", r.y.Network.ID), slog.String("reason", why))
	if cause != nil {
		log = log.With(slog.Any("error", cause))
	}
	log.Error("a payment can't be paid back", slog.String("amount", q.Amount.Dec()),
		slog.String("what_to_do", "see caddy x402 refunds list; when the cause is gone, caddy x402 refunds retry "+q.ID))
	r.e.countRefund(&q, "failed", why)
	return nil
}

// replace goes on with a refund that another wallet than the configured one has begun. As long as that one's transfer may be made,
// nobody else makes one: it is given up, and followed by another when the chain says that it is over.
func (r *returning) replace(ctx context.Context, back ledger.Payment) (wait time.Duration, err error) {
	now := r.e.store.Now()
	if back.Settlement == ledger.Failed || back.Settlement == ledger.Void {
		if !back.Final {
			r.waits("wallet_changed", nil)
			r.e.lookAgain(back.ID, 0)
			return slowestRecheck, nil
		}
		by, err := r.paidBy(ctx)
		if err != nil {
			return 0, err
		}
		next, err := r.claim(ctx, by)
		if err == nil {
			_, err = r.pin(ctx, next, back.ID)
		}
		return time.Second, err
	}
	asking, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	out := r.y.Settler.Resolve(asking, intent(&back, r.y))
	switch {
	case out.Status == settlement.Settled:
		_, err := r.e.foundBack(ctx, back, out)
		return time.Second, err
	case out.Status == settlement.Unknown && out.Err != nil:
		return 0, out.Err
	}
	r.waits("wallet_changed", nil)
	// Somebody may think better of it.
	seen, err := r.e.store.Reserve(ctx, ledger.Reservation{Key: digest("refund replaced", back.ID), Payment: back.ID}, "", 2*refundValidity)
	if err != nil && !errors.Is(err, ledger.ErrExists) {
		return 0, fmt.Errorf("noting that the refund wallet has changed: %w", err)
	}
	if now.Sub(seen.CreatedAt) < refundValidity {
		return slowestRecheck, nil
	}
	_, err = r.e.update(ctx, back, func(p ledger.Payment) []ledger.Change {
		c := ledger.Change{Actor: actorRefunder, Reason: "refund_wallet_changed"}
		switch p.Settlement {
		case ledger.Claimed:
			c.Event = ledger.EventVoid
		case ledger.Settling:
			c.Event = ledger.EventFail
		default:
			return nil
		}
		return []ledger.Change{c}
	})
	return slowestRecheck, err
}

// refundOf is the transaction that pays p back, or paid it back; zero if there is none that anybody could look at.
func (e *Engine) refundOf(ctx context.Context, p *ledger.Payment) (common.Hash, error) {
	if p.Refund == ledger.NotRefunded {
		return common.Hash{}, nil
	}
	_, back, err := e.pinned(ctx, p)
	if err != nil {
		return common.Hash{}, err
	}
	if back != nil && back.Transaction != (common.Hash{}) {
		return back.Transaction, nil
	}
	if p.Refund != ledger.Refunded {
		return common.Hash{}, nil
	}
	trail, err := e.store.Audit(ctx, p.ID)
	for i := range trail {
		if trail[i].Event == ledger.EventRefunded {
			return trail[i].Transaction, nil
		}
	}
	return common.Hash{}, err
}
