package paywall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/refund"
)

// What was paid and not delivered goes back by a payment of another kind (see ledger.Payment.PaysBack), the transfer back: the refund
// wallet is its payer, and its nonce is derived from the payment that goes back. It is claimed, and then pinned to that payment, before
// anything is signed; it is settled as every payment is; and when its block is safe, the payment is refunded. So
//   - who crashes, wherever that is, goes on with the same authorization, which the token executes once;
//   - a ledger that has forgotten that it paid, since it was restored from a copy, finds the transfer on the chain and pays nothing;
//   - it may be signed again as often as it expires, since that makes no other transfer of it;
//   - another wallet takes over only when the one before is done with: its transfer given up, and all that it may have signed
//     expired, or cancelled, at a safe block.
//
// A transfer back is never failed because it was refused now: the payment that goes back waits, or is REFUND_FAILED, and the
// transfer stays what it will be when it is tried again.

// Refunds says how refunds are paid.
type Refunds struct {
	// Signer opens the refund wallet. It is asked for each refund and may give the same each time; an error makes refunds wait.
	Signer func(context.Context) (refund.Signer, error)
	// Interval is how often refunds are looked after: all that are due then go out together. Default: 1 min.
	Interval time.Duration
	// MinAge is how old a payment must be, from its settlement, to go back. Default: 5 min.
	MinAge time.Duration
	// Batch is how many refunds one process begins in an interval, and has on their way at once. Default: 50.
	Batch int
}

// RefundLimits bound what goes back by itself, in atomic units of a payee's asset; zero: there is no bound.
type RefundLimits struct {
	// PerPayment: what is more than this is REFUND_FAILED, for the operator to decide: who has that tried again has it paid.
	PerPayment uint256.Int
	// PerDay is for all instances and each day of UTC together: what is above waits for the next day.
	PerDay uint256.Int
}

// tooDear reports whether p is not to go back by itself. That it failed for this, and is pending again, is an operator's decision.
func (l *RefundLimits) tooDear(p *ledger.Payment) bool {
	return !l.PerPayment.IsZero() && p.Amount.Gt(&l.PerPayment) && p.Reason != ReasonRefundTooDear
}

func (r *Refunds) withDefaults() *Refunds {
	if r == nil {
		return nil
	}
	s := *r
	for d, v := range map[*time.Duration]time.Duration{&s.Interval: time.Minute, &s.MinAge: 5 * time.Minute} {
		if *d <= 0 {
			*d = v
		}
	}
	if s.Batch <= 0 {
		s.Batch = 50
	}
	return &s
}

const (
	actorRefunder = "refunder"

	// refundRoute stands in the binding of a transfer back, whose URI is the payment that it pays back.
	refundRoute = "refund"
	// refundValidity is how long a signature for a transfer back is good, from before the ledger was asked whether to make it.
	refundValidity = 15 * time.Minute
	// refundSkew is how far the clocks of instances, ledger and chain may be apart.
	refundSkew = 5 * time.Minute
	// refundPin is how long it is remembered which transfer pays a payment back: for ever.
	refundPin = 100 * 365 * 24 * time.Hour
	// revokedFor is how long a token is revoked of which nobody knows when it ends.
	revokedFor = 400 * 24 * time.Hour
	// slowestRefund is how seldom a refund is looked at that nobody can pay, and a transfer back that waits for its payment.
	slowestRefund = time.Hour
)

// ReasonRefundTooDear is why a refund has failed that is more than RefundLimits.PerPayment.
const ReasonRefundTooDear = "refund_over_max_payment"

// Other reasons of refunds that failed.
const (
	reasonOverDay   = "refund_over_max_day"
	reasonRefused   = "refund_refused_by_token"
	reasonCancelled = "refund_authorization_cancelled"
	reasonGivenUp   = "refund_wallet_was_given_up"
	reasonDrawn     = "refund_of_a_plan_in_use"
)

// signedUntil is when nothing of the transfer back p can be executed any more: never, as long as it may be signed again.
func signedUntil(p *ledger.Payment) uint64 {
	if p.Settlement != ledger.Failed && p.Settlement != ledger.Void {
		return math.MaxInt64
	}
	return uint64(max(p.UpdatedAt.Add(refundValidity+refundSkew).Unix(), 0))
}

// refunder is what an engine knows of the refunds that it is at.
type refunder struct {
	mu      sync.Mutex
	under   map[string]struct{}  // by the payment that goes back
	said    map[string]time.Time // by reason: when it was logged last
	round   time.Time            // when the next one begins
	begun   int                  // since the last one began
	waiting int                  // how many were put off since then
}

// begin notes that a refund is under way, unless there are enough. wait is when it may be tried again.
func (r *refunder) begin(id string, s *Refunds, now time.Time) (ok bool, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, busy := r.under[id]; busy {
		return false, s.Interval // who is at it says when to look again
	}
	next := nextRound(now, s.Interval)
	if !next.Equal(r.round) {
		r.round, r.begun, r.waiting = next, 0, 0
	}
	if len(r.under) < s.Batch && r.begun < s.Batch {
		r.under[id] = struct{}{}
		r.begun++
		return true, 0
	}
	r.waiting++
	return false, next.Sub(now) + time.Duration((r.waiting-1)/s.Batch)*s.Interval
}

func (r *refunder) end(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.under, id)
}

// speaks reports whether something is to be logged that many refunds may have to say.
func (r *refunder) speaks(what string, every time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.Sub(r.said[what]) < every {
		return false
	}
	r.said[what] = now
	return true
}

