package management_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

// nothing is an outbox in which nothing happens.
type nothing struct{}

func (nothing) Start(time.Time) (json.RawMessage, error) { return json.RawMessage(`0`), nil }

func (nothing) Next(_ context.Context, cursor json.RawMessage, _ int) ([]webhooks.Event, json.RawMessage, error) {
	return nil, cursor, nil
}

// told is what a receiver got.
type told struct {
	header http.Header
	body   string
	event  struct {
		ID, Type string
		Livemode bool
		Data     map[string]any
	}
}

// tellable gives the office webhooks, and a receiver that answers 204 to what is signed with the secret that it is given.
func (o *office) tellable(set webhooks.Settings) (url string, came <-chan told) {
	o.t.Helper()
	keys, err := webhooks.NewKeys(strings.Repeat("k", webhooks.MinKeyBytes))
	if err != nil {
		o.t.Fatal(err)
	}
	set.Keys, set.AllowPrivate = keys, webhooks.PrivateRanges()
	s := webhooks.New(webhooks.Options{Store: o.store, Outbox: nothing{}, Poll: 10 * time.Millisecond}, set)
	o.t.Cleanup(func() { _ = s.Close() })
	o.shop.Webhooks = s
	got := make(chan told, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		one := told{header: r.Header.Clone(), body: string(body)}
		if err := json.Unmarshal(body, &one.event); err != nil {
			o.t.Errorf("what came is no event: %v", err)
		}
		got <- one
		w.WriteHeader(http.StatusNoContent)
	}))
	o.t.Cleanup(server.Close)
	return server.URL + "/hook", got
}

// next is what the receiver gets next.
func (o *office) next(came <-chan told) told {
	o.t.Helper()
	select {
	case one := <-came:
		return one
	case <-time.After(time.Minute):
		o.t.Fatal("nothing comes")
		return told{}
	}
}

func (o *office) now() time.Time { return time.UnixMicro(o.clock.Load()) }

func (o *office) believes(secret string, one told) error {
	return webhooks.Verify(secret, one.header, []byte(one.body), o.now())
}

