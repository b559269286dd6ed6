package observe

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// refundWallet has what the tests give it.
var refundWallet = devnet.Payer(5000)

// shop is what the tests watch: something cheap, something that is dearer than what is paid back by itself, and a plan whose credential
// another server issues.
func shop(issuer string) rig.Options {
	return rig.Options{
		BlockTime: 300 * time.Millisecond, SafeLag: 2, App: "interval 200ms",
		Refund: fmt.Sprintf("refund 0x%x {\n interval 1s\n min_age 3s\n max_payment $0.01\n}", crypto.FromECDSA(refundWallet.Key)),
		Site: strings.ReplaceAll(`
	x402 /plans/* {
		plan day $0.10 {
			ttl 24h
			issuer {issuer} {
				auth bearer s3cret-of-the-issuer
				timeout 500ms
				retries 0
			}
		}
	}
	x402 /dear/* $0.02
	x402 $0.01
	x402_service
	reverse_proxy {upstream}
`, "{issuer}", issuer),
		Upstream: func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "broken") {
				w.WriteHeader(http.StatusBadGateway)
			}
			_, _ = io.WriteString(w, "said the upstream")
		},
	}
}

// watch adds a site with metrics to a shop's configuration.
func watch(t *testing.T, r *rig.Rig, o rig.Options) (scrape func() scraped) {
	t.Helper()
	at := rig.FreeAddr(t)
	if err := rig.LoadText(r.Caddyfile(o) + "\nhttp://" + at + " {\nmetrics\n}\n"); err != nil {
		t.Fatal(err)
	}
	b := rig.NewBuyer(t, 900)
	return func() scraped {
		t.Helper()
		a := b.Get("http://" + at + "/metrics")
		if a.Err != nil || a.Status != http.StatusOK {
			t.Fatalf("scraping: %d %v", a.Status, a.Err)
		}
		return parse(t, a.Body)
	}
}

// silent is an issuer that does not answer in time.
func silent(t *testing.T) *httptest.Server {
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(release) })
	return s
}

const (
	refundFailed = `caddy_x402_payments{state="REFUND_FAILED"}`
	timedOut     = `caddy_x402_failures_total{reason="TOKEN_ISSUE_TIMEOUT",stage="credential"}`
)

// The alerts of the going-live checklist fire for what really happens, and nothing fires before: a payment is made whose refund fails, and a plan
// is bought whose issuer does not answer. Then every other alert is made to fire, by series as they were scraped of which one has another
// value.
func TestAlertsFire(t *testing.T) {
	o := shop(silent(t).URL)
	r := rig.New(t, o)
	if err := r.Chain.Mint(t.Context(), refundWallet.Address, uint256.NewInt(10_000_000)); err != nil {
		t.Fatal(err)
	}
	scrape := watch(t, r, o)
	b := rig.NewBuyer(t, 1)
	if a, _ := b.Buy(r.URL("/fine")); a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	before := scrape()
	if n, ok := before[refundFailed]; !ok || n != 0 {
		t.Errorf("before it happens there are %v, %v", n, ok)
	}
	if n, ok := before[timedOut]; !ok || n != 0 {
		t.Errorf("before it happens there were %v, %v", n, ok)
	}

	if a, _ := b.Buy(r.URL("/dear/broken")); a.Status != http.StatusBadGateway || a.Header.Get("X-Payment-Status") != "refund_pending" {
		t.Fatalf("%d %v %s", a.Status, a.Header, a.Body)
	}
	plan := b.Get(r.URL("/plans/x"), x402.HeaderSignature, b.Sign(b.Offer(r.URL("/plans/x")), 0))
	if plan.Status != http.StatusGatewayTimeout {
		t.Fatalf("%d %s", plan.Status, plan.Body)
	}
	var after scraped
	rig.Until(t, "the refund did not fail", func() bool {
		after = scrape()
		return after[refundFailed] >= 1 && after[timedOut] >= 1
	})

	happened := before.still()
	for name, v := range after {
		was, there := before[name]
		if !there {
			was = v
		}
		if was != v && !strings.Contains(name, "_seconds") { // what takes time is another story
			happened[name] = story{was: was, then: v}
		}
	}
	happened[rounds] = before.still()[rounds]
	cases := []fires{
		{name: "all is well", stories: before.still(), after: 20},
		{name: "what really happened", stories: happened, after: 3, alerts: []string{"X402RefundFailed", "X402TokenIssueTimeout"}},
	}
	run(t, append(cases, each(t, before)...))
}

