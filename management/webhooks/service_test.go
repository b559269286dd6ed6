package webhooks

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// What happens is told to those who want it, of its mode, from when they are there; each has a secret of its own.
func TestEventsAreDelivered(t *testing.T) {
	b := newBench(t, testSettings())
	everything, payments, failures := newReceiver(t), newReceiver(t), newReceiver(t)
	one, secret := b.create(everything)
	b.happens(TypeSettled, false)
	b.clock.pass(time.Minute)
	b.create(payments, "payment.*")
	b.create(failures, TypeRefundFailed, TypeKeyRevoked)
	for _, typ := range []string{TypeSettled, TypeRefundFailed, TypeKeyRotated} {
		b.happens(typ, false)
		b.happens(typ, true) // of real money: nobody here is told
	}
	b.run()
	for name, c := range map[string]struct {
		r    *receiver
		want []string
	}{
		"everything": {everything, []string{TypeKeyRotated, TypeSettled, TypeSettled, TypeRefundFailed}},
		"payments":   {payments, []string{TypeSettled, TypeRefundFailed}},
		"failures":   {failures, []string{TypeRefundFailed}},
	} {
		var types []string
		for _, g := range c.r.take() {
			types = append(types, g.event.Type)
			if g.event.ID != g.header.Get(HeaderID) || g.event.Livemode || g.event.Network != "eip155:84532" || g.event.Timestamp.IsZero() ||
				string(g.event.Data) != `{"paymentId":"pay_x"}` || g.header.Get("Content-Type") != "application/json" || g.header.Get(headerCompatSignature) != "" {
				t.Errorf("%s: %+v", name, g)
			}
			if err := b.verify(secret, g); (err == nil) != (c.r == everything) {
				t.Errorf("%s: by the secret of the first: %v", name, err)
			}
		}
		slices.Sort(types)
		slices.Sort(c.want)
		if !slices.Equal(types, c.want) {
			t.Errorf("%s was told of %v, want %v", name, types, c.want)
		}
	}
	for _, d := range b.log(one) {
		if d.Status != StatusDelivered || d.AttemptCount != 1 || d.ResponseStatusCode != 204 || !d.NextAttemptAt.IsZero() || len(d.Attempts) != 1 {
			t.Errorf("%+v", d)
		}
	}
	b.run()
	if n := len(everything.take()); n != 0 {
		t.Errorf("%d came again", n)
	}
}

// An endpoint that is down is tried again by the schedule, each time with a fresh timestamp, under one id, until the delivery is dead.
func TestADeadReceiver(t *testing.T) {
	b := newBench(t, testSettings())
	r := newReceiver(t)
	e, secret := b.create(r)
	r.answers(status(http.StatusInternalServerError))
	ev := b.happens(TypeSettled, false)
	for attempt := 1; attempt <= MaxAttempts; attempt++ {
		b.run()
		all := r.take()
		if len(all) != 1 {
			t.Fatalf("attempt %d: %d came", attempt, len(all))
		}
		if err := b.verify(secret, all[0]); err != nil || all[0].event.ID != ev.ID {
			t.Errorf("attempt %d: %v, id %s", attempt, err, all[0].event.ID)
		}
		d := b.log(e)[0]
		if d.AttemptCount != attempt || d.ResponseStatusCode != 500 || d.Reason != ReasonStatus {
			t.Errorf("attempt %d: %+v", attempt, d)
		}
		if attempt == MaxAttempts {
			if d.Status != StatusDead || !d.NextAttemptAt.IsZero() {
				t.Errorf("in the end: %+v", d)
			}
			break
		}
		if wait := d.NextAttemptAt.Sub(b.clock.now()); d.Status != StatusFailed || wait < delays[attempt] {
			t.Errorf("attempt %d: %s, the next one in %s", attempt, d.Status, wait)
		}
		b.clock.pass(delays[attempt] - time.Millisecond)
		if b.run(); len(r.take()) != 0 {
			t.Errorf("attempt %d came too early", attempt+1)
		}
		b.clock.pass(delays[attempt]/5 + 2*time.Millisecond)
	}
	b.clock.pass(48 * time.Hour)
	if b.run(); len(r.take()) != 0 {
		t.Error("what is dead was attempted")
	}
	dead, _, err := b.Deliveries(t.Context(), false, e.ID, DeliveryQuery{Status: StatusDead, Limit: 10})
	if err != nil || len(dead) != 1 {
		t.Fatal(dead, err)
	}
	// Somebody mends the receiver, and asks for it again.
	r.answers(nil)
	if _, err := b.Redeliver(t.Context(), false, e.ID, dead[0].ID); err != nil {
		t.Fatal(err)
	}
	b.run()
	if all := r.take(); len(all) != 1 || all[0].event.ID != ev.ID || b.verify(secret, all[0]) != nil {
		t.Errorf("delivered again: %v", all)
	}
	if d := b.log(e)[0]; d.Status != StatusDelivered || d.AttemptCount != MaxAttempts+1 || d.Reason != "" {
		t.Errorf("%+v", d)
	}
	// The log forgets.
	b.clock.pass(31 * 24 * time.Hour)
	if left := b.log(e); len(left) != 0 {
		t.Errorf("still there: %+v", left)
	}
}

