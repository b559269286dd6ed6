package caddymodule

import (
	"context"
	"errors"
	"math/big"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// metric is one as its collector describes it.
type metric struct {
	name, help string
	labels     []string
}

var metricShape = regexp.MustCompile(`^Desc\{fqName: "([^"]*)", help: "((?:[^"\\]|\\.)*)", unit: "[^"]*", constLabels: \{\}, variableLabels: \{([^}]*)\}\}$`)

// allMetrics are all metrics that there are.
func allMetrics(t *testing.T) map[string]metric {
	t.Helper()
	ch := make(chan *prometheus.Desc)
	go func() {
		defer close(ch)
		for _, c := range collectors() {
			c.Describe(ch)
		}
	}()
	all := map[string]metric{}
	for d := range ch {
		m := metricShape.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("a metric has another shape: %s", d)
		}
		one := metric{name: m[1], help: m[2]}
		if m[3] != "" {
			one.labels = strings.Split(m[3], ",")
		}
		if _, twice := all[one.name]; twice {
			t.Errorf("%s is there twice", one.name)
		}
		all[one.name] = one
	}
	return all
}

// metricRow is one of the tables in docs/observing.md: a name, its labels, and what it is.
var metricRow = regexp.MustCompile("(?m)^\\| `(caddy_x402_[a-z0-9_]+)` \\| ([a-z]+) \\|([^|]*)\\| [^|]+ \\|$")

// The document names every metric with its labels, and no other. Nothing tells who pays.
func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/observing.md")
	if err != nil {
		t.Fatal(err)
	}
	all, told := allMetrics(t), map[string]bool{}
	for _, m := range metricRow.FindAllStringSubmatch(string(text), -1) {
		one, ok := all[m[1]]
		if !ok || told[m[1]] {
			t.Errorf("%s is not there, or told of twice", m[1])
			continue
		}
		told[m[1]] = true
		var labels []string
		for l := range strings.SplitSeq(strings.Trim(m[3], " "), ", ") {
			if l = strings.Trim(l, "`"); l != "" {
				labels = append(labels, l)
			}
		}
		if !slices.Equal(labels, one.labels) {
			t.Errorf("%s has the labels %q, and the document says %q", m[1], one.labels, labels)
		}
		if counter := strings.HasSuffix(m[1], "_total"); counter != (m[2] == "counter") {
			t.Errorf("%s is called a %s", m[1], m[2])
		}
	}
	for name, one := range all {
		if !told[name] {
			t.Errorf("docs/observing.md lacks %s", name)
		}
		if one.help == "" || !strings.HasPrefix(name, "caddy_x402_") {
			t.Errorf("%s has no help, or another name", name)
		}
		for _, l := range one.labels {
			if !slices.Contains([]string{"network", "asset", "outcome", "reason", "stage", "state", "wallet", "endpoint", "event", "mode", "limit"}, l) {
				t.Errorf("%s has the label %s", name, l)
			}
		}
	}
}

// What stands in the alert rules and on the dashboard exists.
func TestMetricsThatAreNamedExist(t *testing.T) {
	all := allMetrics(t)
	for _, path := range []string{"../deploy/observe/alerts.yml", "../deploy/observe/dashboard.json", "../docs/observing.md", "../docs/going-live.md", "../docs/refunds.md"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`caddy_x402_[a-z0-9_]+`).FindAllString(string(text), -1)
		if len(names) == 0 {
			t.Errorf("%s names none", path)
		}
		for _, name := range names {
			base := name
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if stem, ok := strings.CutSuffix(name, suffix); ok && strings.HasSuffix(stem, "_seconds") {
					base = stem
				}
			}
			if _, ok := all[base]; !ok {
				t.Errorf("%s names %s, which is not there", path, name)
			}
		}
	}
}

// What nobody has counted yet is 0 and not absent, where an alert compares it.
func TestMetricsBeginWithNothing(t *testing.T) {
	r := prometheus.NewRegistry()
	registerMetrics(r)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]int{}
	for _, f := range families {
		there[f.GetName()] = len(f.GetMetric())
	}
	for name, least := range map[string]int{
		"caddy_x402_requests_total": 13, "caddy_x402_credentials_total": 3, "caddy_x402_failures_total": 11, "caddy_x402_reconciler_rounds_total": 2,
		"caddy_x402_stage_seconds": 9, "caddy_x402_events_dropped_total": 1, "caddy_x402_ledger_up": 1,
	} {
		if there[name] < least {
			t.Errorf("%s: %d series, want %d", name, there[name], least)
		}
	}
}