// nextRound is when refunds are looked after again, after now. It is the same for all instances and all refunds, so that those that
// are due then travel together.
func nextRound(now time.Time, interval time.Duration) time.Time {
	return now.Truncate(interval).Add(interval)
}

// payBack goes on with the refund of p, which is pending, and whose own money is final. wait is when to look again; 0: that is said by
// whoever is at it, or there is nothing more to look at.
func (e *Engine) payBack(ctx context.Context, p ledger.Payment) (wait time.Duration, err error) {
	now := e.store.Now()
	_, back, err := e.pinned(ctx, &p)
	if err != nil {
		return slowestRecheck, err
	}
	if back != nil && back.Settlement == ledger.Settled {
		if !back.Final {
			e.lookAgain(back.ID, 0) // it may have waited for long, and be looked at seldom since
			return e.untilSafe(back), nil
		}
		return 0, e.refunded(ctx, p, back)
	}
	s, y := e.current().Refunds, e.payee(&p)
	if s == nil || y == nil {
		return max(slowestRecheck, min(now.Sub(p.UpdatedAt)/2, slowestRefund)), nil
	}
	if due := p.SettledAt.Add(s.MinAge); now.Before(due) {
		return nextRound(due, s.Interval).Sub(now), nil
	}
	ok, wait := e.refunds.begin(p.ID, s, now)
	if !ok {
		return wait, nil
	}
	r := &returning{e: e, s: s, y: y, p: p}
	e.background.Go(r.run)
	return 0, nil
}

// untilSafe is when to look whether a transfer back is safe.
func (e *Engine) untilSafe(back *ledger.Payment) time.Duration {
	return max(8*e.current().ReconcileEvery, min(e.store.Now().Sub(back.UpdatedAt)/2, slowestRecheck))
}

// pinned is the transfer that pays p back, nil if there is none yet. pin names it and its wallet, also where the ledger does not know it
// any more; empty if there never was one.
func (e *Engine) pinned(ctx context.Context, p *ledger.Payment) (pin ledger.Reservation, back *ledger.Payment, err error) {
	pin, err = e.store.Reservation(ctx, pinOf(p))
	if errors.Is(err, ledger.ErrNotFound) {
		return ledger.Reservation{}, nil, nil
	}
	if err != nil {
		return pin, nil, fmt.Errorf("reading what pays a payment back: %w", err)
	}
	q, err := e.store.Payment(ctx, pin.Payment)
	if errors.Is(err, ledger.ErrNotFound) {
		return pin, nil, nil
	}
	if err == nil {
		err = returns(&q, p)
	}
	if err != nil {
		return pin, nil, fmt.Errorf("reading what pays a payment back: %w", err)
	}
	return pin, &q, nil
}

func pinOf(p *ledger.Payment) common.Hash { return digest("refund", p.ID) }

var errNotItsRefund = errors.New("paywall: the transfer is not what pays the payment back")

// returns makes sure that back pays p back: just what was received, in what was received, to who paid, and once.
func returns(back, p *ledger.Payment) error {
	same := back.PaysBack() && back.Binding.URI == p.ID && back.ChainID == p.ChainID && back.Asset == p.Asset &&
		back.Nonce == refund.Nonce(p.AuthorizationID) && back.PayTo == p.Payer && back.Amount == p.Amount
	if !same {
		return fmt.Errorf("%w: %s for %s", errNotItsRefund, back.ID, p.ID)
	}
	return nil
}

// refunded writes that p was paid back, by a transfer whose block is safe; whether or not it had been given up.
func (e *Engine) refunded(ctx context.Context, p ledger.Payment, back *ledger.Payment) error {
	if err := returns(back, &p); err != nil {
		return err
	}
	wrote := false
	q, err := e.update(ctx, p, func(p ledger.Payment) []ledger.Change {
		done := ledger.Change{Event: ledger.EventRefunded, Actor: actorRefunder, Transaction: back.Transaction}
		wrote = true
		switch p.Refund {
		case ledger.RefundPending:
			return []ledger.Change{done}
		case ledger.RefundFailed:
			return []ledger.Change{{Event: ledger.EventRefundRetry, Actor: actorRefunder}, done}
		}
		wrote = false
		return nil
	})
	if err != nil || !wrote {
		return err
	}
	e.log(q.ID).Info("a payment was paid back", slog.String("transaction", back.Transaction.Hex()), slog.String("amount", q.Amount.Dec()))
	e.countRefund(&q, "refunded", "")
	return nil
}

// closeRefund is refunded for whoever has found the transfer back safe.
func (e *Engine) closeRefund(ctx context.Context, back *ledger.Payment) error {
	p, err := e.store.Payment(ctx, back.Binding.URI)
	if errors.Is(err, ledger.ErrNotFound) {
		e.log(back.ID).Error("the ledger does not know the payment that was paid back")
		return nil
	}
	if err == nil {
		err = e.refunded(ctx, p, back)
	}
	return err
}

// countRefund counts a refund that has come to an end.
func (e *Engine) countRefund(p *ledger.Payment, outcome, why string) {
	s := e.current()
	s.Observe(Observation{
		Event: "refund", Network: networkID(p.ChainID), Asset: s.symbol(p), Outcome: outcome, Reason: why, Amount: p.Amount,
	})
}

// foundBack writes what was found out about a transfer back. That it would fail now ends nothing: only one that was given up is over,
// when nothing that was signed for it can be executed any more.
func (e *Engine) foundBack(ctx context.Context, back ledger.Payment, out settlement.Outcome) (ledger.Payment, error) {
	live := back.Settlement == ledger.Claimed || back.Settlement == ledger.Settling
	if out.Status == settlement.Failed && live {
		return back, nil
	}
	return e.record(ctx, back, out, actorReconciler)
}
