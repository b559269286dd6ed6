package management_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/management/apikey"
)

type usage struct {
	Key    string                `json:"key"`
	Data   []management.DayUsage `json:"data"`
	Calls  int64                 `json:"calls"`
	Errors int64                 `json:"errors"`
}

// Calls are counted by key and day, and told before and after they are written down; a key that may not manage others sees its own.
func TestKeyUsageByAPI(t *testing.T) {
	counted := new(apikey.Usage)
	o := newOffice(t, func(c *management.Config) { c.Usage = counted })
	_, boss := o.key(apikey.Live, 0)
	weak, weakSecret := o.key(apikey.Live, 0, apikey.PaymentsRead)
	_, testSecret := o.key(apikey.Test, 0)
	for range 3 {
		o.live(weakSecret, http.MethodGet, "/v1/payments", "")
	}
	o.live(weakSecret, http.MethodGet, "/v1/payments/pay_aanobody", "")
	o.live(weakSecret, http.MethodGet, "/v1/api-keys", "") // it has not the scope
	ask(t, o.remote, http.MethodGet, "/v1/payments", "", "Authorization", "Bearer "+testSecret, "X-Network", "mainnet")
	own := decode[usage](t, o.live(weakSecret, http.MethodGet, "/v1/api-keys/usage?windowDays=2", ""))
	if own.Key != weak.ID || own.Calls != 5 || own.Errors != 2 || len(own.Data) != 2 || own.Data[0] != (management.DayUsage{Day: "2026-02-28"}) ||
		own.Data[1] != (management.DayUsage{Day: "2026-03-01", Calls: 5, Errors: 2}) {
		t.Errorf("its own: %+v", own)
	}
	if err := counted.Flush(t.Context(), o.store); err != nil {
		t.Fatal(err)
	}
	o.pass(24 * time.Hour)
	o.live(weakSecret, http.MethodGet, "/v1/payments", "")
	for range 2 { // what is written down is not counted again
		if err := counted.Flush(t.Context(), o.store); err != nil {
			t.Fatal(err)
		}
	}
	all := decode[usage](t, o.live(boss, http.MethodGet, "/v1/api-keys/usage?key="+weak.ID, ""))
	if len(all.Data) != 30 || all.Calls != 7 || all.Data[28].Calls != 6 || all.Data[29].Calls != 1 {
		t.Errorf("as its manager sees it: %+v", all)
	}
	if got := decode[usage](t, o.test(testSecret, http.MethodGet, "/v1/api-keys/usage", "")); got.Calls != 1 || got.Errors != 1 {
		t.Errorf("of test networks: %+v", got)
	}
	for path, want := range map[string]string{
		"/v1/api-keys/usage?windowDays=0": "400 request.invalid", "/v1/api-keys/usage?windowDays=91": "400 request.invalid",
		"/v1/api-keys/usage?mode=test": "400 request.invalid", "/v1/api-keys/usage?key=ak_another": "403 apikey.scope_insufficient",
	} {
		if a := o.live(weakSecret, http.MethodGet, path, ""); statusAndCode(a) != want {
			t.Errorf("%s: %d %s, want %s", path, a.status, a.body, want)
		}
	}
	o.pass(apikey.UsageDays * 24 * time.Hour)
	if got := decode[usage](t, o.live(boss, http.MethodGet, "/v1/api-keys/usage?windowDays=90&key="+weak.ID, "")); got.Calls != 0 {
		t.Errorf("after 90 days: %+v", got)
	}
}
