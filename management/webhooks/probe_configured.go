package webhooks

import (
	"context"
	"fmt"
	"time"
)

// ProbeConfigured asks an endpoint of a configuration, by its place in it, as Service.Probe asks those that a ledger knows: for who looks at a
// configuration that need not be running. It needs no ledger.
func ProbeConfigured(ctx context.Context, set Settings, number int, now func() time.Time) (Probe, error) {
	if number < 0 || number >= len(set.Endpoints) {
		return Probe{}, fmt.Errorf("there is no webhook number %d", number+1)
	}
	s := idle(Options{Now: now}, set)
	defer func() { _ = s.Close() }()
	c := &set.Endpoints[number]
	e := storedEndpoint{Endpoint: Endpoint{ID: c.ID(), Live: c.Live, URL: c.URL, Compatibility: c.Compatibility, Active: true, Configured: true}}
	return s.probe(ctx, &e, c.Secrets, now().UTC())
}
