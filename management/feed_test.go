package management_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

// news is an outbox that tells one event of each network, again and again, as the ledger may.
type news struct{ asked atomic.Int64 }

func (n *news) Start(time.Time) (json.RawMessage, error) { return json.RawMessage("{}"), nil }

func (n *news) Next(_ context.Context, c json.RawMessage, _ int) ([]webhooks.Event, json.RawMessage, error) {
	n.asked.Add(1)
	ev := webhooks.Event{ID: "evt_live", Type: webhooks.TypeDelivered, Live: true, Data: json.RawMessage(`{"paymentId":"pay_1"}`)}
	other := ev
	other.ID, other.Live = "evt_test", false
	return []webhooks.Event{other, ev}, c, nil
}

// listen opens a feed of mainnet, and gives its lines; it ends before the test does.
func listen(t *testing.T, url, secret string) (lines *bufio.Scanner, header http.Header) {
	t.Helper()
	return listenOn(t, url, secret, "mainnet")
}

func listenOn(t *testing.T, url, secret, network string) (lines *bufio.Scanner, header http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	r.Header.Set("X-Network", network)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
	return bufio.NewScanner(res.Body), res.Header
}

// A feed tells of the key's network alone, at once, and ends when the server is to stop.
func TestFeed(t *testing.T) {
	o := newOffice(t)
	o.shop.Events = &news{}
	_, secret := o.key(apikey.Live, 0, apikey.PaymentsRead)
	server := httptest.NewServer(o.remote)
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	lines, header := listen(t, server.URL, secret)
	if header.Get("Content-Type") != "text/event-stream; charset=utf-8" || header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", header)
	}
	heard := ""
	for lines.Scan() && !strings.Contains(heard, "evt_live") {
		heard += lines.Text() + "\n"
	}
	if strings.Contains(heard, "evt_test") || !strings.Contains(heard, "event: payment.delivered") {
		t.Errorf("it told: %s", heard)
	}
	o.remote.Leave()
	for lines.Scan() { // what is on its way; then it ends, or the test does not
	}
}

// Who may not look may not listen, and there is an end to how many do.
func TestFeedRefused(t *testing.T) {
	o := newOffice(t)
	_, secret := o.key(apikey.Live, 0, apikey.PaymentsRead)
	_, consumer := o.key(apikey.Live, 0, apikey.Access)
	if a := o.live(secret, http.MethodGet, "/v1/events", ""); statusAndCode(a) != "404 events.unavailable" {
		t.Errorf("without events: %d %s", a.status, a.body)
	}
	o.shop.Events = &news{}
	if a := o.live(consumer, http.MethodGet, "/v1/events", ""); statusAndCode(a) != "403 apikey.scope_insufficient" {
		t.Errorf("a consumer: %d %s", a.status, a.body)
	}
	server := httptest.NewServer(o.remote)
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	for range 16 {
		listen(t, server.URL, secret)
	}
	if a := o.live(secret, http.MethodGet, "/v1/events", ""); statusAndCode(a) != "503 events.too_many_listeners" || a.header.Get("Retry-After") == "" {
		t.Errorf("one too many: %d %s", a.status, a.body)
	}
	for range 3 {
		_, another := o.key(apikey.Live, 0, apikey.PaymentsRead)
		for range 16 {
			listen(t, server.URL, another)
		}
	}
	_, late := o.key(apikey.Live, 0, apikey.PaymentsRead)
	if a := o.live(late, http.MethodGet, "/v1/events", ""); statusAndCode(a) != "503 events.too_many_listeners" {
		t.Errorf("one too many of all: %d %s", a.status, a.body)
	}
	_, test := o.key(apikey.Test, 0, apikey.PaymentsRead)
	listenOn(t, server.URL, test, "testnet") // which are not of the same
	o.remote.Leave()
}

// Who listens for long has made one call: that its key has a successor counts once, and when the key ends that is no guess at another.
func TestAListenerIsOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reminded atomic.Int64
		o := newOffice(t, limitedTo(100, 1), func(c *management.Config) {
			c.Observe = func(event, _ string) {
				if event == "apikey_predecessor_used" {
					reminded.Add(1)
				}
			}
		})
		o.shop.Events = nothing{}
		k, secret := o.key(apikey.Live, 0)
		_, mine := o.key(apikey.Live, 0)
		decode[rotation](t, o.live(mine, http.MethodPost, "/v1/api-keys/"+k.ID+"/rotate", "", "Idempotency-Key", "r"))
		begun := time.Now()
		if a := o.live(secret, http.MethodGet, "/v1/events", ""); a.status != http.StatusOK || time.Since(begun) < 10*time.Minute || reminded.Load() != 1 {
			t.Errorf("%d after %s, reminded %d times: %s", a.status, time.Since(begun), reminded.Load(), a.body)
		}
		time.AfterFunc(time.Minute, func() { o.live(mine, http.MethodDelete, "/v1/api-keys/"+k.ID, "") })
		if a := o.live(secret, http.MethodGet, "/v1/events", ""); !strings.Contains(a.body, "event: end\ndata: {\"code\":\"apikey.revoked\"}") {
			t.Errorf("a key that is revoked: %d %s", a.status, a.body)
		}
		if a := o.live(mine, http.MethodGet, "/v1/payments", ""); a.status != http.StatusOK {
			t.Errorf("from the same address: %d %s", a.status, a.body)
		}
	})
}
