package management

import (
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/management/webhooks"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

// An endpoint that the API has made is told what happens to payments and keys, though the configuration has neither endpoints nor a key for their secrets;
// and still after the configuration was loaded again, by the key that Caddy's storage has.
func TestWebhooksWithoutAKeyInTheConfiguration(t *testing.T) {
	type event struct {
		header http.Header
		body   string
		ID     string
		Type   string
		Data   map[string]any
	}
	came := make(chan event, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		e := decode[event](t, string(body))
		e.header, e.body = r.Header.Clone(), string(body)
		came <- e
		w.WriteHeader(http.StatusNoContent)
	}))
	defer receiver.Close()
	o := newOffice(t, func(r *rig.Options) { r.App = "webhooks {\n allow_private\n }\n" })
	me := o.key("--mode", "test")
	type hook struct{ ID, SigningSecret string }
	made := decode[hook](t, o.ops(me.Secret, http.MethodPost, "/v1/webhooks",
		`{"url":"`+receiver.URL+`/hook","events":["payment.settled","apikey.*"]}`, "Idempotency-Key", "make").Body)
	if !strings.HasPrefix(made.SigningSecret, "whsec_") {
		t.Fatalf("made: %+v", made)
	}
	next := func(want string) event {
		t.Helper()
		select {
		case e := <-came:
			if err := webhooks.Verify(made.SigningSecret, e.header, []byte(e.body), time.Now()); err != nil || e.Type != want {
				t.Errorf("%v: %s, want %s", err, e.body, want)
			}
			return e
		case <-time.After(time.Minute):
			t.Fatalf("no %s comes", want)
			return event{}
		}
	}
	o.reload()
	if a, _ := rig.NewBuyer(t, 1).Buy(o.URL("/weather")); a.Err != nil || a.Status != http.StatusOK {
		t.Fatalf("%d %v %s", a.Status, a.Err, a.Body)
	}
	sold := next("payment.settled")
	if code, _, errOut := o.command("rotate", me.ID, "--json"); code != 0 {
		t.Fatalf("code %d: %s", code, errOut)
	}
	if e := next("apikey.rotated"); e.Data["keyId"] != me.ID || e.ID == sold.ID {
		t.Errorf("%s", e.body)
	}
	type delivery struct{ EventID, Status string }
	var log list[delivery]
	soon(func() bool { // the answer is written down after it was given
		log = decode[list[delivery]](t, o.ops(me.Secret, http.MethodGet, "/v1/webhooks/"+made.ID+"/deliveries?status=delivered", "").Body)
		return len(log.Data) == 2
	})
	if len(log.Data) != 2 || log.Data[1].EventID != sold.ID {
		t.Errorf("the log has %+v", log.Data)
	}
	// The commands do the same; what they change is in the operators' audit.
	code, out, errOut := o.x402("webhooks", "list", "--json")
	if shown := decode[list[hook]](t, out); code != 0 || len(shown.Data) != 1 || shown.Data[0].ID != made.ID || shown.Data[0].SigningSecret != "" {
		t.Errorf("webhooks list: code %d: %s%s", code, out, errOut)
	}
	if code, out, errOut = o.x402("webhooks", "test", made.ID); code != 0 {
		t.Errorf("webhooks test: code %d: %s%s", code, out, errOut)
	}
	next("webhook.test")
	if code, out, errOut = o.x402("webhooks", "remove", "we_nobody/../x"); code != 3 {
		t.Errorf("removing what is no endpoint: code %d: %s%s", code, out, errOut)
	}
	sale, _ := sold.Data["paymentId"].(string)
	if code, out, errOut = o.x402("payments", "refund", sale); code != 2 {
		t.Errorf("refunding what was delivered: code %d: %s%s", code, out, errOut)
	}
	type deed struct{ Operation, Target, Actor, Outcome string }
	deeds := decode[list[deed]](t, o.ops(me.Secret, http.MethodGet, "/v1/audit", "").Body).Data
	if len(deeds) < 2 || deeds[0] != (deed{"refundPayment", sale, "admin", "payment.not_refundable"}) || deeds[1].Operation != "testWebhook" {
		t.Errorf("the audit: %+v", deeds)
	}
	used := decode[struct{ Calls int64 }](t, o.ops(me.Secret, http.MethodGet, "/v1/api-keys/usage", "").Body)
	if used.Calls < 2 {
		t.Errorf("%d calls were counted", used.Calls)
	}
}

// The commands that look after the keys of tokens do it through the API, so the audit has it; and without while the ledger is away, since a key that was
// stolen can't wait.
func TestTokenKeyCommands(t *testing.T) {
	o := newOffice(t)
	type key struct{ ID, State string }
	keys := func(want int, args ...string) (next string) {
		t.Helper()
		code, out, errOut := o.x402(append(append([]string{"keys"}, args...), "--json")...)
		ring := decode[struct{ Keys []key }](t, out).Keys
		if code != want || want == 0 && len(ring) == 0 {
			t.Fatalf("keys %v: code %d: %s%s", args, code, out, errOut)
		}
		for _, k := range ring {
			if k.State == "next" {
				next = k.ID
			}
		}
		return next
	}
	me := o.key("--mode", "test")
	next := keys(0, "rotate", "--algorithm", "ES256", "--lead", "1h")
	if next == "" {
		t.Fatal("there is no key that waits")
	}
	keys(2, "rotate")
	if left := keys(0, "retire", next); left != "" {
		t.Errorf("%s waits still", left)
	}
	type deed struct{ Operation, Target, Actor, Outcome string }
	deeds := decode[list[deed]](t, o.ops(me.Secret, http.MethodGet, "/v1/audit", "").Body).Data
	want := []deed{{"retireTokenKey", next, "admin", "done"}, {"rotateTokenKey", "", "admin", "token_key.rotation_in_progress"}, {"rotateTokenKey", "", "admin", "done"}}
	if len(deeds) < 3 || !slices.Equal(deeds[:3], want) {
		t.Errorf("the audit: %+v", deeds)
	}
	without := o.options
	without.Store = "sqlite " + filepath.Join(o.Dir, "Caddyfile", "no.db")
	if err := rig.LoadText(strings.Replace(o.Caddyfile(without), "admin off", "admin "+o.admin, 1)); err != nil {
		t.Fatal(err)
	}
	if keys(0, "rotate") == "" {
		t.Error("no key waits where the ledger is away")
	}
}
