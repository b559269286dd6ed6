package webhooks

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
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
		if c.reason == ReasonTimeout {
			set.Timeout = 300 * time.Millisecond
		}
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

// counting is a store that counts how often it is asked for a list.
type counting struct {
	Store
	lists int
}

func (c *counting) Objects(ctx context.Context, kind, group, after string, limit int) ([]ledger.Object, error) {
	c.lists++
	return c.Store.Objects(ctx, kind, group, after, limit)
}

// A log is read page by page, each delivery once; to look for the few of a state among many takes few questions.
func TestPagesOfTheLog(t *testing.T) {
	b := newBench(t, testSettings())
	r := newReceiver(t)
	e, _ := b.create(r)
	const delivered = 120 // less than are looked at in one step, so that none is put off
	for range delivered {
		b.happens(TypeSettled, false)
	}
	b.run()
	store := &counting{Store: b.ledger}
	b.store = store
	if list, next, err := b.Deliveries(t.Context(), false, e.ID, DeliveryQuery{Status: StatusDead, Limit: 1}); len(list) > 0 || next != "" || err != nil || store.lists > 5 {
		t.Errorf("%d dead, %q, %v, after %d questions", len(list), next, err, store.lists)
	}
	for _, status := range []Status{"", StatusDelivered} {
		seen := map[string]bool{}
		for q := (DeliveryQuery{Status: status, Limit: 7}); ; {
			list, next, err := b.Deliveries(t.Context(), false, e.ID, q)
			if err != nil || len(list) > q.Limit {
				t.Fatal(len(list), err)
			}
			for i := range list {
				if seen[list[i].ID] {
					t.Errorf("%s is there twice", list[i].ID)
				}
				seen[list[i].ID] = true
			}
			if q.After = next; next == "" {
				break
			}
		}
		if len(seen) != delivered {
			t.Errorf("%d of %d are shown with the status %q", len(seen), delivered, status)
		}
	}
}
