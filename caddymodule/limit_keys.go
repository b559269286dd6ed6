package caddymodule

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/caddy-x402/caddy-x402/internal/expiring"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/paywall"
)

// consumers knows the API keys with the scope access. It implements paywall.Consumers.
type consumers struct {
	log   *slog.Logger
	known expiring.Map[[sha256.Size]byte, paywall.Consumer] // by a hash of what was shown
}

const (
	// consumerFor is how long a key is taken without another look into the ledger: one that was revoked is refused so much later.
	consumerFor   = 2 * time.Second
	mostConsumers = 4096
)

func newConsumers(log *slog.Logger) *consumers {
	return &consumers{log: log, known: expiring.Map[[sha256.Size]byte, paywall.Consumer]{Most: mostConsumers}}
}

// Written implements paywall.Consumers.
func (c *consumers) Written(shown string) bool {
	_, err := apikey.ParseSecret(shown)
	return err == nil
}

// Find implements paywall.Consumers.
func (c *consumers) Find(ctx context.Context, store ledger.Store, shown string) (paywall.Consumer, error) {
	now, sum := store.Now(), sha256.Sum256([]byte(shown))
	if found, ok := c.known.Get(sum, now); ok {
		return found, nil
	}
	keys := apikey.Keys{Store: store, Random: rand.Reader, Log: c.log}
	key, err := keys.Authenticate(ctx, shown)
	switch {
	case errors.Is(err, apikey.ErrInvalid):
		return paywall.Consumer{}, &paywall.ConsumerError{
			Status: http.StatusUnauthorized, Code: paywall.CodeAPIKeyInvalid, Detail: "there is no such API key",
		}
	case errors.Is(err, apikey.ErrExpired):
		return paywall.Consumer{}, &paywall.ConsumerError{
			Status: http.StatusUnauthorized, Code: paywall.CodeAPIKeyExpired, Detail: "this API key has expired",
		}
	case errors.Is(err, apikey.ErrRevoked):
		return paywall.Consumer{}, &paywall.ConsumerError{
			Status: http.StatusUnauthorized, Code: paywall.CodeAPIKeyRevoked, Detail: "this API key was revoked",
		}
	case err != nil:
		return paywall.Consumer{}, err
	case !slices.Contains(key.Scopes, apikey.Access):
		return paywall.Consumer{}, &paywall.ConsumerError{
			Status: http.StatusForbidden, Code: paywall.CodeAPIKeyScope, Detail: "this API key does not have the scope " + string(apikey.Access),
		}
	}
	if key.Superseded() {
		countAPIKey("apikey_predecessor_used", string(key.Mode))
	}
	found := paywall.Consumer{ID: key.ID, Testnet: key.Mode == apikey.Test}
	until := now.Add(consumerFor)
	if end := key.Ends(); !end.IsZero() && end.Before(until) {
		until = end
	}
	c.known.Put(sum, found, until, now)
	return found, nil
}

// setConsumer tells the handlers behind, and the access log, whose API key came with a request.
func setConsumer(r *http.Request, c paywall.Consumer) {
	if t := toldOf(r); t != nil {
		t.consumer = c.ID
	}
	logField(r, "x402_api_key", c.ID)
}

// Interface guard.
var _ paywall.Consumers = (*consumers)(nil)
