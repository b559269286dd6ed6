package caddymodule

import (
	"context"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"

	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/x402"
)

// The events of this app. Subscribers of Caddy's events run where an event is emitted, so that is done beside the requests, in the order in
// which things happened, by one goroutine of each configuration. Of an instance that serves many, each emits what it has written
// itself. Events may get lost with their process; the ledger's trail, which a paywall.Feed reads, does not.
var eventNames = map[paywall.FactKind]string{
	paywall.FactSettled:       "payment_received",
	paywall.FactDelivered:     "payment_delivered",
	paywall.FactRefundPending: "payment_refund_pending",
	paywall.FactRefunded:      "payment_refunded",
	paywall.FactRefundFailed:  "payment_refund_failed",
}

const (
	// waitingEvents is how many may wait for their subscribers.
	waitingEvents = 1024
	// lastEvents is how long a configuration that goes waits for its subscribers.
	lastEvents = 5 * time.Second
	// listeningLook is how often it is looked whether subscribers listen.
	listeningLook = 10 * time.Millisecond
)

// events tells subscribers of what has happened.
type events struct {
	emit func(name string, data map[string]any)
	wait time.Duration

	mu     sync.Mutex
	queue  chan event // nil: nobody listens
	closed bool
	over   chan struct{} // closed when no more facts come
	ended  chan struct{}
}

// event is something to tell: a fact, or what has a name.
type event struct {
	fact paywall.Fact
	name string // empty: it is a fact
	data map[string]any
}

// newEvents finds Caddy's events.
func newEvents(ctx caddy.Context) (*events, error) {
	app, err := ctx.App("events")
	if err != nil {
		return nil, err
	}
	e, ok := app.(*caddyevents.App)
	if !ok {
		return nil, nil
	}
	return &events{wait: lastEvents, emit: func(name string, data map[string]any) { e.Emit(ctx, name, data) }}, nil
}

// listening reports whether the subscribers of a's configuration listen: Caddy starts its events in no certain order with this app, and must not
// be given any before all that it starts have started.
func (a *App) listening() bool {
	live, err := liveApp()
	return err == nil && live == a
}

// start begins to tell as soon as listening says that it may; end must follow.
func (e *events) start(log *zap.Logger, listening func() bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.queue != nil || e.closed {
		return
	}
	queue, over, ended := make(chan event, waitingEvents), make(chan struct{}), make(chan struct{})
	e.queue, e.over, e.ended = queue, over, ended
	go func() {
		defer close(ended)
		if !await(listening, over) {
			return // it has never been in force
		}
		for one := range queue {
			e.tell(log, &one)
		}
	}()
}

// await waits until somebody listens; false: it is over before that.
func await(listening func() bool, over <-chan struct{}) bool {
	look := time.NewTicker(listeningLook)
	defer look.Stop()
	for !listening() {
		select {
		case <-over:
			return false
		case <-look.C:
		}
	}
	return true
}

// tell emits one event. A subscriber that panics is a guest's fault, and not the end of the process.
func (e *events) tell(log *zap.Logger, one *event) {
	defer func() {
		if v := recover(); v != nil {
			log.Error("a subscriber of events panicked", zap.String("payment", one.fact.Payment.ID), zap.String("event", one.name), zap.Any("panic", v))
		}
	}()
	if one.name != "" {
		e.emit(one.name, one.data)
	} else if name := eventNames[one.fact.Kind]; name != "" {
		e.emit(name, eventData(&one.fact))
	}
}

// happened takes a fact; it never waits.
func (e *events) happened(f paywall.Fact) { e.take(event{fact: f}) }

// say takes what is no fact about a payment; it never waits. It is for all, also where there are no events.
func (e *events) say(name string, data map[string]any) {
	if e != nil {
		e.take(event{name: name, data: data})
	}
}

func (e *events) take(one event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.queue == nil || e.closed {
		return
	}
	select {
	case e.queue <- one:
	default:
		eventsDropped.Inc()
	}
}

// end tells what waits, and waits for that; not for ever, since subscribers may.
func (e *events) end(log *zap.Logger) {
	e.mu.Lock()
	ended := e.ended
	if e.queue != nil && !e.closed {
		close(e.queue)
		close(e.over)
	}
	e.closed = true
	e.mu.Unlock()
	if ended == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), e.wait)
	defer cancel()
	select {
	case <-ended:
	case <-ctx.Done():
		log.Error("subscribers of events take too long; they are left alone")
	}
}

// eventData is what subscribers get. The four names of Key0's hook come first.
func eventData(f *paywall.Fact) map[string]any {
	p := &f.Payment
	data := map[string]any{
		"challengeId":   p.ID,
		"planId":        p.Binding.Plan,
		"txHash":        "",
		"walletAddress": p.Payer.Hex(),
		"id":            f.ID,
		"paymentId":     p.ID,
		"routeId":       p.Binding.Route,
		"amount":        p.Amount.Dec(),
		"asset":         p.Asset.Hex(),
		"network":       x402.CAIP2(p.ChainID),
		"payTo":         p.PayTo.Hex(),
		"state":         string(p.State()),
		"method":        p.Binding.Method,
		"host":          p.Binding.Host,
		"uri":           p.Binding.URI,
		"flow":          p.Flow,
		"at":            f.At.UTC().Format(time.RFC3339Nano),
	}
	if p.Transaction != ([32]byte{}) {
		data["txHash"] = p.Transaction.Hex()
	}
	if f.Back != ([32]byte{}) {
		data["refundTransaction"] = f.Back.Hex()
	}
	if f.Reason != "" {
		data["reason"] = f.Reason
	}
	return data
}
