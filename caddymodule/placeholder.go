package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-x402/caddy-x402/paywall"
)

// What a handler makes of a request, beside what the gate says.
const (
	outcomeExempt = "exempt"
	outcomeFree   = "free"
	outcomeDenied = "denied"
)

var placeholders = [...]string{
	"http.x402.status", "http.x402.error", "http.x402.payment.id", "http.x402.payment.payer", "http.x402.payment.amount",
	"http.x402.payment.asset", "http.x402.payment.network", "http.x402.payment.transaction", "http.x402.payment.plan",
}

func replacer(r *http.Request) *caddy.Replacer {
	repl, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	return repl
}

// clearPlaceholders gives each documented placeholder a value: braces of an unknown one would travel upstream.
func clearPlaceholders(r *http.Request) {
	if repl := replacer(r); repl != nil {
		for _, name := range placeholders {
			repl.Set(name, "")
		}
	}
}

// setPayment tells the handlers behind, and the access log, who paid.
func setPayment(r *http.Request, g paywall.Grant) {
	repl := replacer(r)
	if repl == nil {
		return
	}
	repl.Set("http.x402.payment.id", g.PaymentID)
	repl.Set("http.x402.payment.payer", g.Payer.Hex())
	repl.Set("http.x402.payment.amount", g.Amount.Dec())
	repl.Set("http.x402.payment.asset", g.Asset.Hex())
	repl.Set("http.x402.payment.network", g.Network)
	repl.Set("http.x402.payment.transaction", g.Transaction.Hex())
	repl.Set("http.x402.payment.plan", g.Plan)
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Add(zap.String("x402_payment", g.PaymentID))
	}
}

// decided counts what became of a request, and tells it to handlers and logs.
func decided(r *http.Request, outcome, reason string) {
	requests.WithLabelValues(outcome).Inc()
	if repl := replacer(r); repl != nil {
		repl.Set("http.x402.status", outcome)
		repl.Set("http.x402.error", reason)
	}
}
