package webhooks

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Probe is how an endpoint answers when it is asked whether it is there, and whether it verifies.
type Probe struct {
	// Signed is the answer to a test as any other, which is to be 2xx.
	Signed Attempt `json:"signed"`
	// Tampered is the answer to one that is signed with another secret, which is to be anything else.
	Tampered Attempt `json:"tampered"`
}

// Sound reports whether the endpoint takes what is ours, and nothing else.
func (p *Probe) Sound() bool {
	return p.Signed.Reason == "" && p.Tampered.Reason != "" && p.Tampered.Status != 0
}

// Probe asks an endpoint by two events webhook.test, and waits for its answers. Nothing is logged or repeated; its answers change nothing, a 410 neither.
func (s *Service) Probe(ctx context.Context, live bool, endpoint string) (p Probe, err error) {
	e, err := s.endpoint(ctx, live, endpoint)
	if err != nil {
		return p, err
	}
	now := s.now().UTC()
	secrets, err := s.secretsOf(&e.value, now)
	if err != nil {
		return p, err
	}
	if len(secrets) == 0 {
		return p, fail(ErrUnavailable, CodeConfigured, "the endpoint stands in another instance's configuration; ask there")
	}
	return s.probe(ctx, &e.value, secrets, now)
}

func (s *Service) probe(ctx context.Context, e *storedEndpoint, secrets []string, now time.Time) (Probe, error) {
	ev, err := testEvent(e.ID, e.Live, now)
	if err != nil {
		return Probe{}, err
	}
	d, err := newDelivery(e.ID, &ev, now)
	if err != nil {
		return Probe{}, err
	}
	signed := s.send(ctx, e, secrets, &d.Delivery)
	tampered := s.send(ctx, e, []string{NewSecret()}, &d.Delivery)
	return Probe{Signed: signed.attempt(), Tampered: tampered.attempt()}, ctx.Err()
}

// testEvent tells an endpoint of nothing.
func testEvent(endpoint string, live bool, now time.Time) (Event, error) {
	data, err := json.Marshal(map[string]string{"endpointId": endpoint, "message": "This is a test. Nothing has happened."})
	if err != nil {
		return Event{}, fmt.Errorf("encoding a test: %w", err)
	}
	return Event{ID: "evt_test_" + newEndpointID()[len(endpointPrefix):], Type: TypeTest, At: now, Live: live, Data: data}, nil
}
