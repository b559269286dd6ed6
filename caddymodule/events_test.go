package caddymodule

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-x402/caddy-x402/paywall"
)

// Nothing is told before subscribers listen, what has happened meanwhile is told then, in its order, and a configuration that never comes into
// force tells nothing.
func TestEventsWait(t *testing.T) {
	var listens atomic.Bool
	var told []string
	e := &events{wait: time.Minute, emit: func(name string, _ map[string]any) {
		if !listens.Load() {
			t.Error("told before anybody listens: ", name)
		}
		told = append(told, name)
	}}
	e.start(zap.NewNop(), listens.Load)
	e.happened(paywall.Fact{Kind: paywall.FactSettled})
	e.happened(paywall.Fact{Kind: paywall.FactRefundPending})
	listens.Store(true)
	for len(e.queue) > 0 {
		time.Sleep(time.Millisecond)
	}
	e.happened(paywall.Fact{Kind: paywall.FactRefunded})
	e.end(zap.NewNop())
	if want := []string{"payment_received", "payment_refund_pending", "payment_refunded"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	never := &events{wait: time.Minute, emit: func(name string, _ map[string]any) { t.Error("told ", name) }}
	never.start(zap.NewNop(), func() bool { return false })
	never.happened(paywall.Fact{Kind: paywall.FactSettled})
	never.end(zap.NewNop())
}
