package caddymodule

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-x402/caddy-x402/management/webhooks"
	"github.com/caddy-x402/caddy-x402/paywall"
)

// The collectors are made once per process and registered on every configuration's registry, so that a reload resets
// nothing. No label tells a payer, an address, a path or a key: networks, assets, wallets and endpoints are those of the configuration, and
// all else is a word of ours. docs/observing.md lists all of them.
var (
	requests = counters("requests_total",
		"Requests that reached a paywall, by what became of them.", "outcome")
	failures = counters("failures_total",
		"What went wrong, by stage and stable code: requests that were turned away, transfers, deliveries, credentials and refunds that "+
			"failed. A code that is not ours is `other`.", "stage", "reason")
	facilitations = counters("facilitator_requests_total",
		"Requests of other servers to x402_facilitator, by endpoint and what became of them.", "endpoint", "outcome")
	settlements = counters("settlements_total",
		"Settlements that this process has waited for, by network and outcome.", "network", "outcome")
	settlementSeconds = durations("settlement_seconds",
		"How long settlements took, by network.", []float64{.05, .1, .25, .5, 1, 2, 3, 5, 10, 20, 45}, "network")
	stageSeconds = durations("stage_seconds",
		"How long the stages of payments took. `paid` is all of them, from the payment's arrival until its answer may go out.",
		[]float64{.00025, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}, "stage")
	deliveries = counters("deliveries_total",
		"Paid requests that the upstream answered, by whether they count as delivered.", "outcome")
	revenueUnits = counters("revenue_atomic_units_total",
		"What was received for sales, in atomic units of the asset (a USDC has 1,000,000), before refunds.", "network", "asset")
	revenuePayments = counters("revenue_payments_total",
		"Payments that were received for sales.", "network", "asset")
	facilitatedUnits = counters("facilitated_atomic_units_total",
		"What was settled for other servers, in atomic units of the asset. It is theirs.", "network", "asset")
	quarantined = counters("quarantined_total",
		"Payments that were found on chain and not in the ledger, which must have lost them.", "network")
	losses = counters("losses_total",
		"Payments that were served before they were settled and then failed, by network.", "network")
	lostUnits = counters("lost_atomic_units_total",
		"What these payments come to, in atomic units of the asset (a USDC has 1,000,000), before anything is made good.", "network", "asset")
	refusedCredit = counters("credit_exhausted_total",
		"Payments that were settled up front since so much more may not be owed, by network.", "network")
	refunds = counters("refunds_total",
		"Refunds that have come to an end, by network and outcome: refunded, or failed, which is for the operator.", "network", "outcome")
	refundedUnits = counters("refunded_atomic_units_total",
		"What was paid back, in atomic units of the asset (a USDC has 1,000,000).", "network", "asset")
	refundWaits = counters("refund_waits_total",
		"Times that a refund could not be paid and was put off, by network and reason: wallet_empty, day_limit and others.", "network", "reason")
	refundBalance = gauges("refund_balance_atomic_units",
		"What the refund wallet had when it was last looked at, in atomic units of the asset.", "network", "asset")
	issued = counters("credentials_total",
		"Credentials that issuers of plans were asked for, by outcome; `unknown` is one that did not answer in time.", "outcome")
	issueSeconds = durations("credential_seconds",
		"How long issuers took to give a credential, with all tries.", []float64{.01, .05, .1, .25, .5, 1, 2, 5, 10, 15, 30, 60})
	eventsDropped = counters("events_dropped_total",
		"Events that were not emitted since their subscribers were too slow. The ledger has what they were about.").WithLabelValues()
	challenges = counters("challenges_total",
		"Requests that were asked for by POST /x402/access: made, claimed by a payment, cancelled. They are no payments until they are claimed.",
		"outcome")
	reorgs = counters("reorgs_total",
		"Settled payments whose transaction was found gone.", "network")
	rounds = counters("reconciler_rounds_total",
		"Rounds in which open payments were looked after, by outcome. None for minutes: nobody looks after them.", "outcome")
)

const (
	metricsNamespace = "caddy"
	metricsSubsystem = "x402"
)

// made are the collectors that counters, gauges and durations have made: whatever is counted is registered, too.
var made []prometheus.Collector

func keep[C prometheus.Collector](c C) C {
	made = append(made, c)
	return c
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return keep(prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: name, Help: help,
	}, labels))
}

func gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return keep(prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: name, Help: help,
	}, labels))
}

// durations are in seconds.
func durations(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return keep(prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: name, Help: help, Buckets: buckets,
	}, labels))
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(metricsNamespace, metricsSubsystem, name), help, labels, nil)
}

// collectors are all that there is to be seen: what is counted, and what is looked at when somebody asks.
func collectors() []prometheus.Collector {
	return append(slices.Clip(made), walletMetrics{}, ledgerMetrics{})
}

func registerMetrics(r *prometheus.Registry) {
	if r == nil {
		return
	}
	for _, c := range collectors() {
		_ = r.Register(c) // a registry may be shared, and has it already; a name that somebody else has taken is not seen, and all others are
	}
}

func init() {
	for vec, outcomes := range map[*prometheus.CounterVec][]string{
		requests: {
			"paid", "owed", "void", "replayed", "token", "required", "refused", "unavailable", "malformed", "limited", outcomeExempt, outcomeFree,
			outcomeDenied,
		},
		deliveries:        {"delivered", "undelivered", "void", "unpaid"},
		issued:            {"issued", "failed", "unknown"},
		rounds:            {"done", "failed"},
		webhookDeliveries: {string(webhooks.StatusDelivered), string(webhooks.StatusDead)},
	} {
		for _, o := range outcomes {
			vec.WithLabelValues(o)
		}
	}
	for _, code := range paywall.OperatorCodes() {
		failures.WithLabelValues(stageRequest, code)
	}
	failures.WithLabelValues(stageCredential, paywall.CodeIssueTimeout)
	failures.WithLabelValues(stageCredential, paywall.CodeIssueFailed)
}

// primeMetrics begins with 0 what is counted by network, so that an alert sees the first time that something happens: of a counter that comes
// into being with 1 nobody can say that it has grown.
func primeMetrics(payees []*paywall.Payee) {
	for _, y := range payees {
		network, asset := y.Network.ID, y.Network.Asset.Symbol
		for _, v := range []*prometheus.CounterVec{
			quarantined, losses, refusedCredit, carried, gasSpent, gasUsed, replacements, reorgs,
		} {
			v.WithLabelValues(network)
		}
		for _, v := range []*prometheus.CounterVec{revenueUnits, revenuePayments, facilitatedUnits, lostUnits, refundedUnits} {
			v.WithLabelValues(network, asset)
		}
		for vec, words := range map[*prometheus.CounterVec][]string{
			settlements:  {"settled", "failed", "unknown"},
			transactions: {"succeeded", "reverted"},
			refunds:      {"refunded", "failed"},
			refundWaits:  {"wallet_empty", "token_paused", "day_limit", "not_settled"},
		} {
			for _, word := range words {
				vec.WithLabelValues(network, word)
			}
		}
	}
}
