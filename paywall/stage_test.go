package paywall

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// timed is an engine that only measures.
func timed(f func(Stage, time.Duration)) *Engine {
	return &Engine{settings: Settings{Timed: f}.withDefaults()}
}

// recorded gives a context that is traced, and what was recorded until now, by name.
func recorded(tb testing.TB) (context.Context, func() map[string]tracetest.SpanStub) {
	tb.Helper()
	memory := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(memory))
	ctx, root := provider.Tracer("test").Start(context.Background(), "request")
	tb.Cleanup(func() {
		root.End()
		_ = provider.Shutdown(context.Background())
	})
	return ctx, func() map[string]tracetest.SpanStub {
		found := map[string]tracetest.SpanStub{}
		for _, s := range memory.GetSpans() {
			found[s.Name] = s
			if s.Parent.SpanID() != root.SpanContext().SpanID() {
				tb.Errorf("%s is not a child of the request", s.Name)
			}
		}
		return found
	}
}

// A stage is timed once, however often it is ended. Where nobody traces, that allocates nothing and the context stays what it is.
func TestStageUntraced(t *testing.T) {
	n := 0
	e := timed(func(s Stage, d time.Duration) {
		if n++; s != StageClaim || d < 0 {
			t.Errorf("%s took %s", s, d)
		}
	})
	ctx, s := e.stage(t.Context(), StageClaim, "pay_1")
	if ctx != t.Context() {
		t.Error("another context")
	}
	s.end("")
	s.end("again")
	s.failed(errors.New("again"))
	if n != 1 {
		t.Errorf("timed %d times", n)
	}
	var zero span
	zero.on("n")
	zero.answered(500)
	e = timed(nil)
	allocated := testing.AllocsPerRun(100, func() {
		_, s := e.stage(ctx, StageSettle, "pay_1")
		s.on("eip155:8453")
		s.settled(&settlement.Outcome{Status: settlement.Settled})
	})
	if allocated != 0 {
		t.Errorf("%v allocations", allocated)
	}
}

// What goes wrong is told by its code; what an error says stays where it is.
func TestStageTraced(t *testing.T) {
	const secret = "https://node.example/key-0123456789"
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"nothing":      {nil, ""},
		"a refusal":    {busy("pay_1").because(errors.New(secret)), codePending},
		"a reason":     {fmt.Errorf("%s: %w", secret, x402.Refuse(x402.ReasonNonceUsed, secret)), string(x402.ReasonNonceUsed)},
		"the chain":    {fmt.Errorf("%w: %s", settlement.ErrUnavailable, secret), codeChain},
		"the ledger":   {errors.New(secret), codeStore},
		"the client":   {fmt.Errorf("%s: %w", secret, context.Canceled), codeGone},
		"someone else": {fmt.Errorf("%s: %w", secret, ledger.ErrConflict), codeOvertaken},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, spans := recorded(t)
			in, s := timed(nil).stage(ctx, StageSimulate, "pay_1")
			s.on("eip155:8453")
			s.failed(c.err)
			if in == ctx {
				t.Error("the context is not the span's")
			}
			got, ok := spans()["x402.simulate"]
			attributes := fmt.Sprint(got.Attributes)
			if !ok || got.Status.Code == codes.Error != (c.want != "") || got.Status.Description != c.want ||
				!strings.Contains(attributes, "pay_1") || !strings.Contains(attributes, "eip155:8453") {
				t.Errorf("%+v", got)
			}
			if all := fmt.Sprintf("%+v", got); strings.Contains(all, "example") {
				t.Error("it tells what the error says:", all)
			}
		})
	}
}

// The cost of a stage, with and without somebody who traces.
func BenchmarkStage(b *testing.B) {
	deep := b.Context()
	for i := range 10 { // Caddy's contexts have about as many values
		deep = context.WithValue(deep, new(int), i)
	}
	e := timed(nil)
	run := func(name string, ctx context.Context) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, s := e.stage(ctx, StageClaim, "pay_1")
				s.end("")
			}
		})
	}
	run("untraced", deep)
	provider := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.AlwaysSample()))
	ctx, root := provider.Tracer("test").Start(deep, "request")
	defer root.End()
	run("traced", ctx)
}

// constants are the texts of a package's constants whose names begin so.
func constants(t *testing.T, folder string, names *regexp.Regexp) map[string]string {
	t.Helper()
	found := map[string]string{}
	paths, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != len(spec.Names) {
				return true
			}
			for i, name := range spec.Names {
				lit, ok := spec.Values[i].(*ast.BasicLit)
				if ok && lit.Kind == token.STRING && names.MatchString(name.Name) {
					found[name.Name], _ = strconv.Unquote(lit.Value)
				}
			}
			return true
		})
	}
	return found
}

// Every code that there is can be counted by its name, and nothing else can: their number is bounded.
func TestKnownReasons(t *testing.T) {
	names := regexp.MustCompile(`^([Rr]eason|[Cc]ode)[A-Z]`)
	all := constants(t, ".", names)
	for name, code := range constants(t, "../x402", names) {
		all["x402."+name] = code
	}
	if len(all) < 70 {
		t.Fatalf("only %d codes were found", len(all))
	}
	for name, code := range all {
		if KnownReason(code) != code {
			t.Errorf("%s, %q, is counted as %q", name, code, KnownReason(code))
		}
	}
	for code, want := range map[string]string{
		"upstream_status_502": "upstream_5xx", "upstream_status_404": "upstream_4xx", "upstream_status_2": "other", "upstream_status_": "other",
		"": "other", "made_up_by_a_facilitator": "other", "pay_76q25mqihbtc5qaaps5xxp5wniay": "other",
	} {
		if got := KnownReason(code); got != want {
			t.Errorf("%q is counted as %q", code, got)
		}
	}
	for _, c := range OperatorCodes() {
		if KnownReason(c) != c {
			t.Errorf("%q is not known", c)
		}
	}
	if !slices.Contains(OperatorCodes(), CodeIssueTimeout) {
		t.Error("an issuer that does not answer is the operator's affair")
	}
}

// What was received, and what was not delivered, is counted when the ledger says so, and once: sales apart from what is another
// server's, and refunds not at all.
func TestStepsAreCounted(t *testing.T) {
	var seen []string
	s := Settings{Observe: func(o Observation) {
		seen = append(seen, strings.Join([]string{o.Event, o.Outcome, o.Asset, o.Amount.Dec(), o.Reason}, " "))
	}}
	e := &Engine{settings: s.withDefaults()}
	p := ledger.Payment{Flow: ledger.FlowUpfront}
	p.ChainID = 8453
	p.Amount.SetUint64(7)
	e.happened(&p, []ledger.Change{{Event: ledger.EventSettle}, {Event: ledger.EventDeliver}})
	e.happened(&p, []ledger.Change{{Event: ledger.EventUndelivered, Reason: "upstream_status_503"}})
	p.Flow = ledger.FlowFacilitator
	e.happened(&p, []ledger.Change{{Event: ledger.EventSettle}})
	p.Flow = ledger.FlowRefund
	e.happened(&p, []ledger.Change{{Event: ledger.EventSettle}})
	want := []string{"received sale other 7 ", "undelivered   0 upstream_status_503", "received facilitated other 7 "}
	if !slices.Equal(seen, want) {
		t.Errorf("%q, want %q", seen, want)
	}
}
