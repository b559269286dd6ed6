package wallet_test

import (
	"context"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/caddy-x402/caddy-x402/settlement/wallet"
)

// What a wallet is at is told without asking anybody: what waits, what is under way and since when, and what the chain last said. Where
// nobody pays, whoever looks for losses looks at the balance too. A trace tells which transaction carries a payment.
func TestStats(t *testing.T) {
	var mu sync.Mutex
	var waits []time.Duration
	c := newCase(t, startChain(t), options{settings: wallet.Settings{
		Queue: 77, InFlight: 1, WarnBalance: big.NewInt(1e18), MaxFeePerGas: big.NewInt(9e11),
		Queued: func(d time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			waits = append(waits, d)
		},
	}})
	w := c.Settler.(*wallet.Settler)
	if s := w.Stats(); s.Queue != 77 || s.Queued != 0 || s.WarnBalance.Cmp(big.NewInt(1e18)) != 0 || s.MaxFeePerGas.Cmp(big.NewInt(9e11)) != 0 ||
		s.FeePerGas != nil || len(s.Lanes) != 1 || s.Lanes[0].Wei != nil || s.Lanes[0].InFlight != 0 || !s.Lanes[0].Oldest.IsZero() {
		t.Errorf("at the start: %+v", s)
	}
	c.Must(w.Ready(c.Ctx()))
	if l := w.Stats().Lanes[0]; l.Wei == nil || l.At.IsZero() || l.Mined != 0 {
		t.Errorf("after a look: %+v", l)
	}

	memory := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(memory))
	defer func() { _ = provider.Shutdown(context.WithoutCancel(t.Context())) }()
	all := crowd(c, 3)
	c.Stall()
	ctx, span := provider.Tracer("test").Start(c.Ctx(), "settle")
	settled := make(chan struct{})
	go func() {
		defer close(settled)
		w.Settle(ctx, all[0])
		span.End()
	}()
	hash := sent(c, 1)[0].Hash
	rest := settleAll(c, w, all[1:])
	c.WaitFor("two wait and one is under way", func() bool {
		s := w.Stats()
		return s.Queued == 2 && s.Lanes[0].InFlight == 1 && !s.Lanes[0].Oldest.IsZero() && s.FeePerGas != nil
	})
	c.H.Chain.Resume()
	<-settled
	rest.wantSettled(all[1:])
	c.WaitFor("nothing is under way", func() bool {
		s := w.Stats()
		return s.Queued == 0 && s.Lanes[0].InFlight == 0 && s.Lanes[0].Oldest.IsZero()
	})
	c.Must(w.Ready(c.Ctx()))
	if l := w.Stats().Lanes[0]; l.Mined != 2 {
		t.Errorf("in the end: %+v", l)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(waits) != 3 {
		t.Errorf("%d payments have waited", len(waits))
	}
	events := fmt.Sprintf("%+v", memory.GetSpans()[0].Events)
	if !strings.Contains(events, "x402.sent") || !strings.Contains(events, hash.Hex()) {
		t.Error("the trace says", events)
	}
}
