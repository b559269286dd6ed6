package caddymodule_test

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

// series is a line of the Prometheus text format: name with labels, and value.
var series = regexp.MustCompile(`^(caddy_x402_[a-z_]+(?:\{[^}]*\})?) (\S+)$`)

// scrape gives our series, and the text that they stand in.
func scrape(t *testing.T, b *rig.Buyer, addr string) (map[string]float64, string) {
	t.Helper()
	var a rig.Answer
	for range 20 { // a reload may close a connection
		if a = b.Get("http://" + addr + "/metrics"); a.Err == nil {
			break
		}
	}
	if a.Err != nil || a.Status != http.StatusOK {
		t.Fatalf("scraping: %d %v %s", a.Status, a.Err, a.Body)
	}
	values := map[string]float64{}
	var text strings.Builder
	for line := range strings.Lines(a.Body) {
		if !strings.Contains(line, "x402") || strings.HasPrefix(line, "go_build_info") {
			continue
		}
		text.WriteString(line)
		if strings.HasPrefix(line, "#") {
			continue
		}
		m := series.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			t.Errorf("a series of ours has another name: %s", line)
			continue
		}
		if _, twice := values[m[1]]; twice {
			t.Errorf("%s is there twice", m[1])
		}
		v, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
		values[m[1]] = v
	}
	return values, text.String()
}

func outcome(of, what string) string { return fmt.Sprintf(`caddy_x402_%s{outcome=%q}`, of, what) }
func state(s ledger.State) string    { return fmt.Sprintf(`caddy_x402_payments{state=%q}`, s) }

const settledOn = `caddy_x402_settlements_total{network="eip155:84532",outcome="settled"}`

