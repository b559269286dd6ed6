package paywall

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/caddy-x402/caddy-x402/internal/faultpoint"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
)

// actor of the changes that a request makes.
const actorRequest = "request"

// flight is one settlement under way in this process. Its outcome is written once: by the request that
// waits for it, together with the delivery, or by the flight itself when nobody waits any more.
type flight struct {
	done chan struct{}

	mu        sync.Mutex
	landed    bool
	abandoned bool
	out       settlement.Outcome
}

// settle makes the transfer of p and waits for its outcome, or for the client to leave (left is true; the
// settlement goes on without it). The settlement's context is the engine's, not the request's (rule 8).
func (e *Engine) settle(ctx context.Context, p ledger.Payment, y *Payee, in settlement.Intent) (out settlement.Outcome, left bool) {
	return e.settleWithin(ctx, p, y, in, e.current().SettleTimeout)
}

// settlePatiently is settle that asks again while nobody knows the outcome, as long as a settlement may take: what waits for it can't be
// had again.
func (e *Engine) settlePatiently(ctx context.Context, p ledger.Payment, y *Payee, in settlement.Intent) (out settlement.Outcome, left bool) {
	end := time.Now().Add(e.current().SettleTimeout)
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		out, left = e.settleWithin(ctx, p, y, in, time.Until(end))
		if left || out.Status != settlement.Unknown || time.Until(end) <= pause {
			return out, left
		}
		e.log(p.ID).Warn("a settlement's outcome is unknown; it is asked for again", slog.Any("error", out.Err))
		select {
		case <-ctx.Done():
			return out, true
		case <-time.After(pause):
		}
	}
}

func (e *Engine) settleWithin(
	ctx context.Context, p ledger.Payment, y *Payee, in settlement.Intent, within time.Duration,
) (out settlement.Outcome, left bool) {
	s := e.current()
	f := &flight{done: make(chan struct{})}
	e.mu.Lock()
	e.flights[p.ID] = f
	e.mu.Unlock()

	traced, stage := e.stage(ctx, StageSettle, p.ID)
	stage.on(y.Network.ID)
	detached, cancel := context.WithTimeout(context.WithoutCancel(traced), within)
	e.background.Go(func() {
		defer cancel()
		started := time.Now()
		out := settle(detached, y.Settler, in)
		stage.settled(&out)
		s.Observe(Observation{
			Event: "settlement", Network: y.Network.ID, Outcome: out.Status.String(),
			Reason: string(out.Reason), Took: time.Since(started),
		})
		e.land(p, f, out)
	})

	select {
	case <-f.done:
		return f.out, ctx.Err() != nil
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.abandoned = !f.landed
	return f.out, true
}

// settle guards against a settler that panics: the outcome is then unknown, as after a crash.
func settle(ctx context.Context, s settlement.Settler, in settlement.Intent) (out settlement.Outcome) {
	defer func() {
		if r := recover(); r != nil {
			out = settlement.Outcome{Err: &panicError{r}}
		}
	}()
	return s.Settle(ctx, in)
}

func (e *Engine) land(p ledger.Payment, f *flight, out settlement.Outcome) {
	f.mu.Lock()
	f.out, f.landed = out, true
	abandoned := f.abandoned
	close(f.done)
	f.mu.Unlock()

	e.mu.Lock()
	if e.flights[p.ID] == f {
		delete(e.flights, p.ID)
	}
	e.mu.Unlock()
	if !abandoned {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	if _, err := e.record(ctx, p, out, actorRequest); err != nil {
		e.log(p.ID).Error("writing an outcome failed; the reconciler will", slog.Any("error", err))
	}
}

// writeTimeout bounds a write to the ledger that no client waits for.
const writeTimeout = 10 * time.Second

// record writes what a settler said of p; then asks what is to follow in the same step.
func (e *Engine) record(ctx context.Context, p ledger.Payment, out settlement.Outcome, actor string, then ...ledger.Change) (ledger.Payment, error) {
	failed := false
	q, err := e.update(ctx, p, func(p ledger.Payment) []ledger.Change {
		cs := outcomeChanges(p, out, actor)
		failed = len(cs) > 0 && cs[0].Event == ledger.EventFail
		for _, c := range then {
			if c.Fence == p.Hold.Fence { // whoever overtook us delivers it
				cs = append(cs, c)
			}
		}
		return cs
	})
	if err == nil && failed && q.Owes() {
		e.lost(&q)
	}
	return q, err
}

// outcomeChanges says which steps lead p to what its settler found.
func outcomeChanges(p ledger.Payment, out settlement.Outcome, actor string) []ledger.Change {
	at := ledger.Change{
		Actor: actor, Transaction: out.Transaction, Block: out.Block, BlockHash: out.BlockHash, Reason: string(out.Reason),
	}
	step := func(ev ledger.Event) ledger.Change { c := at; c.Event = ev; return c }
	var cs []ledger.Change
	switch out.Status {
	case settlement.Settled:
		if p.Settlement != ledger.Settled {
			cs = append(cs, step(ledger.EventSettle))
		}
		if out.Final && !(p.Settlement == ledger.Settled && p.Final) {
			cs = append(cs, step(ledger.EventFinal))
		}
	case settlement.Failed:
		switch p.Settlement {
		case ledger.Claimed, ledger.Settling:
			cs = append(cs, step(ledger.EventFail))
		case ledger.Settled:
			return nil // a settled payment does not fail; a vanished receipt is unknown, not failed
		}
		if out.Final && !p.Final {
			cs = append(cs, step(ledger.EventFinal))
		}
	}
	return cs
}

// hold notes that a request of this process holds a payment, until letGo.
func (e *Engine) hold(client context.Context, id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.holders[id] = client
}

func (e *Engine) letGo(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.holders, id)
}

// serving reports whether a request of this process holds the payment and its client is still there. Of a hold that
// another process has, nobody can say whether anybody still waits behind it.
func (e *Engine) serving(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	client, ok := e.holders[id]
	return ok && client.Err() == nil
}

// working reports whether a request of this process is at the payment, whether or not its client is still there.
func (e *Engine) working(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, ok := e.holders[id]
	return ok
}

// wait blocks until nobody holds the payment any more or ctx ends, and gives it as it then is.
func (e *Engine) wait(ctx context.Context, id string) (ledger.Payment, error) {
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		p, err := e.store.Payment(ctx, id)
		if err != nil || !p.Held(e.store.Now()) {
			return p, err
		}
		if e.pause(ctx, id, pause) {
			pause = firstLook // its holder writes next
		}
		if ctx.Err() != nil {
			return p, ctx.Err()
		}
	}
}

