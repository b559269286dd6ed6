package caddymodule

import (
	"maps"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/x402"
)

// What a handler makes of a request, beside what the gate says.
const (
	outcomeExempt = "exempt"
	outcomeFree   = "free"
	outcomeDenied = "denied"
)

// told is what a handler knows of a request, for placeholders. They are looked up when somebody uses them, which is rare.
type told struct {
	taken          bool        // a handler has a price for the request: overlapping ones charge once
	aside          http.Header // the payment of a request that is free by one handler, for another
	status, reason string
	paid           bool
	grant          paywall.Grant
	consumer       string // the id of the API key that came
}

// newTold gives each documented placeholder a value, if only an empty one: the braces of an unknown one would travel upstream.
func newTold(r *http.Request) *told {
	t := new(told)
	if repl, ok := replacer(r); ok {
		repl.Map(t.lookup)
	}
	caddyhttp.SetVar(r.Context(), varTold, t)
	return t
}

// replacer replaces the placeholders of r; only requests that did not come through Caddy have none.
func replacer(r *http.Request) (*caddy.Replacer, bool) {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	return repl, ok
}

// varTold is the variable of a request that came to an x402 handler. What is free by one is not taken: another, whose
// matcher overlaps, may have a price for it.
const varTold = "x402.told"

func toldOf(r *http.Request) *told {
	t, _ := caddyhttp.GetVar(r.Context(), varTold).(*told)
	return t
}

// setAside keeps the payment of a request, which is removed before it goes on.
func (t *told) setAside(r *http.Request) {
	for _, name := range [...]string{x402.HeaderSignature, x402.HeaderPaymentV1} {
		if v := r.Header[name]; v != nil {
			if t.aside == nil {
				t.aside = make(http.Header, 1)
			}
			t.aside[name] = v
		}
	}
}

func (t *told) putBack(r *http.Request) { maps.Copy(r.Header, t.aside) }

func (t *told) lookup(key string) (any, bool) {
	name, ok := strings.CutPrefix(key, "http.x402.")
	if !ok {
		return nil, false
	}
	switch name {
	case "status":
		return t.status, true
	case "error":
		return t.reason, true
	case "api_key":
		return t.consumer, true
	}
	name, ok = strings.CutPrefix(name, "payment.")
	if !ok {
		return nil, false
	}
	return t.payment(name)
}

func (t *told) payment(name string) (any, bool) {
	var value string
	g := &t.grant
	switch name {
	case "id":
		value = g.PaymentID
	case "payer":
		value = g.Payer.Hex()
	case "amount":
		value = g.Amount.Dec()
	case "asset":
		value = g.Asset.Hex()
	case "network":
		value = g.Network
	case "transaction":
		value = g.TransactionHex()
	case "plan":
		value = g.Plan
	default:
		return nil, false
	}
	if !t.paid {
		value = ""
	}
	return value, true
}

// setPayment tells the handlers behind, and the access log, who paid.
func setPayment(r *http.Request, g paywall.Grant) {
	if t := toldOf(r); t != nil {
		again := t.paid && t.grant.PaymentID == g.PaymentID // it is settled meanwhile
		t.paid, t.grant = true, g
		if again {
			return
		}
	}
	logPayment(r, g.PaymentID)
}

// logPayment has the access log, and the trace, say which payment a request is about.
func logPayment(r *http.Request, id string) {
	logField(r, "x402_payment", id)
	if span := trace.SpanFromContext(r.Context()); span.IsRecording() {
		span.SetAttributes(attribute.String("x402.payment.id", id))
	}
}

func logField(r *http.Request, key, value string) {
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Set(zap.String(key, value))
	}
}

// decided counts what became of a request, and tells it to handlers, logs and traces.
func decided(r *http.Request, outcome, reason string) {
	countRequest(outcome)
	if t := toldOf(r); t != nil {
		t.status, t.reason = outcome, reason
	}
	if reason == "" && isCommon(outcome) {
		return // most requests: the status says it all
	}
	if reason != "" {
		countRefusal(outcome, reason)
		logField(r, "x402_error", reason)
	}
	if span := trace.SpanFromContext(r.Context()); span.IsRecording() {
		span.SetAttributes(attribute.String("x402.outcome", outcome))
		if reason != "" {
			span.SetAttributes(attribute.String("x402.error", reason))
		}
	}
}

// isCommon: what requests come to that nobody pays for one by one.
func isCommon(outcome string) bool {
	switch outcome {
	case "required", "token", outcomeExempt, outcomeFree, outcomeDenied:
		return true
	}
	return false
}