// Two handlers and any number of reloads share what is counted; the ledger's states are those of the ledger.
func TestMetrics(t *testing.T) {
	r := rig.New(t, rig.Options{Upstream: func(w http.ResponseWriter, q *http.Request) {
		if strings.HasPrefix(q.URL.Path, "/b/broken") {
			w.WriteHeader(http.StatusBadGateway)
		}
	}})
	b, at := rig.NewBuyer(t, 1), rig.FreeAddr(t)
	site := "x402 /a/* $0.01\nx402 /b/* {\nprice $0.02\nexempt path /b/free\n}\nreverse_proxy {upstream}"
	reload := func(app string) {
		t.Helper()
		if err := load(t, r.Caddyfile(rig.Options{Site: site, App: app})+"\nhttp://"+at+" {\nmetrics\n}\n"); err != nil {
			t.Fatal(err)
		}
	}
	reload("")
	before, _ := scrape(t, b, at)
	pay := func(path string, want int) rig.Answer {
		t.Helper()
		a := buy(t, b, r.URL(path))
		if a.Status != want {
			t.Fatalf("%s: %d %s", path, a.Status, a.Body)
		}
		return a
	}
	first := pay("/a/one", http.StatusOK)
	reload("interval 3s")
	pay("/b/two", http.StatusOK)
	b.Get(r.URL("/b/free"))
	b.Get(r.URL("/a/one"), "Payment-Signature", "!")
	reload("")
	refund := pay("/b/broken", http.StatusBadGateway)

	after, text := scrape(t, b, at)
	// A count is good for a hundred times as long as it took: on a slow machine the one of before is, for a while.
	for end := time.Now().Add(5 * time.Minute); after[state(ledger.StateRefundPending)] == 0 && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
		after, text = scrape(t, b, at)
	}
	for name, want := range map[string]float64{
		outcome("requests_total", "paid"):          3,
		outcome("requests_total", "required"):      3,
		outcome("requests_total", "exempt"):        1,
		outcome("requests_total", "malformed"):     1,
		outcome("deliveries_total", "delivered"):   2,
		outcome("deliveries_total", "undelivered"): 1,
		settledOn: 3,
		`caddy_x402_settlement_seconds_count{network="eip155:84532"}`:                3,
		`caddy_x402_transactions_total{network="eip155:84532",outcome="succeeded"}`:  3,
		`caddy_x402_carried_payments_total{network="eip155:84532"}`:                  3,
		`caddy_x402_revenue_atomic_units_total{asset="USDC",network="eip155:84532"}`: 50_000,
		`caddy_x402_revenue_payments_total{asset="USDC",network="eip155:84532"}`:     3,
		`caddy_x402_failures_total{reason="upstream_5xx",stage="delivery"}`:          1,
		`caddy_x402_failures_total{reason="malformed_payment",stage="request"}`:      1,
		`caddy_x402_stage_seconds_count{stage="verify"}`:                             3,
		`caddy_x402_stage_seconds_count{stage="simulate"}`:                           3,
		`caddy_x402_stage_seconds_count{stage="claim"}`:                              3,
		`caddy_x402_stage_seconds_count{stage="settle"}`:                             3,
		`caddy_x402_stage_seconds_count{stage="record"}`:                             3,
		`caddy_x402_stage_seconds_count{stage="serve"}`:                              3,
		`caddy_x402_stage_seconds_count{stage="deliver"}`:                            3,
		`caddy_x402_stage_seconds_count{stage="paid"}`:                               3,
		`caddy_x402_queue_seconds_count{network="eip155:84532"}`:                     3,
	} {
		if got := after[name] - before[name]; got != want {
			t.Errorf("%s grew by %v, want %v", name, got, want)
		}
	}
	for name, least := range map[string]float64{
		`caddy_x402_gas_balance_ether{network="eip155:84532",wallet="1"}`: 1, `caddy_x402_gas_balance_warn_ether{network="eip155:84532"}`: 0.001,
		`caddy_x402_gas_balance_min_ether{network="eip155:84532"}`: 0.0001, `caddy_x402_gas_price_max_wei{network="eip155:84532"}`: 500e9,
		`caddy_x402_gas_price_wei{network="eip155:84532"}`: 1, `caddy_x402_gas_used_total{network="eip155:84532"}`: 3 * 40_000,
		`caddy_x402_wallet_nonce{network="eip155:84532",wallet="1"}`: 0, `caddy_x402_queue_size{network="eip155:84532"}`: 1,
		`caddy_x402_ledger_up`: 1, `caddy_x402_token_keys{state="signing"}`: 1, `caddy_x402_reconciler_rounds_total{outcome="done"}`: 1,
		`caddy_x402_rpc_seconds_count{endpoint="1",network="eip155:84532"}`: 3, `caddy_x402_revocations_silence_seconds`: 0,
		`caddy_x402_token_key_age_seconds`: 0, `caddy_x402_wallet_in_flight{network="eip155:84532",wallet="1"}`: 0,
		`caddy_x402_gas_balance_timestamp_seconds{network="eip155:84532",wallet="1"}`: float64(time.Now().Add(-time.Hour).Unix()),
	} {
		if got, ok := after[name]; !ok || got < least {
			t.Errorf("%s is %v, %v; want %v at least", name, got, ok, least)
		}
	}
	wantStates := map[ledger.State]float64{ledger.StateDelivered: 2, ledger.StateRefundPending: 1}
	for _, s := range ledger.States() {
		if got, ok := after[state(s)]; !ok || got != wantStates[s] {
			t.Errorf("%s is %v, %v; want %v", state(s), got, ok, wantStates[s])
		}
	}
	namesNobody(t, text, b.Account.Address.Hex(), rig.PayTo.Hex(), devnet.Developer(0).Address.Hex(), devnet.TokenAddress.Hex(),
		"/a/", "/b/", r.Addr, first.Header.Get("X-Payment-Id"), refund.Header.Get("X-Payment-Id"), r.Dir)
}

