package management_test

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/x402"
)

// mixed is an office with payments on both networks, in many states.
func mixed(t *testing.T) (o *office, live, test string, all []ledger.Payment) {
	t.Helper()
	o = newOffice(t)
	_, live = o.key(apikey.Live, 0)
	_, test = o.key(apikey.Test, 0)
	later := time.UnixMicro(o.clock.Load()).Add(24 * time.Hour)
	for i := range 4 {
		for _, n := range []x402.Network{base, sepolia} {
			payer := int64(i%2 + 1)
			all = append(all, o.claim(n, payer, ""), o.claim(n, payer, "", settled), o.claim(n, payer, "", delivered...),
				o.claim(n, payer, "", failed...), o.claim(n, payer, "day", planned(later)...))
		}
	}
	slices.Reverse(all)
	return o, live, test, all
}

func ids(list []management.Payment) (out []string) {
	for i := range list {
		out = append(out, list[i].ID)
	}
	return out
}

// Lists have the payments of the caller's network alone, newest first, in pages that join without a gap, by state, payer and time.
func TestPaymentsAreListed(t *testing.T) {
	o, live, test, all := mixed(t)
	want := func(keep func(*ledger.Payment) bool) (out []string) {
		for i := range all {
			if keep(&all[i]) {
				out = append(out, all[i].ID)
			}
		}
		return out
	}
	list := func(secret, query string) (out []string) {
		t.Helper()
		for next := ""; ; {
			path := "/v1/payments?limit=3" + query
			if next != "" {
				path += "&cursor=" + next
			}
			a := o.live(secret, http.MethodGet, path, "")
			if secret == test {
				a = o.test(secret, http.MethodGet, path, "")
			}
			page := decode[listed[management.Payment]](t, a)
			out = append(out, ids(page.Data)...)
			if next = page.Page.Next; next == "" {
				return out
			}
		}
	}
	middle := all[len(all)/2].CreatedAt
	for name, tc := range map[string]struct {
		secret, query string
		keep          func(*ledger.Payment) bool
	}{
		"live":      {live, "", func(p *ledger.Payment) bool { return p.ChainID == base.ChainID }},
		"test":      {test, "", func(p *ledger.Payment) bool { return p.ChainID == sepolia.ChainID }},
		"delivered": {live, "&state=delivered", func(p *ledger.Payment) bool { return p.ChainID == base.ChainID && p.State() == ledger.StateDelivered }},
		"a payer": {test, "&state=REFUND_FAILED&payer=0x0000000000000000000000000000000000000002", func(p *ledger.Payment) bool {
			return p.ChainID == sepolia.ChainID && p.State() == ledger.StateRefundFailed && p.Payer.Big().Int64() == 2
		}},
		"since": {live, "&since=" + middle.Format(time.RFC3339Nano), func(p *ledger.Payment) bool { return p.ChainID == base.ChainID && !p.CreatedAt.Before(middle) }},
		"until": {live, "&until=" + middle.Format(time.RFC3339Nano), func(p *ledger.Payment) bool { return p.ChainID == base.ChainID && p.CreatedAt.Before(middle) }},
	} {
		if got, want := list(tc.secret, tc.query), want(tc.keep); !slices.Equal(got, want) || len(want) == 0 {
			t.Errorf("%s: %d payments %v, want %d %v", name, len(got), got, len(want), want)
		}
	}
	whole := decode[listed[management.Payment]](t, ask(t, o.local, http.MethodGet, "/x402/v1/payments?limit=100", ""))
	if len(whole.Data) != len(all) {
		t.Errorf("at the machine without X-Network: %d payments of %d", len(whole.Data), len(all))
	}
	for query, where := range map[string]string{
		"limit=0": "query.limit", "limit=101": "query.limit", "limit=x": "query.limit", "state=PAYMENT": "query.state", "payer=0x12": "query.payer",
		"cursor=x": "query.cursor", "cursor=-1-pay_aaa": "query.cursor", "sate=PAID": "query.sate", "since=soon": "query.since",
	} {
		a := o.live(live, http.MethodGet, "/v1/payments?"+query, "")
		if statusAndCode(a) != "400 request.invalid" || !strings.Contains(a.body, where) {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
}

// A payment is shown with all there is about it, on its own network alone.
func TestPaymentIsShown(t *testing.T) {
	o, live, test, all := mixed(t)
	i := slices.IndexFunc(all, func(p ledger.Payment) bool { return p.ChainID == base.ChainID && p.Binding.Plan != "" })
	p := all[i]
	got := decode[management.PaymentFile](t, o.live(live, http.MethodGet, "/v1/payments/"+p.ID, ""))
	if got.ID != p.ID || got.State != "DELIVERED" || got.Network != "eip155:8453" || !got.Livemode || got.Amount != "10000" || got.Decimal != "0.01" ||
		got.Symbol != "USDC" || got.Plan != "day" || got.PlanUntil == nil || got.SettledAt == nil || got.URI != "/reports/1?x=1" {
		t.Errorf("%+v", got.Payment)
	}
	var events []string
	for _, s := range got.Trail {
		events = append(events, s.Event)
	}
	if strings.Join(events, " ") != "claim settle deliver delivered" {
		t.Errorf("the trail is %v", events)
	}
	for _, id := range []string{p.ID, "pay_aanobody", "x"} {
		if a := o.test(test, http.MethodGet, "/v1/payments/"+id, ""); statusAndCode(a) != "404 payment.not_found" {
			t.Errorf("%s with a test key: %d %s", id, a.status, a.body)
		}
	}
}

// Counting goes over a window and one network, with amounts that are exact.
func TestPaymentsAreCounted(t *testing.T) {
	o, live, _, all := mixed(t)
	type counts struct {
		Since, Until time.Time
		Complete     bool
		Total        int
		States       []management.StateCount
	}
	got := decode[counts](t, o.live(live, http.MethodGet, "/v1/payments/states", ""))
	if got.Total != 20 || !got.Complete || len(got.States) != len(ledger.States()) || got.Until.Sub(got.Since) != 30*24*time.Hour {
		t.Errorf("%+v", got)
	}
	for _, s := range got.States {
		want, amount := 0, ""
		switch ledger.State(s.State) {
		case ledger.StateSettling, ledger.StatePaid, ledger.StateRefundFailed:
			want, amount = 4, "40000"
		case ledger.StateDelivered:
			want, amount = 8, "80000"
		}
		if s.Payments != want || want > 0 && (len(s.Amounts) != 1 || s.Amounts[0].Amount != amount || s.Amounts[0].Network != base.ID) {
			t.Errorf("%+v, want %d of %s", s, want, amount)
		}
	}
	from := all[4].CreatedAt // the newest five are on the test network, and so is the fifth itself
	if got := decode[counts](t, o.live(live, http.MethodGet, "/v1/payments/states?since="+from.Format(time.RFC3339Nano), "")); got.Total != 0 {
		t.Errorf("in a window without any: %+v", got)
	}
	if a := o.live(live, http.MethodGet, "/v1/payments/states?since=2026-03-02T00:00:00Z&until=2026-03-01T00:00:00Z", ""); statusAndCode(a) != "400 request.invalid" {
		t.Errorf("a window that is none: %d %s", a.status, a.body)
	}
}

// An export has what a list has, in both formats, and what strangers have sent is no formula.
func TestPaymentsAreExported(t *testing.T) {
	o, live, _, _ := mixed(t)
	want := ids(decode[listed[management.Payment]](t, o.live(live, http.MethodGet, "/v1/payments?limit=100", "")).Data)
	a := o.live(live, http.MethodGet, "/v1/payments/export?format=json", "")
	var list []management.Payment
	if err := json.Unmarshal([]byte(a.body), &list); err != nil || !slices.Equal(ids(list), want) || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("%v: %d payments, want %d; %v", err, len(list), len(want), a.header)
	}
	a = o.live(live, http.MethodGet, "/v1/payments/export", "")
	rows, err := csv.NewReader(strings.NewReader(a.body)).ReadAll()
	if err != nil || len(rows) != len(want)+1 || !strings.HasPrefix(a.header.Get("Content-Type"), "text/csv") || a.header.Get("X-Network") != "mainnet" {
		t.Fatalf("%v: %d rows; %v", err, len(rows), a.header)
	}
	for i, row := range rows[1:] {
		if row[0] != want[i] || row[slices.Index(rows[0], "amount_decimal")] != "0.01" {
			t.Errorf("row %d is %v", i, row)
		}
	}
	o.host = "=HYPERLINK(1)"
	o.claim(base, 9, "")
	if a := o.live(live, http.MethodGet, "/v1/payments/export", ""); !strings.Contains(a.body, ",'=HYPERLINK(1),") || strings.Contains(a.body, ",=") {
		t.Errorf("a formula is exported: %s", a.body)
	}
	if a := o.live(live, http.MethodGet, "/v1/payments/export?format=xlsx", ""); statusAndCode(a) != "400 request.invalid" {
		t.Errorf("another format: %d %s", a.status, a.body)
	}
	empty := o.live(live, http.MethodGet, "/v1/payments/export?format=json&state=OWED", "")
	if err := json.Unmarshal([]byte(empty.body), &list); err != nil || len(list) != 0 {
		t.Errorf("none: %v %s", err, empty.body)
	}
}

// Only what waits for its settlement is settled again; what was asked for makes it due.
func TestPaymentIsSettledAgain(t *testing.T) {
	o, live, test, all := mixed(t)
	for i := range all {
		p := &all[i]
		if p.ChainID != base.ChainID {
			continue
		}
		a := o.live(live, http.MethodPost, "/v1/payments/"+p.ID+"/settle", "", "Idempotency-Key", p.ID)
		want := "409 payment.not_settleable"
		if p.Settlement == ledger.Claimed {
			want = "202 "
		}
		if statusAndCode(a) != want {
			t.Errorf("%s: %d %s", p.State(), a.status, a.body)
		}
	}
	if a := o.test(test, http.MethodPost, "/v1/payments/"+all[len(all)-1].ID+"/settle", "", "Idempotency-Key", "x"); statusAndCode(a) != "404 payment.not_found" {
		t.Errorf("with the other network's key: %d %s", a.status, a.body)
	}
	if a := o.live(live, http.MethodPost, "/v1/payments/"+all[0].ID+"/settle", ""); statusAndCode(a) != "400 idempotency.key_required" {
		t.Errorf("without an Idempotency-Key: %d %s", a.status, a.body)
	}
}

// What was paid and not delivered goes back once, in the name of who asked for it; what was delivered never does.
func TestPaymentIsRefunded(t *testing.T) {
	o, live, _, all := mixed(t)
	current := decode[management.APIKey](t, o.live(live, http.MethodGet, "/v1/api-keys/current", ""))
	for i := range all {
		p := &all[i]
		if p.ChainID != base.ChainID {
			continue
		}
		want := "409 payment.not_refundable"
		if s := p.State(); s == ledger.StatePaid || s == ledger.StateRefundFailed {
			want = "202 "
		}
		a := o.live(live, http.MethodPost, "/v1/payments/"+p.ID+"/refund", "", "Idempotency-Key", p.ID)
		if statusAndCode(a) != want {
			t.Errorf("%s: %d %s, want %s", p.State(), a.status, a.body, want)
		}
		if a.status != http.StatusAccepted {
			continue
		}
		if again := o.live(live, http.MethodPost, "/v1/payments/"+p.ID+"/refund", "", "Idempotency-Key", p.ID+"-2"); statusAndCode(again) != "409 payment.not_refundable" {
			t.Errorf("twice: %d %s", again.status, again.body)
		}
		trail, err := o.store.Audit(t.Context(), p.ID)
		if last := trail[len(trail)-1]; err != nil || last.Refund != ledger.RefundPending || last.Actor != "operator:"+current.ID {
			t.Errorf("its trail ends with %+v", last)
		}
	}
}

// Refunds are listed by their status, and one that failed is tried again by name.
func TestRefunds(t *testing.T) {
	o, live, _, _ := mixed(t)
	failed := decode[listed[management.Payment]](t, o.live(live, http.MethodGet, "/v1/refunds", "")).Data
	if len(failed) != 4 || failed[0].State != "REFUND_FAILED" || !failed[0].Livemode {
		t.Fatalf("%+v", failed)
	}
	retry := func(id string) answer { return o.live(live, http.MethodPost, "/v1/refunds/"+id+"/retry", "") }
	if a := retry(failed[0].ID); a.status != http.StatusAccepted || !strings.Contains(a.body, "REFUND_PENDING") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := retry(failed[0].ID); statusAndCode(a) != "409 refund.not_failed" {
		t.Errorf("twice: %d %s", a.status, a.body)
	}
	if pending := decode[listed[management.Payment]](t, o.live(live, http.MethodGet, "/v1/refunds?status=pending", "")).Data; len(pending) != 1 || pending[0].ID != failed[0].ID {
		t.Errorf("pending are %+v", pending)
	}
	if a := o.live(live, http.MethodGet, "/v1/refunds/plan", ""); a.status != http.StatusOK {
		t.Errorf("the plan: %d %s", a.status, a.body)
	}
}

// Tokens are those of plans; one is taken back once and for all.
func TestTokens(t *testing.T) {
	o, live, _, _ := mixed(t)
	tokens := func(query string) []management.Token {
		t.Helper()
		return decode[listed[management.Token]](t, o.live(live, http.MethodGet, "/v1/tokens"+query, "")).Data
	}
	list := tokens("")
	if len(list) != 4 || list[0].Plan != "day" || list[0].Status != "active" || list[0].Network != base.ID || list[0].ExpiresAt == nil {
		t.Fatalf("%+v", list)
	}
	if a := o.live(live, http.MethodPost, "/v1/tokens/"+list[0].Payment+"/revoke", ""); a.status != http.StatusOK || !strings.Contains(a.body, `"revoked"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if got := tokens("?status=revoked"); len(got) != 1 || got[0].Payment != list[0].Payment {
		t.Errorf("revoked are %+v", got)
	}
	revoked, err := o.store.Revoked(t.Context(), 0, 10)
	if err != nil || len(revoked) != 1 || revoked[0].ID != list[0].Payment || !revoked[0].Until.Equal(*list[0].ExpiresAt) {
		t.Errorf("the ledger has %+v, %v", revoked, err)
	}
	o.pass(48 * time.Hour)
	if got := tokens("?status=active"); len(got) != 0 {
		t.Errorf("after their end: %+v", got)
	}
	if a := o.live(live, http.MethodPost, "/v1/tokens/"+list[1].Payment+"/revoke", ""); statusAndCode(a) != "409 token.plan_over" {
		t.Errorf("after its end: %d %s", a.status, a.body)
	}
	paid := decode[listed[management.Payment]](t, o.live(live, http.MethodGet, "/v1/payments?state=PAID", "")).Data[0]
	if a := o.live(live, http.MethodPost, "/v1/tokens/"+paid.ID+"/revoke", ""); statusAndCode(a) != "409 token.payment_without_plan" {
		t.Errorf("of a request: %d %s", a.status, a.body)
	}
}

// What is of the other network is not in plans, wallets and settings.
func TestBooksAreFiltered(t *testing.T) {
	o := newOffice(t)
	_, live := o.key(apikey.Live, 0)
	_, test := o.key(apikey.Test, 0)
	for _, path := range []string{"/v1/plans", "/v1/wallets", "/v1/settings"} {
		a, b := o.live(live, http.MethodGet, path, ""), o.test(test, http.MethodGet, path, "")
		if a.status != http.StatusOK || !strings.Contains(a.body, base.ID) || strings.Contains(a.body, sepolia.ID) {
			t.Errorf("%s, live: %d %s", path, a.status, a.body)
		}
		if b.status != http.StatusOK || !strings.Contains(b.body, sepolia.ID) || strings.Contains(b.body, base.ID+`"`) {
			t.Errorf("%s, test: %d %s", path, b.status, b.body)
		}
	}
}

