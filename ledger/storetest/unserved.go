package storetest

import (
	"testing"
	"time"

	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
)

func testUnserved(t *testing.T, open Open) {
	f := setup(t, open)
	next := func(n uint64) ledger.Payment {
		f.clock.Add(time.Second)
		p := newPayment(t, 1, n)
		p.Amount = *uint256.NewInt(5)
		p.Binding.URI = "/" + p.ID // two requests on one route are alike
		return p
	}
	claimed := f.claim(next(1), 0)
	settling := f.claim(next(2), 0)
	f.record(newTransaction(9, 0, 100, settling.ID))
	settled := f.settled(next(3))
	delivering := f.settled(next(4))
	f.update(delivering, ledger.Change{Event: ledger.EventDeliver, Hold: time.Minute})

	f.delivered(f.settled(next(7)), time.Time{})
	f.update(f.settled(next(8)), ledger.Change{Event: ledger.EventUndelivered})
	f.update(f.claim(next(9), 0), ledger.Change{Event: ledger.EventVoid})
	f.update(f.claim(next(10), 0), ledger.Change{Event: ledger.EventFail})

	list := func(like ledger.Payment, limit int) []ledger.Payment {
		t.Helper()
		got, err := f.store().Unserved(f.ctx, like, limit)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	like := next(100)
	got := list(like, 10)
	if !sameIDs(got, claimed.ID, settling.ID, settled.ID, delivering.ID) {
		t.Errorf("unserved: %v", ids(got))
	}
	for _, p := range got {
		if p != f.read(p.ID) {
			t.Errorf("listed %+v", p)
		}
	}
	if got := list(like, 2); !sameIDs(got, claimed.ID, settling.ID) {
		t.Errorf("two unserved: %v", ids(got))
	}
	if got := list(like, 0); len(got) != 0 {
		t.Errorf("no unserved: %v", ids(got))
	}
}

// Only a payment for the same thing may be served in place of another: each part of the likeness counts.
func testUnservedLikeness(t *testing.T, open Open) {
	f := setup(t, open)
	unlike := map[string]func(*ledger.Payment){
		"nothing": func(*ledger.Payment) {},
		"payer":   func(p *ledger.Payment) { p.Payer = account(2) },
		"chain":   func(p *ledger.Payment) { p.ChainID = 8453 },
		"asset":   func(p *ledger.Payment) { p.Asset = account(3) },
		"amount":  func(p *ledger.Payment) { p.Amount = *uint256.NewInt(6) },
		"route":   func(p *ledger.Payment) { p.Binding.Route = "reports" },
		"plan":    func(p *ledger.Payment) { p.Binding.Plan = "day" },
		"host":    func(p *ledger.Payment) { p.Binding.Host = "other.example.com" },
	}
	made := map[string]ledger.Payment{}
	for name, change := range unlike {
		p := newPayment(t, 1, uint64(len(made)))
		p.Amount = *uint256.NewInt(5)
		change(&p)
		payer(&p, p.Payer)
		made[name] = f.claim(p, 0)
	}
	for name, p := range made {
		like := newPayment(t, 1, 1000)
		like.AuthorizationID, like.Amount, like.Binding = p.AuthorizationID, p.Amount, p.Binding
		// None of this belongs to the likeness.
		like.Nonce, like.Binding.URI, like.Binding.Method, like.Flow, like.PayTo = hash(7), "/", "POST", "deferred", account(8)
		like.Settlement, like.Version = ledger.Settled, 9
		got, err := f.store().Unserved(f.ctx, like, 10)
		if err != nil || !sameIDs(got, p.ID) {
			t.Errorf("like the one with another %s: %v (%v), want %s alone", name, ids(got), err, p.ID)
		}
	}
}

func testLivePlans(t *testing.T, open Open) {
	f := setup(t, open)
	n := uint64(0)
	plan := func(payer uint64, route, host string, ttl time.Duration) ledger.Payment {
		n++
		p := newPayment(t, payer, n)
		p.Binding.Plan, p.Binding.Route, p.Binding.Host = "day", route, host
		return f.delivered(f.settled(p), f.clock.Now().Add(ttl))
	}
	const host = "api.example.com"
	hour, day := plan(1, "weather", host, time.Hour), plan(1, "weather", host, 24*time.Hour)
	plan(2, "weather", host, time.Hour)
	reports := plan(1, "reports", host, time.Hour)
	elsewhere := plan(1, "weather", "other.example.com", time.Hour)
	f.delivered(f.settled(newPayment(t, 1, 100)), time.Time{}) // no plan
	f.settled(newPayment(t, 1, 101))                           // not delivered

	list := func(route, host string, limit int) []ledger.Payment {
		t.Helper()
		got, err := f.store().LivePlans(f.ctx, account(1), route, host, limit)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := list("weather", host, 10); !sameIDs(got, day.ID, hour.ID) || got[0] != day {
		t.Errorf("plans: %v", ids(got))
	}
	if got := list("weather", host, 1); !sameIDs(got, day.ID) {
		t.Errorf("one plan: %v", ids(got))
	}
	if got := list("weather", host, 0); len(got) != 0 {
		t.Errorf("no plan: %v", ids(got))
	}
	if got := list("reports", host, 10); !sameIDs(got, reports.ID) {
		t.Errorf("plans of another route: %v", ids(got))
	}
	if got := list("weather", "other.example.com", 10); !sameIDs(got, elsewhere.ID) {
		t.Errorf("plans on another host: %v", ids(got))
	}
	f.clock.Add(time.Hour)
	if got := list("weather", host, 10); !sameIDs(got, day.ID) {
		t.Errorf("plans after an hour: %v", ids(got))
	}
}