// namesNobody checks that no series tells a payer, an address, a path or a key, and that each has a help text.
func namesNobody(t *testing.T, text string, names ...string) {
	t.Helper()
	for _, name := range names {
		if name == "" || strings.Contains(strings.ToLower(text), strings.ToLower(name)) {
			t.Errorf("the metrics tell %q:\n%s", name, text)
		}
	}
	for _, m := range regexp.MustCompile(`([a-z_]+)="`).FindAllStringSubmatch(text, -1) {
		if !slices.Contains([]string{"outcome", "network", "asset", "state", "stage", "reason", "le", "wallet", "endpoint"}, m[1]) {
			t.Errorf("there is a label %s", m[1])
		}
	}
	for _, name := range []string{
		"requests_total", "settlements_total", "settlement_seconds", "deliveries_total", "payments",
		"transactions_total", "carried_payments_total", "gas_spent_ether_total", "gas_balance_ether",
	} {
		if !strings.Contains(text, "# HELP caddy_x402_"+name+" ") || !strings.Contains(text, "# TYPE caddy_x402_"+name+" ") {
			t.Errorf("caddy_x402_%s has no help or no type", name)
		}
	}
}

// Metrics are there before anything was paid, and a ledger that can't be read fails none but its own.
func TestMetricsWithoutPayments(t *testing.T) {
	r := rig.New(t, rig.Options{})
	b, at := rig.NewBuyer(t, 1), rig.FreeAddr(t)
	if err := load(t, r.Caddyfile(rig.Options{})+"\nhttp://"+at+" {\nmetrics\n}\n"); err != nil {
		t.Fatal(err)
	}
	values, _ := scrape(t, b, at)
	for _, s := range ledger.States() {
		if v, ok := values[state(s)]; !ok || v != 0 {
			t.Errorf("%s is %v, %v", state(s), v, ok)
		}
	}
}

// What was served on credit and not paid is counted, and so is what was settled up front since so much more may not be owed.
func TestMetricsOfCredit(t *testing.T) {
	var r *rig.Rig
	b, at := rig.NewBuyer(t, 7), rig.FreeAddr(t)
	r = rig.New(t, rig.Options{Upstream: func(w http.ResponseWriter, q *http.Request) {
		switch q.URL.Path {
		case "/lost":
			if err := r.Chain.Blacklist(context.WithoutCancel(t.Context()), b.Account.Address); err != nil {
				t.Error(err)
			}
		case "/refused":
			w.WriteHeader(http.StatusNotFound)
		}
	}})
	site := "x402 {\nflow deferred\nprice $0.02 {\nmatch path /dear\n}\nprice $0.01\n}\nreverse_proxy {upstream}"
	if err := load(t, r.Caddyfile(rig.Options{Site: site, App: "credit $0.01 $1"})+"\nhttp://"+at+" {\nmetrics\n}\n"); err != nil {
		t.Fatal(err)
	}
	before, _ := scrape(t, b, at)
	for path, want := range map[string]int{"/dear": http.StatusOK, "/refused": http.StatusNotFound} {
		if a := buy(t, b, r.URL(path)); a.Status != want {
			t.Fatalf("%s: %d %s", path, a.Status, a.Body)
		}
	}
	if a := buy(t, b, r.URL("/lost")); a.Status != http.StatusOK || a.Header.Get("X-Payment-Status") != "owed" {
		t.Fatalf("%d %v %s", a.Status, a.Header, a.Body)
	}
	const lost, exhausted = `caddy_x402_losses_total{network="eip155:84532"}`, `caddy_x402_credit_exhausted_total{network="eip155:84532"}`
	var after map[string]float64
	until(t, "what was lost is not counted, or not owed", func() bool {
		after, _ = scrape(t, b, at)
		return after[lost] == before[lost]+1 && after[state(ledger.StateOwed)] == 1 // the states may be those of a moment ago
	})
	for name, n := range map[string]float64{
		`caddy_x402_lost_atomic_units_total{asset="USDC",network="eip155:84532"}`: 10_000,
		exhausted: 1, outcome("requests_total", "paid"): 1, outcome("requests_total", "owed"): 1, outcome("requests_total", "void"): 1,
		outcome("deliveries_total", "delivered"): 2, outcome("deliveries_total", "void"): 1,
	} {
		if after[name]-before[name] != n {
			t.Errorf("%s grew by %v, want %v", name, after[name]-before[name], n)
		}
	}
}