// Two settlers on one network are one in the metrics: with other tokens they may have the same wallets. One whose signers are not open knows
// no bounds, and hides none of the other's.
func TestWalletStatsOfTwoSettlers(t *testing.T) {
	s := WalletStats{Network: "n", Queued: 1, Queue: 10, Wallets: []WalletStat{{InFlight: 1}}}
	s.add(&WalletStats{Network: "n", Queued: 2, Queue: 10, Warn: big.NewInt(7), Fee: big.NewInt(8), Wallets: []WalletStat{{InFlight: 2, Mined: 5, SeenAt: time.Unix(1, 0)}, {InFlight: 4}}})
	if s.Queued != 3 || s.Queue != 20 || len(s.Wallets) != 2 || s.Wallets[0].InFlight != 3 || s.Wallets[0].Mined != 5 || s.Wallets[1].InFlight != 4 {
		t.Errorf("%+v", s)
	}
	s.add(&WalletStats{Network: "n", Warn: big.NewInt(9), Min: big.NewInt(3), MaxFee: big.NewInt(10)})
	for what, is := range map[int64]*big.Int{7: s.Warn, 3: s.Min, 10: s.MaxFee, 8: s.Fee} {
		if is == nil || is.Int64() != what {
			t.Errorf("%d is %v", what, is)
		}
	}
}

// slowTeller is a wallet that tells nothing before it may.
type slowTeller struct {
	asked     sync.Once
	begun     chan struct{}
	mayAnswer chan struct{}
}

func (s *slowTeller) WalletStats() WalletStats {
	s.asked.Do(func() { close(s.begun) })
	<-s.mayAnswer
	return WalletStats{Network: "slow"}
}

func (*slowTeller) Destruct() error { return nil }

// Whatever a wallet is waiting for that metrics ask: the requests, which all go through the pool, do not wait.
func TestMetricsLeaveThePoolAlone(t *testing.T) {
	slow := &slowTeller{begun: make(chan struct{}), mayAnswer: make(chan struct{})}
	held, err := Acquire("a slow wallet", func() (*slowTeller, error) { return slow, nil })
	if err != nil {
		t.Fatal(err)
	}
	collected, requested := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(collected)
		walletMetrics{}.Collect(make(chan prometheus.Metric, 1000))
	}()
	<-slow.begun
	go func() {
		l, err := Acquire("what a request needs", func() (*slowTeller, error) { return new(slowTeller), nil })
		requested <- errors.Join(err, l.Release())
	}()
	select {
	case err := <-requested:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("a request waits for a wallet that metrics ask")
	}
	close(slow.mayAnswer)
	<-collected
	if err := held.Release(); err != nil {
		t.Error(err)
	}
}

// broken is a ledger that can't be read.
type broken struct{ ledger.Store }

func (broken) Counts(context.Context) (map[ledger.State]int64, error) {
	return nil, errors.New("no such disk")
}

// A ledger that can't be read, or was not opened, says just that, and takes nothing else with it: who watches must not be blind when it
// matters.
func TestMetricsOfABrokenLedger(t *testing.T) {
	for name, s := range map[string]*engineSlot{
		"it can't be read": {opened: broken{}, live: []*App{{}}},
		"it is not open":   {live: []*App{{}}},
	} {
		r := prometheus.NewRegistry()
		r.MustRegister(collectorOf(func(ch chan<- prometheus.Metric) { collectPayments(t.Context(), ch, []*engineSlot{s}) }))
		families, err := r.Gather()
		if err != nil || len(families) != 1 || families[0].GetName() != "caddy_x402_ledger_up" || families[0].GetMetric()[0].GetGauge().GetValue() != 0 {
			t.Errorf("%s: %v %v", name, families, err)
		}
	}
}

type collectorOf func(chan<- prometheus.Metric)

func (collectorOf) Describe(chan<- *prometheus.Desc)      {}
func (f collectorOf) Collect(ch chan<- prometheus.Metric) { f(ch) }

// Who does not wait for a count any longer is not kept by the one that is under way.
func TestCensusDoesNotKeepAnybody(t *testing.T) {
	var c census
	begun, end := make(chan struct{}), make(chan struct{})
	counted := make(chan map[ledger.State]int64)
	go func() {
		counts, _ := c.read(context.Background(), func(context.Context) (map[ledger.State]int64, error) {
			close(begun)
			<-end
			return map[ledger.State]int64{ledger.StatePaid: 1}, nil
		})
		counted <- counts
	}()
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.read(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(end)
	if n := (<-counted)[ledger.StatePaid]; n != 1 {
		t.Errorf("%d", n)
	}
}
