package caddymodule

import (
	"context"
	"fmt"
	"slices"

	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

// manageable lets the management API add endpoints of webhooks though the configuration has none itself. It is called while handlers are
// provisioned, all of them before anything starts.
func (a *App) manageable() {
	if a.webhooks == nil {
		a.webhooks = &webhooks.Settings{Observe: observeWebhook, Logger: a.slog}
	}
}

// loadSealingKey finds what seals the secrets of endpoints that the management API makes: the keys of the configuration, or else one of Caddy's storage,
// which is made at the first start. A key in the storage still opens what it has sealed after the configuration was given others.
func (a *App) loadSealingKey(ctx context.Context) error {
	if a.webhooks == nil || a.sealed {
		return nil
	}
	load := webhooks.LoadKey
	if len(a.sealing) > 0 {
		load = webhooks.StoredKey
	}
	own, err := load(ctx, a.ctx.Storage())
	if err != nil {
		return err
	}
	secrets := a.sealing
	if own != "" {
		secrets = append(slices.Clip(secrets), own)
	}
	keys, err := webhooks.NewKeys(secrets...)
	if err != nil {
		return fmt.Errorf("the key of webhooks in storage: %w", err)
	}
	a.sealed = true
	a.engine.value.seal(a, keys)
	return nil
}

// seal gives the configuration of a the keys, and, if its settings count, the webhooks that run.
func (s *engineSlot) seal(a *App, keys *webhooks.Keys) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.webhooks.Keys = keys
	if n := len(s.live); n > 0 && s.live[n-1] == a && s.engine != nil {
		s.hooks.configure(a, s.opened)
	}
}
