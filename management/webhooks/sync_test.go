package webhooks

import (
	"errors"
	"net/http"
	"testing"
	"time"
)

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
