package webhooks

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

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
