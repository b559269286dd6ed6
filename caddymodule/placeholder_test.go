package caddymodule_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// documented are the placeholders that the handler sets.
var documented = []string{
	"status", "error", "api_key", "payment.id", "payment.payer", "payment.amount", "payment.asset", "payment.network",
	"payment.transaction", "payment.plan",
}

// every is a text with all of them, each in its own brackets.
func every() string {
	var b strings.Builder
	for _, name := range documented {
		fmt.Fprintf(&b, "%s=[{http.x402.%s}] ", name, name)
	}
	return strings.TrimSpace(b.String())
}

// appended logs each of them in a field of its own.
func appended() string {
	var b strings.Builder
	for _, name := range documented {
		fmt.Fprintf(&b, "log_append %s {http.x402.%s}\n", name, name)
	}
	return b.String()
}

// filled is what every gives for a purchase.
func filled(status, reason, id, payer, amount, transaction, plan string) string {
	asset, network := devnet.TokenAddress.Hex(), "eip155:84532"
	if id == "" {
		asset, network = "", ""
	}
	return fmt.Sprintf("status=[%s] error=[%s] api_key=[] payment.id=[%s] payment.payer=[%s] payment.amount=[%s] payment.asset=[%s] "+
		"payment.network=[%s] payment.transaction=[%s] payment.plan=[%s]", status, reason, id, payer, amount, asset, network, transaction, plan)
}

func receipt(t *testing.T, a rig.Answer) x402.SettlementResponse {
	t.Helper()
	var s x402.SettlementResponse
	if err := x402.DecodeHeader(a.Header.Get(x402.HeaderResponse), 1<<16, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// Handlers behind, error routes and access logs know who paid; where nobody did, the placeholders are empty, and never
// their own names.
func TestPlaceholders(t *testing.T) {
	log := filepath.Join(t.TempDir(), "access.log")
	site := `
	log {
		output file ` + log + `
		format json
	}
	` + appended() + `
	request_header X-Seen "` + every() + `"
	x402 {
		price $0.01 {
			match path /paid/* /fails/*
		}
		price $0.03 {
			match path /plans/*
			name plans
		}
		plan day $0.05 {
			ttl 1h
		}
		exempt path /exempt
		unpriced deny
	}
	respond /paid/behind "` + every() + `"
	error /fails/* "no such luck" 418
	handle_errors {
		respond "caught {err.status_code} ` + every() + `"
	}
	reverse_proxy {upstream}
	`
	r := rig.New(t, rig.Options{Site: site})
	b := rig.NewBuyer(t, 1)
	payer := b.Account.Address.Hex()
	var want []string // of the access log, in order

	behind, _ := b.Buy(r.URL("/paid/behind"))
	s := receipt(t, behind)
	paid := filled("paid", "", behind.Header.Get("X-Payment-Id"), payer, "10000", s.Transaction, "")
	if behind.Body != paid {
		t.Errorf("a handler behind sees %s\nwant %s", behind.Body, paid)
	}
	want = append(want, filled("required", "", "", "", "", "", ""), paid)

	up, _ := b.Buy(r.URL("/paid/upstream"))
	id := up.Header.Get("X-Payment-Id")
	if got := r.Upstream.Last().Header.Get("X-Seen"); got != filled("paid", "", id, payer, "10000", receipt(t, up).Transaction, "") {
		t.Errorf("request_header set %s", got)
	}

	failed, _ := b.Buy(r.URL("/fails/x"))
	if w := "caught 418 " + filled("paid", "", failed.Header.Get("X-Payment-Id"), payer, "10000", receipt(t, failed).Transaction, ""); failed.Body != w {
		t.Errorf("an error route sees %s\nwant %s", failed.Body, w)
	}
	denied := b.Get(r.URL("/elsewhere"))
	if w := "caught 403 " + filled("denied", "", "", "", "", "", ""); denied.Body != w || denied.Status != http.StatusForbidden {
		t.Errorf("an error route sees %d %s\nwant %s", denied.Status, denied.Body, w)
	}
	b.Get(r.URL("/exempt"))
	if got := r.Upstream.Last().Header.Get("X-Seen"); got != filled("exempt", "", "", "", "", "", "") {
		t.Errorf("of an exempt request, request_header set %s", got)
	}

	o := b.Offer(r.URL("/plans/x"))
	plan := b.Get(r.URL("/plans/x"), x402.HeaderSignature, b.Sign(o, 1))
	bought := filled("paid", "", plan.Header.Get("X-Payment-Id"), payer, "50000", receipt(t, plan).Transaction, "day")
	if got := r.Upstream.Last().Header.Get("X-Seen"); got != bought {
		t.Errorf("of a plan, request_header set %s\nwant %s", got, bought)
	}
	b.Get(r.URL("/plans/y"), "Authorization", "Bearer "+plan.Header.Get("X-Access-Token"))
	if got, w := r.Upstream.Last().Header.Get("X-Seen"), strings.Replace(bought, "[paid]", "[token]", 1); got != w {
		t.Errorf("of a token, request_header set %s\nwant %s", got, w)
	}
	bad := b.Get(r.URL("/paid/x"), x402.HeaderSignature, "!")
	if bad.Status != http.StatusBadRequest {
		t.Errorf("garbage is answered %d", bad.Status)
	}
	if err := caddy.Stop(); err != nil { // the log is complete then
		t.Fatal(err)
	}
	accessLog(t, log, want, filled("malformed", "malformed_payment", "", "", "", "", ""), filled("denied", "", "", "", "", "", ""), strings.Replace(bought, "[paid]", "[token]", 1))
}

// accessLog checks that the log begins with the entries first, and has the entries among.
func accessLog(t *testing.T, path string, first []string, among ...string) {
	t.Helper()
	var seen []string
	for line := range strings.Lines(readText(t, path)) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		var text []string
		for _, name := range documented {
			text = append(text, fmt.Sprintf("%s=[%v]", name, entry[name]))
		}
		if id, _ := entry["x402_payment"].(string); id != entry["payment.id"] {
			t.Errorf("the entry is of payment %q and has the field %q", entry["payment.id"], id)
		}
		seen = append(seen, strings.Join(text, " "))
	}
	if len(seen) < len(first) {
		t.Fatalf("%d entries", len(seen))
	}
	for i, want := range first {
		if seen[i] != want {
			t.Errorf("entry %d is %s\nwant %s", i, seen[i], want)
		}
	}
	for _, want := range among {
		if !strings.Contains(strings.Join(seen, "\n"), want) {
			t.Errorf("there is no entry %s in\n%s", want, strings.Join(seen, "\n"))
		}
	}
}
