package caddymodule

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/token"
)

const (
	// storageTimeout bounds one look into Caddy's storage.
	storageTimeout = 10 * time.Second
	// tidyEvery is how often it is tried to write what the ring should say.
	tidyEvery = time.Minute
)

// keyFollower keeps the ring of a configuration as Caddy's storage has it, which may be shared with other instances. Keys that
// stand in the configuration have none.
type keyFollower struct {
	beside beside

	deaf    bool      // the last look failed
	written time.Time // when it was last tried to write
}

// start begins to follow; stop must be called.
func (f *keyFollower) start(a *App) {
	if len(a.TokenKeys) > 0 {
		return
	}
	f.upkeep(context.WithoutCancel(a.ctx), a)
	f.beside.start(a, token.FollowEvery, token.FollowEvery, func(ctx context.Context) {
		f.look(ctx, a)
		f.upkeep(ctx, a)
	})
}

// stop ends what start began, and waits for it.
func (f *keyFollower) stop() { f.beside.stop() }

// look takes over what another instance, or a command, has changed.
func (f *keyFollower) look(ctx context.Context, a *App) {
	ctx, cancel := context.WithTimeout(ctx, storageTimeout)
	defer cancel()
	ring := a.keyring.Load()
	if ring == nil {
		_, _ = a.tokens() // it could not be read at the start, which was said
		return
	}
	changed, err := ring.Refresh(ctx, a.ctx.Storage())
	switch {
	case ctx.Err() != nil && err != nil && !f.deaf:
		return
	case err != nil && !f.deaf:
		a.log.Error("the keys of tokens can't be read in storage; those that are known stay in use, and a rotation is not heard of", zap.Error(err))
	case err == nil && f.deaf:
		a.log.Info("the keys of tokens can be read again")
	}
	f.deaf = err != nil
	if changed {
		a.tellKeys()
	}
}

// tellKeys logs the ring, of which nothing is secret.
func (a *App) tellKeys() {
	a.log.Info("the keys of tokens have changed", zap.Any("keys", a.keyring.Load().Info(a.now())))
}

// upkeep writes into the ring how long the tokens live that are sold now, and removes what is of no more use. Any instance does it.
func (f *keyFollower) upkeep(ctx context.Context, a *App) {
	ring, now, longest := a.keyring.Load(), a.now(), a.longestToken()
	if ring == nil || time.Since(f.written) < tidyEvery || !ring.Lacks(longest, now) && !ring.Untidy(now) {
		return
	}
	f.written = time.Now()
	ctx, cancel := context.WithTimeout(ctx, storageTimeout)
	defer cancel()
	_, err := token.Lengthen(ctx, a.ctx.Storage(), longest, now)
	if err == nil {
		_, err = token.Tidy(ctx, a.ctx.Storage(), now)
	}
	if err == nil {
		_, err = ring.Refresh(ctx, a.ctx.Storage())
	}
	if err != nil && ctx.Err() == nil {
		a.log.Warn("the keys of tokens can't be written in storage; it is tried again", zap.Error(err))
	}
}

// longestToken is the life of the longest token that this configuration sells.
func (a *App) longestToken() time.Duration {
	longest := paywall.AssertionTTL
	for _, p := range a.sold {
		longest = max(longest, p.TTL)
	}
	return longest
}
