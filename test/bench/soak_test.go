package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// TestMain runs the tests, or, started by one, a chain in a process of its own.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == chainCommand {
		if err := serveChain(context.Background(), os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// A short run of what make soak does for an hour.
func TestSoak(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	c, err := soakConfigFrom(func(name string) string {
		return map[string]string{"SOAK_SECONDS": "12", "SOAK_CLIENTS": "60", "SOAK_PAYERS": "150", "SOAK_EVERY": "1", "SOAK_DIR": t.TempDir()}[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := runSoak(t.Context(), c, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	r.print(&out)
	if err := r.verdict(); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
	v := &r.Verdict
	for what, n := range map[string]int{
		"served up front": v.ByFlow["upfront"], "with authorization": v.ByFlow["authorization"], "deferred": v.ByFlow["deferred"],
		"void": v.Void, "trails": v.Trails, "transactions": r.Transactions,
	} {
		if n == 0 {
			t.Errorf("none: %s\n%s", what, &out)
		}
	}
	if r.Transactions >= v.Transfers {
		t.Errorf("%d transactions carried %d transfers: none together", r.Transactions, v.Transfers)
	}
	if v.Refused > 0 || v.Served+v.Void+v.Held+v.Used+v.Left != v.Wanted {
		t.Errorf("not all was served:\n%s", &out)
	}
	for _, want := range []string{"lost", "doubled", "Caddy's memory is flat"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table does not say %q", want)
		}
	}
}

var ended = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// goodPurchase is one as it would look, so that a test can tell it wrong.
func goodPurchase() (purchase, *transfer, *ledger.Payment) {
	nonce, tx := common.Hash{1}, common.Hash{2}
	q := &ledger.Payment{
		ID: "pay_1", Settlement: ledger.Settled, Delivery: ledger.Delivered, Refund: ledger.NotRefunded, Transaction: tx,
	}
	q.Nonce, q.SettledAt = nonce, ended
	return purchase{nonce: nonce, tx: tx, told: served, answers: 1}, &transfer{nonce: nonce, tx: tx}, q
}

// The judge lets pass what may be, and finds what must not be.
func TestSoakJudge(t *testing.T) {
	unpaid := func(q *ledger.Payment) {
		q.Settlement, q.Delivery, q.Transaction = ledger.Void, ledger.Undelivered, common.Hash{}
	}
	type scene struct {
		p         purchase
		transfers []*transfer
		payments  []*ledger.Payment
	}
	for name, c := range map[string]struct {
		tell func(s *scene)
		want string
	}{
		"served": {func(*scene) {}, ""},
		"void": {func(s *scene) {
			s.p.told, s.p.answers, s.transfers = void, 0, nil
			unpaid(s.payments[0])
		}, ""},
		"void, and charged": {func(s *scene) { s.p.told, s.p.answers, s.p.broke = void, 0, true }, "lost"},
		"held": {func(s *scene) {
			s.p.told, s.p.answers = held, 0
			s.payments[0].Delivery, s.payments[0].Refund = ledger.Undelivered, ledger.RefundPending
		}, ""},
		"held, and delivered": {func(s *scene) { s.p.told, s.p.answers, s.p.broke = held, 0, true }, "discord"},
		"never claimed": {func(s *scene) {
			s.p.told, s.p.answers, s.p.tx, s.transfers, s.payments = left, 0, common.Hash{}, nil, nil
		}, ""},
		"refundable": {func(s *scene) {
			s.p.told, s.p.answers = left, 0
			s.payments[0].Delivery, s.payments[0].Refund = ledger.Undelivered, ledger.RefundPending
		}, ""},
		"lost on the way":                {func(s *scene) { s.p.told, s.p.answers, s.p.broke = used, 0, true }, ""},
		"lost":                           {func(s *scene) { s.p.told, s.p.answers = refused, 0; s.payments[0].Delivery = ledger.Undelivered }, "lost stuck"},
		"used, and nothing broke":        {func(s *scene) { s.p.told, s.p.answers = used, 0 }, "lost"},
		"charged, unknown to the ledger": {func(s *scene) { s.p.told, s.p.answers, s.payments = left, 0, nil }, "lost discord"},
		"charged twice":                  {func(s *scene) { s.transfers = append(s.transfers, s.transfers[0]) }, "doubled"},
		"answered twice":                 {func(s *scene) { s.p.answers = 2 }, "doubled"},
		"served and refundable":          {func(s *scene) { s.payments[0].Refund = ledger.RefundPending }, "doubled"},
		"free":                           {func(s *scene) { s.transfers = nil; unpaid(s.payments[0]) }, "free"},
		"settled without a transfer":     {func(s *scene) { s.transfers = nil }, "free discord"},
		"another transaction":            {func(s *scene) { s.p.tx = common.Hash{3} }, "discord"},
		"another in the ledger":          {func(s *scene) { s.payments[0].Transaction = common.Hash{3} }, "discord"},
		"asked for by nobody":            {func(s *scene) { s.transfers = append(s.transfers, &transfer{nonce: common.Hash{9}}) }, "discord"},
		"twice in the ledger":            {func(s *scene) { s.payments = append(s.payments, s.payments[0]) }, "discord"},
		"never answered":                 {func(s *scene) { s.p.told, s.p.answers, s.p.broke = unsure, 0, true }, "stuck"},
		"not looked after":               {func(s *scene) { s.payments[0].SettledAt = ended.Add(-2 * time.Minute) }, "behind"},
		"safe":                           {func(s *scene) { s.payments[0].SettledAt, s.payments[0].Final = ended.Add(-2*time.Minute), true }, ""},
		"never settled": {func(s *scene) {
			s.p.told, s.p.answers, s.transfers, s.payments[0].Settlement = left, 0, nil, ledger.Settling
		}, "stuck"},
	} {
		t.Run(name, func(t *testing.T) {
			p, moved, q := goodPurchase()
			s := &scene{p, []*transfer{moved}, []*ledger.Payment{q}}
			c.tell(s)
			j := newSoakJudge([]purchase{s.p}, ended)
			for _, x := range s.transfers {
				j.transfer(x)
			}
			for _, x := range s.payments {
				j.payment(x)
			}
			v := j.verdict()
			var found []string
			for _, kind := range []struct {
				name string
				n    int
			}{{"lost", v.Lost}, {"doubled", v.Doubled}, {"free", v.Free}, {"discord", v.Discord}, {"stuck", v.Stuck}, {"behind", v.Behind}} {
				if kind.n > 0 {
					found = append(found, kind.name)
				}
			}
			if got := strings.Join(found, " "); got != c.want || v.ok() != (c.want == "") {
				t.Errorf("the judge found %q, want %q: %v", got, c.want, v.Wrong)
			}
		})
	}
}

// Who signs anew is served by what it has paid for: one answer for one transfer, whichever authorization it came for.
func TestSoakJudgeKnowsWhoServesForWhom(t *testing.T) {
	for name, c := range map[string]struct {
		answers uint8 // of the earlier one
		payer   int32
		want    bool
	}{"resumed": {0, 0, true}, "answered before": {1, 0, false}, "of another": {0, 1, false}} {
		earlier, moved, q := goodPurchase()
		earlier.told, earlier.answers, earlier.broke = left, c.answers, true
		later := purchase{nonce: common.Hash{5}, tx: moved.tx, told: served, answers: 1, payer: c.payer}
		void := &ledger.Payment{ID: "pay_2", Settlement: ledger.Void, Delivery: ledger.NotDelivered, ServedBy: q.ID}
		void.Nonce = later.nonce
		j := newSoakJudge([]purchase{earlier, later}, ended)
		j.transfer(moved)
		j.payment(q)
		j.payment(void)
		j.instead(void, q)
		if v := j.verdict(); v.ok() != c.want {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// Memory that grows is found, and a peak is not taken for growth.
func TestFlatness(t *testing.T) {
	for name, c := range map[string]struct {
		heap func(i int) float64
		want bool
	}{
		"flat":          {func(int) float64 { return 60 }, true},
		"a peak":        {func(i int) float64 { return 60 + 500*float64(i/39) }, true},
		"a warm-up":     {func(i int) float64 { return min(60, 12*float64(i)) }, true},
		"it swings":     {func(i int) float64 { return 50 + float64(i%5*i/5) }, true},
		"it grows":      {func(i int) float64 { return 20 + 2*float64(i) }, false},
		"grows, swings": {func(i int) float64 { return 50 + float64(i) + float64(i%5)*10 }, false},
		"none measured": {func(int) float64 { return 0 }, false},
	} {
		var all []sample
		for i := range 40 {
			all = append(all, sample{Heap: c.heap(i), Resident: 2 * c.heap(i)})
		}
		if got := flatness(all); got.OK != c.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
