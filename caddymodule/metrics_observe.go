package caddymodule

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-x402/caddy-x402/paywall"
)

// Where something went wrong, as failures_total has it.
const (
	stageRequest    = "request"
	stageSettlement = "settlement"
	stageDelivery   = "delivery"
	stageCredential = "credential"
	stageRefund     = "refund"
)

// countRequest counts what became of a request.
func countRequest(outcome string) { requests.WithLabelValues(outcome).Inc() }

// countFailure counts why something went wrong. Of codes there is a bounded number, whoever made them up.
func countFailure(stage, reason string) {
	failures.WithLabelValues(stage, paywall.KnownReason(reason)).Inc()
}

// countRefusal counts why a request was turned away. Where an upstream has refused it, the delivery is counted.
func countRefusal(outcome, reason string) {
	switch outcome {
	case "required", "refused", "unavailable", "malformed", "limited":
		countFailure(stageRequest, reason)
	}
}

// countFacilitation counts what became of a request to a facilitator.
func countFacilitation(endpoint, outcome string) {
	facilitations.WithLabelValues(endpoint, outcome).Inc()
}

// stageTimers are the histograms of the stages, so that nobody has to look them up.
var stageTimers = func() map[paywall.Stage]prometheus.Observer {
	m := make(map[paywall.Stage]prometheus.Observer)
	for _, s := range paywall.Stages() {
		m[s] = stageSeconds.WithLabelValues(string(s))
	}
	return m
}()

// observeStage notes how long a stage took.
func observeStage(s paywall.Stage, took time.Duration) {
	if o := stageTimers[s]; o != nil {
		o.Observe(took.Seconds())
	}
}

// observe counts what engines tell. Amounts become floating point here, for graphs; the ledger has what they are.
func observe(o paywall.Observation) {
	switch o.Event {
	case "settlement":
		settlements.WithLabelValues(o.Network, o.Outcome).Inc()
		settlementSeconds.WithLabelValues(o.Network).Observe(o.Took.Seconds())
		if o.Reason != "" {
			countFailure(stageSettlement, o.Reason)
		}
	case "received":
		observeReceived(&o)
	case "delivery":
		deliveries.WithLabelValues(o.Outcome).Inc()
	case "undelivered":
		countFailure(stageDelivery, o.Reason)
	case "quarantine":
		quarantined.WithLabelValues(o.Network).Inc()
	case "loss":
		losses.WithLabelValues(o.Network).Inc()
		lostUnits.WithLabelValues(o.Network, o.Asset).Add(o.Amount.Float64())
	case "refund":
		observeRefund(&o)
	case "refund_balance":
		refundBalance.WithLabelValues(o.Network, o.Asset).Set(o.Amount.Float64())
	case "issue":
		issued.WithLabelValues(o.Outcome).Inc()
		issueSeconds.WithLabelValues().Observe(o.Took.Seconds())
		if o.Reason != "" {
			countFailure(stageCredential, o.Reason)
		}
	case "credit":
		refusedCredit.WithLabelValues(o.Network).Inc()
	case "challenge":
		challenges.WithLabelValues(o.Outcome).Inc()
	case "reorg":
		reorgs.WithLabelValues(o.Network).Inc()
	case "round":
		rounds.WithLabelValues(o.Outcome).Inc()
	}
}

func observeReceived(o *paywall.Observation) {
	if o.Outcome == "facilitated" {
		facilitatedUnits.WithLabelValues(o.Network, o.Asset).Add(o.Amount.Float64())
		return
	}
	revenuePayments.WithLabelValues(o.Network, o.Asset).Inc()
	revenueUnits.WithLabelValues(o.Network, o.Asset).Add(o.Amount.Float64())
}

func observeRefund(o *paywall.Observation) {
	if o.Outcome == "waiting" {
		refundWaits.WithLabelValues(o.Network, o.Reason).Inc()
		return
	}
	refunds.WithLabelValues(o.Network, o.Outcome).Inc()
	if o.Outcome == "refunded" {
		refundedUnits.WithLabelValues(o.Network, o.Asset).Add(o.Amount.Float64())
		return
	}
	countFailure(stageRefund, o.Reason)
}
