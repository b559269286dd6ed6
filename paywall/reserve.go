package paywall

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

// want is something that this request buys and that is bought once: a plan, or what belongs to an idempotency key. Whoever's
// payment it is reserved for in the ledger, of all instances, has bought it.
type want struct {
	key         common.Hash
	fingerprint common.Hash // zero for plans
	ttl         time.Duration
	conflict    int // status if the key came with another fingerprint before; zero for plans
}

func (w *want) plan() bool { return w.conflict == 0 }

// planTTL is how long a plan stays reserved. Once it is delivered it is found by itself, so this must only outlast the time
// between the look at what the payer has and the reservation.
const planTTL = time.Hour

// wanted lists what a payment for b would have to have reserved.
func (a *attempt) wanted(id x402.AuthorizationID, b ledger.Binding) []want {
	var list []want
	if b.Plan != "" {
		list = append(list, want{ttl: planTTL, key: digest(
			"plan", chainText(id.ChainID), string(id.Payer[:]), ledger.Text(a.Route.Scope), ledger.Text(b.Plan), a.Host,
		)})
	}
	if !a.keyed() {
		return list
	}
	fingerprint := a.fingerprint(b, id)
	for _, k := range a.keys {
		list = append(list, want{
			key: k.hash(id, a.Host), fingerprint: fingerprint, ttl: a.Idempotency.TTL, conflict: k.conflict(),
		})
	}
	return list
}

// reserved finds what the request's keys are reserved for; nil if for nothing yet. Of several, the one with an answer counts, and
// then the first.
func (a *attempt) reserved(ctx context.Context) (*ledger.Reservation, error) {
	var found *ledger.Reservation
	for i := range a.wants {
		w := &a.wants[i]
		if w.plan() {
			continue
		}
		r, err := a.reservation(ctx, w.key)
		switch {
		case errors.Is(err, ledger.ErrNotFound):
			continue
		case err != nil:
			return nil, unavailable(codeStore, err)
		case r.Fingerprint != w.fingerprint:
			return nil, conflict(w.conflict)
		}
		if found == nil || len(found.Answer) == 0 && len(r.Answer) > 0 {
			found = &r
		}
	}
	return found, nil
}

// serveByKey serves a request whose keys are reserved for another payment than own. proof is as in serveWith.
func (a *attempt) serveByKey(ctx context.Context, own string, proof *proof) (done bool, err error) {
	if !a.keyed() {
		return false, nil
	}
	r, err := a.reserved(ctx)
	if err != nil || r == nil || r.Payment == own {
		return false, err
	}
	p, err := a.engine.store.Payment(ctx, r.Payment)
	switch {
	case errors.Is(err, ledger.ErrNotFound): // forgotten by a ledger that forgets, or lost
		return true, notStored(nil)
	case err != nil:
		return true, unavailable(codeStore, err)
	}
	if inDoubt(&p) {
		return true, mayBeDone(&p)
	}
	return a.serveWith(ctx, p, proof)
}

// start goes on with p, which this request holds, once all that it buys is reserved for p. If that is another payment's, p is given
// up, or back if it was paid for, and other is that payment.
func (a *attempt) start(ctx context.Context, p ledger.Payment, proof *proof) (other *ledger.Payment, err error) {
	other, err = a.reserve(ctx, &p)
	if err == nil && other == nil && proof != nil {
		err = a.voidNew(ctx, proof, &p)
	}
	switch {
	case err != nil:
		a.giveBack(p, "")
		return nil, err
	case other != nil:
		a.giveBack(p, other.ID)
		return other, nil
	}
	return nil, a.proceed(p)
}

// reserve reserves for p what it buys. other is a payment that something of it is reserved for.
func (a *attempt) reserve(ctx context.Context, p *ledger.Payment) (other *ledger.Payment, err error) {
	for i := range a.wants {
		w := &a.wants[i]
		if w.plan() && p.Settlement != ledger.Claimed {
			continue // nobody else can have bought it; and it is paid for
		}
		if other, err := a.reserveOne(ctx, p, w); err != nil || other != nil {
			return other, err
		}
	}
	return a.reserveAccess(ctx, p)
}

// mostHolders bounds how many dead payments one that reserves something may find in its way, one after another.
const mostHolders = 8

