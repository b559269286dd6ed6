package operator

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// The admin endpoint lists payments newest first, in pages that join without a gap, by state and by payer.
func TestOperatorAdminLists(t *testing.T) {
	o := newOffice(t)
	o.sell(t, 7)
	list := func(query string) opPage {
		t.Helper()
		a := o.ask(t, http.MethodGet, "/x402/payments"+query)
		if a.Status != http.StatusOK || a.Header.Get("Content-Type") != "application/json" || a.Header.Get("Cache-Control") != "no-store" {
			t.Fatalf("%s: %d %v %s", query, a.Status, a.Header, a.Body)
		}
		return decode[opPage](t, a.Body)
	}
	all := list("")
	if len(all.Payments) != 8 || all.Page.Next != "" {
		t.Fatalf("%d payments, next %q", len(all.Payments), all.Page.Next)
	}
	if !slices.IsSortedFunc(all.Payments, func(a, b opPayment) int { return b.CreatedAt.Compare(a.CreatedAt) }) {
		t.Error("they are not listed newest first")
	}
	first := all.Payments[0]
	if first.State != "REFUND_PENDING" || first.Payer != strings.ToLower(devnet.Payer(4).Address.Hex()) || first.Amount != "10000" ||
		first.AmountDecimal != "0.01" || first.Symbol != "USDC" || first.Network != "eip155:84532" || len(first.Transaction) != 66 {
		t.Errorf("the newest one is %+v", first)
	}
	var paged []opPayment
	for next := ""; ; {
		page := list("?limit=3&cursor=" + next)
		paged = append(paged, page.Payments...)
		if next = page.Page.Next; next == "" {
			break
		}
		if len(page.Payments) != 3 {
			t.Fatalf("a page of %d", len(page.Payments))
		}
	}
	if !slices.Equal(paged, all.Payments) {
		t.Errorf("in pages they are %v", paged)
	}
	if got := list("?state=delivered&limit=100").Payments; !slices.Equal(got, all.Payments[1:]) {
		t.Errorf("delivered are %v", got)
	}
	one := list("?payer=" + devnet.Payer(1).Address.Hex()).Payments
	if len(one) != 3 || one[0].Payer != strings.ToLower(devnet.Payer(1).Address.Hex()) {
		t.Errorf("payer 1 has %v", one)
	}
	if got := list("?state=REFUND_PENDING&payer=" + devnet.Payer(1).Address.Hex()).Payments; len(got) != 0 {
		t.Errorf("nobody has %v", got)
	}
}

