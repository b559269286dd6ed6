package caddymodule

import (
	"context"
	"time"
)

// beside is what a configuration does beside its requests, again and again.
type beside struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// start has look called when first has passed, and every so often then; stop must be called.
func (b *beside) start(a *App, first, every time.Duration, look func(context.Context)) {
	// Cleanup ends it, and not the configuration's context, which is over before that.
	ctx, cancel := context.WithCancel(context.WithoutCancel(a.ctx))
	b.cancel, b.done = cancel, make(chan struct{})
	go func() {
		defer close(b.done)
		tick := time.NewTicker(first)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			tick.Reset(every)
			look(ctx)
		}
	}()
}

// stop ends what start began, and waits for it; false: there was nothing.
func (b *beside) stop() bool {
	if b.cancel == nil {
		return false
	}
	b.cancel()
	<-b.done
	b.cancel = nil
	return true
}