// An endpoint is made, tested, given a new secret, stopped and removed. Its secret is told once, also to who makes the call again.
func TestWebhooksByAPI(t *testing.T) {
	o := newOffice(t)
	url, came := o.tellable(webhooks.Settings{})
	_, key := o.key(apikey.Test, 0, apikey.WebhooksManage)
	body := `{"url":"` + url + `","events":["apikey.*"],"description":"books"}`
	a := o.test(key, http.MethodPost, "/v1/webhooks", body, "Idempotency-Key", "make")
	made := decode[management.WebhookWithSecret](t, a)
	if a.status != http.StatusCreated || made.Secret == nil || !strings.HasPrefix(*made.Secret, "whsec_") || !made.Active || made.Network != "testnet" || made.Livemode {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if again := decode[management.WebhookWithSecret](t, o.test(key, http.MethodPost, "/v1/webhooks", body, "Idempotency-Key", "make")); again.ID != made.ID || again.Secret != nil {
		t.Errorf("made again: %+v", again)
	}
	path := "/v1/webhooks/" + made.ID
	list := decode[listed[management.Webhook]](t, o.test(key, http.MethodGet, "/v1/webhooks", ""))
	if shown := o.test(key, http.MethodGet, path, ""); len(list.Data) != 1 || list.Data[0].URL != url || strings.Contains(shown.body, "whsec_") {
		t.Errorf("listed: %+v; shown: %s", list, shown.body)
	}
	tested := o.test(key, http.MethodPost, path+"/test", "")
	d := decode[management.Delivery](t, tested)
	one := o.next(came)
	if err := o.believes(*made.Secret, one); err != nil || tested.status != http.StatusAccepted || one.event.ID != d.EventID || one.event.Type != "webhook.test" {
		t.Errorf("a test: %v, %d %s, came %s", err, tested.status, tested.body, one.body)
	}
	turned := decode[management.WebhookWithSecret](t, o.test(key, http.MethodPost, path+"/rotate-secret", `{"overlapSeconds":3600}`, "Idempotency-Key", "turn"))
	decode[management.Delivery](t, o.test(key, http.MethodPost, path+"/test", ""))
	one = o.next(came)
	if turned.OverlapEndsAt == nil || o.believes(*made.Secret, one) != nil || o.believes(*turned.Secret, one) != nil {
		t.Errorf("during the overlap: %+v, %v", turned.Webhook, one.header)
	}
	stopped := decode[management.Webhook](t, o.test(key, http.MethodPatch, path, `{"active":false,"events":[]}`))
	if stopped.Active || stopped.DisabledReason != "operator" || len(stopped.Events) != 0 || stopped.Description != "books" {
		t.Errorf("stopped: %+v", stopped)
	}
	if a := o.test(key, http.MethodPost, path+"/test", ""); statusAndCode(a) != "409 webhook.disabled" {
		t.Errorf("a test of one that is stopped: %d %s", a.status, a.body)
	}
	for range 2 {
		if a := o.test(key, http.MethodDelete, path, ""); a.status != http.StatusNoContent {
			t.Errorf("removed: %d %s", a.status, a.body)
		}
	}
	if a := o.test(key, http.MethodGet, path, ""); statusAndCode(a) != "404 webhook.not_found" {
		t.Errorf("after that: %d %s", a.status, a.body)
	}
	if strings.Contains(o.log.String(), "whsec_") {
		t.Error("the log has a secret")
	}
}

// Deliveries are listed and shown, and delivered again under the id of their event.
func TestDeliveriesByAPI(t *testing.T) {
	o := newOffice(t)
	url, came := o.tellable(webhooks.Settings{})
	_, key := o.key(apikey.Test, 0, apikey.WebhooksManage)
	made := decode[management.WebhookWithSecret](t, o.test(key, http.MethodPost, "/v1/webhooks", `{"url":"`+url+`"}`, "Idempotency-Key", "make"))
	path := "/v1/webhooks/" + made.ID + "/deliveries"
	first := decode[management.Delivery](t, o.test(key, http.MethodPost, "/v1/webhooks/"+made.ID+"/test", ""))
	o.next(came)
	o.delivered(key, path+"/"+first.ID, 1)
	again := o.test(key, http.MethodPost, path+"/"+first.ID+"/redeliver", "")
	if one := o.next(came); again.status != http.StatusAccepted || one.event.ID != first.EventID || one.header.Get("webhook-id") != first.EventID {
		t.Errorf("delivered again: %d %s, came %s", again.status, again.body, one.body)
	}
	o.delivered(key, path+"/"+first.ID, 2)
	list := decode[listed[management.Delivery]](t, o.test(key, http.MethodGet, path+"?status=delivered", ""))
	if len(list.Data) != 1 || list.Data[0].ID != first.ID || list.Data[0].Payload != "" || len(list.Data[0].Attempts) != 2 {
		t.Errorf("listed: %+v", list)
	}
	for query, want := range map[string]string{
		path + "?status=lost":                   "400 request.invalid",
		path + "?cursor=a%20b":                  "400 webhook.query_invalid",
		path + "/whd_nobody":                    "404 webhook.delivery_not_found",
		"/v1/webhooks/we_nobody/deliveries":     "404 webhook.not_found",
		"/v1/webhooks?cursor=%00":               "400 request.invalid",
		"/v1/webhooks/" + made.ID + "/whatever": "404 resource.not_found",
	} {
		if a := o.test(key, http.MethodGet, query, ""); statusAndCode(a) != want {
			t.Errorf("%s: %d %s, want %s", query, a.status, a.body, want)
		}
	}
	probe := decode[struct {
		Sound            bool
		Signed, Tampered management.DeliveryAttempt
	}](t, o.test(key, http.MethodPost, "/v1/webhooks/"+made.ID+"/probe", ""))
	if probe.Sound || probe.Signed.Status != http.StatusNoContent || probe.Tampered.Status != http.StatusNoContent {
		t.Errorf("a receiver that verifies nothing is found sound: %+v", probe)
	}
}

// delivered waits until a delivery has arrived after so many attempts.
func (o *office) delivered(key, path string, attempts int) {
	o.t.Helper()
	deadline := time.After(time.Minute)
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		d := decode[management.Delivery](o.t, o.test(key, http.MethodGet, path, ""))
		if d.Status == "delivered" && d.AttemptCount == attempts && strings.Contains(d.Payload, d.EventID) {
			return
		}
		select {
		case <-look.C:
		case <-deadline:
			o.t.Fatalf("it has not arrived: %+v", d)
		}
	}
}

