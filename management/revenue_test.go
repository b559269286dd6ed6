package management_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/management/apikey"
)

// Revenue is in the bucket in which a payment was made, is what was kept, and is of the network that is asked about alone.
func TestRevenue(t *testing.T) {
	o := newOffice(t)
	_, live := o.key(apikey.Live, 0)
	o.claim(base, 1, "", delivered...) // at 12:00
	o.claim(base, 2, "", delivered...)
	o.claim(sepolia, 2, "", delivered...)
	o.pass(time.Hour)
	o.claim(base, 3, "", failed...)
	o.claim(base, 4, "")
	o.claim(base, 5, "", ledger.Change{Event: ledger.EventFail, Reason: "rejected"})
	r := decode[management.Revenue](t, o.live(live, http.MethodGet, "/v1/revenue?interval=hour&since=2026-03-01T11:30:00Z", ""))
	if len(r.Buckets) != 3 || !r.Complete || r.Interval != "hour" {
		t.Fatalf("%+v", r)
	}
	type row struct{ earned, returned, failed, open int }
	for i, want := range []row{{}, {earned: 2}, {returned: 1, failed: 1, open: 1}} {
		b := r.Buckets[i]
		if got := (row{b.Earned.Payments, b.Returned.Payments, b.Failed, b.Open}); got != want {
			t.Errorf("bucket %d, from %s: %+v, want %+v", i, b.Start, got, want)
		}
	}
	if m := r.Buckets[1].Earned.Amounts; len(m) != 1 || m[0].Amount != "20000" || m[0].Decimal != "0.02" || m[0].Network != base.ID {
		t.Errorf("earned: %+v", m)
	}
	if m := r.Buckets[2].Returned.Amounts; len(m) != 1 || m[0].Amount != "10000" {
		t.Errorf("returned: %+v", m)
	}
	sum := 0
	for _, s := range r.Settlement.Histogram {
		sum += s.Payments
	}
	if r.Settlement.Payments != 3 || sum != 3 {
		t.Errorf("settled: %+v", r.Settlement)
	}
}

// Days begin when they do where the reader is.
func TestRevenueByDay(t *testing.T) {
	o := newOffice(t)
	_, live := o.key(apikey.Live, 0)
	o.pass(11 * time.Hour) // 23:00 UTC
	o.claim(base, 1, "", delivered...)
	o.pass(90 * time.Minute) // half past midnight
	o.claim(base, 2, "", delivered...)
	for query, want := range map[string][]int{
		"since=2026-03-01T00:00:00Z":                          {1, 1},
		"since=2026-03-01T00:00:00%2B02:00&offsetMinutes=120": {0, 2},
		"since=2026-03-01T00:00:00-05:00&offsetMinutes=-300":  {2},
	} {
		r := decode[management.Revenue](t, o.live(live, http.MethodGet, "/v1/revenue?"+query, ""))
		var got []int
		for _, b := range r.Buckets {
			got = append(got, b.Earned.Payments)
		}
		if len(got) != len(want) || got[0] != want[0] || got[len(got)-1] != want[len(want)-1] {
			t.Errorf("%s: %v, want %v: %+v", query, got, want, r.Buckets)
		}
	}
}

// What can't be counted is refused, and who may not look sees nothing.
func TestRevenueRefused(t *testing.T) {
	o := newOffice(t)
	_, live := o.key(apikey.Live, 0)
	_, consumer := o.key(apikey.Live, 0, apikey.Access)
	for query, want := range map[string]string{
		"interval=hour&since=2026-01-01T00:00:00Z":                 "400 request.invalid",
		"since=2026-03-02T00:00:00Z":                               "400 request.invalid",
		"since=2026-03-01T00:00:00Z&until=2026-02-01T00:00:00Z":    "400 request.invalid",
		"interval=minute":                                          "400 request.invalid",
		"until=0000-01-01T00:00:00Z":                               "400 request.invalid",
		"since=9998-12-31T00:00:00Z&until=9999-01-01T00:00:00Z":    "400 request.invalid",
		"since=9998-12-30T00:00:00Z&until=9998-12-31T23:59:59Z":    "200 ",
		"offsetMinutes=9999":                                       "400 request.invalid",
		"interval=hour&since=2026-02-20T00:00:00Z&offsetMinutes=0": "200 ",
	} {
		if a := o.live(live, http.MethodGet, "/v1/revenue?"+query, ""); statusAndCode(a) != want {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
	if a := o.live(live, http.MethodGet, "/v1/payments/states?until=0000-01-01T00:00:00Z", ""); statusAndCode(a) != "400 request.invalid" {
		t.Errorf("counted up to the year 0: %d %s", a.status, a.body)
	}
	if a := o.live(consumer, http.MethodGet, "/v1/revenue", ""); statusAndCode(a) != "403 apikey.scope_insufficient" {
		t.Errorf("a consumer: %d %s", a.status, a.body)
	}
}
