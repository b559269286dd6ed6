//go:build interop

package webhooks

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// trail makes an outbox of a ledger's facts.
type trail struct{ feed paywall.Feed }

func (o *trail) Start(at time.Time) (json.RawMessage, error) {
	return json.Marshal(paywall.Cursor{After: ledger.Mark{At: at}})
}

func (o *trail) Next(ctx context.Context, cursor json.RawMessage, limit int) ([]webhooks.Event, json.RawMessage, error) {
	c, err := paywall.ParseCursor(string(cursor))
	if err != nil {
		return nil, nil, err
	}
	facts, next, err := o.feed.Next(ctx, c, limit)
	if err != nil {
		return nil, nil, err
	}
	var events []webhooks.Event
	for _, f := range facts {
		events = append(events, webhooks.Event{ID: "evt_" + strings.ReplaceAll(f.ID, ".", "_"), Type: "payment." + string(f.Kind), At: f.At})
	}
	text, err := next.Encode()
	return events, json.RawMessage(text), err
}

// days is a ledger and a sender on a clock that the test moves, and a receiver on the same clock.
type days struct {
	*webhooks.Service
	t        *testing.T
	store    *sqlite.Store
	receiver *receiver
	endpoint webhooks.Endpoint
	sold     int

	mu sync.Mutex
	at time.Time
}

func (d *days) now() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.at
}

// pass lets time pass, and the receiver do something else from then on: it knows before anything more is due.
func (d *days) pass(by time.Duration, b behaviour) {
	d.t.Helper()
	at := d.now().Add(by)
	b.Now = at.UnixMilli()
	d.receiver.behave(b)
	d.mu.Lock()
	d.at = at
	d.mu.Unlock()
	d.Wake()
}

func newDays(t *testing.T) *days {
	d := &days{t: t, at: time.Now().Truncate(time.Second)}
	var err error
	if d.store, err = sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), sqlite.Options{Now: d.now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.store.Close() })
	keys, err := webhooks.NewKeys("a key of at least thirty-two bytes, for tests")
	if err != nil {
		t.Fatal(err)
	}
	d.Service = webhooks.New(webhooks.Options{
		Store: d.store, Outbox: &trail{feed: paywall.Feed{Store: d.store}}, Now: d.now, Poll: 20 * time.Millisecond,
	}, webhooks.Settings{Keys: keys, AllowPrivate: webhooks.PrivateRanges(), Timeout: 3 * time.Second})
	t.Cleanup(func() { _ = d.Close() })
	// The secret is made with the endpoint, and the receiver has to have it: so the endpoint is moved to the receiver then.
	e, secret, err := d.CreateEndpoint(t.Context(), webhooks.NewEndpoint{URL: "http://127.0.0.1:9/hook"})
	if err != nil {
		t.Fatal(err)
	}
	d.receiver = newReceiver(t, secret)
	url := d.receiver.hook()
	if d.endpoint, err = d.UpdateEndpoint(t.Context(), false, e.ID, webhooks.EndpointChange{URL: &url}); err != nil {
		t.Fatal(err)
	}
	return d
}

// sell makes a payment that is settled and delivered: two events.
func (d *days) sell() {
	d.t.Helper()
	d.sold++
	payer := common.Address{byte(d.sold)}
	id, err := ledger.NewID(rand.Reader, payer)
	if err != nil {
		d.t.Fatal(err)
	}
	ctx := d.t.Context()
	p, err := d.store.Claim(ctx, ledger.Payment{
		ID: id, AuthorizationID: x402.AuthorizationID{ChainID: 84532, Payer: payer, Nonce: common.Hash{1}}, Flow: ledger.FlowUpfront,
		Binding: ledger.Binding{Route: "r", Method: http.MethodGet, Host: "h", URI: "/"},
	}, ledger.Change{Event: ledger.EventClaim, Actor: "test", Hold: time.Minute})
	if err != nil {
		d.t.Fatal(err)
	}
	_, err = d.store.Update(ctx, id, p.Version,
		ledger.Change{Event: ledger.EventSettle, Actor: "test", Transaction: common.Hash{1}},
		ledger.Change{Event: ledger.EventDeliver, Actor: "test", Fence: p.Hold.Fence, Hold: time.Minute},
		ledger.Change{Event: ledger.EventDelivered, Actor: "test", Fence: p.Hold.Fence})
	if err != nil {
		d.t.Fatal(err)
	}
	d.Wake()
}

