package caddymodule

import "github.com/caddy-x402/caddy-x402/management/webhooks"

// What webhooks count.
var (
	webhookAttempts = counters("webhook_attempts_total",
		"Attempts to deliver a webhook, by outcome: delivered, or why it was not: status, redirect, gone, timeout, connection, tls, address_refused, request.",
		"outcome")
	webhookSeconds = durations("webhook_attempt_seconds",
		"How long these attempts took.", []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15}).WithLabelValues()
	webhookDeliveries = counters("webhook_deliveries_total",
		"Webhooks that have come to an end: delivered, or dead, which is for the operator.", "outcome")
	webhooksDisabled = counters("webhook_endpoints_disabled_total",
		"Webhook endpoints that have answered 410 Gone and are told nothing more.").WithLabelValues()
	webhookLag = gauges("webhook_lag_seconds",
		"For how long the delivery has been due that is due longest. More than a few seconds: the sender does not keep up.").WithLabelValues()
)

// observeWebhook counts what the webhooks tell.
func observeWebhook(o webhooks.Observation) {
	switch o.Event {
	case "attempt":
		webhookAttempts.WithLabelValues(o.Outcome).Inc()
		webhookSeconds.Observe(o.Took.Seconds())
	case "delivery":
		webhookDeliveries.WithLabelValues(o.Outcome).Inc()
	case "disabled":
		webhooksDisabled.Inc()
	case "lag":
		webhookLag.Set(o.Took.Seconds())
	}
}
