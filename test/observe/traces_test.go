package observe

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/holiman/uint256"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// collector is where Caddy's `tracing` sends its spans in these tests.
type collector struct {
	mu    sync.Mutex
	spans []tracetest.SpanStub
}

// ExportSpans implements sdktrace.SpanExporter.
func (c *collector) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spans = append(c.spans, tracetest.SpanStubsFromReadOnlySpans(spans)...)
	return nil
}

// Shutdown implements sdktrace.SpanExporter.
func (*collector) Shutdown(context.Context) error { return nil }

// of gives the spans of a trace, in the order in which they began.
func (c *collector) of(trace string) []tracetest.SpanStub {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []tracetest.SpanStub
	for _, s := range c.spans {
		if s.SpanContext.TraceID().String() == trace {
			found = append(found, s)
		}
	}
	slices.SortStableFunc(found, func(a, b tracetest.SpanStub) int { return a.StartTime.Compare(b.StartTime) })
	return found
}

// all is everything that was sent, for who looks for what should not be there.
func (c *collector) all() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("%+v", c.spans)
}

var spans = new(collector)

func init() {
	autoexport.RegisterSpanExporter("x402_test", func(context.Context) (sdktrace.SpanExporter, error) { return spans, nil })
}

// attributes are those of a span, as text.
func attributes(s *tracetest.SpanStub) map[string]string {
	m := map[string]string{}
	for _, a := range s.Attributes {
		m[string(a.Key)] = a.Value.String()
	}
	return m
}

// line is what an access log says of a request.
type line struct {
	TraceID string `json:"traceID"`
	Payment string `json:"x402_payment"`
	Error   string `json:"x402_error"`
	Status  int    `json:"status"`
}

// scene is one request whose trace and log are looked at.
type scene struct {
	name   string
	path   string
	header string // of the payment; empty: none
	status int
	stages []string          // in the order in which they begin
	fail   map[string]string // stages that fail, by their codes
	code   string            // that the request's span and the access log have
	free   bool              // no payment has an id
}

// Each stage of a payment is a span below Caddy's own, in the client's trace; whoever is not traced leaves none. Spans and access logs name the
// payment and why it failed, and hold no secret.
func TestTracesAndLogs(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "x402_test")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
	o := shop(silent(t).URL)
	path := filepath.Join(t.TempDir(), "access.log")
	o.Site = fmt.Sprintf("log {\noutput file %s\nformat x402_redact\n}\ntracing {\nspan shop\n}\nx402 /held/* {\nprice $0.01\nflow authorization\n}\n", path) + o.Site
	r := rig.New(t, o)
	b := rig.NewBuyer(t, 1)
	sign := func(path string, change ...func(*x402.Authorization)) string {
		return b.Sign(b.Offer(r.URL(path)), 0, change...)
	}
	upfront := []string{"verify", "simulate", "claim", "settle", "record", "serve", "deliver"}
	scenes := []scene{
		{name: "paid", path: "/fine", header: sign("/fine"), status: http.StatusOK, stages: upfront},
		{name: "not delivered", path: "/broken", header: sign("/broken"), status: http.StatusBadGateway, stages: upfront, fail: map[string]string{"serve": "upstream_5xx"}},
		{
			name: "held", path: "/held/x", header: sign("/held/x"), status: http.StatusOK,
			stages: []string{"verify", "simulate", "claim", "record", "serve", "settle", "deliver"},
		},
		{
			name: "too little", path: "/fine", header: sign("/fine", func(a *x402.Authorization) { a.Value = *uint256.NewInt(1) }), status: http.StatusPaymentRequired,
			stages: []string{"verify"}, fail: map[string]string{"verify": string(x402.ReasonValueMismatch)}, code: string(x402.ReasonValueMismatch), free: true,
		},
		{
			name: "not issued", path: "/plans/x", header: sign("/plans/x"), status: http.StatusGatewayTimeout,
			stages: []string{"verify", "simulate", "claim", "settle", "issue"}, fail: map[string]string{"issue": "TOKEN_ISSUE_TIMEOUT"}, code: "TOKEN_ISSUE_TIMEOUT",
		},
		{name: "unpaid", path: "/fine", status: http.StatusPaymentRequired, free: true},
	}
	answers := make([]rig.Answer, len(scenes))
	for i, s := range scenes {
		headers := []string{"Traceparent", fmt.Sprintf("00-%s-%016x-01", trace(i), i+1)}
		if s.header != "" {
			headers = append(headers, x402.HeaderSignature, s.header)
		}
		a := b.Get(r.URL(s.path), headers...)
		if answers[i] = a; a.Status != s.status {
			t.Fatalf("%s: %d %s", s.name, a.Status, a.Body)
		}
		if s.status == http.StatusOK && !strings.HasPrefix(r.Upstream.Last().Header.Get("Traceparent"), "00-"+trace(i)) {
			t.Errorf("%s: the upstream was not told of the trace: %v", s.name, r.Upstream.Last().Header)
		}
	}
	unsampled := b.Get(r.URL("/fine"), "Traceparent", fmt.Sprintf("00-%s-%016x-00", trace(99), 99), x402.HeaderSignature, sign("/fine"))
	if unsampled.Status != http.StatusOK {
		t.Fatalf("%d %s", unsampled.Status, unsampled.Body)
	}
	lines := map[string]line{}
	rig.Until(t, "the access log is not written", func() bool {
		lines = read(t, path)
		for i := range scenes {
			if _, there := lines[trace(i)]; !there {
				return false
			}
		}
		return true
	})
	for i, s := range scenes {
		t.Run(s.name, func(t *testing.T) {
			rig.Until(t, "its spans were not sent", func() bool { return len(spans.of(trace(i))) > len(s.stages) })
			look(t, s, spans.of(trace(i)), answers[i].Header.Get("X-Payment-Id"), lines[trace(i)])
		})
	}
	if got := spans.of(trace(99)); len(got) != 0 {
		t.Errorf("who did not want to be traced was: %v", got)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range append(scenes, scene{name: "the payer", header: b.Account.Address.Hex()}, scene{name: "the issuer", header: "s3cret-of-the-issuer"}) {
		secret := strings.ToLower(strings.TrimPrefix(s.header, "0x"))
		if secret != "" && (strings.Contains(strings.ToLower(spans.all()), secret) || strings.Contains(strings.ToLower(string(raw)), secret)) {
			t.Errorf("a span or a log tells a secret of %s", s.name)
		}
	}
}

