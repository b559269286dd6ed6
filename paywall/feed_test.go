package paywall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/x402"
)

// readAll reads what there is, and keeps the cursor as a subscriber does.
func readAll(t *testing.T, f *Feed, c Cursor, limit int) ([]Fact, Cursor) {
	t.Helper()
	var all []Fact
	for {
		facts, next, err := f.Next(t.Context(), c, limit)
		if err != nil {
			t.Fatal(err)
		}
		text, err := next.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if c, err = ParseCursor(text); err != nil {
			t.Fatal(err)
		}
		if all = append(all, facts...); len(facts) == 0 {
			return all, c
		}
	}
}

// What a ledger's payments go through is told as facts, each once, in order, whatever the size of the pages.
func TestFeed(t *testing.T) {
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	f := &Feed{Store: store}
	var want []string
	begin := func(n byte, flow string) ledger.Payment {
		t.Helper()
		id, err := ledger.NewID(randomness, common.Address{n})
		if err != nil {
			t.Fatal(err)
		}
		p, err := store.Claim(t.Context(), ledger.Payment{
			ID: id, AuthorizationID: x402.AuthorizationID{ChainID: 84532, Payer: common.Address{n}, Nonce: common.Hash{n}}, Flow: flow,
			Binding: ledger.Binding{Route: "r", Method: http.MethodGet, Host: "h", URI: "/"},
		}, ledger.Change{Event: ledger.EventClaim, Actor: "test", Hold: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	step := func(p ledger.Payment, c ledger.Change, facts ...FactKind) ledger.Payment {
		t.Helper()
		c.Actor, c.Fence = "test", p.Hold.Fence
		q, err := store.Update(t.Context(), p.ID, p.Version, c)
		if err != nil {
			t.Fatal(c.Event, err)
		}
		for _, kind := range facts {
			want = append(want, factID(q.ID, q.Version, kind))
		}
		return q
	}
	settle := ledger.Change{Event: ledger.EventSettle, Transaction: common.Hash{1}}

	good := step(begin(1, ledger.FlowUpfront), settle, FactSettled)
	good = step(good, ledger.Change{Event: ledger.EventDeliver, Hold: time.Minute})
	step(good, ledger.Change{Event: ledger.EventDelivered}, FactDelivered)
	lost := step(begin(2, ledger.FlowUpfront), settle, FactSettled)
	lost = step(lost, ledger.Change{Event: ledger.EventUndelivered, Reason: "x"}, FactUndelivered, FactRefundPending)
	lost = step(lost, ledger.Change{Event: ledger.EventRefundFailed, Reason: "y"}, FactRefundFailed)
	lost = step(lost, ledger.Change{Event: ledger.EventRefundRetry}, FactRefundPending)
	step(lost, ledger.Change{Event: ledger.EventRefunded, Transaction: common.Hash{2}}, FactRefunded)
	failed := step(begin(3, ledger.FlowUpfront), ledger.Change{Event: ledger.EventFail, Reason: "z"}, FactFailed)
	step(failed, settle, FactSettled, FactRefundPending) // by somebody else
	void := step(begin(4, ledger.FlowAuthorization), ledger.Change{Event: ledger.EventUndelivered, Reason: "upstream_status_500"}, FactUndelivered)
	step(void, ledger.Change{Event: ledger.EventVoid, Reason: "upstream_status_500"})
	step(begin(6, ledger.FlowRefund), settle) // a transfer that pays back is nobody's payment to us

	for _, limit := range []int{1, 2, 3, 100} {
		facts, c := readAll(t, f, Cursor{}, limit)
		var got []string
		for _, fact := range facts {
			got = append(got, fact.ID)
			if fact.Payment.ID == "" || fact.At.IsZero() || fact.Payment.Payer == (common.Address{}) {
				t.Errorf("%+v", fact)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("by %d: told\n%q\nwant\n%q", limit, got, want)
		}
		if again, _ := readAll(t, f, c, limit); len(again) != 0 {
			t.Errorf("by %d: told again %v", limit, again)
		}
	}
	// What happens later is told alone.
	_, c := readAll(t, f, Cursor{}, 100)
	late := step(begin(5, ledger.FlowUpfront), settle, FactSettled)
	if facts, _ := readAll(t, f, c, 100); len(facts) != 1 || facts[0].Payment.ID != late.ID {
		t.Errorf("told %+v", facts)
	}
	if facts, _ := readAll(t, f, f.FromNow(), 100); len(facts) != 0 {
		t.Errorf("from now on: %+v", facts)
	}
	if _, err := ParseCursor("x"); err == nil {
		t.Error("a cursor of nothing")
	}
}

// slowTrail is a ledger's trail in which entries come to light some time after the time that they have.
type slowTrail struct {
	now     time.Time
	entries []lateEntry // by mark
}

type lateEntry struct {
	ledger.Entry
	visible time.Time
}

func (s *slowTrail) Now() time.Time { return s.now }

func (s *slowTrail) Payment(_ context.Context, id string) (ledger.Payment, error) {
	if id == "" {
		return ledger.Payment{}, ledger.ErrNotFound
	}
	return ledger.Payment{ID: id}, nil
}

func (s *slowTrail) Entries(_ context.Context, after ledger.Mark, until time.Time, limit int) ([]ledger.Entry, error) {
	var out []ledger.Entry
	for _, e := range s.entries {
		m := e.Mark()
		behind := cmp.Or(m.At.Compare(after.At), cmp.Compare(m.Payment, after.Payment), cmp.Compare(m.Version, after.Version)) > 0
		if behind && !e.At.After(until) && !e.visible.After(s.now) && len(out) < limit {
			out = append(out, e.Entry)
		}
	}
	return out, nil
}

// However late entries come in, within the lag, and whenever a subscriber reads or forgets what it has not stored: each fact is told exactly once.
func TestFeedOfAConcurrentLedger(t *testing.T) {
	events := []ledger.Event{ledger.EventClaim, ledger.EventSettle, ledger.EventDelivered, ledger.EventRefunded, ledger.EventExtend}
	rapid.Check(t, func(t *rapid.T) {
		const lag = 60 // seconds
		start := time.Unix(1_800_000_000, 0)
		s := &slowTrail{now: start}
		want := map[string]bool{}
		for i := range rapid.IntRange(0, 60).Draw(t, "entries") {
			at := start.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "at")) * time.Second)
			e := lateEntry{Entry: ledger.Entry{
				Payment: fmt.Sprintf("pay_%d", i%7), Version: uint64(i + 1), At: at, Event: rapid.SampledFrom(events).Draw(t, "event"), Refund: ledger.NotRefunded,
			}, visible: at.Add(time.Duration(rapid.IntRange(0, lag-1).Draw(t, "late")) * time.Second)}
			s.entries = append(s.entries, e)
			for _, k := range kinds(e.Event, e.Refund) {
				want[factID(e.Payment, e.Version, k)] = true
			}
		}
		slices.SortFunc(s.entries, func(a, b lateEntry) int {
			return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Payment, b.Payment), cmp.Compare(a.Version, b.Version))
		})
		f := &Feed{Store: s, Lag: lag * time.Second}
		var c Cursor
		told := map[string]bool{}
		read := func() int {
			facts, next, err := f.Next(context.Background(), c, rapid.IntRange(1, 20).Draw(t, "limit"))
			if err != nil {
				t.Fatal(err)
			}
			if rapid.IntRange(0, 9).Draw(t, "crash") == 0 {
				return len(facts) + 1 // neither what was made of them nor the cursor was stored
			}
			for _, fact := range facts {
				if told[fact.ID] {
					t.Fatalf("%s is told twice", fact.ID)
				}
				told[fact.ID] = true
			}
			text, err := next.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if c, err = ParseCursor(text); err != nil {
				t.Fatal(err)
			}
			return len(facts)
		}
		for s.now.Before(start.Add(400 * time.Second)) {
			s.now = s.now.Add(time.Duration(rapid.IntRange(1, 40).Draw(t, "pause")) * time.Second)
			read()
		}
		for read() > 0 {
		}
		if !maps.Equal(told, want) {
			t.Fatalf("told %v\nwant %v", told, want)
		}
		if len(c.Told) != 0 {
			t.Fatalf("the cursor still remembers %v", c.Told)
		}
	})
}

