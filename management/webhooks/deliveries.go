package webhooks

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// DeliveryQuery selects deliveries of an endpoint.
type DeliveryQuery struct {
	// Status, where it is not empty, must match.
	Status Status
	// After is the last delivery of the page before.
	After string
	Limit int
}

// scanned bounds how many deliveries are looked at to find those of a state, and atOnce is how many are read at once then: they may be few.
const (
	scanned = 2000
	atOnce  = 100
)

// Deliveries lists those of an endpoint, the newest first. next is the After of the next page; empty: there is none. With a Status a page may
// be short, and even empty, though another follows.
func (s *Service) Deliveries(ctx context.Context, live bool, endpoint string, q DeliveryQuery) (list []Delivery, next string, err error) {
	switch q.Status {
	case "", StatusPending, StatusFailed, StatusDelivered, StatusDead:
	default:
		return nil, "", fail(ErrInvalid, CodeQueryInvalid, "a delivery is pending, failed, delivered or dead")
	}
	if q.Limit < 1 || q.After != "" && !ledger.IsObjectName(kindDelivery, q.After) {
		return nil, "", fail(ErrInvalid, CodeQueryInvalid, "the page asked for can't be")
	}
	if _, err := s.endpoint(ctx, live, endpoint); err != nil {
		return nil, "", err
	}
	size := q.Limit
	if q.Status != "" {
		size = max(size, atOnce)
	}
	list = []Delivery{}
	for seen := 0; seen < scanned; {
		page, err := s.store.Objects(ctx, kindDelivery, endpoint, q.After, size)
		if err != nil {
			return nil, "", err
		}
		for _, o := range page {
			r, err := decode[storedDelivery](o)
			if err != nil {
				return nil, "", err
			}
			if q.After = o.ID; q.Status == "" || r.value.Status == q.Status {
				list = append(list, r.value.Delivery)
			}
			if len(list) == q.Limit {
				return list, q.After, nil
			}
		}
		if len(page) < size {
			return list, "", nil
		}
		seen += len(page)
	}
	return list, q.After, nil
}

// Delivery gives a delivery of an endpoint.
func (s *Service) Delivery(ctx context.Context, live bool, endpoint, id string) (Delivery, error) {
	r, err := load[storedDelivery](ctx, s.store, kindDelivery, id)
	if errors.Is(err, ledger.ErrNotFound) || err == nil && (r.value.Live != live || r.value.EndpointID != endpoint) {
		return Delivery{}, fail(ErrNotFound, CodeDeliveryNotFound, "there is no such delivery")
	}
	return r.value.Delivery, err
}

// Redeliver makes a delivery that is over, delivered or dead, pending again, with the whole schedule before it. The receiver gets the same event under the
// same id. One that waits for its next attempt is attempted now.
func (s *Service) Redeliver(ctx context.Context, live bool, endpoint, id string) (Delivery, error) {
	if _, err := s.Delivery(ctx, live, endpoint, id); err != nil {
		return Delivery{}, err
	}
	if err := s.active(ctx, live, endpoint); err != nil {
		return Delivery{}, err
	}
	r, err := change(ctx, s.store, kindDelivery, id, func(r *record[storedDelivery]) (bool, error) {
		now, d := s.now().UTC(), &r.value
		if d.Leased.After(now) {
			return false, fail(ErrConflict, CodeUnderWay, "it is being delivered just now")
		}
		d.Status, d.Tried, d.NextAttemptAt, d.Leased = StatusPending, 0, now, time.Time{}
		r.object.Due, r.object.Expires = now, time.Time{}
		return true, nil
	})
	s.Wake()
	return r.value.Delivery, err
}

// active refuses an endpoint that is told nothing.
func (s *Service) active(ctx context.Context, live bool, endpoint string) error {
	e, err := s.endpoint(ctx, live, endpoint)
	if err == nil && !e.value.Active {
		err = fail(ErrConflict, CodeDisabled, "the endpoint is not active; activate it first")
	}
	return err
}

// TestDelivery tells an endpoint of nothing, by an event webhook.test, as if something had happened: signed, logged and tried again.
func (s *Service) TestDelivery(ctx context.Context, live bool, endpoint string) (Delivery, error) {
	if err := s.active(ctx, live, endpoint); err != nil {
		return Delivery{}, err
	}
	ev, err := testEvent(endpoint, live, s.now())
	if err != nil {
		return Delivery{}, err
	}
	d, err := s.enqueue(ctx, endpoint, &ev)
	s.Wake()
	return d, err
}

// Publish tells the endpoints of ev's mode that want it. It may be repeated, and makes nothing twice if ev is the same, with its time: whoever stores what
// ev is about publishes it until that has succeeded.
func (s *Service) Publish(ctx context.Context, ev Event) error {
	endpoints, err := s.all(ctx)
	if err != nil {
		return err
	}
	return s.publish(ctx, endpoints, &ev, "")
}

// publish is Publish to those of endpoints that are not but.
func (s *Service) publish(ctx context.Context, endpoints []storedEndpoint, ev *Event, but string) error {
	for i := range endpoints {
		if e := &endpoints[i]; e.ID != but && e.hears(ev) {
			if _, err := s.enqueue(ctx, e.ID, ev); err != nil {
				return err
			}
		}
	}
	s.Wake()
	return nil
}

// enqueue stores the delivery of ev to an endpoint, unless it is there already.
func (s *Service) enqueue(ctx context.Context, endpoint string, ev *Event) (Delivery, error) {
	now := s.now().UTC()
	d, err := newDelivery(endpoint, ev, now)
	if err != nil {
		return Delivery{}, err
	}
	r := record[storedDelivery]{ledger.Object{Kind: kindDelivery, ID: d.ID, Group: endpoint, Due: now}, d}
	if err := r.save(ctx, s.store); err != nil && !errors.Is(err, ledger.ErrExists) {
		return Delivery{}, err
	}
	return r.value.Delivery, nil
}

// all gives the endpoints of both modes.
func (s *Service) all(ctx context.Context) ([]storedEndpoint, error) {
	var out []storedEndpoint
	for after := ""; ; {
		page, err := s.store.Objects(ctx, kindEndpoint, "", after, maxEndpoints)
		if err != nil {
			return nil, err
		}
		for _, o := range page {
			r, err := decode[storedEndpoint](o)
			if err != nil {
				return nil, err
			}
			out = append(out, r.value)
			after = o.ID
		}
		if len(page) < maxEndpoints {
			return out, nil
		}
	}
}
