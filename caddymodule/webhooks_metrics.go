package caddymodule

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

// What webhooks count; see registerMetrics.
var (
	webhookAttempts = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "webhook_attempts_total",
		Help: "Attempts to deliver a webhook, by outcome: delivered, or why it was not: status, redirect, gone, timeout, connection, tls, address_refused, request.",
	}, []string{"outcome"})
	webhookSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "webhook_attempt_seconds",
		Help:    "How long these attempts took.",
		Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15},
	})
	webhookDeliveries = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "webhook_deliveries_total",
		Help: "Webhooks that have come to an end: delivered, or dead, which is for the operator.",
	}, []string{"outcome"})
	webhooksDisabled = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "webhook_endpoints_disabled_total",
		Help: "Webhook endpoints that have answered 410 Gone and are told nothing more.",
	})
	webhookLag = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "webhook_lag_seconds",
		Help: "For how long the delivery has been due that is due longest. More than a few seconds: the sender does not keep up.",
	})
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