// One payment is shown with its trail and its transactions, but with nothing that its payer signed.
func TestOperatorAdminShows(t *testing.T) {
	o := newOffice(t)
	o.sell(t, 1)
	delivered := decode[opPage](t, o.ask(t, http.MethodGet, "/x402/payments?state=DELIVERED").Body).Payments[0]
	a := o.ask(t, http.MethodGet, "/x402/payments/"+delivered.ID)
	f := decode[opFile](t, a.Body)
	if a.Status != http.StatusOK || f.Payment != delivered || f.Payment.Settlement != "settled" || f.Payment.Refund != "none" {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	var events []string
	for _, e := range f.Trail {
		events = append(events, string(e.Event))
	}
	if got := strings.Join(events, " "); got != "claim send settle deliver delivered final" {
		t.Errorf("the trail is %s", got)
	}
	if len(f.Transactions) != 1 || f.Transactions[0].Hash != delivered.Transaction || !slices.Equal(f.Transactions[0].Payments, []string{delivered.ID}) {
		t.Errorf("transactions %+v", f.Transactions)
	}
	paid, err := x402.DecodePayload(o.headers[0])
	if err != nil {
		t.Fatal(err)
	}
	signature := hex.EncodeToString(paid.Signature)
	if strings.Contains(a.Body, signature[:60]) || strings.Contains(a.Body, `"raw"`) {
		t.Error("what the payer signed is shown")
	}
	states := decode[opStates](t, o.ask(t, http.MethodGet, "/x402/payments/states").Body)
	if len(states.States) != len(ledger.States()) || states.Total != 2 {
		t.Fatalf("states %+v", states)
	}
	for i, s := range states.States {
		want := 0
		if s.State == "DELIVERED" || s.State == "REFUND_PENDING" {
			want = 1
		}
		if s.State != string(ledger.States()[i]) || s.Payments != want {
			t.Errorf("%s has %d payments", s.State, s.Payments)
		}
	}
}

// What can't be answered is told in one form, with a code.
func TestOperatorAdminErrors(t *testing.T) {
	o := newOffice(t)
	for _, tc := range []struct {
		method, path string
		status       int
		code, says   string
	}{
		{"GET", "/x402/payments/pay_nobody", 404, "payment_not_found", "no payment"},
		{"GET", "/x402/payments/states/", 404, "not_found", "/x402/payments/states/"},
		{"GET", "/x402/nothing", 404, "not_found", "/x402/nothing"},
		{"GET", "/x402/payments?state=PAYMENT", 400, "invalid_request", "REFUND_PENDING"},
		{"GET", "/x402/payments?payer=0x12", 400, "invalid_request", "payer"},
		{"GET", "/x402/payments?payer=xyz", 400, "invalid_request", "payer"},
		{"GET", "/x402/payments?limit=0", 400, "invalid_request", "100"},
		{"GET", "/x402/payments?limit=101", 400, "invalid_request", "100"},
		{"GET", "/x402/payments?limit=ten", 400, "invalid_request", "limit"},
		{"GET", "/x402/payments?cursor=x", 400, "invalid_request", "cursor"},
		{"GET", "/x402/payments?cursor=-1-pay_x", 400, "invalid_request", "cursor"},
		{"GET", "/x402/payments?sate=PAID", 400, "invalid_request", "sate"},
		{"GET", "/x402/audit?after=x", 400, "invalid_request", "after"},
		{"GET", "/x402/audit/verify?expect=0x12", 400, "invalid_request", "expect"},
		{"GET", "/x402/audit/verify?kept_since=soon", 400, "invalid_request", "kept_since"},
		{"POST", "/x402/payments", 405, "method_not_allowed", ""},
		{"DELETE", "/x402/payments/pay_nobody", 405, "method_not_allowed", ""},
		{"PUT", "/x402/audit", 405, "method_not_allowed", ""},
		{"POST", "/x402/keys", 405, "method_not_allowed", "can only be read"},
		{"GET", "/x402/keys/rotate", 405, "method_not_allowed", "is for POST"},
		{"GET", "/x402/refunds/pay_nobody/retry", 405, "method_not_allowed", "is for POST"},
		// What changes something is never done for a page in a browser, which can't send JSON to another site unasked.
		{"POST", "/x402/keys/rotate", 415, "invalid_request", "application/json"},
		{"POST", "/x402/keys/retire", 415, "invalid_request", "application/json"},
		{"POST", "/x402/tokens/revoke", 415, "invalid_request", "application/json"},
		{"POST", "/x402/refunds/pay_nobody/retry", 415, "invalid_request", "application/json"},
	} {
		a := o.ask(t, tc.method, tc.path)
		if a.Err != nil || a.Status != tc.status || a.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %d %v %s", tc.method, tc.path, a.Status, a.Err, a.Body)
			continue
		}
		if p := decode[opProblem](t, a.Body); p.Code != tc.code || p.Status != tc.status || !strings.Contains(p.Detail, tc.says) {
			t.Errorf("%s %s: %s", tc.method, tc.path, a.Body)
		}
	}
	for _, path := range []string{"/x402/", "/x402/payments", "/x402/payments/states", "/x402/audit", "/x402/audit/verify", "/x402/keys", "/x402/refunds/plan"} {
		if a := o.ask(t, http.MethodHead, path); a.Status != http.StatusOK || a.Body != "" {
			t.Errorf("HEAD %s: %d %s", path, a.Status, a.Body)
		}
	}
}

