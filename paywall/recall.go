package paywall

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// headerReplayed says that an answer was given before.
const headerReplayed = "Idempotency-Replayed"

// answerGrace is how long an answer that another process gives may still be on its way after its first byte. Nobody knows of a
// process whether it is alive.
const answerGrace = 30 * time.Second

// recall answers a request with a key by the stored answer to the payment that its key is reserved for, once that is there.
// done is false if this is not that payment, or was never answered, or is a plan's, which can be served again.
func (a *attempt) recall(ctx context.Context, p *ledger.Payment) (done bool, err error) {
	if !a.keyed() || p.Delivery != ledger.Delivered && p.Delivery != ledger.Undelivered {
		return false, nil
	}
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		working := a.engine.working(p.ID) // before the look: what is stored is stored by then
		bound, missing, err := a.bound(ctx, p.ID)
		if err != nil || bound == nil {
			return err != nil, err
		}
		if len(bound.Answer) > 0 {
			return true, a.replay(ctx, p, bound, missing)
		}
		again := p.Delivery == ledger.Undelivered || p.Binding.Plan != "" && replayable(a.r.Method) && replayable(p.Binding.Method)
		if !working && (again || a.engine.store.Now().Sub(p.DeliveredAt) > answerGrace) {
			if again {
				return false, nil
			}
			return true, notStored(p)
		}
		a.engine.pause(ctx, p.ID, pause)
		if ctx.Err() != nil {
			return true, inProgress(p.ID)
		}
	}
}

// bound is the reservation of the request's keys for a payment, nil if there is none, and the keys that are not reserved at all.
func (a *attempt) bound(ctx context.Context, payment string) (found *ledger.Reservation, missing []want, err error) {
	for _, w := range a.wants {
		if w.plan() {
			continue
		}
		r, err := a.reservation(ctx, w.key)
		switch {
		case errors.Is(err, ledger.ErrNotFound):
			missing = append(missing, w)
			continue
		case err != nil:
			return nil, nil, unavailable(codeStore, err)
		case r.Fingerprint != w.fingerprint:
			return nil, nil, conflict(w.conflict)
		case r.Payment != payment && !a.gaveWay(ctx, r.Payment, payment):
			continue
		}
		if found == nil || len(found.Answer) == 0 {
			found = &r
		}
	}
	return found, missing, nil
}

// reservation reads by key. What has an answer keeps it, so that is read once: it may be long.
func (a *attempt) reservation(ctx context.Context, key common.Hash) (ledger.Reservation, error) {
	if r, ok := a.kept[key]; ok {
		return r, nil
	}
	r, err := a.engine.store.Reservation(ctx, key)
	if err == nil && len(r.Answer) > 0 {
		if a.kept == nil {
			a.kept = make(map[common.Hash]ledger.Reservation)
		}
		a.kept[key] = r
	}
	return r, err
}

// gaveWay reports whether the payment id was given up since its request is served by another.
func (a *attempt) gaveWay(ctx context.Context, id, to string) bool {
	for range maxServedBy {
		p, err := a.engine.store.Payment(ctx, id)
		if err != nil || p.ServedBy == "" {
			return false
		}
		if id = p.ServedBy; id == to {
			return true
		}
	}
	return false
}

// replay gives a stored answer again. A key that came with it for the first time finds it from now on, too. Nobody pays for either, so
// whoever asks for much of it is slowed down like one whose payments are refused; a new key, which is a write, weighs more.
func (a *attempt) replay(ctx context.Context, p *ledger.Payment, r *ledger.Reservation, missing []want) error {
	s, err := decodeAnswer(r.Answer)
	if err == nil && s.See != (common.Hash{}) {
		first, lost := a.reservation(ctx, s.See)
		switch {
		case errors.Is(lost, ledger.ErrNotFound):
			return notStored(p)
		case lost != nil:
			return unavailable(codeStore, lost)
		case first.Payment != r.Payment || first.Fingerprint != r.Fingerprint: // it expired, and is another request's now
			return notStored(p)
		}
		r = &first
		s, err = decodeAnswer(first.Answer)
	}
	if err != nil || s.See != (common.Hash{}) {
		a.Logger.Error("a stored answer can't be read", slog.String("payment", p.ID), slog.Any("error", err))
		return notStored(p)
	}
	units := replayUnits
	if len(missing) > 0 {
		units += refusedUnits
	}
	if !a.engine.limits.spend(clientKey(a.Client), units, time.Now()) {
		return limited()
	}
	if err := a.alias(ctx, r, missing); err != nil {
		return err
	}
	if s.Missing != "" {
		return missingAnswer(p, s.Missing)
	}
	if a.Granted != nil {
		a.Granted(a.r, a.grantOf(p))
	}
	a.decided("replayed", "")
	return a.writeAnswer(s, p)
}

