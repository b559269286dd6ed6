package webhooks

import (
	"errors"
	"net/http"
	"testing"
)

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
