package webhooks

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
)

// wire is a network with one receiver, which decides how each request ends.
type wire struct {
	mu      sync.Mutex
	decide  func() int // the status; 0: nobody answers
	arrived map[string]int
}

func (w *wire) RoundTrip(q *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return nil, err
	}
	var ev struct{ ID string }
	if err := json.Unmarshal(body, &ev); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	status := w.decide()
	if status == 0 {
		return nil, errors.New("nobody answers")
	}
	if status < 300 {
		w.arrived[ev.ID]++
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), Request: q}, nil
}

var errTorn = errors.New("the connection to the ledger broke")

// frail is a store whose writes break, before or after they were made; and that is gone when its process is.
type frail struct {
	*storetest.Memory
	mu    sync.Mutex
	when  func() int // 1: before, 2: after
	ended bool
}

func (f *frail) PutObject(ctx context.Context, o ledger.Object) (ledger.Object, error) {
	f.mu.Lock()
	when := f.when()
	if f.ended {
		when = 1
	}
	f.mu.Unlock()
	if when == 1 {
		return ledger.Object{}, errTorn
	}
	o, err := f.Memory.PutObject(ctx, o)
	if when == 2 {
		return ledger.Object{}, errTorn
	}
	return o, err
}

// Whatever dies or breaks, and however long the receiver is down within the schedule: each event arrives, and the log says so.
func TestNothingIsLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, h := newClock(), new(history)
		memory := storetest.NewMemory(c.now, false)
		calm, cast := false, 0
		casts := rapid.SliceOfN(rapid.IntRange(0, 7), 64, 64).Draw(t, "dice")
		var table sync.Mutex
		dice := func() int { // attempts ask, too
			table.Lock()
			defer table.Unlock()
			if cast++; calm {
				return 0
			}
			return casts[cast%len(casts)]
		}
		net := &wire{arrived: map[string]int{}, decide: func() int {
			return []int{204, 204, 500, 500, 503, 301, 0, 0}[dice()]
		}}
		set := testSettings(Configured{URL: "http://127.0.0.1:9/", Secrets: []string{NewSecret()}})
		start := func() *Service {
			f := &frail{Memory: memory, when: func() int { return []int{0, 0, 0, 0, 0, 0, 1, 2}[dice()] }}
			s := idle(Options{Store: f, Outbox: h}, set)
			s.client = &http.Client{Transport: net, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			return s
		}
		instances := []*Service{start(), start()}
		calm = true
		if err := instances[0].Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		calm = false
		happened := 0
		for range rapid.IntRange(5, 40).Draw(t, "steps") {
			i := rapid.IntRange(0, len(instances)-1).Draw(t, "instance")
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				happened++
				h.add(Event{ID: "evt_" + strings.Repeat("x", happened), Type: TypeSettled, At: c.now()})
			case 1:
				instances[i].relayAll(t.Context())
			case 2:
				instances[i].sendAll(t.Context())
				instances[i].attempts.Wait()
			case 3:
				c.pass(time.Duration(rapid.IntRange(1, 4000).Draw(t, "seconds")) * time.Second)
			case 4: // it is killed, and another one starts
				f := instances[i].store.(*frail)
				f.mu.Lock()
				f.ended = true
				f.mu.Unlock()
				instances[i].attempts.Wait()
				instances[i] = start()
			}
		}
		calm = true
		for range MaxAttempts + 1 {
			for _, s := range instances {
				s.relayAll(t.Context())
				s.sendAll(t.Context())
				s.attempts.Wait()
			}
			c.pass(30 * time.Hour)
		}
		if len(net.arrived) != happened {
			t.Fatalf("%d of %d events arrived", len(net.arrived), happened)
		}
		log, err := memory.Objects(t.Context(), kindDelivery, "", "", 1000)
		if err != nil || len(log) != happened {
			t.Fatalf("the log has %d of %d, %v", len(log), happened, err)
		}
		for _, o := range log {
			r, err := decode[storedDelivery](o)
			if err != nil {
				t.Fatal(err)
			}
			if r.value.Status != StatusDelivered {
				t.Fatalf("%+v", r.value)
			}
		}
	})
}

// Of several instances that run, one makes each delivery.
func TestInstancesShareTheWork(t *testing.T) {
	c, h := newClock(), new(history)
	memory := storetest.NewMemory(c.now, false)
	net := &wire{arrived: map[string]int{}, decide: func() int { return 200 }}
	set := testSettings(Configured{URL: "http://127.0.0.1:9/", Secrets: []string{NewSecret()}})
	const instances, events = 3, 300
	var all []*Service
	for range instances {
		s := idle(Options{Store: memory, Outbox: h, Poll: time.Millisecond}, set)
		s.client = &http.Client{Transport: net}
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	for i := range events {
		h.add(Event{ID: "evt_" + strings.Repeat("x", i%100) + string(rune('a'+i/100)), Type: TypeSettled, At: c.now()})
	}
	for _, s := range all {
		s.run()
	}
	t.Cleanup(func() {
		for _, s := range all {
			_ = s.Close()
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for n := 0; n < events; {
		select {
		case <-ctx.Done():
			t.Fatalf("%d of %d arrived", n, events)
		case <-tick.C:
		}
		net.mu.Lock()
		n = len(net.arrived)
		net.mu.Unlock()
		c.pass(time.Second / 100) // what was put off for want of room comes up
	}
	for _, s := range all {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for id, n := range net.arrived {
		if n != 1 {
			t.Errorf("%s arrived %d times", id, n)
		}
	}
}
