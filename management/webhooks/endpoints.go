package webhooks

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// NewEndpoint is an endpoint to be made.
type NewEndpoint struct {
	Live          bool
	URL           string
	Description   string
	Events        []string
	Compatibility bool
}

// EndpointChange says what is to be different; nil: nothing.
type EndpointChange struct {
	URL           *string
	Description   *string
	Events        *[]string
	Compatibility *bool
	Active        *bool
}

// DefaultOverlap is how long a secret that was replaced still signs, and MaxOverlap how long it may at most.
const (
	DefaultOverlap = 24 * time.Hour
	MaxOverlap     = 30 * 24 * time.Hour
)

var (
	errNoKey      = fail(ErrUnavailable, CodeKeyMissing, "secrets can't be kept: the key that seals them can't be loaded from Caddy's storage now; the log says why")
	errNoEndpoint = fail(ErrNotFound, CodeNotFound, "there is no such webhook endpoint")
)

// CreateEndpoint makes an endpoint, which is told of what happens from now on. Its secret is shown here and never again.
func (s *Service) CreateEndpoint(ctx context.Context, n NewEndpoint) (Endpoint, string, error) {
	keys := s.current().Keys
	if keys == nil {
		return Endpoint{}, "", errNoKey
	}
	if err := check(n.URL, n.Live, n.Description, n.Events); err != nil {
		return Endpoint{}, "", err
	}
	there, err := s.store.Objects(ctx, kindEndpoint, group(n.Live), "", maxEndpoints)
	if err != nil {
		return Endpoint{}, "", err
	}
	if len(there) >= maxEndpoints {
		return Endpoint{}, "", fail(ErrConflict, CodeTooMany, "there are %d endpoints already, and no more may be", maxEndpoints)
	}
	if err := s.ensureCursor(ctx); err != nil {
		return Endpoint{}, "", err
	}
	now, secret := s.now().UTC(), NewSecret()
	e := storedEndpoint{Endpoint: Endpoint{
		ID: newEndpointID(), Live: n.Live, URL: n.URL, Description: n.Description, Events: n.Events, Compatibility: n.Compatibility,
		Active: true, CreatedAt: now, UpdatedAt: now,
	}}
	e.Secrets = []storedSecret{{Sealed: keys.seal(secret, e.ID)}}
	r := record[storedEndpoint]{ledger.Object{Kind: kindEndpoint, ID: e.ID, Group: group(n.Live)}, e}
	if err := r.save(ctx, s.store); err != nil {
		return Endpoint{}, "", err
	}
	return e.shown(now), secret, nil
}

// endpoint reads an endpoint of a mode.
func (s *Service) endpoint(ctx context.Context, live bool, id string) (record[storedEndpoint], error) {
	r, err := load[storedEndpoint](ctx, s.store, kindEndpoint, id)
	if errors.Is(err, ledger.ErrNotFound) || err == nil && r.value.Live != live {
		return record[storedEndpoint]{}, errNoEndpoint
	}
	return r, err
}

// Endpoint gives an endpoint of a mode.
func (s *Service) Endpoint(ctx context.Context, live bool, id string) (Endpoint, error) {
	r, err := s.endpoint(ctx, live, id)
	return r.value.shown(s.now()), err
}

// Endpoints lists those of a mode by id, those behind after, at most limit.
func (s *Service) Endpoints(ctx context.Context, live bool, after string, limit int) ([]Endpoint, error) {
	objects, err := s.store.Objects(ctx, kindEndpoint, group(live), after, limit)
	if err != nil {
		return nil, err
	}
	now, out := s.now(), make([]Endpoint, 0, len(objects))
	for _, o := range objects {
		r, err := decode[storedEndpoint](o)
		if err != nil {
			return nil, err
		}
		out = append(out, r.value.shown(now))
	}
	return out, nil
}

// changeEndpoint changes an endpoint that the configuration does not have.
func (s *Service) changeEndpoint(ctx context.Context, live bool, id string, f func(*storedEndpoint, time.Time) error) (Endpoint, error) {
	if _, err := s.endpoint(ctx, live, id); err != nil {
		return Endpoint{}, err
	}
	now := s.now().UTC()
	r, err := change(ctx, s.store, kindEndpoint, id, func(r *record[storedEndpoint]) (bool, error) {
		if r.value.Configured {
			return false, fail(ErrConflict, CodeConfigured, "this endpoint stands in the configuration; change it there")
		}
		r.value.UpdatedAt = now
		return true, f(&r.value, now)
	})
	if errors.Is(err, ledger.ErrNotFound) {
		err = errNoEndpoint
	}
	if err != nil {
		return Endpoint{}, err
	}
	return r.value.shown(now), nil
}

// UpdateEndpoint changes an endpoint. One that is made active again is told of what happens from then on; what died meanwhile can be
// delivered by Redeliver.
func (s *Service) UpdateEndpoint(ctx context.Context, live bool, id string, c EndpointChange) (Endpoint, error) {
	e, err := s.changeEndpoint(ctx, live, id, func(e *storedEndpoint, _ time.Time) error {
		if c.URL != nil {
			e.URL = *c.URL
		}
		if c.Description != nil {
			e.Description = *c.Description
		}
		if c.Events != nil {
			e.Events = *c.Events
		}
		if c.Compatibility != nil {
			e.Compatibility = *c.Compatibility
		}
		if c.Active != nil && *c.Active != e.Active {
			e.Active, e.DisabledReason = *c.Active, ""
			if !e.Active {
				e.DisabledReason = DisabledByOperator
			}
		}
		return check(e.URL, live, e.Description, e.Events)
	})
	s.Wake()
	return e, err
}

// DeleteEndpoint removes an endpoint; what is still to be told to it is dead. It is no error if it is gone already.
func (s *Service) DeleteEndpoint(ctx context.Context, live bool, id string) error {
	for range tries {
		r, err := s.endpoint(ctx, live, id)
		switch {
		case errors.Is(err, ErrNotFound):
			return nil
		case err != nil:
			return err
		case r.value.Configured:
			return fail(ErrConflict, CodeConfigured, "this endpoint stands in the configuration; remove it there")
		}
		if err := s.store.DeleteObject(ctx, kindEndpoint, id, r.object.Version); !errors.Is(err, ledger.ErrConflict) {
			return err
		}
	}
	return errChanging
}

// RotateSecret gives an endpoint a new secret, which is shown here and never again. For overlap more, deliveries carry a signature by each; 0 ends the
// former one at once, as after a leak. Of an overlap that is not over, only the newer secret goes on.
func (s *Service) RotateSecret(ctx context.Context, live bool, id string, overlap time.Duration) (Endpoint, string, error) {
	keys := s.current().Keys
	if keys == nil {
		return Endpoint{}, "", errNoKey
	}
	if overlap < 0 || overlap > MaxOverlap {
		return Endpoint{}, "", fail(ErrInvalid, CodeOverlapInvalid, "the overlap must be from 0 to %s", MaxOverlap)
	}
	secret := NewSecret()
	e, err := s.changeEndpoint(ctx, live, id, func(e *storedEndpoint, now time.Time) error {
		former := e.Secrets
		e.Secrets = []storedSecret{{Sealed: keys.seal(secret, e.ID)}}
		if overlap > 0 && len(former) > 0 {
			e.Secrets = append(e.Secrets, storedSecret{Sealed: former[0].Sealed, Until: now.Add(overlap)})
		}
		return nil
	})
	if err != nil {
		return Endpoint{}, "", err
	}
	return e, secret, nil
}