// What receivers answer, and what comes of it.
func TestAnswers(t *testing.T) {
	elsewhere := newReceiver(t)
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		reason string
		least  time.Duration // until the next attempt
	}{
		"a redirect": {func(w http.ResponseWriter, q *http.Request) {
			http.Redirect(w, q, elsewhere.server.URL, http.StatusTemporaryRedirect)
		}, ReasonRedirect, 5 * time.Second},
		"asks for time": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "600")
			w.WriteHeader(http.StatusTooManyRequests)
		}, ReasonStatus, 10 * time.Minute},
		"not found": {status(http.StatusNotFound), ReasonStatus, 5 * time.Second},
		"no answer": {func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() }, ReasonTimeout, 5 * time.Second},
		"hangs up":  {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, ReasonConnection, 5 * time.Second},
		"an endless answer": {func(w http.ResponseWriter, _ *http.Request) {
			for range 1 << 16 {
				if _, err := w.Write(make([]byte, 1<<10)); err != nil {
					return
				}
			}
		}, "", 0},
	} {
		set := testSettings()
		set.Timeout = 300 * time.Millisecond
		b := newBench(t, set)
		r := newReceiver(t)
		e, _ := b.create(r)
		r.answers(c.answer)
		b.happens(TypeSettled, false)
		b.run()
		d := b.log(e)[0]
		if wait := d.NextAttemptAt.Sub(b.clock.now()); d.Reason != c.reason || c.reason != "" && (d.Status != StatusFailed || wait < c.least || wait > 2*c.least) {
			t.Errorf("%s: %+v", name, d)
		}
	}
	if n := len(elsewhere.take()); n != 0 {
		t.Errorf("%d redirects were followed", n)
	}
	b := newBench(t, testSettings())
	r := newReceiver(t)
	e, _ := b.create(r)
	r.server.Close()
	b.happens(TypeSettled, false)
	if b.run(); b.log(e)[0].Reason != ReasonConnection {
		t.Errorf("nobody listens: %+v", b.log(e)[0])
	}
	set := testSettings()
	set.AllowPrivate = nil
	b.Configure(set)
	b.clock.pass(time.Minute)
	if b.run(); b.log(e)[0].Reason != ReasonAddress {
		t.Errorf("an address that is not allowed: %+v", b.log(e)[0])
	}
}