// Every call that changes something, or tries to, is in the audit with who made it; newest first, in pages, by network.
func TestAudit(t *testing.T) {
	o, live, test, all := mixed(t)
	mine := decode[management.APIKey](t, o.live(live, http.MethodGet, "/v1/api-keys/current", ""))
	i := slices.IndexFunc(all, func(p ledger.Payment) bool { return p.ChainID == base.ChainID && p.State() == ledger.StatePaid })
	o.live(live, http.MethodPost, "/v1/payments/"+all[i].ID+"/refund", "", "Idempotency-Key", "a")
	o.live(live, http.MethodPost, "/v1/payments/"+all[i].ID+"/refund", "", "Idempotency-Key", "a") // told again, not done again
	o.pass(time.Second)
	o.live(live, http.MethodPost, "/v1/payments/"+all[i].ID+"/refund", "", "Idempotency-Key", "b")
	o.pass(time.Second)
	o.test(test, http.MethodPost, "/v1/tokens/pay_aanobody/revoke", "")
	o.live(live, http.MethodGet, "/v1/payments", "")
	var got []string
	for next := ""; ; {
		page := decode[listed[management.Deed]](t, o.live(live, http.MethodGet, "/v1/audit?limit=1&cursor="+next, ""))
		for _, d := range page.Data {
			got = append(got, fmt.Sprint(d.Operation, " ", d.Target == all[i].ID, " ", d.Actor == mine.ID, " ", d.Outcome, " ", d.Network))
		}
		if next = page.Page.Next; next == "" {
			break
		}
	}
	want := []string{"refundPayment true true payment.not_refundable mainnet", "refundPayment true true done mainnet"}
	if !slices.Equal(got, want) {
		t.Errorf("the audit has %q, want %q", got, want)
	}
	local := decode[listed[management.Deed]](t, ask(t, o.local, http.MethodGet, "/x402/v1/audit", ""))
	if len(local.Data) != 3 {
		t.Errorf("at the machine: %+v", local.Data)
	}
	if a := o.live(live, http.MethodGet, "/v1/audit?cursor=%20", ""); statusAndCode(a) != "400 request.invalid" {
		t.Errorf("a wrong cursor: %d %s", a.status, a.body)
	}
}

