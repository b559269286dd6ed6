package events_test

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-x402/caddy-x402/management/events"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

// outbox tells what is in it; the cursor is how many were told.
type outbox struct {
	mu   sync.Mutex
	list []webhooks.Event
	from time.Time
	err  error
}

func (o *outbox) Start(at time.Time) (json.RawMessage, error) {
	o.from = at
	return json.RawMessage("0"), nil
}

func (o *outbox) Next(_ context.Context, cursor json.RawMessage, limit int) ([]webhooks.Event, json.RawMessage, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return nil, nil, o.err
	}
	at, err := strconv.Atoi(string(cursor))
	if err != nil {
		return nil, nil, err
	}
	end := min(at+limit, len(o.list))
	return o.list[at:end], json.RawMessage(strconv.Itoa(end)), nil
}

func event(i int, live bool) webhooks.Event {
	return webhooks.Event{
		ID: "evt_" + strconv.Itoa(i), Type: webhooks.TypeDelivered, At: time.Date(2026, 3, 1, 12, 0, i, 0, time.UTC), Live: live,
		Network: "eip155:8453", Data: json.RawMessage(`{"paymentId":"pay_1","uri":"/a\nevent: forged"}`),
	}
}

// What happens is told once, in order, to who may hear of it, however much of it there is; in between both sides hear that the other is there.
func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &outbox{}
		for i := range 450 { // more than are read at once
			o.list = append(o.list, event(i, i%2 == 0))
		}
		var said []string
		checks := 0
		s := &events.Stream{
			Source: o, Want: func(ev *webhooks.Event) bool { return ev.Live },
			Write: func(text string) error { said = append(said, text); return nil },
			Check: func(context.Context) error { checks++; return nil },
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx, time.Unix(1, 0)) }()
		synctest.Wait()
		o.mu.Lock()
		o.list = append(o.list, event(450, true), event(451, false))
		o.mu.Unlock()
		time.Sleep(31 * time.Second)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		all := strings.Join(said, "")
		if !strings.HasPrefix(all, "retry: ") || checks != 2 || strings.Count(all, ": still here\n\n") != 2 || !o.from.Equal(time.Unix(1, 0)) {
			t.Errorf("%d checks, from %s: %.200s", checks, o.from, all)
		}
		var ids []string
		for block := range strings.SplitSeq(all, "\n\n") {
			for line := range strings.SplitSeq(block, "\n") {
				data, ok := strings.CutPrefix(line, "data: {\"id\"")
				if !ok {
					continue
				}
				var ev events.Event
				if err := json.Unmarshal([]byte("{\"id\""+data), &ev); err != nil || ev.Type != webhooks.TypeDelivered || !ev.Livemode {
					t.Errorf("%v in %s", err, line)
				}
				ids = append(ids, ev.ID)
			}
		}
		if len(ids) != 226 || ids[0] != "evt_0" || ids[225] != "evt_450" {
			t.Errorf("%d events: %v", len(ids), ids)
		}
		if strings.Contains(all, "\nevent: forged") {
			t.Error("what a stranger has sent has become an event")
		}
	})
}

// A stream ends when its listener may not listen any more, does not read, or the ledger is away.
func TestStreamEnds(t *testing.T) {
	boom := errors.New("boom")
	for name, spoil := range map[string]func(*events.Stream, *outbox){
		"not allowed": func(s *events.Stream, _ *outbox) { s.Check = func(context.Context) error { return boom } },
		"not read": func(s *events.Stream, _ *outbox) {
			s.Write = func(text string) error {
				if strings.HasPrefix(text, ":") {
					return boom
				}
				return nil
			}
		},
		"no ledger": func(_ *events.Stream, o *outbox) { o.err = boom },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &outbox{}
				s := &events.Stream{
					Source: o, Want: func(*webhooks.Event) bool { return true }, Write: func(string) error { return nil },
					Check: func(context.Context) error { return nil },
				}
				spoil(s, o)
				if err := s.Run(t.Context(), time.Now()); !errors.Is(err, boom) {
					t.Errorf("it ended with %v", err)
				}
			})
		})
	}
}

func TestSince(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	id := func(at time.Time) string { return strconv.FormatInt(at.UnixMicro(), 10) }
	for _, tc := range []struct {
		last string
		want time.Time
	}{
		{"", now}, {"x", now}, {id(now.Add(time.Hour)), now}, {id(now.Add(-time.Hour)), now}, {id(now.Add(-time.Minute)), now.Add(-70 * time.Second)},
	} {
		if got := events.Since(tc.last, now, 10*time.Minute); !got.Equal(tc.want) {
			t.Errorf("%q: %s, want %s", tc.last, got, tc.want)
		}
	}
}