// trace is the id of a scene's trace.
func trace(i int) string { return fmt.Sprintf("%032x", 0xabc000+i) }

// read gives the lines of an access log by trace.
func read(t *testing.T, path string) map[string]line {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]line{}
	for text := range strings.Lines(string(raw)) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		found[l.TraceID] = l
	}
	return found
}

// look compares what is seen of a scene with what happened.
func look(t *testing.T, s scene, seen []tracetest.SpanStub, payment string, logged line) {
	t.Helper()
	if (payment == "") != s.free || logged.Payment != payment || logged.Error != s.code || logged.Status != s.status {
		t.Errorf("the payment %q is logged as %+v", payment, logged)
	}
	root := slices.IndexFunc(seen, func(s tracetest.SpanStub) bool { return s.Name == "shop" })
	if root < 0 {
		t.Fatalf("there is no span of the request: %v", seen)
	}
	of := attributes(&seen[root])
	if of["x402.payment.id"] != payment || of["x402.error"] != s.code || (of["x402.outcome"] == "") != (s.header == "") {
		t.Errorf("the request's span has %v", of)
	}
	var stages []string
	for i := range seen {
		name, stage := strings.CutPrefix(seen[i].Name, "x402.")
		if !stage {
			continue
		}
		stages = append(stages, name)
		if seen[i].Parent.SpanID() != seen[root].SpanContext.SpanID() {
			t.Errorf("%s is not below the request's span", name)
		}
		a := attributes(&seen[i])
		if a["x402.error"] != s.fail[name] || (seen[i].Status.Code == codes.Error) != (s.fail[name] != "") || seen[i].EndTime.Sub(seen[i].StartTime) < 0 {
			t.Errorf("%s ended with %v %v", name, seen[i].Status, a)
		}
		if got := a["x402.payment.id"]; got != payment && name != "verify" && name != "simulate" {
			t.Errorf("%s is of the payment %q, want %q", name, got, payment)
		}
		if name == "settle" && (a["x402.outcome"] != "settled" || len(a["x402.transaction"]) != 66 || len(seen[i].Events) != 1 || seen[i].Events[0].Name != "x402.sent") {
			t.Errorf("the settlement has %v %v", a, seen[i].Events)
		}
		if name == "serve" && a["http.response.status_code"] == "" {
			t.Errorf("the upstream's status is not told: %v", a)
		}
	}
	if !slices.Equal(stages, s.stages) {
		t.Errorf("the stages were %q, want %q", stages, s.stages)
	}
}