// until waits until the log is as ok says; it gives the log.
func (d *days) until(what string, ok func([]webhooks.Delivery) bool) []webhooks.Delivery {
	d.t.Helper()
	var list []webhooks.Delivery
	for deadline := time.Now().Add(rig.Patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var err error
		if list, _, err = d.Deliveries(d.t.Context(), false, d.endpoint.ID, webhooks.DeliveryQuery{Limit: 100}); err != nil {
			d.t.Fatal(err)
		}
		if ok(list) {
			return list
		}
	}
	d.t.Fatalf("%s: %+v", what, list)
	return nil
}

// attempted reports whether each of n deliveries was attempted that often, and failed for the reason.
func attempted(n, times int, reason string) func([]webhooks.Delivery) bool {
	return func(list []webhooks.Delivery) bool {
		for _, x := range list {
			if x.AttemptCount != times || x.Reason != reason {
				return false
			}
		}
		return len(list) == n
	}
}

func all(n int, status webhooks.Status) func([]webhooks.Delivery) bool {
	return func(list []webhooks.Delivery) bool {
		for _, x := range list {
			if x.Status != status {
				return false
			}
		}
		return len(list) == n
	}
}

// A receiver that is down, slow, asks for time and sends elsewhere, for hours, gets each event in the end, with a timestamp that it believes
// by its own clock; and the log has it so.
func TestHoursOfTrouble(t *testing.T) {
	d := newDays(t)
	d.pass(time.Second, behaviour{Hangup: true})
	d.sell()
	d.until("down", attempted(2, 1, webhooks.ReasonConnection))
	d.pass(7*time.Second, behaviour{Delay: 60_000})
	d.until("slow", attempted(2, 2, webhooks.ReasonTimeout))
	d.pass(7*time.Minute, behaviour{Status: 302, Headers: map[string]string{"Location": d.receiver.address + "/elsewhere"}})
	d.until("redirecting", attempted(2, 3, webhooks.ReasonRedirect))
	d.pass(37*time.Minute, behaviour{Status: 503, Headers: map[string]string{"Retry-After": "36000"}})
	list := d.until("asking for ten hours", attempted(2, 4, webhooks.ReasonStatus))
	for _, x := range list {
		if wait := x.NextAttemptAt.Sub(d.now()); wait < 10*time.Hour || wait > 12*time.Hour {
			t.Errorf("it is left alone for %s", wait)
		}
	}
	d.pass(9*time.Hour, behaviour{})
	d.sell() // while the first ones wait
	d.until("what is new does not wait for what is old", func(list []webhooks.Delivery) bool {
		delivered := 0
		for _, x := range list {
			if x.Status == webhooks.StatusDelivered {
				delivered++
			}
		}
		return len(list) == 4 && delivered == 2
	})
	d.pass(3*time.Hour, behaviour{})
	list = d.until("well again", all(4, webhooks.StatusDelivered))

	told := d.receiver.told()
	if len(told) != 4 {
		t.Errorf("%d events were told", len(told))
	}
	for _, x := range list {
		if _, ok := told[x.EventID]; !ok {
			t.Errorf("the log has %s as delivered, and the receiver has not", x.EventID)
		}
	}
	for _, w := range d.receiver.all {
		if w.Headers["webhook-id"] == "" {
			t.Errorf("something else came: %+v", w)
		}
	}

	// Gone: it is told nothing more, and what came meanwhile is dead.
	d.pass(time.Second, behaviour{Status: http.StatusGone})
	d.sell()
	d.until("gone", func(list []webhooks.Delivery) bool {
		dead := 0
		for _, x := range list {
			if x.Status == webhooks.StatusDead {
				dead++
			}
		}
		return len(list) == 6 && dead == 2
	})
	if e, err := d.Endpoint(t.Context(), false, d.endpoint.ID); err != nil || e.Active || e.DisabledReason != webhooks.DisabledGone {
		t.Errorf("%+v, %v", e, err)
	}
}