// alias reserves keys for what r is, without a copy of its answer.
func (a *attempt) alias(ctx context.Context, r *ledger.Reservation, keys []want) error {
	left := r.ExpiresAt.Sub(a.engine.store.Now())
	if len(keys) == 0 || left <= 0 {
		return nil
	}
	raw, err := (&storedAnswer{See: r.Key}).encode()
	if err != nil {
		return unavailable(codeStore, err)
	}
	for _, w := range keys {
		_, err := a.engine.store.Reserve(ctx, ledger.Reservation{
			Key: w.key, Fingerprint: w.fingerprint, Payment: r.Payment, Answer: raw,
		}, "", left)
		if err != nil && !errors.Is(err, ledger.ErrExists) {
			return unavailable(codeStore, err)
		}
	}
	return nil
}

func (a *attempt) writeAnswer(s *storedAnswer, p *ledger.Payment) error {
	h := a.w.Header()
	maps.Copy(h, s.header())
	a.addGrant(h, p)
	switch {
	case p.Refund != ledger.NotRefunded:
		h.Set(headerPaymentStatus, statusRefundPending)
	case p.State() == ledger.StateOwed:
		h.Set(headerPaymentStatus, statusOwed)
	}
	markPrivate(h)
	h.Set(headerReplayed, "true")
	if hasBody(a.r.Method, s.Status) {
		h.Set("Content-Length", strconv.Itoa(len(s.body)))
	}
	a.w.WriteHeader(s.Status)
	if !hasBody(a.r.Method, s.Status) {
		return nil
	}
	if _, err := a.w.Write(s.body); err != nil {
		a.Logger.Debug("writing a stored answer", slog.Any("error", err)) // its client has left
	}
	return nil
}

// addGrant says what was paid, and gives the token of a plan that is still good, made anew: it is never stored.
func (a *attempt) addGrant(h http.Header, p *ledger.Payment) {
	if p.Binding.Plan != "" && p.PlanUntil.After(a.Now()) && a.plan(p.Binding.Plan) != nil && !a.engine.revoked.Has(p.ID) {
		c, err := a.credential(a.r.Context(), p)
		if err == nil {
			a.give(h, p, &c)
			return
		}
		a.Logger.Error("a token could not be given", slog.String("payment", p.ID), slog.Any("error", err))
	}
	a.addReceipt(h, p)
}

// keep stores what was answered to a request with keys: under the first, to which the others lead.
func (a *attempt) keep(payment string, s *storedAnswer) {
	raw, err := s.encode()
	if err != nil {
		a.Logger.Error("an answer can't be stored", slog.String("payment", payment), slog.Any("error", err))
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.r.Context()), keepTimeout)
	defer cancel()
	kept := false
	for _, key := range a.idempotencyKeys() {
		err := a.engine.store.KeepAnswer(ctx, key, payment, raw, a.Idempotency.TTL)
		switch {
		case errors.Is(err, ledger.ErrNotFound): // it belongs to another payment
		case err != nil:
			a.Logger.Warn("an answer could not be stored; its request will not be answered again", slog.String("payment", payment), slog.Any("error", err))
		case !kept:
			kept = true
			if raw, err = (&storedAnswer{See: key}).encode(); err != nil {
				return
			}
		}
	}
}

// keepTimeout bounds how long the end of a request waits for its answer to be stored.
const keepTimeout = 3 * time.Second

func (a *attempt) idempotencyKeys() []common.Hash {
	var keys []common.Hash
	for _, w := range a.wants {
		if !w.plan() {
			keys = append(keys, w.key)
		}
	}
	return slices.Compact(keys)
}
