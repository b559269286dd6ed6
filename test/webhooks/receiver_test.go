//go:build interop

package webhooks

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/test/interop/bed"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

// receiver is the script receiver.mjs.
type receiver struct {
	t       *testing.T
	address string
	all     []webhook
}

// webhook is what it has to say of a request.
type webhook struct {
	Good         int               `json:"good"` // for how many of its secrets
	TamperedGood int               `json:"tamperedGood"`
	Error        string            `json:"error"`
	Taken        bool              `json:"taken"` // it was believed, and answered 2xx
	Headers      map[string]string `json:"headers"`
	Body         string            `json:"body"`
	event        event
}

// header is the request's.
func (w *webhook) header() http.Header {
	h := http.Header{}
	for name, value := range w.Headers {
		h.Set(name, value)
	}
	return h
}

type event struct {
	ID, Type, Network string
	Livemode          bool
	Timestamp         time.Time
	Data              struct {
		PaymentID, State, Amount, Payer, Transaction, Reason, URI string
	}
}

// behaviour is what it is told to do.
type behaviour struct {
	Status  int               `json:"status,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Delay   int               `json:"delay,omitempty"` // in milliseconds
	Hangup  bool              `json:"hangup,omitempty"`
	Now     int64             `json:"now,omitempty"` // in milliseconds
}

func newReceiver(t *testing.T, secrets ...string) *receiver {
	t.Helper()
	bed.Install(t, ".")
	return &receiver{t: t, address: bed.Serve(t, ".", "receiver.mjs", map[string]any{"secrets": secrets})}
}

func (r *receiver) hook() string { return r.address + "/hook" }

func (r *receiver) do(method, path string, body, into any) {
	r.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		r.t.Fatal(err)
	}
	q, err := http.NewRequestWithContext(r.t.Context(), method, r.address+path, bytes.NewReader(b))
	if err != nil {
		r.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(q)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	if into == nil {
		return
	}
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		r.t.Fatal(err)
	}
}

func (r *receiver) behave(b behaviour) {
	r.t.Helper()
	r.do(http.MethodPut, "/behave", b, nil)
}

// look gives all that has come so far, of which each must be believed by every secret of the receiver, and none if a byte is added.
func (r *receiver) look() []webhook {
	r.t.Helper()
	var fresh []webhook
	r.do(http.MethodGet, "/received", nil, &fresh)
	for i := range fresh {
		w := &fresh[i]
		if w.Good == 0 || w.Error != "" || w.TamperedGood != 0 {
			r.t.Errorf("a webhook is not as it must be: good for %d, changed for %d: %s\n%v\n%s", w.Good, w.TamperedGood, w.Error, w.Headers, w.Body)
		}
		if err := json.Unmarshal([]byte(w.Body), &w.event); err != nil {
			r.t.Error(err)
		}
		if w.event.ID != w.Headers["webhook-id"] {
			r.t.Errorf("the event %s came as %s", w.event.ID, w.Headers["webhook-id"])
		}
	}
	r.all = append(r.all, fresh...)
	return r.all
}

// told gives the events that were taken, by id.
func (r *receiver) told() map[string]event {
	r.t.Helper()
	events := map[string]event{}
	for _, w := range r.look() {
		if w.Taken {
			events[w.event.ID] = w.event
		}
	}
	return events
}

// await waits until events of just these types were taken, and gives them.
func (r *receiver) await(types ...string) map[string]event {
	r.t.Helper()
	slices.Sort(types)
	var got []string
	for deadline := time.Now().Add(rig.Patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		got = got[:0]
		told := r.told()
		for _, e := range told {
			got = append(got, e.Type)
		}
		if slices.Sort(got); slices.Equal(got, types) {
			return told
		}
	}
	r.t.Fatalf("told of %v, want %v", got, types)
	return nil
}