// Endpoints of test networks and of real money are apart; what is wrong is told by webhooks' own codes.
func TestWebhooksByAPIAreRefused(t *testing.T) {
	o := newOffice(t)
	_, testKey := o.key(apikey.Test, 0, apikey.WebhooksManage)
	_, liveKey := o.key(apikey.Live, 0, apikey.WebhooksManage)
	_, weak := o.key(apikey.Live, 0, apikey.PaymentsRead, apikey.KeysManage)
	if a := o.live(liveKey, http.MethodGet, "/v1/webhooks", ""); statusAndCode(a) != "409 webhook.off" {
		t.Errorf("where there are none: %d %s", a.status, a.body)
	}
	url, _ := o.tellable(webhooks.Settings{Endpoints: []webhooks.Configured{{
		URL: "https://hooks.example.com/a", Live: true, Secrets: []string{webhooks.NewSecret()},
	}}})
	if err := o.shop.Webhooks.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	made := decode[management.WebhookWithSecret](t, o.test(testKey, http.MethodPost, "/v1/webhooks", `{"url":"`+url+`"}`, "Idempotency-Key", "make"))
	configured := decode[listed[management.Webhook]](t, o.live(liveKey, http.MethodGet, "/v1/webhooks", "")).Data
	if len(configured) != 1 || !configured[0].Configured || !configured[0].Livemode {
		t.Fatalf("live ones: %+v", configured)
	}
	for _, tc := range []struct{ method, path, body, want string }{
		{"GET", "/v1/webhooks/" + made.ID, "", "404 webhook.not_found"},
		{"DELETE", "/v1/webhooks/" + configured[0].ID, "", "409 webhook.configured"},
		{"PATCH", "/v1/webhooks/" + configured[0].ID, `{"active":false}`, "409 webhook.configured"},
		{"POST", "/v1/webhooks", `{"url":"http://hooks.example.com"}`, "400 webhook.url_invalid"},
		{"POST", "/v1/webhooks", `{"url":"https://a:b@hooks.example.com"}`, "400 webhook.url_invalid"},
		{"POST", "/v1/webhooks", `{"url":"https://hooks.example.com","events":["payment.paid"]}`, "400 webhook.events_invalid"},
		{"POST", "/v1/webhooks", `{}`, "400 request.invalid"},
	} {
		if a := o.live(liveKey, tc.method, tc.path, tc.body, "Idempotency-Key", tc.method+tc.path+tc.body); statusAndCode(a) != tc.want {
			t.Errorf("%s %s %s: %d %s, want %s", tc.method, tc.path, tc.body, a.status, a.body, tc.want)
		}
	}
	if a := o.live(weak, http.MethodGet, "/v1/webhooks", ""); statusAndCode(a) != "403 apikey.scope_insufficient" {
		t.Errorf("without the scope: %d %s", a.status, a.body)
	}
	o.shop.Webhooks.Configure(webhooks.Settings{AllowPrivate: webhooks.PrivateRanges()})
	if a := o.test(testKey, http.MethodPost, "/v1/webhooks", `{"url":"`+url+`"}`, "Idempotency-Key", "unsealed"); statusAndCode(a) != "503 webhook.key_missing" ||
		a.header.Get("Retry-After") != "10" {
		t.Errorf("without a key that seals: %d %v %s", a.status, a.header, a.body)
	}
	if a := ask(t, o.local, http.MethodGet, "/x402/v1/webhooks", ""); statusAndCode(a) != "400 network.header_required" {
		t.Errorf("the machine, without a network: %d %s", a.status, a.body)
	}
}

// Webhooks are told of keys that were rotated or revoked, those of their own mode; and again by TellKeys, under the same ids.
func TestWebhooksAreToldOfKeys(t *testing.T) {
	o := newOffice(t)
	url, came := o.tellable(webhooks.Settings{Keep: time.Minute})
	_, mine := o.key(apikey.Test, 0)
	k, _ := o.key(apikey.Test, 0)
	liveKey, _ := o.key(apikey.Live, 0)
	made := decode[management.WebhookWithSecret](t, o.test(mine, http.MethodPost, "/v1/webhooks", `{"url":"`+url+`","events":["apikey.*"]}`, "Idempotency-Key", "make"))
	o.pass(time.Second)
	if a := ask(t, o.local, http.MethodDelete, "/x402/v1/api-keys/"+liveKey.ID, ""); a.status != http.StatusNoContent {
		t.Fatalf("%d %s", a.status, a.body)
	}
	turned := decode[rotation](t, o.test(mine, http.MethodPost, "/v1/api-keys/"+k.ID+"/rotate", "", "Idempotency-Key", "r"))
	one := o.next(came)
	if err := o.believes(*made.Secret, one); err != nil || one.event.Type != "apikey.rotated" || one.event.Livemode || one.event.ID != "evt_"+k.ID+"_rotated" ||
		one.event.Data["keyId"] != k.ID || one.event.Data["successorId"] != turned.Successor.ID {
		t.Errorf("%v: %s", err, one.body)
	}
	if strings.Contains(one.body, (*turned.Successor.Secret)[14:]) {
		t.Error("it has the secret")
	}
	if a := o.test(mine, http.MethodDelete, "/v1/api-keys/"+k.ID, ""); a.status != http.StatusNoContent {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if one := o.next(came); one.event.Type != "apikey.revoked" || one.event.ID != "evt_"+k.ID+"_revoked" {
		t.Errorf("%s", one.body)
	}
	keys := &apikey.Keys{Store: o.store}
	if err := management.TellKeys(t.Context(), keys, o.shop.Webhooks, o.now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	list := decode[listed[management.Delivery]](t, o.test(mine, http.MethodGet, "/v1/webhooks/"+made.ID+"/deliveries", ""))
	if len(list.Data) != 2 {
		t.Errorf("told once more, it has %d deliveries: %+v", len(list.Data), list.Data)
	}
	for i := range list.Data {
		o.delivered(mine, "/v1/webhooks/"+made.ID+"/deliveries/"+list.Data[i].ID, 1)
	}
	o.pass(time.Hour) // the log forgets them
	if err := management.TellKeys(t.Context(), keys, o.shop.Webhooks, o.now().Add(-2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	list = decode[listed[management.Delivery]](t, o.test(mine, http.MethodGet, "/v1/webhooks/"+made.ID+"/deliveries", ""))
	if len(list.Data) != 0 || len(came) != 0 {
		t.Errorf("what the log has forgotten is told again: %+v", list.Data)
	}
}
