package webhooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

const (
	// seenEvery is how often is written down that an endpoint still stands in the configuration. One that nobody has seen there for goneAfter was
	// removed from it: instances that are started one after another have it at different times.
	seenEvery = 5 * time.Minute
	goneAfter = time.Hour

	// startBefore is how far before now the cursor of the first endpoint begins. Entries may come in that much late; what is older than an
	// endpoint is not told to it all the same.
	startBefore = 2 * time.Minute

	cursorID = "outbox"
)

// Sync writes down which endpoints the configuration has; from then on they are told what happens. A running Service does it by itself, soon;
// who calls it knows that it was done.
func (s *Service) Sync(ctx context.Context) error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	set, fresh, now := s.settings, s.fresh, s.now()
	due := fresh || now.Sub(s.synced) >= seenEvery
	s.fresh = false
	s.mu.Unlock()
	if !due {
		return nil
	}
	err := s.sync(ctx, set, fresh)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.fresh = s.fresh || fresh
		return fmt.Errorf("writing down the configuration's webhooks: %w", err)
	}
	s.synced = now
	return nil
}

// sync does it. fresh: the configuration has just been loaded, and what it has is to be active.
func (s *Service) sync(ctx context.Context, set Settings, fresh bool) error {
	if len(set.Endpoints) > 0 {
		if err := s.ensureCursor(ctx); err != nil {
			return err
		}
	}
	for i := range set.Endpoints {
		if err := s.register(ctx, &set.Endpoints[i], fresh); err != nil {
			return err
		}
	}
	endpoints, err := s.all(ctx)
	if err != nil {
		return err
	}
	for i := range endpoints {
		if err := s.tidy(ctx, set, &endpoints[i]); err != nil {
			return err
		}
	}
	return nil
}

// ensureCursor makes sure that what happens from now on is read. While there is no endpoint nobody reads, and the first one need not be
// told of that time.
func (s *Service) ensureCursor(ctx context.Context) error {
	start, err := s.outbox.Start(s.now().Add(-startBefore)) // before it is known that there are none
	if err != nil {
		return err
	}
	endpoints, err := s.all(ctx)
	if err != nil || len(endpoints) > 0 {
		return err
	}
	r, err := load[json.RawMessage](ctx, s.store, kindCursor, cursorID)
	if errors.Is(err, ledger.ErrNotFound) {
		r.object = ledger.Object{Kind: kindCursor, ID: cursorID}
	} else if err != nil {
		return err
	}
	r.value = start
	if err := r.save(ctx, s.store); err != nil && !errors.Is(err, ledger.ErrExists) && !errors.Is(err, ledger.ErrConflict) {
		return err
	}
	return nil // who was faster has made it begin early enough, too
}

// register writes down that c stands in the configuration.
func (s *Service) register(ctx context.Context, c *Configured, fresh bool) error {
	now := s.now().UTC()
	e := storedEndpoint{Endpoint: Endpoint{ID: c.ID(), Live: c.Live, Active: true, Configured: true, CreatedAt: now}}
	e.take(c, now)
	r := record[storedEndpoint]{ledger.Object{Kind: kindEndpoint, ID: e.ID, Group: group(c.Live)}, e}
	if err := r.save(ctx, s.store); !errors.Is(err, ledger.ErrExists) {
		return err
	}
	_, err := change(ctx, s.store, kindEndpoint, e.ID, func(r *record[storedEndpoint]) (bool, error) {
		v := &r.value
		differs := v.Description != c.Description || v.Compatibility != c.Compatibility || !slices.Equal(v.Events, c.Events)
		if fresh && !v.Active {
			v.Active, v.DisabledReason, differs = true, "", true
		}
		if !differs && now.Sub(v.Seen) < seenEvery {
			return false, nil
		}
		v.take(c, now)
		if differs {
			v.UpdatedAt = now
		}
		return true, nil
	})
	return err
}

// take makes the endpoint what the configuration says.
func (e *storedEndpoint) take(c *Configured, now time.Time) {
	e.URL, e.Description, e.Compatibility, e.Events, e.Seen = c.URL, c.Description, c.Compatibility, slices.Clone(c.Events), now
	if e.UpdatedAt.IsZero() {
		e.UpdatedAt = now
	}
}

// tidy removes an endpoint that no configuration has any more, and seals anew what another key has sealed.
func (s *Service) tidy(ctx context.Context, set Settings, e *storedEndpoint) error {
	switch {
	case e.Configured && set.find(e.ID) == nil && s.now().Sub(e.Seen) >= goneAfter:
		r, err := load[storedEndpoint](ctx, s.store, kindEndpoint, e.ID)
		if err != nil || s.now().Sub(r.value.Seen) < goneAfter {
			return without(err, ledger.ErrNotFound)
		}
		return without(s.store.DeleteObject(ctx, kindEndpoint, e.ID, r.object.Version), ledger.ErrConflict)
	case set.Keys != nil && slices.ContainsFunc(e.Secrets, func(x storedSecret) bool { return set.Keys.stale(x.Sealed) }):
		_, err := change(ctx, s.store, kindEndpoint, e.ID, func(r *record[storedEndpoint]) (bool, error) {
			return set.Keys.reseal(r.value.Secrets, e.ID, set.Logger), nil
		})
		return without(err, ledger.ErrNotFound)
	}
	return nil
}

// without is err unless it is expected.
func without(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

// reseal seals anew what was sealed by another key, and reports whether there was any.
func (k *Keys) reseal(secrets []storedSecret, owner string, log *slog.Logger) (changed bool) {
	for i := range secrets {
		if !k.stale(secrets[i].Sealed) {
			continue
		}
		text, err := k.open(secrets[i].Sealed, owner)
		if err != nil {
			log.Error("the secret of a webhook endpoint can't be read", slog.String("endpoint", owner), slog.Any("error", err))
			continue
		}
		secrets[i].Sealed, changed = k.seal(text, owner), true
	}
	return changed
}

// find gives the configuration's endpoint of that id, or nil.
func (s *Settings) find(id string) *Configured {
	for i := range s.Endpoints {
		if s.Endpoints[i].ID() == id {
			return &s.Endpoints[i]
		}
	}
	return nil
}
