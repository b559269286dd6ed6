package management

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management/apikey"
)

func (a *API) addRevenue() {
	add(a, operation{
		rule: rule{id: "getRevenue", method: http.MethodGet, scope: apikey.PaymentsRead}, path: "/v1/revenue", tag: tagPayments,
		summary: "Shows revenue over time, and how long settling takes",
		description: "Payments are counted in the bucket in which they were made. Earned is what was paid and is kept: PAID and DELIVERED. Returned went back or is " +
			"to go back. Failed is what was never paid. The rest is open. Transfers for other servers, and refunds' own, are nobody's income and are left out. Where more " +
			"than 100,000 payments are in the window, the newest are counted, `complete` is false, and `since` says how far they reach.",
	}, showRevenue)
}

type revenueInput struct {
	Since         time.Time `query:"since" doc:"The window's begin (RFC 3339). Default: 30 days before its end"`
	Until         time.Time `query:"until" doc:"Its end. Default: now"`
	Interval      string    `query:"interval" enum:"hour,day" default:"day" doc:"How long a bucket is. There may be 800 of them"`
	OffsetMinutes int       `query:"offsetMinutes" minimum:"-840" maximum:"840" doc:"How far the clock by which days begin is ahead of UTC"`
}

// Revenue is what a shop has earned over time.
type Revenue struct {
	Since      time.Time  `json:"since"`
	Until      time.Time  `json:"until"`
	Interval   string     `json:"interval" enum:"hour,day"`
	Complete   bool       `json:"complete" doc:"Whether all of the window was counted"`
	Buckets    []Bucket   `json:"buckets" doc:"All of the window, oldest first; those without payments, too"`
	Settlement Settlement `json:"settlement"`
}

// Bucket is what became of the payments that were made within a time.
type Bucket struct {
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	Earned   Sum       `json:"earned" doc:"Paid, and kept"`
	Returned Sum       `json:"returned" doc:"Paid, and gone back, or to go back"`
	Failed   int       `json:"failed" doc:"Payments that were never paid"`
	Open     int       `json:"open" doc:"Payments of which it is not known yet, or that are owed"`
}

// Sum is a number of payments and what they come to.
type Sum struct {
	Payments int     `json:"payments"`
	Amounts  []Money `json:"amounts" doc:"By asset"`
}

// Settlement says how long it took until the money was there, from when a payment was made.
type Settlement struct {
	Payments  int        `json:"payments"`
	P50Ms     int64      `json:"p50Ms"`
	P95Ms     int64      `json:"p95Ms"`
	P99Ms     int64      `json:"p99Ms"`
	MaxMs     int64      `json:"maxMs"`
	Histogram []TimeSpan `json:"histogram" doc:"How many took how long; each span begins where the one before it ends"`
}

// TimeSpan is a span of a histogram.
type TimeSpan struct {
	UpToMs   int64 `json:"upToMs,omitempty" doc:"Its end; the last span has none"`
	Payments int   `json:"payments"`
}

// spans are the ends of a histogram's spans, in milliseconds. Base makes a block in 2 s.
var spans = []int64{500, 1000, 2000, 3000, 4000, 6000, 10_000, 20_000, 60_000}

const maxBuckets = 800

type revenueOutput struct{ Body Revenue }

func showRevenue(ctx context.Context, x *exchange, in *revenueInput) (*revenueOutput, error) {
	t, err := newTally(in, x.shop.Store.Now())
	if err != nil {
		return nil, err
	}
	last, more, err := x.shop.each(ctx, Selection{Network: x.network, Since: t.since, Until: t.until}, maxCounted, t.count)
	if err != nil {
		return nil, err
	}
	if more {
		t.since = last.At
	}
	return &revenueOutput{t.revenue(x.shop, !more)}, nil
}

// tally counts payments into buckets.
type tally struct {
	since, until time.Time
	interval     string
	zone         *time.Location
	buckets      []tallied
	took         []int64 // milliseconds
}

// tallied is a bucket that is being filled.
type tallied struct {
	start, end               time.Time
	earned, returned         map[coin]*uint256.Int
	paid, back, failed, open int
}

