package caddymodule

import (
	"context"
	"fmt"
	"time"

	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/token"
)

// defaultIssuer is the iss of tokens where no public_url is configured.
const defaultIssuer = "caddy-x402"

// provisionTokens reads the operator's own keys, if there are any.
func (a *App) provisionTokens() error {
	ring, err := configuredRing(a.TokenKeys)
	if err == nil && ring != nil {
		a.keyring.Store(ring)
	}
	return err
}

// configuredRing is of keys as a configuration has them; nil if it has none.
func configuredRing(values []string) (*token.Keyring, error) {
	var keys []token.Key
	for i, value := range values {
		what := fmt.Sprintf("token key %d", i+1)
		text, err := Secret(what, value, false)
		if err != nil {
			return nil, err
		}
		k, err := token.ParseKey([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		if i > 0 {
			k = k.Retired(time.Time{})
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, nil
	}
	ring, err := token.NewKeyring(keys...)
	if err != nil {
		return nil, fmt.Errorf("token keys: %w", err)
	}
	return ring, nil
}

// loadKeyring reads the key from Caddy's storage, and makes it at the very first start.
func (a *App) loadKeyring(ctx context.Context) error {
	if a.keyring.Load() != nil {
		return nil
	}
	ring, err := token.Load(ctx, a.ctx.Storage())
	if err != nil {
		return fmt.Errorf("loading the keys of tokens: %w", err)
	}
	a.keyring.CompareAndSwap(nil, ring)
	return nil
}

func (a *App) issuer() string {
	if a.PublicURL != "" {
		return a.PublicURL
	}
	return defaultIssuer
}

// tokens gives what gates make and check tokens with. The keys are read at Start; if storage did not answer then, or an
// HTTP server was started first, they are read when they are first needed.
func (a *App) tokens() (*paywall.Tokens, error) {
	if t := a.made.Load(); t != nil {
		return t, nil
	}
	a.making.Lock()
	defer a.making.Unlock()
	if t := a.made.Load(); t != nil {
		return t, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), startTimeout)
	defer cancel()
	if err := a.loadKeyring(ctx); err != nil {
		return nil, err
	}
	ring := a.keyring.Load()
	access, err := token.NewVerifier(ring, token.Access, a.issuer(), 0)
	if err != nil {
		return nil, fmt.Errorf("making a verifier of tokens: %w", err)
	}
	access.Heed(a.engine.value.revoked)
	t := paywall.NewTokens(&token.Issuer{Keyring: ring, Issuer: a.issuer()}, access)
	t.Revoked, t.MaxStale = a.engine.value.revoked, time.Duration(a.MaxStale)
	a.made.Store(t)
	return t, nil
}