// How long a copy of a request waits before it looks whether the first one is done: many copies must not wear the ledger out.
const (
	firstLook = 25 * time.Millisecond
	lastLook  = time.Second
)

// pause waits, or less if the payment's settlement in this process lands meanwhile.
func (e *Engine) pause(ctx context.Context, id string, d time.Duration) (landed bool) {
	e.mu.Lock()
	var done chan struct{}
	if f := e.flights[id]; f != nil {
		done = f.done
	}
	e.mu.Unlock()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// keep renews the hold of p until stop is called, which waits for the renewal under way.
func (e *Engine) keep(ctx context.Context, id string, fence uint64) (stop func()) {
	ttl := e.current().HoldTTL
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(ttl / 3)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				faultpoint.Reached("extend")
				if err := e.extend(ctx, id, fence, ttl); err != nil && ctx.Err() == nil {
					e.log(id).Warn("a hold could not be renewed", slog.Any("error", err))
				}
			}
		}
	}()
	return func() { cancel(); <-ended }
}

func (e *Engine) extend(ctx context.Context, id string, fence uint64, ttl time.Duration) error {
	p, err := e.store.Payment(ctx, id)
	if err != nil {
		return err
	}
	_, err = e.update(ctx, p, func(p ledger.Payment) []ledger.Change {
		if p.Hold.Fence != fence || p.Delivery == ledger.Delivered || p.Delivery == ledger.Undelivered {
			return nil
		}
		return []ledger.Change{{Event: ledger.EventExtend, Actor: actorRequest, Fence: fence, Hold: ttl}}
	})
	return err
}

// release gives the hold back, so that whoever comes next need not wait for it to run out.
func (e *Engine) release(p ledger.Payment, fence uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	_, err := e.update(ctx, p, func(p ledger.Payment) []ledger.Change {
		if p.Hold.Fence != fence || p.Hold.Until.IsZero() {
			return nil
		}
		return []ledger.Change{{Event: ledger.EventRelease, Actor: actorRequest, Fence: fence}}
	})
	if err != nil && !errors.Is(err, ledger.ErrFence) {
		e.log(p.ID).Warn("a hold could not be given back; it runs out by itself", slog.Any("error", err))
	}
}

func (e *Engine) log(payment string) *slog.Logger {
	return e.current().Logger.With(slog.String("payment", payment))
}
