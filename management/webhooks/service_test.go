package webhooks

import (
	"context"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// What the configuration can't have is refused before it is in force.
func TestSettingsThatCantBe(t *testing.T) {
	good := Configured{URL: "https://example.com/hook", Live: true, Secrets: []string{NewSecret()}}
	with := func(f func(*Configured)) Configured {
		c := good
		f(&c)
		return c
	}
	for name, c := range map[string]struct {
		list []Configured
		ok   bool
	}{
		"good":               {[]Configured{good}, true},
		"in both modes":      {[]Configured{good, with(func(c *Configured) { c.Live = false })}, true},
		"twice":              {[]Configured{good, good}, false},
		"no secret":          {[]Configured{with(func(c *Configured) { c.Secrets = nil })}, false},
		"a weak secret":      {[]Configured{with(func(c *Configured) { c.Secrets = []string{"whsec_AAAA"} })}, false},
		"a private address":  {[]Configured{with(func(c *Configured) { c.URL = "https://10.0.0.1/" })}, false},
		"this machine":       {[]Configured{with(func(c *Configured) { c.URL = "https://localhost/" })}, false},
		"metadata":           {[]Configured{with(func(c *Configured) { c.URL = "https://169.254.169.254/" })}, false},
		"not TLS":            {[]Configured{with(func(c *Configured) { c.URL = "http://example.com/" })}, false},
		"an event of nobody": {[]Configured{with(func(c *Configured) { c.Events = []string{"x"} })}, false},
	} {
		set := Settings{Endpoints: c.list}
		if err := set.Check(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		} else if err != nil && strings.Contains(err.Error(), good.Secrets[0][6:]) {
			t.Errorf("%s: the error shows the secret", name)
		}
	}
}

// A started service does all of this by itself, and its metrics hear of it.
func TestARunningService(t *testing.T) {
	r := newReceiver(t)
	b := newBench(t, testSettings())
	heard := make(chan Observation, 100)
	set := testSettings(Configured{URL: r.server.URL, Secrets: []string{NewSecret()}})
	set.Observe = func(o Observation) {
		if o.Event != "lag" {
			heard <- o
		}
	}
	s := New(Options{Store: b.ledger, Outbox: b.history, Poll: 5 * time.Millisecond}, set)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.happens(TypeSettled, false)
	s.Wake()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, want := range []string{"attempt", "delivery"} {
		select {
		case o := <-heard:
			if o.Event != want || o.Outcome != string(StatusDelivered) {
				t.Errorf("%+v", o)
			}
		case <-ctx.Done():
			t.Fatal("nothing was delivered")
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	all := r.take()
	if len(all) != 1 {
		t.Fatalf("%d came", len(all))
	}
	w, err := standardwebhooks.NewWebhook(set.Endpoints[0].Secrets[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := w.VerifyIgnoringTimestamp([]byte(all[0].body), all[0].header); err != nil {
		t.Error(err)
	}
}
