package ledger_test

import (
	"crypto/sha256"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
)

func verify(t *testing.T, b ledger.Books, o ledger.VerifyOptions) ledger.Report {
	t.Helper()
	r, err := ledger.Verify(t.Context(), b, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A ledger of several pages holds, and its report counts what is there.
func TestVerify(t *testing.T) {
	m, c := memory(t, 1203)
	s := newSnapshot(t, m)
	var told []int64
	got := verify(t, m, ledger.VerifyOptions{Progress: func(n int64) { told = append(told, n) }, Expect: s.anchors[7].Hash})
	last := s.anchors[len(s.anchors)-1]
	unanchored := 0
	for _, e := range s.entries {
		if e.At.After(last.Until) {
			unanchored++
		}
	}
	want := ledger.Report{
		Payments: 1203, Entries: int64(len(s.entries)), Anchors: int64(len(s.anchors)), Unanchored: int64(unanchored), LastAnchor: last.Hash,
	}
	if got.Found != 0 || got.Payments != want.Payments || got.Entries != want.Entries || got.Anchors != want.Anchors ||
		got.Unanchored != want.Unanchored || got.LastAnchor != want.LastAnchor || unanchored == 0 {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	if !slices.Equal(told, []int64{500, 1000, 1203}) {
		t.Errorf("progress %v", told)
	}
	anchor(t, m, c)
	if got := verify(t, m, ledger.VerifyOptions{}); got.Found != 0 || got.Unanchored != 0 {
		t.Errorf("all anchored: %+v", got)
	}
	if got := verify(t, storetest.NewMemory(c.Now, false), ledger.VerifyOptions{}); got.Found != 0 || got.Payments != 0 {
		t.Errorf("an empty ledger: %+v", got)
	}
}

// reanchor makes the anchor's hash right again.
func reanchor(a *ledger.Anchor) {
	a.Hash = common.Hash{}
	b, _ := json.Marshal(a)
	a.Hash = sha256.Sum256(b)
}

// forged is another history of a payment, whole in itself.
func forged(t *testing.T, r ledger.Record) ledger.Record {
	t.Helper()
	p, e, err := ledger.Create(r.Payment, ledger.Change{Actor: "forger"}, r.Payment.CreatedAt)
	if err != nil {
		t.Fatal(err)
	}
	return ledger.Record{Payment: p, Trail: []ledger.Entry{e}}
}

// Whatever is done to a ledger behind its back is found, and said to be what it is.
func TestVerifyFinds(t *testing.T) {
	m, _ := memory(t, 60)
	whole := newSnapshot(t, m)
	long := slices.IndexFunc(whole.records, func(r ledger.Record) bool {
		return len(r.Trail) >= 4 && r.Payment.CreatedAt.Before(whole.anchors[2].Until)
	})
	short := slices.IndexFunc(whole.records, func(r ledger.Record) bool {
		return len(r.Trail) == 1 && r.Payment.CreatedAt.Before(whole.anchors[2].Until)
	})
	id := whole.records[long].Payment.ID
	sent := slices.IndexFunc(whole.records, func(r ledger.Record) bool { return len(r.Transactions) > 0 })
	for name, tt := range map[string]struct {
		tamper func(s *snapshot)
		want   string
	}{
		"nothing": {func(*snapshot) {}, ""},
		"a payment's facet": {func(s *snapshot) {
			s.records[long].Payment.Refund = ledger.Refunded
		}, "trail"},
		"a payment's amount": {func(s *snapshot) { s.records[long].Payment.Amount.AddUint64(&s.records[long].Payment.Amount, 1) }, "trail"},
		"an entry in both places": {func(s *snapshot) {
			s.records[long].Trail[1].Actor = "nobody"
			s.each(id, func(e *ledger.Entry) {
				if e.Version == 2 {
					e.Actor = "nobody"
				}
			})
		}, "entry trail"},
		"an entry of the list by time": {func(s *snapshot) { s.entries[17].Reason = "x" }, "entry"},
		"an entry with its hash": {func(s *snapshot) {
			rehash(&s.records[short].Trail[0])
			s.records[short].Trail[0].Actor = "nobody"
			rehash(&s.records[short].Trail[0])
			s.each(s.records[short].Payment.ID, func(e *ledger.Entry) { *e = s.records[short].Trail[0] })
		}, "entries"},
		"a trail made anew": {func(s *snapshot) {
			s.records[short] = forged(t, s.records[short])
			s.each(s.records[short].Payment.ID, func(e *ledger.Entry) { *e = s.records[short].Trail[0] })
		}, "entries"},
		"a trail made shorter": {func(s *snapshot) {
			s.records[long] = forged(t, s.records[long])
			s.forget(id)
			s.entries = append(s.entries, s.records[long].Trail[0])
			slices.SortFunc(s.entries, func(a, b ledger.Entry) int { return a.At.Compare(b.At) })
		}, "entries entry"},
		"a trail made anew beside the list": {func(s *snapshot) { s.records[short] = forged(t, s.records[short]) }, "entries"},
		"an entry is missing in both": {func(s *snapshot) {
			s.records[long].Trail = slices.Delete(s.records[long].Trail, 2, 3)
			s.entries = slices.DeleteFunc(s.entries, func(e ledger.Entry) bool { return e.Payment == id && e.Version == 3 })
		}, "entries trail"},
		"a payment is missing": {func(s *snapshot) {
			s.records = slices.Delete(s.records, long, long+1)
			s.forget(id)
		}, "entries"},
		"a payment is missing, its entries are not":         {func(s *snapshot) { s.records = slices.Delete(s.records, long, long+1) }, "entries"},
		"a payment's entries are missing, the trail is not": {func(s *snapshot) { s.forget(id) }, "entries"},
		"a payment twice":          {func(s *snapshot) { s.records = slices.Insert(s.records, long, s.records[long]) }, "entries"},
		"a transaction is missing": {func(s *snapshot) { s.records[sent].Transactions = nil }, "transaction"},
		"another transaction in its place": {func(s *snapshot) {
			s.records[sent].Transactions = []ledger.Transaction{transaction(50, 0, 7, id)}
		}, "transaction"},
		"what was signed": {func(s *snapshot) {
			t := s.records[sent].Transactions[0]
			t.Raw = []byte{2}
			s.records[sent].Transactions = []ledger.Transaction{t}
		}, "transaction"},
		"entries in another order":    {func(s *snapshot) { s.entries[4], s.entries[5] = s.entries[5], s.entries[4] }, "entries entry"},
		"an entry twice":              {func(s *snapshot) { s.entries = slices.Insert(s.entries, 4, s.entries[4]) }, "entries entry"},
		"an anchor is missing":        {func(s *snapshot) { s.anchors = slices.Delete(s.anchors, 2, 3) }, "anchor entries"},
		"the first anchor is missing": {func(s *snapshot) { s.anchors = s.anchors[1:] }, "anchor entries"},
		"an anchor's count":           {func(s *snapshot) { s.anchors[2].Count-- }, "anchor entries"},
		"an anchor's hash":            {func(s *snapshot) { s.anchors[2].Hash[3] ^= 1 }, "anchor"},
		"an anchor made anew": {func(s *snapshot) {
			a := &s.anchors[2]
			a.Previous[3] ^= 1
			reanchor(a)
		}, "anchor"},
		"an anchor is missing, the next is numbered anew": {func(s *snapshot) {
			s.anchors = slices.Delete(s.anchors, 2, 3)
			s.anchors[2].Sequence--
			reanchor(&s.anchors[2])
		}, "anchor entries"},
		"the anchors are gone": {func(s *snapshot) { s.anchors = nil }, "expected"},
		"the newest anchor is gone, and what it fixed": {func(s *snapshot) {
			s.anchors = s.anchors[:len(s.anchors)-1]
		}, "expected"},
	} {
		s := whole.clone()
		tt.tamper(s)
		r := verify(t, s, ledger.VerifyOptions{Expect: whole.anchors[len(whole.anchors)-1].Hash})
		if got := kinds(r); got != tt.want || (r.Found == 0) != (tt.want == "") {
			t.Errorf("%s: found %q %+v, want %q", name, got, r.Problems, tt.want)
		}
	}
}

// A report of a ledger where nothing is right stays small, and says how much there is.
func TestVerifyFindsMuch(t *testing.T) {
	m, _ := memory(t, 300)
	s := newSnapshot(t, m)
	for i := range s.records {
		s.records[i].Payment.PayTo = common.Address{1}
	}
	if r := verify(t, s, ledger.VerifyOptions{}); r.Found != 300 || len(r.Problems) != ledger.MaxProblems {
		t.Errorf("%d problems found, %d listed", r.Found, len(r.Problems))
	}
}

// What a store forgot because it was old is no problem where that is known; what it should have kept still is.
func TestVerifyRetention(t *testing.T) {
	c := &clock{start}
	m := storetest.NewMemory(c.Now, true)
	fill(t, m, c, 1, 200)
	c.after(30 * 24 * time.Hour)
	young := c.now
	fill(t, m, c, 201, 48)
	anchor(t, m, c)
	c.after(20 * 24 * time.Hour)
	kept := young.Add(-time.Hour)
	all := newSnapshot(t, m)
	if n, err := m.Sweep(t.Context(), c.now.Sub(kept), 1<<20); err != nil || n < 10 {
		t.Fatalf("swept %d, %v", n, err)
	}
	rest := newSnapshot(t, m)
	r := verify(t, m, ledger.VerifyOptions{KeptSince: kept})
	if want := int64(len(all.entries) - len(rest.entries)); r.Found != 0 || r.Forgotten != want {
		t.Errorf("%+v, want %d forgotten entries", r, want)
	}
	if r := verify(t, m, ledger.VerifyOptions{}); kinds(r) != "entries" {
		t.Errorf("without a retention: %+v", r)
	}
	// Not in the first window: that begins when nothing had to be kept.
	last := rest.anchors[len(rest.anchors)-2].Until
	i := slices.IndexFunc(rest.records, func(r ledger.Record) bool { return r.Payment.CreatedAt.After(last) })
	rest.forget(rest.records[i].Payment.ID)
	rest.records = slices.Delete(rest.records, i, i+1)
	if r := verify(t, rest, ledger.VerifyOptions{KeptSince: kept}); kinds(r) != "entries" {
		t.Errorf("a young one is missing: %+v", r)
	}
}