// The endpoint looks into the ledger of the configuration that is live, whatever came before.
func TestOperatorAdminFollowsReloads(t *testing.T) {
	o := newOffice(t)
	o.sell(t, 1)
	total := func() int { return decode[opStates](t, o.ask(t, http.MethodGet, "/x402/payments/states").Body).Total }
	if total() != 2 {
		t.Errorf("before: %d payments", total())
	}
	other := o.options
	other.Store = "sqlite " + filepath.Join(o.Dir, "other.db")
	// With a wallet of its own: it would find what the other ledger's has sent, and think that it was lost.
	ownWallet := fmt.Sprintf("0x%x", crypto.FromECDSA(devnet.Developer(1).Key))
	text := strings.NewReplacer("admin off", "admin "+o.admin, fmt.Sprintf("0x%x", rig.GasKey()), ownWallet).Replace(o.Caddyfile(other))
	if err := rig.LoadText(text); err != nil {
		t.Fatal(err)
	}
	if total() != 0 {
		t.Errorf("in the other ledger: %d payments", total())
	}
	// A configuration that is refused changes nothing.
	if err := rig.LoadText(strings.Replace(o.Caddyfile(o.options), "admin off", "admin "+o.admin, 1) + "\nhttp://192.0.2.1:1 {\n bind 192.0.2.1\n respond ok\n}\n"); err == nil {
		t.Fatal("the configuration was not refused")
	}
	if total() != 0 {
		t.Errorf("after a refused reload: %d payments", total())
	}
	o.reload(t, o.options)
	if total() != 2 {
		t.Errorf("back again: %d payments", total())
	}
	if err := rig.LoadText("{\nadmin " + o.admin + "\npersist_config off\n}\n"); err != nil {
		t.Fatal(err)
	}
	a := o.ask(t, http.MethodGet, "/x402/payments")
	if p := decode[opProblem](t, a.Body); a.Status != http.StatusNotFound || p.Code != "x402_not_configured" {
		t.Errorf("without the app: %d %s", a.Status, a.Body)
	}
}

// What the endpoint exports verifies without the ledger, and its own verification sees the same.
func TestOperatorAdminAudit(t *testing.T) {
	o := newOffice(t)
	o.sell(t, 2)
	anchor := o.anchor(t)
	a := o.ask(t, http.MethodGet, "/x402/audit")
	if a.Err != nil || a.Status != http.StatusOK || a.Header.Get("Content-Type") != "application/jsonl" {
		t.Fatalf("%d %v %v", a.Status, a.Err, a.Header)
	}
	report, err := ledger.VerifyExport(t.Context(), strings.NewReader(a.Body), ledger.VerifyOptions{Expect: anchor.Hash})
	if err != nil || report.Found != 0 || report.Payments != 3 || report.Anchors != 1 || report.LastAnchor != anchor.Hash {
		t.Errorf("the export: %+v, %v", report, err)
	}
	a = o.ask(t, http.MethodGet, "/x402/audit/verify?expect="+anchor.Hash.Hex())
	if got := decode[ledger.Report](t, a.Body); a.Status != http.StatusOK || got.Found != 0 || got.Payments != 3 || got.Entries != report.Entries {
		t.Errorf("the verification: %d %s", a.Status, a.Body)
	}
	a = o.ask(t, http.MethodGet, "/x402/audit/verify?expect=0x"+strings.Repeat("ab", 32))
	if got := decode[ledger.Report](t, a.Body); got.Found == 0 || got.Problems[0].Kind != ledger.ProblemExpected {
		t.Errorf("with an anchor that never was: %d %s", a.Status, a.Body)
	}
	o.sell(t, 1)
	if next := o.anchor(t); next.Sequence != 2 {
		t.Fatalf("the next anchor is number %d", next.Sequence)
	}
	rest := o.ask(t, http.MethodGet, "/x402/audit?after=1")
	report, err = ledger.VerifyExport(t.Context(), strings.NewReader(rest.Body), ledger.VerifyOptions{})
	if err != nil || report.Found != 0 || report.Anchors != 1 {
		t.Errorf("what came after the first anchor: %+v, %v", report, err)
	}
}