// each makes every alert fire, and only that one, but for those that say the same in other words.
func each(t *testing.T, s scraped) []fires {
	t.Helper()
	const on = `network="eip155:84532"`
	type change = map[string]story
	grown := func(v float64) story { return story{was: 0, then: v} }
	rate := func(perStep float64) story { return story{grows: perStep} }
	list := []struct {
		alert  string
		after  int
		change change
		also   []string
	}{
		{"X402RefundFailed", 2, change{refundFailed: grown(1)}, nil},
		{"X402RefundsPilingUp", 40, change{`caddy_x402_payments{state="REFUND_PENDING"}`: {then: 30, grows: 0.1}}, nil},
		{"X402RefundsNotPaid", 125, change{`caddy_x402_payments{state="REFUND_PENDING"}`: grown(1)}, nil},
		{"X402RefundWalletEmpty", 5, change{`caddy_x402_refund_waits_total{` + on + `,reason="wallet_empty"}`: grown(1)}, nil},
		{"X402Losses", 5, change{`caddy_x402_losses_total{` + on + `}`: grown(1)}, nil},
		{"X402Quarantine", 5, change{`caddy_x402_quarantined_total{` + on + `}`: grown(1)}, nil},
		{"X402Reorganized", 5, change{`caddy_x402_reorgs_total{` + on + `}`: grown(1)}, nil},
		{"X402PaidNotServed", 35, change{`caddy_x402_payments{state="PAID"}`: grown(1)}, nil},
		{"X402InternalErrors", 5, change{`caddy_x402_failures_total{reason="ledger_unavailable",stage="request"}`: grown(1)}, nil},
		{"X402InternalErrors", 5, change{`caddy_x402_failures_total{reason="INTERNAL_ERROR",stage="request"}`: grown(1)}, nil},
		{"X402ChainUnavailable", 5, change{`caddy_x402_failures_total{reason="chain_unavailable",stage="request"}`: grown(1)}, nil},
		{"X402TokenIssueTimeout", 5, change{timedOut: grown(1)}, nil},
		{"X402TokenIssueFailed", 5, change{`caddy_x402_failures_total{reason="TOKEN_ISSUE_FAILED",stage="credential"}`: grown(1)}, nil},
		{"X402UpstreamFails", 25, change{`caddy_x402_deliveries_total{outcome="undelivered"}`: rate(1), `caddy_x402_deliveries_total{outcome="delivered"}`: rate(5)}, nil},
		{"X402LedgerDown", 5, change{`caddy_x402_ledger_up{}`: {was: 1, then: 0}}, nil},
		{"X402ReconcilerStopped", 25, change{rounds: {was: 7, then: 8}}, nil},
		{"X402RevocationsUnknown", 5, change{`caddy_x402_revocations_silence_seconds{}`: {then: 20, grows: 60}}, nil},
		{"X402TokenKeyOld", 5, change{`caddy_x402_token_key_age_seconds{}`: {was: 1, then: 181 * 86400, grows: 60}}, nil},
		{"X402GasLow", 10, change{`caddy_x402_gas_balance_ether{` + on + `,wallet="1"}`: {was: 1, then: 0.0009}}, nil},
		{"X402GasEmpty", 10, change{`caddy_x402_gas_balance_ether{` + on + `,wallet="1"}`: {was: 1, then: 0.00009}}, []string{"X402GasLow"}},
		{"X402GasRunway", 120, change{
			`caddy_x402_gas_balance_ether{` + on + `,wallet="1"}`: {was: 1, then: 1}, `caddy_x402_gas_spent_ether_total{` + on + `}`: rate(0.01),
		}, nil},
		{"X402SettlementsUnknown", 25, change{
			`caddy_x402_settlements_total{` + on + `,outcome="unknown"}`: rate(1), `caddy_x402_settlements_total{` + on + `,outcome="settled"}`: rate(5),
		}, nil},
		{"X402SettlementSlow", 30, change{
			`caddy_x402_settlement_seconds_bucket{` + on + `,le="45"}`: rate(2), `caddy_x402_settlement_seconds_bucket{` + on + `,le="+Inf"}`: rate(2),
		}, nil},
		{"X402QueueFilling", 5, change{`caddy_x402_queue_payments{` + on + `}`: grown(3000)}, nil},
		{"X402TransactionStuck", 12, change{`caddy_x402_wallet_oldest_seconds{` + on + `,wallet="1"}`: {grows: 60}}, nil},
		{"X402EndpointFails", 25, change{
			`caddy_x402_rpc_failures_total{endpoint="1",` + on + `,reason="failed"}`: rate(2), `caddy_x402_rpc_seconds_count{endpoint="1",` + on + `}`: rate(4),
		}, nil},
		{"X402WebhookDead", 5, change{`caddy_x402_webhook_deliveries_total{outcome="dead"}`: grown(1)}, nil},
		{"X402WebhookDisabled", 5, change{`caddy_x402_webhook_endpoints_disabled_total{}`: grown(1)}, nil},
		{"X402WebhooksLate", 15, change{`caddy_x402_webhook_lag_seconds{}`: {then: 61, grows: 60}}, nil},
		{"X402CreditExhausted", 5, change{`caddy_x402_credit_exhausted_total{` + on + `}`: grown(1)}, nil},
	}
	var cases []fires
	var made []string
	for i, l := range list {
		m := s.still()
		for name, story := range l.change {
			if _, there := s[name]; !there && !strings.Contains(name, "rpc_failures") { // an endpoint has none until it fails
				t.Errorf("%s: %s is not among what was scraped", l.alert, name)
			}
			m[name] = story
		}
		cases = append(cases, fires{name: fmt.Sprintf("%d: %s", i, l.alert), stories: m, after: l.after, alerts: append([]string{l.alert}, l.also...)})
		made = append(made, l.alert)
	}
	for _, name := range names(t) {
		if !slices.Contains(made, name) {
			t.Errorf("nothing makes %s fire", name)
		}
	}
	return cases
}