// 410 Gone disables the endpoint; the others are told, what waits for it is dead, and it can be made active again.
func TestGone(t *testing.T) {
	b := newBench(t, testSettings())
	r, witness := newReceiver(t), newReceiver(t)
	e, _ := b.create(r)
	b.create(witness, TypeEndpointDisabled)
	r.answers(status(http.StatusGone))
	for range 12 {
		b.happens(TypeSettled, false)
	}
	b.run()
	if len(r.take()) == 0 {
		t.Error("it was not asked")
	}
	if all := witness.take(); len(all) != 1 || all[0].event.Type != TypeEndpointDisabled || !strings.Contains(all[0].body, e.ID) {
		t.Errorf("the other one was told %v", all)
	}
	for _, d := range b.log(e) {
		if d.Status != StatusDead || d.Reason != ReasonGone && d.Reason != ReasonEndpointOff {
			t.Errorf("%+v", d)
		}
	}
	if got, err := b.Endpoint(t.Context(), false, e.ID); err != nil || got.Active || got.DisabledReason != DisabledGone {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := b.TestDelivery(t.Context(), false, e.ID); !errors.Is(err, ErrConflict) {
		t.Errorf("a test of it: %v", err)
	}
	r.answers(nil)
	b.happens(TypeSettled, false)
	b.run()
	on := true
	if _, err := b.UpdateEndpoint(t.Context(), false, e.ID, EndpointChange{Active: &on}); err != nil {
		t.Fatal(err)
	}
	b.happens(TypeSettled, false)
	if b.run(); len(r.take()) != 1 {
		t.Error("active again, it is not told what happens then, and that alone")
	}
}

// During the overlap each delivery is signed by both secrets, after it by the new one; without an overlap at once.
func TestRotation(t *testing.T) {
	b := newBench(t, testSettings())
	r := newReceiver(t)
	e, first := b.create(r)
	compat := true
	if _, err := b.UpdateEndpoint(t.Context(), false, e.ID, EndpointChange{Compatibility: &compat}); err != nil {
		t.Fatal(err)
	}
	believed := func(secrets ...string) (got []bool) {
		t.Helper()
		b.happens(TypeSettled, false)
		b.run()
		all := r.take()
		if len(all) != 1 {
			t.Fatalf("%d came", len(all))
		}
		for _, s := range secrets {
			got = append(got, b.verify(s, all[0]) == nil, VerifyCompat(s, all[0].header, []byte(all[0].body), b.clock.now()) == nil)
		}
		return got
	}
	changed, second, err := b.RotateSecret(t.Context(), false, e.ID, time.Hour)
	if err != nil || !changed.OverlapEndsAt.Equal(b.clock.now().Add(time.Hour)) {
		t.Fatal(changed, err)
	}
	if got := believed(first, second); !slices.Equal(got, []bool{true, true, true, false}) {
		t.Errorf("in the overlap: %v", got)
	}
	b.clock.pass(time.Hour)
	if got := believed(first, second); !slices.Equal(got, []bool{false, false, true, true}) {
		t.Errorf("after the overlap: %v", got)
	}
	_, third, err := b.RotateSecret(t.Context(), false, e.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := believed(second, third); !slices.Equal(got, []bool{false, false, true, true}) {
		t.Errorf("after a leak: %v", got)
	}
	if _, _, err := b.RotateSecret(t.Context(), false, e.ID, MaxOverlap+1); !errors.Is(err, ErrInvalid) {
		t.Errorf("an overlap without end: %v", err)
	}
}

// A test delivery is as any other, whatever the filter.
func TestTestDelivery(t *testing.T) {
	b := newBench(t, testSettings())
	r := newReceiver(t)
	e, secret := b.create(r, TypeRefundFailed)
	d, err := b.TestDelivery(t.Context(), false, e.ID)
	if err != nil || d.Status != StatusPending {
		t.Fatal(d, err)
	}
	b.run()
	if all := r.take(); len(all) != 1 || all[0].event.Type != TypeTest || b.verify(secret, all[0]) != nil {
		t.Errorf("%v", all)
	}
	if got, err := b.Delivery(t.Context(), false, e.ID, d.ID); err != nil || got.Status != StatusDelivered {
		t.Errorf("%+v, %v", got, err)
	}
}

// A probe tells a receiver that verifies from one that believes everybody, and from one that is not there.
func TestProbe(t *testing.T) {
	b := newBench(t, testSettings())
	r := newReceiver(t)
	e, secret := b.create(r)
	probe := func() Probe {
		t.Helper()
		p, err := b.Probe(t.Context(), false, e.ID)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := probe(); p.Sound() || p.Signed.Reason != "" || p.Tampered.Reason != "" {
		t.Errorf("one that believes everybody: %+v", p)
	}
	r.answers(func(w http.ResponseWriter, _ *http.Request) {
		r.mu.Lock()
		last := r.got[len(r.got)-1]
		r.mu.Unlock()
		if b.verify(secret, last) != nil {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	if p := probe(); !p.Sound() || p.Tampered.Status != http.StatusUnauthorized {
		t.Errorf("one that verifies: %+v", p)
	}
	r.server.Close()
	if p := probe(); p.Sound() || p.Signed.Reason != ReasonConnection {
		t.Errorf("one that is not there: %+v", p)
	}
	if log := b.log(e); len(log) != 0 {
		t.Errorf("it is in the log: %+v", log)
	}
	if _, err := b.Probe(t.Context(), true, e.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("in the other mode: %v", err)
	}
}

// Nobody sees or touches an endpoint of the other mode, nor another's delivery.
func TestModesAreApart(t *testing.T) {
	b := newBench(t, testSettings())
	r := newReceiver(t)
	e, _ := b.create(r)
	d, err := b.TestDelivery(t.Context(), false, e.ID)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := b.create(r)
	ctx := t.Context()
	on := false
	for name, f := range map[string]func() error{
		"show":       func() error { _, err := b.Endpoint(ctx, true, e.ID); return err },
		"change":     func() error { _, err := b.UpdateEndpoint(ctx, true, e.ID, EndpointChange{Active: &on}); return err },
		"rotate":     func() error { _, _, err := b.RotateSecret(ctx, true, e.ID, 0); return err },
		"test":       func() error { _, err := b.TestDelivery(ctx, true, e.ID); return err },
		"deliveries": func() error { _, _, err := b.Deliveries(ctx, true, e.ID, DeliveryQuery{Limit: 1}); return err },
		"delivery":   func() error { _, err := b.Delivery(ctx, true, e.ID, d.ID); return err },
		"another's":  func() error { _, err := b.Delivery(ctx, false, other.ID, d.ID); return err },
		"redeliver":  func() error { _, err := b.Redeliver(ctx, true, e.ID, d.ID); return err },
		"no such id": func() error { _, err := b.Endpoint(ctx, false, "we_none"); return err },
		"no id":      func() error { _, err := b.Endpoint(ctx, false, "../x y"); return err },
	} {
		if err := f(); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := b.DeleteEndpoint(ctx, true, e.ID); err != nil {
		t.Error(err)
	}
	if list, err := b.Endpoints(ctx, true, "", 10); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
	if list, err := b.Endpoints(ctx, false, "", 10); err != nil || len(list) != 2 || !list[0].Active {
		t.Error(list, err)
	}
}

// What can't be an endpoint is refused by a code.
func TestEndpointsThatCantBe(t *testing.T) {
	b := newBench(t, testSettings())
	for name, c := range map[string]struct {
		n    NewEndpoint
		code string
	}{
		"no URL":             {NewEndpoint{}, CodeURLInvalid},
		"no address":         {NewEndpoint{URL: "https:///x"}, CodeURLInvalid},
		"a path":             {NewEndpoint{URL: "/hook"}, CodeURLInvalid},
		"another scheme":     {NewEndpoint{URL: "ftp://example.com"}, CodeURLInvalid},
		"a file":             {NewEndpoint{URL: "file:///etc/passwd"}, CodeURLInvalid},
		"with a password":    {NewEndpoint{URL: "https://a:b@example.com"}, CodeURLInvalid},
		"with a fragment":    {NewEndpoint{URL: "https://example.com/#x"}, CodeURLInvalid},
		"with a line":        {NewEndpoint{URL: "https://example.com/\r\nX: y"}, CodeURLInvalid},
		"live without TLS":   {NewEndpoint{URL: "http://example.com", Live: true}, CodeURLInvalid},
		"too long":           {NewEndpoint{URL: "https://example.com/" + strings.Repeat("x", maxURL)}, CodeURLInvalid},
		"no such event":      {NewEndpoint{URL: "https://example.com", Events: []string{"payment.paid"}}, CodeEventsInvalid},
		"no such group":      {NewEndpoint{URL: "https://example.com", Events: []string{"paym*"}}, CodeEventsInvalid},
		"everything by name": {NewEndpoint{URL: "https://example.com", Events: []string{"*"}}, CodeEventsInvalid},
		"a long description": {NewEndpoint{URL: "https://example.com", Description: strings.Repeat("x", 281)}, CodeTextInvalid},
	} {
		_, secret, err := b.CreateEndpoint(t.Context(), c.n)
		if e, ok := errors.AsType[*Error](err); !ok || e.Code != c.code || secret != "" || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range maxEndpoints {
		if _, _, err := b.CreateEndpoint(t.Context(), NewEndpoint{URL: "https://example.com/" + strconv.Itoa(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := b.CreateEndpoint(t.Context(), NewEndpoint{URL: "https://example.com"}); !errors.Is(err, ErrConflict) {
		t.Errorf("one too many: %v", err)
	}
	set := testSettings()
	set.Keys = nil
	b.Configure(set)
	if _, _, err := b.CreateEndpoint(t.Context(), NewEndpoint{URL: "https://example.com"}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("without a key: %v", err)
	}
}

// An endpoint that is removed hears nothing more, not even of what has happened before.
func TestRemovedEndpoints(t *testing.T) {
	b := newBench(t, testSettings())
	r := newReceiver(t)
	e, _ := b.create(r)
	r.answers(status(500))
	b.happens(TypeSettled, false)
	b.run()
	r.take()
	if err := b.DeleteEndpoint(t.Context(), false, e.ID); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteEndpoint(t.Context(), false, e.ID); err != nil {
		t.Errorf("again: %v", err)
	}
	b.clock.pass(time.Hour)
	b.happens(TypeSettled, false)
	if b.run(); len(r.take()) != 0 {
		t.Error("it was told")
	}
}

// Endpoints of the configuration keep their ids and their log; what is said of them there counts; once removed, and seen nowhere for a time, they are gone.
func TestConfiguredEndpoints(t *testing.T) {
	r := newReceiver(t)
	older, newer := NewSecret(), NewSecret()
	c := Configured{URL: r.server.URL + "/hook", Secrets: []string{older}}
	b := newBench(t, testSettings(c))
	if err := b.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.happens(TypeSettled, false)
	b.run()
	if all := r.take(); len(all) != 1 || b.verify(older, all[0]) != nil {
		t.Fatalf("%v", all)
	}
	list, err := b.Endpoints(t.Context(), false, "", 10)
	if err != nil || len(list) != 1 || !list[0].Configured || list[0].ID != c.ID() {
		t.Fatal(list, err)
	}
	for name, f := range map[string]func() error{
		"rotate": func() error { _, _, err := b.RotateSecret(t.Context(), false, c.ID(), 0); return err },
		"remove": func() error { return b.DeleteEndpoint(t.Context(), false, c.ID()) },
	} {
		if err := f(); !errors.Is(err, ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A new secret before the old one: both sign. A filter: it counts.
	c.Secrets, c.Events = []string{newer, older}, []string{TypeRefunded}
	b.Configure(testSettings(c))
	b.clock.pass(time.Second)
	b.run()
	b.happens(TypeSettled, false)
	b.happens(TypeRefunded, false)
	b.run()
	if all := r.take(); len(all) != 1 || all[0].event.Type != TypeRefunded || b.verify(older, all[0]) != nil || b.verify(newer, all[0]) != nil {
		t.Errorf("%v", all)
	}
	// Gone, and configured again: it is asked again.
	r.answers(status(http.StatusGone))
	b.happens(TypeRefunded, false)
	b.run()
	r.answers(nil)
	r.take()
	b.happens(TypeRefunded, false)
	if b.run(); len(r.take()) != 0 {
		t.Error("it was told after 410")
	}
	b.Configure(testSettings(c))
	b.run()
	b.happens(TypeRefunded, false)
	if b.run(); len(r.take()) != 1 {
		t.Error("after a reload it was not told")
	}
	// Removed: what another instance still has is left to it, and goes when nobody has it.
	b.Configure(testSettings())
	b.happens(TypeRefunded, false)
	b.run()
	b.clock.pass(goneAfter + time.Minute)
	b.Configure(testSettings())
	b.run()
	if list, err := b.Endpoints(t.Context(), false, "", 10); err != nil || len(list) != 0 || len(r.take()) != 0 {
		t.Error(list, err)
	}
}

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
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
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
