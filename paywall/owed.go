package paywall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/caddy-x402/caddy-x402/internal/faultpoint"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// entrusted is what settles a payment: the payer's secret until it is broadcast.
type entrusted struct {
	Authorization x402.Authorization `json:"authorization"`
	Signature     hexutil.Bytes      `json:"signature"`
}

// entrust stores what settles the payment id, for whoever will do it.
func (e *Engine) entrust(ctx context.Context, id string, in settlement.Intent, ttl time.Duration) error {
	raw, err := json.Marshal(entrusted{in.Authorization, in.Signature})
	if err != nil {
		return fmt.Errorf("encoding an authorization: %w", err)
	}
	_, err = e.store.Reserve(ctx, ledger.Reservation{Key: digest("owed", id), Payment: id, Answer: raw}, "", ttl)
	return err
}

// entrusted reads what settles p.
func (e *Engine) entrusted(ctx context.Context, p *ledger.Payment, y *Payee) (settlement.Intent, error) {
	in := intent(p, y)
	r, err := e.store.Reservation(ctx, digest("owed", p.ID))
	if err != nil {
		return in, err
	}
	var s entrusted
	if err := json.Unmarshal(r.Answer, &s); err != nil || s.Authorization.ID(p.ChainID, p.Asset) != p.AuthorizationID {
		return in, errEntrusted
	}
	in.Authorization, in.Signature = s.Authorization, s.Signature
	return in, nil
}

var errEntrusted = errors.New("paywall: what is stored settles another payment")

// forget removes what settled the payment id: it is public, or no good any more.
func (e *Engine) forget(ctx context.Context, id string) {
	key := digest("owed", id)
	_, err := e.store.Reserve(ctx, ledger.Reservation{Key: key, Payment: id}, id, time.Microsecond)
	if err != nil && !errors.Is(err, ledger.ErrExists) {
		e.log(id).Debug("an authorization that is not needed any more stays until it expires", slog.Any("error", err))
	}
}

// collect settles what is owed, whether or not its client is there; no other instance tries meanwhile. loan is what was lent by this
// process, nil for what another one has left behind. of is what it belongs to, for traces; its end ends nothing here.
func (e *Engine) collect(of context.Context, p ledger.Payment, y *Payee, in settlement.Intent, loan *ledger.Loan) {
	s := e.current()
	e.mu.Lock()
	e.owed[p.ID] = struct{}{}
	leftover := 0
	if loan == nil {
		leftover = 1
	}
	e.leftover += leftover
	e.mu.Unlock()
	e.background.Go(func() {
		defer func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			delete(e.owed, p.ID)
			e.leftover -= leftover
		}()
		faultpoint.Reached("owed")
		ctx, cancel := context.WithTimeout(context.WithoutCancel(of), s.SettleTimeout)
		defer cancel()
		stop := e.putOff(ctx, p.ID, s.HoldTTL)
		q, err := e.collectNow(ctx, p, y, in)
		stop()
		switch q.Settlement {
		case ledger.Settled:
			e.giveBack(p.ID, loan)
		case ledger.Claimed, ledger.Settling:
			e.log(p.ID).Warn("an owed payment is not settled yet; the reconciler goes on", slog.Any("error", err))
			e.lookAgain(p.ID, s.ReconcileEvery)
		}
	})
}

// mostLeftover is how many owed payments that others have left behind one process collects at a time.
const mostLeftover = 1024

func (e *Engine) collectsEnough() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.leftover >= mostLeftover
}

// lookAgain lets any reconciler look at a payment before long.
func (e *Engine) lookAgain(id string, after time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	if err := e.store.Recheck(ctx, id, after); err != nil {
		e.log(id).Warn("a payment's next look could not be set", slog.Any("error", err))
	}
}

// putOff keeps other instances from looking at an open payment until stop is called, which waits for the write under way.
func (e *Engine) putOff(ctx context.Context, id string, ttl time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(ttl / 3)
		defer t.Stop()
		for {
			if err := e.store.Recheck(ctx, id, ttl); err != nil && ctx.Err() == nil {
				e.log(id).Warn("a payment's next look could not be set", slog.Any("error", err))
			}
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// giveBack frees credit; nil: there is none to be freed.
func (e *Engine) giveBack(id string, loan *ledger.Loan) {
	if loan == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	if err := loan.Give(ctx); err != nil {
		e.log(id).Debug("credit that is not needed any more is freed by whoever finds it", slog.Any("error", err))
	}
}

// lendNothing undoes what was done to lend to the payment id, while its client gets its answer.
func (e *Engine) lendNothing(id string, loan *ledger.Loan) {
	e.background.Go(func() {
		e.giveBack(id, loan)
		ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
		defer cancel()
		e.forget(ctx, id)
	})
}

// collecting reports whether this process is, or is about to be, at what is owed.
func (e *Engine) collecting(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, working := e.holders[id]
	_, owed := e.owed[id]
	return working || owed
}

// collectNow settles what is owed, and writes what came of it.
func (e *Engine) collectNow(ctx context.Context, p ledger.Payment, y *Payee, in settlement.Intent) (ledger.Payment, error) {
	started := time.Now()
	traced, stage := e.stage(ctx, StageSettle, p.ID)
	stage.on(y.Network.ID)
	out := settle(traced, y.Settler, in)
	stage.settled(&out)
	e.current().Observe(Observation{
		Event: "settlement", Network: y.Network.ID, Outcome: out.Status.String(), Reason: string(out.Reason), Took: time.Since(started),
	})
	wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	q, err := e.record(wctx, p, out, actorReconciler)
	if err == nil && (q.Settlement == ledger.Settled || q.Settlement == ledger.Failed) {
		e.forget(wctx, p.ID)
	}
	return q, errors.Join(err, out.Err)
}

// lost counts what was served and will not be paid, when it turns out.
func (e *Engine) lost(p *ledger.Payment) {
	network := networkID(p.ChainID)
	s := e.current()
	s.Observe(Observation{Event: "loss", Network: network, Asset: s.symbol(p), Outcome: "failed", Reason: p.Reason, Amount: p.Amount})
	e.log(p.ID).Error("what was served before it was paid was not paid", slog.String("network", network),
		slog.String("amount", p.Amount.Dec()), slog.String("payer", p.Payer.Hex()), slog.String("reason", p.Reason))
}
