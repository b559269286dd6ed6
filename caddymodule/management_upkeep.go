package caddymodule

import (
	"context"
	"crypto/rand"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/management/apikey"
)

const (
	// upkeepEvery is how often the use of API keys is written down, and what could not be had at the start is tried again.
	upkeepEvery = 10 * time.Second
	// toldEvery is how often it is made sure that webhooks were told of API keys, and toldSince for how long they may not have been.
	toldEvery = time.Hour
	toldSince = 24 * time.Hour
	// lastUpkeep bounds the last writing down, when a configuration goes.
	lastUpkeep = 2 * time.Second
)

// upkeep does beside the calls of operators what these leave to be done.
type upkeep struct {
	usage  apikey.Usage
	beside beside
	told   time.Time // when webhooks were last told of API keys
}

// start begins; stop must be called.
func (u *upkeep) start(a *App) {
	u.beside.start(a, upkeepEvery, upkeepEvery, func(ctx context.Context) { u.look(ctx, a) })
}

// stop ends what start began, waits for it, and writes down what was counted since. The ledger must still be held.
func (u *upkeep) stop(a *App) {
	if !u.beside.stop() {
		return
	}
	e := a.engine.value.ready()
	if e == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), lastUpkeep)
	defer cancel()
	u.write(ctx, a, e.Store())
}

func (u *upkeep) look(ctx context.Context, a *App) {
	if err := a.loadSealingKey(ctx); err != nil && ctx.Err() == nil {
		a.log.Warn("the key of webhooks can't be loaded; their endpoints can't be changed until it can", zap.Error(err))
	}
	e := a.engine.value.ready()
	if e == nil {
		return // that is said elsewhere
	}
	u.write(ctx, a, e.Store())
	service := a.engine.value.hooks.service.Load()
	if service == nil || time.Since(u.told) < toldEvery {
		return
	}
	keys := apikey.Keys{Store: e.Store(), Random: rand.Reader, Log: a.slog}
	if err := management.TellKeys(ctx, &keys, service, e.Store().Now().Add(-toldSince)); err != nil {
		if ctx.Err() == nil {
			a.log.Warn("webhooks can't be told of API keys now", zap.Error(err))
		}
		return
	}
	u.told = time.Now()
}

func (u *upkeep) write(ctx context.Context, a *App, store ledger.Store) {
	if err := u.usage.Flush(ctx, store); err != nil && ctx.Err() == nil {
		a.log.Warn("the use of API keys can't be written down now", zap.Error(err))
	}
}
