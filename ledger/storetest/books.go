package storetest

import (
	"slices"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// records reads all records, by small pages, and checks their order and trails.
func (f *fixture) records() []ledger.Record {
	f.Helper()
	return f.recordsOf(f.store())
}

func (f *fixture) recordsOf(s ledger.Store) []ledger.Record {
	f.Helper()
	var got []ledger.Record
	for after := ""; ; {
		page, err := verified(s.Records(f.ctx, after, 7))
		if err != nil {
			f.Fatalf("records after %q: %v", after, err)
		}
		for _, r := range page {
			if r.Payment.ID <= after {
				f.Fatalf("record %s after %q", r.Payment.ID, after)
			}
			after = r.Payment.ID
		}
		got = append(got, page...)
		if len(page) < 7 {
			return got
		}
	}
}

// crowded makes payments of some payers in some states. Several are made at the same moment.
func (f *fixture) crowded(n int) []ledger.Payment {
	f.Helper()
	made := make([]ledger.Payment, 0, n)
	for i := range uint64(n) {
		p := f.claim(newPayment(f, i%3, i), 0)
		switch i % 5 {
		case 1:
			p = f.update(p, ledger.Change{Event: ledger.EventSettle, Transaction: hash(i)})
		case 2:
			p = f.update(p, ledger.Change{Event: ledger.EventVoid, Reason: "unused"})
		case 3:
			p = f.delivered(f.update(p, ledger.Change{Event: ledger.EventSettle, Transaction: hash(i)}), time.Time{})
		}
		made = append(made, p)
		if i%4 == 3 {
			f.clock.Add(time.Millisecond)
		}
	}
	return made
}

// newest sorts as List does.
func newest(ps []ledger.Payment) []ledger.Payment {
	ps = slices.Clone(ps)
	slices.SortFunc(ps, func(a, b ledger.Payment) int {
		return compareMarks(ledger.Mark{At: b.CreatedAt, Payment: b.ID}, ledger.Mark{At: a.CreatedAt, Payment: a.ID})
	})
	return ps
}

// Pages of any size, with and without filters, give every payment once, and show what came meanwhile nowhere but
// in front.
func testList(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	made := newest(f.crowded(40))
	pages := func(q ledger.Query) []ledger.Payment {
		t.Helper()
		var got []ledger.Payment
		for range len(made) + 2 {
			page, err := f.store().List(f.ctx, q)
			if err != nil || len(page) > q.Limit {
				t.Fatalf("list: %d payments, at most %d: %v", len(page), q.Limit, err)
			}
			got = append(got, page...)
			if len(page) < q.Limit {
				return got
			}
			last := page[len(page)-1]
			q.Before = ledger.Mark{At: last.CreatedAt, Payment: last.ID}
		}
		t.Fatalf("the list does not end")
		return nil
	}
	for _, state := range []ledger.State{"", ledger.StateSettling, ledger.StatePaid, ledger.StateVoid, ledger.StateDelivered, ledger.StateRefunded} {
		for _, payer := range []common.Address{{}, account(1), account(77)} {
			want := slices.DeleteFunc(slices.Clone(made), func(p ledger.Payment) bool {
				return state != "" && p.State() != state || payer != common.Address{} && p.Payer != payer
			})
			for _, limit := range []int{1, 3, 7, 1000} {
				if got := pages(ledger.Query{State: state, Payer: payer, Limit: limit}); !slices.Equal(got, want) {
					t.Errorf("%s of %s by %d: %v, want %v", state, payer, limit, ids(got), ids(want))
				}
			}
		}
	}
	if got, err := f.store().List(f.ctx, ledger.Query{}); err != nil || len(got) != 0 {
		t.Errorf("no limit: %v, %v", ids(got), err)
	}
	first, err := f.store().List(f.ctx, ledger.Query{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	f.clock.Add(time.Second)
	f.claim(newPayment(t, 1, 1000), 0)
	rest, err := f.store().List(f.ctx, ledger.Query{
		Limit: 100, Before: ledger.Mark{At: first[9].CreatedAt, Payment: first[9].ID},
	})
	if err != nil || !slices.Equal(append(first, rest...), made) {
		t.Errorf("with a new one meanwhile: %v, %v", ids(rest), err)
	}
}

// Entries of all payments come in one order, once each, up to a time.
func testEntries(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	f.crowded(30)
	var want []ledger.Entry
	for _, r := range f.records() {
		want = append(want, r.Trail...)
	}
	slices.SortFunc(want, func(a, b ledger.Entry) int { return compareMarks(a.Mark(), b.Mark()) })
	for _, limit := range []int{1, 4, 1000} {
		if got := f.entries(f.clock.Now(), limit); !same(got, want) {
			t.Errorf("entries by %d: %+v\nwant %+v", limit, got, want)
		}
	}
	// Until is the last moment that belongs to it, mark the last entry that does not.
	middle := want[len(want)/2]
	var early []ledger.Entry
	for _, e := range want {
		if !e.At.After(middle.At) {
			early = append(early, e)
		}
	}
	if got := f.entries(middle.At, 5); !same(got, early) {
		t.Errorf("until %v: %d entries, want %d", middle.At, len(got), len(early))
	}
	got, err := f.store().Entries(f.ctx, middle.Mark(), f.clock.Now(), 1)
	if err != nil || !same(got, want[len(want)/2+1:][:1]) {
		t.Errorf("after %+v: %+v, %v", middle.Mark(), got, err)
	}
	if got, err := f.store().Entries(f.ctx, ledger.Mark{}, f.clock.Now(), 0); err != nil || len(got) != 0 {
		t.Errorf("none: %v, %v", got, err)
	}
	if got, err := f.store().Entries(f.ctx, ledger.Mark{}, want[0].At.Add(-time.Microsecond), 9); err != nil || len(got) != 0 {
		t.Errorf("before the first: %v, %v", got, err)
	}
}

// entries reads all entries until a time, by pages.
func (f *fixture) entries(until time.Time, limit int) []ledger.Entry {
	f.Helper()
	var got []ledger.Entry
	var mark ledger.Mark
	for {
		page, err := f.store().Entries(f.ctx, mark, until, limit)
		if err != nil || len(page) > limit {
			f.Fatalf("entries after %+v: %d, at most %d: %v", mark, len(page), limit, err)
		}
		for _, e := range page {
			if compareMarks(e.Mark(), mark) <= 0 {
				f.Fatalf("entry %+v after %+v", e.Mark(), mark)
			}
			mark = e.Mark()
		}
		got = append(got, page...)
		if len(page) < limit {
			return got
		}
	}
}

// Whoever wants all pages of records gets them, and each has what the other methods say of it.
func testRecords(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	made := f.crowded(25)
	f.record(newTransaction(9, 0, 100, made[0].ID, made[5].ID))
	f.clock.Add(time.Second)
	f.record(newTransaction(9, 0, 94, made[5].ID, made[0].ID)) // its hash sorts before the first
	f.record(newTransaction(9, 1, 101, made[10].ID))
	f.record(newTransaction(9, 1, 102))
	f.record(newTransaction(8, 7, 103))
	if err := f.store().AdvanceNonce(f.ctx, 1, account(9), 3); err != nil {
		t.Fatal(err)
	}
	records := f.records()
	if len(records) != len(made) {
		t.Errorf("%d records, want %d", len(records), len(made))
	}
	for _, r := range records {
		if r.Payment != f.read(r.Payment.ID) {
			t.Errorf("record %+v is not the payment", r.Payment)
		}
		f.recorded(r.Payment.ID, r.Transactions...)
		trail, err := f.store().Audit(f.ctx, r.Payment.ID)
		if err != nil || !same(trail, r.Trail) {
			t.Errorf("trail %+v (%v), want %+v", r.Trail, err, trail)
		}
	}
	if got, err := f.store().Records(f.ctx, "", 0); err != nil || len(got) != 0 {
		t.Errorf("no records: %v, %v", got, err)
	}
	wallets, err := f.store().Wallets(f.ctx)
	free, other := newTransaction(9, 1, 102), newTransaction(8, 7, 103)
	want := []ledger.Wallet{
		{ChainID: 1, Address: account(9), NextNonce: 3},
		{ChainID: 84532, Address: account(8), NextNonce: 8, Freed: []ledger.Transaction{f.dated(other)}},
		{ChainID: 84532, Address: account(9), NextNonce: 2, Freed: []ledger.Transaction{f.dated(free)}},
	}
	if err != nil || !same(wallets, want) {
		t.Errorf("wallets %+v (%v)\nwant %+v", wallets, err, want)
	}
}