func (a *attempt) reserveOne(ctx context.Context, p *ledger.Payment, w *want) (other *ledger.Payment, err error) {
	over := ""
	for range mostHolders {
		r, err := a.engine.store.Reserve(ctx, ledger.Reservation{Key: w.key, Fingerprint: w.fingerprint, Payment: p.ID}, over, w.ttl)
		switch {
		case err == nil, errors.Is(err, ledger.ErrExists) && r.Payment == p.ID:
			return nil, nil
		case !errors.Is(err, ledger.ErrExists):
			return nil, unavailable(codeStore, err).of(p.ID)
		case !w.plan() && r.Fingerprint != w.fingerprint:
			return nil, conflict(w.conflict)
		}
		q, dead, err := a.holder(ctx, w, r.Payment)
		if err != nil {
			return nil, err
		}
		if !dead && q.ID != p.ID {
			return q, nil
		}
		over = r.Payment
	}
	return nil, busy("")
}

// holder is the payment that serves where w is reserved for the payment id; dead if that came to nothing, so that another may
// have it.
func (a *attempt) holder(ctx context.Context, w *want, id string) (_ *ledger.Payment, dead bool, err error) {
	p, err := a.engine.store.Payment(ctx, id)
	switch {
	case errors.Is(err, ledger.ErrNotFound) && w.plan():
		return nil, true, nil
	case errors.Is(err, ledger.ErrNotFound):
		return nil, false, notStored(nil)
	case err != nil:
		return nil, false, unavailable(codeStore, err)
	}
	for range maxServedBy {
		if p.ServedBy == "" {
			break
		}
		q, err := a.engine.store.Payment(ctx, p.ServedBy)
		if errors.Is(err, ledger.ErrNotFound) {
			break
		}
		if err != nil {
			return nil, false, unavailable(codeStore, err)
		}
		p = q
	}
	switch {
	case !w.plan() && inDoubt(&p):
		return nil, false, mayBeDone(&p)
	case p.Settlement == ledger.Failed, p.Settlement == ledger.Void:
		return &p, true, nil
	case p.Settlement == ledger.Claimed && !p.Held(a.engine.store.Now()) && !a.carries(&p): // whoever claimed it is gone
		return &p, true, a.supersede(ctx, p)
	case !w.plan():
		return &p, false, nil
	}
	ended := p.Delivery == ledger.Delivered && (!p.PlanUntil.After(a.Now()) || a.spent[p.ID] || a.engine.revoked.Has(p.ID))
	return &p, ended || p.Delivery == ledger.Undelivered || p.Refund != ledger.NotRefunded, nil
}

// inDoubt reports whether the upstream was asked to do something for p, and its answer reached nobody, though nothing was charged.
// A key says that a request is to be done once, so it is not done again under that key.
func inDoubt(p *ledger.Payment) bool {
	over := p.Settlement == ledger.Failed || p.Settlement == ledger.Void
	begun := p.Delivery == ledger.Delivering || p.Delivery == ledger.Undelivered
	return over && begun && !replayable(p.Binding.Method) && !strings.HasPrefix(p.Reason, upstreamStatus)
}

// giveBack lets go of p: a claim, of which nothing was sent, is void, and served by another payment if there is one.
func (a *attempt) giveBack(p ledger.Payment, servedBy string) {
	if a.loan != nil {
		a.engine.lendNothing(p.ID, a.loan)
		a.loan = nil
	}
	if p.Settlement != ledger.Claimed {
		a.engine.release(p, p.Hold.Fence)
		return
	}
	ctx, cancel := a.detached()
	defer cancel()
	fence := p.Hold.Fence
	_, err := a.engine.update(ctx, p, func(p ledger.Payment) []ledger.Change {
		if p.Settlement != ledger.Claimed || p.Hold.Fence != fence {
			return nil
		}
		if servedBy == "" { // the same header may try again
			return []ledger.Change{{Event: ledger.EventRelease, Actor: actorRequest, Fence: fence}}
		}
		return []ledger.Change{{Event: ledger.EventVoid, Actor: actorRequest, Reason: string(ReasonSuperseded), ServedBy: servedBy}}
	})
	if err != nil {
		a.Logger.Warn("a claim could not be given up; the reconciler will", slog.String("payment", p.ID), slog.Any("error", err))
	}
}

// begun goes on with a new claim.
func (a *attempt) begun(ctx context.Context, p ledger.Payment) error {
	other, err := a.start(ctx, p, nil)
	if err != nil || other == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, a.engine.current().SettleTimeout)
	defer cancel()
	return a.serveOr(ctx, *other)
}
