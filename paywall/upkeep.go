package paywall

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// What a ledger needs beside its payments. Every instance does it; who comes second finds nothing to do.
const (
	// anchorEvery is how old the last anchor may become, and anchorLook how often that is looked at.
	anchorEvery = time.Hour
	anchorLook  = 5 * time.Minute
	// anchorTimeout bounds the making of one anchor, which reads all entries since the one before.
	anchorTimeout = 10 * time.Minute

	// sweepEvery is how often what is not needed any more is removed, in pages of sweepPage with a pause after each, so that
	// requests need not wait.
	sweepEvery   = time.Minute
	sweepPage    = 256
	sweepPause   = 50 * time.Millisecond
	sweepTimeout = 30 * time.Second
)

// upkeepLoop anchors and sweeps until ctx ends.
func (e *Engine) upkeepLoop(ctx context.Context) {
	anchor, sweep := time.NewTicker(anchorLook), time.NewTicker(sweepEvery)
	defer anchor.Stop()
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-anchor.C:
			e.anchorIfOld(ctx)
		case <-sweep.C:
			e.sweep(ctx)
		}
	}
}

func (e *Engine) anchorIfOld(ctx context.Context) {
	last, err := e.store.LastAnchor(ctx)
	switch {
	case err == nil && e.store.Now().Sub(last.Until) < anchorEvery:
		return
	case err == nil || errors.Is(err, ledger.ErrNotFound):
		_, err = e.Anchor(ctx)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, ledger.ErrConflict) && !errors.Is(err, ledger.ErrNotFound) {
		e.current().Logger.Warn("the ledger's trails could not be anchored; it is tried again", slog.Any("error", err))
	}
}

// Anchor anchors what is not anchored yet (see ledger.NextAnchor). ledger.ErrNotFound: there was nothing new;
// ledger.ErrConflict: another instance did it just now. Its hash goes to the log, so that a copy of it stays where whoever can change
// the ledger may not reach.
func (e *Engine) Anchor(ctx context.Context) (ledger.Anchor, error) {
	ctx, cancel := context.WithTimeout(ctx, anchorTimeout)
	defer cancel()
	a, err := ledger.NextAnchor(ctx, e.store, e.store.Now())
	if err != nil {
		return a, err
	}
	e.current().Logger.Info("the ledger's trails are anchored", slog.Uint64("anchor", a.Sequence), slog.String("hash", a.Hash.Hex()),
		slog.Time("until", a.Until), slog.Uint64("entries", a.Count))
	return a, nil
}

// sweep removes what is no longer needed, page by page.
func (e *Engine) sweep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	for {
		n, err := e.store.Sweep(ctx, e.current().Retention, sweepPage)
		if err != nil {
			if ctx.Err() == nil {
				e.current().Logger.Warn("sweeping the ledger failed; it is tried again", slog.Any("error", err))
			}
			return
		}
		if n < sweepPage {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(sweepPause):
		}
	}
}
