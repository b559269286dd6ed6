package doctor

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Status is what came out of an item.
type Status string

// What comes out of items.
const (
	// OK: it is as it must be.
	OK Status = "ok"
	// Warn: it may be meant so, and somebody should have decided it.
	Warn Status = "warn"
	// Fail: it must not go live so, or it can't be found out though it was asked for.
	Fail Status = "fail"
	// Skipped: it was not asked for, or there is nothing to look at.
	Skipped Status = "skipped"
)

// Depth is what an item needs to be looked at.
type Depth int

// What items need.
const (
	// Config items ask nobody; some say more where the live things may be asked.
	Config Depth = iota
	// Live items ask the chain, the ledger, and the addresses of the site.
	Live
	// Pay items spend money.
	Pay
)

// Verdict is the outcome of an item, with what was found. No secret is in it.
type Verdict struct {
	Status Status
	Found  string
}

// Item is one thing to look at.
type Item struct {
	// ID is stable, such as "refund.wallet".
	ID string
	// Title says how it should be.
	Title string
	// Why says what happens otherwise, and Do what to do about it.
	Why, Do string
	Depth   Depth

	look func(context.Context, *Subject) Verdict
}

// Result is an Item that was looked at.
type Result struct {
	ID     string `json:"id"`
	Title  string `json:"title"`
	Status Status `json:"status"`
	Found  string `json:"found,omitempty"`
	// Why and Do are there where something is to be done.
	Why string `json:"why,omitempty"`
	Do  string `json:"do,omitempty"`
}

// Report is all that was found.
type Report struct {
	// OK: nothing failed.
	OK    bool     `json:"ok"`
	Items []Result `json:"items"`
	// Counts tells how many items have each status.
	Counts map[Status]int `json:"counts"`
}

// Failed are the ids of the items that have failed, in their order.
func (r *Report) Failed() []string {
	var ids []string
	for i := range r.Items {
		if r.Items[i].Status == Fail {
			ids = append(ids, r.Items[i].ID)
		}
	}
	return ids
}

// Options say how deep to look.
type Options struct {
	Depth Depth
	// Only are the ids to look at; none: all.
	Only []string
	// Looking hears of each item before it is looked at; may be nil.
	Looking func(Item)
}

// How long one item may take, and a payment.
const (
	patience    = 30 * time.Second
	payPatience = 5 * time.Minute
)

// Items are all there are, in the order in which they are looked at: the cheap ones first, and the payment last.
func Items() []Item {
	return slices.Concat(secretItems(), networkItems(), walletItems(), refundItems(), storeItems(), requestItems(), siteItems(), webhookItems(), watchItems(), payItems())
}

// Run looks at everything, in order.
func Run(ctx context.Context, s *Subject, o Options) Report {
	r := Report{OK: true, Counts: map[Status]int{}}
	if o.Depth < Live && s.Live != nil {
		quiet := *s
		quiet.Live, s = nil, &quiet
	}
	for _, item := range Items() {
		if len(o.Only) > 0 && !slices.Contains(o.Only, item.ID) {
			continue
		}
		if o.Looking != nil {
			o.Looking(item)
		}
		v := item.run(ctx, s, o)
		out := Result{ID: item.ID, Title: item.Title, Status: v.Status, Found: v.Found}
		if v.Status == Fail || v.Status == Warn {
			out.Why, out.Do = item.Why, item.Do
		}
		r.OK = r.OK && v.Status != Fail
		r.Counts[v.Status]++
		r.Items = append(r.Items, out)
	}
	return r
}

func (i *Item) run(ctx context.Context, s *Subject, o Options) Verdict {
	switch {
	case i.Depth > o.Depth && i.Depth == Live:
		return skip("it is looked at with --live")
	case i.Depth > o.Depth:
		return skip("it is looked at with --pay")
	case i.Depth >= Live && s.Live == nil:
		return bad("nothing can be asked: the configuration can't be read")
	}
	wait := patience
	if i.Depth == Pay {
		wait = payPatience
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return i.look(ctx, s)
}

func good(format string, args ...any) Verdict { return Verdict{OK, fmt.Sprintf(format, args...)} }

func warn(format string, args ...any) Verdict { return Verdict{Warn, fmt.Sprintf(format, args...)} }

func bad(format string, args ...any) Verdict { return Verdict{Fail, fmt.Sprintf(format, args...)} }

func skip(why string) Verdict { return Verdict{Skipped, why} }