// A long ledger in which few payments match is paged through in answers that each look at a part of it.
func TestPagesAreBounded(t *testing.T) {
	o := newOffice(t)
	_, live := o.key(apikey.Live, 0)
	wanted := o.claim(base, 1, "")
	for range 5100 {
		o.claim(sepolia, 2, "")
	}
	first := decode[listed[management.Payment]](t, o.live(live, http.MethodGet, "/v1/payments", ""))
	if len(first.Data) != 0 || first.Page.Next == "" {
		t.Fatalf("%d payments, next %q", len(first.Data), first.Page.Next)
	}
	second := decode[listed[management.Payment]](t, o.live(live, http.MethodGet, "/v1/payments?cursor="+first.Page.Next, ""))
	if !slices.Equal(ids(second.Data), []string{wanted.ID}) || second.Page.Next != "" {
		t.Errorf("%s is not in %v, next %q", wanted.ID, ids(second.Data), second.Page.Next)
	}
}

// slow is a ledger whose lists wait.
type slow struct {
	ledger.Store
	asked, proceed chan struct{}
}

func (s slow) List(ctx context.Context, q ledger.Query) ([]ledger.Payment, error) {
	s.asked <- struct{}{}
	<-s.proceed
	return s.Store.List(ctx, q)
}

// Exports read all that there is: there is an end to how many do at once.
func TestExportsAtOnce(t *testing.T) {
	o := newOffice(t)
	_, live := o.key(apikey.Live, 0)
	_, another := o.key(apikey.Live, 0)
	_, third := o.key(apikey.Live, 0)
	s := slow{o.store, make(chan struct{}), make(chan struct{})}
	o.shop.Store = s
	export := func(key string) answer { return o.live(key, http.MethodGet, "/v1/payments/export", "") }
	full := func(what, key string) {
		t.Helper()
		if a := export(key); statusAndCode(a) != "503 request.too_many_at_once" || a.header.Get("Retry-After") == "" || a.header.Get("Content-Disposition") != "" {
			t.Errorf("%s: %d %v %s", what, a.status, a.header, a.body)
		}
	}
	var all sync.WaitGroup
	for _, key := range []string{live, another} {
		for range 2 {
			all.Go(func() {
				if a := export(key); a.status != http.StatusOK {
					t.Errorf("%d %s", a.status, a.body)
				}
			})
			<-s.asked
		}
		full("a third with one key", key)
	}
	full("a fifth", third)
	close(s.proceed)
	all.Wait()
	go func() { <-s.asked }()
	if a := export(third); a.status != http.StatusOK {
		t.Errorf("later: %d %s", a.status, a.body)
	}
}
