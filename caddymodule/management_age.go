package caddymodule

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-x402/caddy-x402/management/apikey"
)

// eventRotationDue is what Caddy's event, and the metric, that an API key is older than key_max_age are called.
const eventRotationDue = "apikey_rotation_due"

const (
	// ageFirst is how soon after its start a configuration looks for old keys, and ageEvery how often then.
	ageFirst = time.Second
	ageEvery = time.Hour
)

// keyAge tells of API keys that are older than they should be.
type keyAge struct {
	beside beside

	mu   sync.Mutex
	most time.Duration // the shortest that was wanted; 0: none
}

// want is called while handlers are provisioned.
func (k *keyAge) want(most time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if most > 0 && (k.most == 0 || most < k.most) {
		k.most = most
	}
}

// start begins to look; stop must be called. The handlers may not be provisioned yet: apps start in any order, after all of them were.
func (k *keyAge) start(a *App) {
	k.beside.start(a, ageFirst, ageEvery, func(ctx context.Context) { k.look(ctx, a) })
}

// stop ends what start began, and waits for it.
func (k *keyAge) stop() { k.beside.stop() }

func (k *keyAge) look(ctx context.Context, a *App) {
	k.mu.Lock()
	most := k.most
	k.mu.Unlock()
	if most == 0 {
		return
	}
	e, release, err := a.acquire()
	if err != nil {
		return // that is said elsewhere
	}
	defer release()
	keys := apikey.Keys{Store: e.Store(), Random: rand.Reader, Log: a.slog}
	due, err := keys.DueForRotation(ctx, most)
	if err != nil && ctx.Err() == nil {
		a.log.Warn("it can't be found out now which API keys are old", zap.Error(err))
	}
	for i := range due {
		d := &due[i]
		a.log.Warn("an API key is older than key_max_age; rotate it", zap.String("key", d.ID), zap.String("label", d.Label), zap.Time("created", d.CreatedAt))
		countAPIKey(eventRotationDue, string(d.Mode))
		a.events.say(eventRotationDue, map[string]any{
			"key": d.ID, "prefix": d.Prefix, "label": d.Label, "mode": string(d.Mode), "network": d.Mode.Network(), "created_at": d.CreatedAt.Format(time.RFC3339),
		})
	}
}
