package webhooks

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/ledger/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Unix(1_800_000_000, 0).UTC()} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// history is an outbox: a list of events, whose cursor is how many were told.
type history struct {
	mu     sync.Mutex
	events []Event
}

func (h *history) add(ev Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, ev)
}

func (h *history) Start(at time.Time) (json.RawMessage, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.events, func(e Event) bool { return !e.At.Before(at) })
	if i < 0 {
		i = len(h.events)
	}
	return json.Marshal(i)
}

func (h *history) Next(_ context.Context, cursor json.RawMessage, limit int) ([]Event, json.RawMessage, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var i int
	if err := json.Unmarshal(cursor, &i); err != nil {
		return nil, nil, err
	}
	end := min(i+limit, len(h.events))
	next, err := json.Marshal(end)
	return slices.Clone(h.events[i:end]), next, err
}

// got is what a receiver got.
type got struct {
	header http.Header
	body   string
	event  struct {
		ID, Type, Network string
		Livemode          bool
		Timestamp         time.Time
		Data              json.RawMessage
	}
}

// receiver is a seller's system: it answers with what answer says, 204 if that is nil.
type receiver struct {
	server *httptest.Server

	mu     sync.Mutex
	answer http.HandlerFunc
	got    []got
}

func newReceiver(t testing.TB) *receiver {
	r := new(receiver)
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return // the sender has hung up
		}
		g := got{header: q.Header.Clone(), body: string(body)}
		if err := json.Unmarshal(body, &g.event); err != nil {
			t.Errorf("what came is no event: %v", err)
		}
		r.mu.Lock()
		r.got = append(r.got, g)
		answer := r.answer
		r.mu.Unlock()
		if answer == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		answer(w, q)
	}))
	t.Cleanup(r.server.Close)
	return r
}

func (r *receiver) answers(h http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = h
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// take gives what has come since it was asked last.
func (r *receiver) take() []got {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.got
	r.got = nil
	return all
}

// bench is a Service that tests drive by hand, on a clock of theirs.
type bench struct {
	*Service
	t       testing.TB
	clock   *clock
	ledger  *storetest.Memory
	history *history
}

var sealingKeys = func() *Keys {
	k, err := NewKeys("a key of at least thirty-two bytes, for tests")
	if err != nil {
		panic(err)
	}
	return k
}()

// patience is how long tests wait for what comes at once, unless the machine is busy.
const patience = time.Minute

func testSettings(endpoints ...Configured) Settings {
	return Settings{Endpoints: endpoints, Keys: sealingKeys, AllowPrivate: PrivateRanges(), Timeout: patience, Logger: slog.New(slog.DiscardHandler)}
}

func newBench(t testing.TB, set Settings) *bench {
	c := newClock()
	b := &bench{t: t, clock: c, ledger: storetest.NewMemory(c.now, false), history: new(history)}
	b.Service = b.another(set)
	return b
}

// another is another instance on the same ledger.
func (b *bench) another(set Settings) *Service {
	s := idle(Options{Store: b.ledger, Outbox: b.history}, set)
	b.t.Cleanup(func() { _ = s.Close() })
	return s
}

// happens puts an event into the outbox.
func (b *bench) happens(typ string, live bool) Event {
	ev := Event{ID: fmt.Sprintf("evt_%d", len(b.history.events)+1), Type: typ, At: b.clock.now(), Live: live, Network: "eip155:84532", Data: json.RawMessage(`{"paymentId":"pay_x"}`)}
	b.history.add(ev)
	return ev
}

// run lets the service do all that can be done now.
func (b *bench) run() { work(b.t, b.Service) }

func work(t testing.TB, s *Service) {
	t.Helper()
	for range 100 {
		s.relayAll(t.Context())
		s.sendAll(t.Context())
		s.attempts.Wait()
		due, err := s.store.DueObjects(t.Context(), kindDelivery, s.now(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(due) == 0 {
			return
		}
	}
}

// create makes an endpoint for tests' events at the receiver.
func (b *bench) create(r *receiver, events ...string) (Endpoint, string) {
	b.t.Helper()
	e, secret, err := b.CreateEndpoint(b.t.Context(), NewEndpoint{URL: r.server.URL + "/hook", Events: events})
	if err != nil {
		b.t.Fatal(err)
	}
	return e, secret
}

// log is the delivery log of an endpoint.
func (b *bench) log(e Endpoint) []Delivery {
	b.t.Helper()
	list, next, err := b.Deliveries(b.t.Context(), e.Live, e.ID, DeliveryQuery{Limit: 100})
	if err != nil || next != "" {
		b.t.Fatal(next, err)
	}
	return list
}

// verify says whether the receiver may believe what it got.
func (b *bench) verify(secret string, g got) error {
	return Verify(secret, g.header, []byte(g.body), b.clock.now())
}