// A cursor does not grow with what happens: of a busy ledger facts are told as late as its lag.
func TestFeedOfABusyLedger(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	s := &slowTrail{now: start.Add(time.Second)}
	for i := range 3 * mostTold {
		e := ledger.Entry{Payment: "pay", Version: uint64(i + 1), At: start, Event: ledger.EventSettle, Refund: ledger.NotRefunded}
		s.entries = append(s.entries, lateEntry{Entry: e, visible: start})
	}
	f := &Feed{Store: s}
	first, c := readAll(t, f, Cursor{}, 100)
	if len(first) != mostTold || len(c.Told) != mostTold {
		t.Errorf("told %d, remembers %d", len(first), len(c.Told))
	}
	s.now = start.Add(2 * time.Minute)
	rest, c := readAll(t, f, c, 100)
	if len(first)+len(rest) != len(s.entries) || len(c.Told) != 0 {
		t.Errorf("told %d and %d, remembers %d", len(first), len(rest), len(c.Told))
	}
	if _, _, err := (&Feed{Store: &noTrail{s}}).Next(t.Context(), Cursor{}, 1); !errors.Is(err, ledger.ErrClosed) {
		t.Error(err)
	}
}

type noTrail struct{ *slowTrail }

func (*noTrail) Entries(context.Context, ledger.Mark, time.Time, int) ([]ledger.Entry, error) {
	return nil, ledger.ErrClosed
}

// Who listens to an engine hears the same facts as who reads the feed, by the same ids.
func TestHappened(t *testing.T) {
	var mu sync.Mutex
	var heard []string
	c := newCluster(t, 1, Settings{Happened: func(f Fact) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, f.ID)
	}}, nil)
	dead := true
	c.serve = func(w http.ResponseWriter, _ *http.Request) {
		if dead {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}
	c.ask(0, http.MethodGet, "/", "", headerSignature, c.sign(0, 1, ""))
	dead = false
	c.ask(0, http.MethodGet, "/", "", headerSignature, c.sign(0, 2, ""))
	c.ask(0, http.MethodGet, "/", "", headerSignature, c.sign(0, 3, "day"))
	facts, _ := readAll(t, &Feed{Store: c.instances[0].store}, Cursor{}, 100)
	var told []string
	for _, f := range facts {
		told = append(told, f.ID)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(told) != 7 || !slices.Equal(heard, told) {
		t.Errorf("heard %q\ntold  %q", heard, told)
	}
}