func newTally(in *revenueInput, now time.Time) (*tally, error) {
	since, until, err := window(in.Since, in.Until, now)
	if err == nil && since.Equal(until) { // it has no bucket
		err = errWindow
	}
	if err != nil {
		return nil, err
	}
	t := &tally{since: since, until: until, interval: in.Interval, zone: time.FixedZone("", in.OffsetMinutes*60)}
	if t.until.Sub(t.since)/t.length() > maxBuckets {
		return nil, invalid("query.interval", "the window has more than 800 buckets; make it shorter, or the interval longer")
	}
	for start := t.begin(t.since); start.Before(t.until); start = start.Add(t.length()) {
		t.buckets = append(t.buckets, tallied{
			start: start, end: start.Add(t.length()), earned: map[coin]*uint256.Int{}, returned: map[coin]*uint256.Int{},
		})
	}
	return t, nil
}

// length is that of a bucket. The clock of the buckets is never put forward or back, so all are of one length.
func (t *tally) length() time.Duration {
	if t.interval == "hour" {
		return time.Hour
	}
	return 24 * time.Hour
}

// begin is when the bucket begins that holds a time.
func (t *tally) begin(at time.Time) time.Time {
	l := at.In(t.zone)
	hour := 0
	if t.interval == "hour" {
		hour = l.Hour()
	}
	return time.Date(l.Year(), l.Month(), l.Day(), hour, 0, 0, 0, t.zone)
}

// count puts a payment into its bucket.
func (t *tally) count(p *ledger.Payment) error {
	if p.Facilitated() || p.PaysBack() {
		return nil
	}
	i := int(p.CreatedAt.Sub(t.buckets[0].start) / t.length())
	if i < 0 || i >= len(t.buckets) { // it was made while it was asked
		return nil
	}
	if p.Settlement == ledger.Settled && !p.SettledAt.Before(p.CreatedAt) {
		t.took = append(t.took, p.SettledAt.Sub(p.CreatedAt).Milliseconds())
	}
	b := &t.buckets[i]
	switch p.State() {
	case ledger.StatePaid, ledger.StateDelivered:
		b.paid++
		return sum(b.earned, p)
	case ledger.StateRefundPending, ledger.StateRefunded, ledger.StateRefundFailed:
		b.back++
		return sum(b.returned, p)
	case ledger.StateFailed, ledger.StateVoid, ledger.StateExpired, ledger.StateCancelled:
		b.failed++
	default:
		b.open++
	}
	return nil
}

// sum adds a payment's amount to what was summed up of its asset.
func sum(sums map[coin]*uint256.Int, p *ledger.Payment) error {
	c := coin{p.ChainID, p.Asset}
	if sums[c] == nil {
		sums[c] = new(uint256.Int)
	}
	if _, overflow := sums[c].AddOverflow(sums[c], &p.Amount); overflow {
		return told(http.StatusConflict, CodeConflict, "the amounts are too large to be added", nil)
	}
	return nil
}

// revenue is what was counted, as it is shown.
func (t *tally) revenue(s *Shop, complete bool) Revenue {
	out := Revenue{Since: t.since.UTC(), Until: t.until.UTC(), Interval: t.interval, Complete: complete, Settlement: settlementTimes(t.took)}
	for i := range t.buckets {
		b := &t.buckets[i]
		out.Buckets = append(out.Buckets, Bucket{
			Start: b.start, End: b.end, Failed: b.failed, Open: b.open,
			Earned:   Sum{b.paid, s.money(b.earned)},
			Returned: Sum{b.back, s.money(b.returned)},
		})
	}
	return out
}

// settlementTimes sorts what it is given.
func settlementTimes(took []int64) Settlement {
	slices.Sort(took)
	out := Settlement{Payments: len(took), Histogram: make([]TimeSpan, len(spans)+1)}
	for i, end := range spans {
		out.Histogram[i].UpToMs = end
	}
	for _, ms := range took {
		i, exact := slices.BinarySearch(spans, ms)
		if exact { // a span's end is no more in it
			i++
		}
		out.Histogram[i].Payments++
	}
	if n := len(took); n > 0 {
		// the nearest rank: the least that so many per cent do not exceed
		rank := func(percent int) int64 { return took[max(0, (n*percent+99)/100-1)] }
		out.P50Ms, out.P95Ms, out.P99Ms, out.MaxMs = rank(50), rank(95), rank(99), took[n-1]
	}
	return out
}
