package observe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	rules     = "../../deploy/observe/alerts.yml"
	dashboard = "../../deploy/observe/dashboard.json"
)

// promtool runs Prometheus' own tool. It is of Debian's package prometheus; .ci/setup installs it.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "promtool", args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		text := out.String()
		if len(text) > 6000 {
			text = text[:6000] + "…"
		}
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, text)
	}
}

// sample is a line of the Prometheus text format: a series of ours with its labels, and its value.
var sample = regexp.MustCompile(`(?m)^(caddy_x402_[a-z0-9_]+)(?:\{([^}]*)\})? (\S+)$`)

// scraped are the series of a scrape, by name and labels as they stand there.
type scraped map[string]float64

func parse(t *testing.T, text string) scraped {
	t.Helper()
	s := scraped{}
	for _, m := range sample.FindAllStringSubmatch(text, -1) {
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			t.Fatalf("%s: %v", m[0], err)
		}
		s[m[1]+"{"+m[2]+"}"] = v
	}
	if len(s) < 200 {
		t.Fatalf("only %d series were scraped", len(s))
	}
	return s
}

// The story of a test in Prometheus is told in steps of a minute: first everything stands still, and then something happens.
const (
	steps = 60  // before it happens
	more  = 130 // after that
)

// story gives a series its values: was, until something happens, and then what becomes of it. It is how promtool writes series.
type story struct {
	was, then, grows float64
}

func (s story) String() string {
	return fmt.Sprintf("%s+0x%d %s+%sx%d", text(s.was), steps, text(s.then), text(s.grows), more)
}

func text(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

const rounds = `caddy_x402_reconciler_rounds_total{outcome="done"}`

// still is a scrape as stories: nothing happens.
func (s scraped) still() map[string]story {
	m := make(map[string]story, len(s))
	for name, v := range s {
		m[name] = story{was: v, then: v}
	}
	return m
}

// input writes stories as promtool's input_series, of one instance: those of metrics that the rules name.
func input(m map[string]story, rules string) []map[string]string {
	var list []map[string]string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		head, _, _ := strings.Cut(name, "{")
		if !strings.Contains(rules, head) {
			continue
		}
		s := m[name]
		values := s.String()
		if name == rounds && s.was == s.then { // never stands still while all is well
			values = fmt.Sprintf("%s+30x%d", text(s.was), steps+more)
		}
		_, labels, _ := strings.Cut(strings.TrimSuffix(name, "}"), "{")
		if labels != "" {
			labels += ","
		}
		list = append(list, map[string]string{
			"series": fmt.Sprintf(`%s{%sinstance="shop:9180",job="caddy"}`, head, labels), "values": values,
		})
	}
	return list
}

// fires checks which alerts fire, and no others, some time after something has happened.
type fires struct {
	name    string
	stories map[string]story
	after   int // minutes
	alerts  []string
}

// run lets Prometheus' own evaluation decide.
func run(t *testing.T, cases []fires) {
	t.Helper()
	absolute, err := filepath.Abs(rules)
	if err != nil {
		t.Fatal(err)
	}
	named, err := os.ReadFile(absolute)
	if err != nil {
		t.Fatal(err)
	}
	var tests []map[string]any
	for _, c := range cases {
		samples := []map[string]any{}
		slices.Sort(c.alerts)
		for _, a := range c.alerts {
			samples = append(samples, map[string]any{"labels": fmt.Sprintf("{alertname=%q}", a), "value": 1})
		}
		tests = append(tests, map[string]any{
			"name": c.name, "interval": "1m", "input_series": input(c.stories, string(named)),
			"promql_expr_test": []map[string]any{{
				"expr":      `count by (alertname) (count by (alertname, severity) (ALERTS{alertstate="firing"}))`,
				"eval_time": fmt.Sprintf("%dm", steps+c.after), "exp_samples": samples,
			}},
		})
	}
	// JSON is YAML.
	raw, err := json.Marshal(map[string]any{"rule_files": []string{absolute}, "evaluation_interval": "1m", "tests": tests})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "test.yml")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "test", "rules", path)
}

// names are the alerts that there are.
func names(t *testing.T) []string {
	t.Helper()
	raw, err := os.ReadFile(rules)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range regexp.MustCompile(`(?m)^ +- alert: (\S+)$`).FindAllStringSubmatch(string(raw), -1) {
		all = append(all, m[1])
	}
	if len(all) < 20 {
		t.Fatalf("only %d alerts were found", len(all))
	}
	return all
}

// Prometheus takes the rules, and every expression of the dashboard.
func TestRulesAndDashboardAreTaken(t *testing.T) {
	promtool(t, "check", "rules", "--lint-fatal", rules)
	raw, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ H, W, X, Y int }
			Targets []struct{ Expr, LegendFormat string }
		}
		Templating struct {
			List []struct{ Name string }
		}
	}
	if err := json.Unmarshal(raw, &board); err != nil {
		t.Fatal(err)
	}
	// As Grafana does before it asks.
	variables := strings.NewReplacer("$__rate_interval", "5m", "$__range", "6h", "$job", ".*", "$network", ".*", "$units", "1000000")
	known := map[string]bool{}
	for _, v := range board.Templating.List {
		known[v.Name] = true
	}
	var recorded []map[string]string
	ids := map[int]bool{}
	for _, p := range board.Panels {
		if ids[p.ID] || p.GridPos.W < 1 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("the panel %d, %q, is there twice or does not fit", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			expr := variables.Replace(target.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("%s: a variable is unknown: %s", p.Title, expr)
			}
			recorded = append(recorded, map[string]string{"record": fmt.Sprintf("panel:%d", len(recorded)), "expr": expr})
		}
	}
	if len(recorded) < 40 || !known["job"] || !known["network"] || !known["units"] || !known["datasource"] {
		t.Errorf("%d expressions, variables %v", len(recorded), known)
	}
	group := map[string]any{"groups": []map[string]any{{"name": "dashboard", "rules": recorded}}}
	if raw, err = json.Marshal(group); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", path)
}

// The document tells of every alert, and of no other.
func TestAlertsAreDocumented(t *testing.T) {
	raw, err := os.ReadFile("../../docs/observing.md")
	if err != nil {
		t.Fatal(err)
	}
	told := regexp.MustCompile(`X402[A-Za-z]+`).FindAllString(string(raw), -1)
	slices.Sort(told)
	all := names(t)
	slices.Sort(all)
	if got := slices.Compact(told); !slices.Equal(got, all) {
		t.Errorf("the document has\n%q\nand the rules\n%q", got, all)
	}
}
