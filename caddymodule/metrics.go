package caddymodule

import (
	"context"
	"errors"
	"maps"
	"math/big"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/paywall"
)

// The collectors are made once per process and registered on every configuration's registry, so that a reload resets
// nothing. No label tells a payer, an address, a path or a key.
var (
	requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "requests_total",
		Help: "Requests that reached a paywall, by what became of them.",
	}, []string{"outcome"})
	facilitations = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "facilitator_requests_total",
		Help: "Requests of other servers to x402_facilitator, by endpoint and what became of them.",
	}, []string{"endpoint", "outcome"})
	settlements = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "settlements_total",
		Help: "Settlements that a request waited for, by network and outcome.",
	}, []string{"network", "outcome"})
	settlementSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "settlement_seconds",
		Help:    "How long settlements took, by network.",
		Buckets: []float64{.05, .1, .25, .5, 1, 2, 3, 5, 10, 20, 45},
	}, []string{"network"})
	deliveries = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "deliveries_total",
		Help: "Paid requests that the upstream answered, by whether they count as delivered.",
	}, []string{"outcome"})
	quarantined = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "quarantined_total",
		Help: "Payments that were found on chain and not in the ledger, which must have lost them.",
	}, []string{"network"})
	losses = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "losses_total",
		Help: "Payments that were served before they were settled and then failed, by network.",
	}, []string{"network"})
	lostUnits = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "lost_atomic_units_total",
		Help: "What these payments come to, in atomic units of the network's asset (a USDC has 1,000,000), before anything is made good.",
	}, []string{"network"})
	refusedCredit = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "credit_exhausted_total",
		Help: "Payments that were settled up front since so much more may not be owed, by network.",
	}, []string{"network"})
	transactions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "transactions_total",
		Help: "Transactions of the gas wallets that were mined, by network and outcome. One carries many payments.",
	}, []string{"network", "outcome"})
	carried = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "carried_payments_total",
		Help: "Payments that those transactions carried, by network.",
	}, []string{"network"})
	gasSpent = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "gas_spent_ether_total",
		Help: "What those transactions cost, in ether. Divided by carried_payments_total: the cost of a payment.",
	}, []string{"network"})
	refunds = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "refunds_total",
		Help: "Refunds that have come to an end, by network and outcome: refunded, or failed, which is for the operator.",
	}, []string{"network", "outcome"})
	refundedUnits = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "refunded_atomic_units_total",
		Help: "What was paid back, in atomic units of the network's asset (a USDC has 1,000,000).",
	}, []string{"network"})
	refundWaits = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "refund_waits_total",
		Help: "Times that a refund could not be paid and was put off, by network and reason: wallet_empty, day_limit and others.",
	}, []string{"network", "reason"})
	refundBalance = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "refund_balance_atomic_units",
		Help: "What the refund wallet had when it was last looked at, in atomic units of the network's asset.",
	}, []string{"network"})
	issued = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "credentials_total",
		Help: "Credentials that issuers of plans were asked for, by outcome; `unknown` is one that did not answer in time.",
	}, []string{"outcome"})
	issueSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "credential_seconds",
		Help:    "How long issuers took to give a credential, with all tries.",
		Buckets: []float64{.01, .05, .1, .25, .5, 1, 2, 5, 10, 15, 30, 60},
	})
	eventsDropped = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "events_dropped_total",
		Help: "Events that were not emitted since their subscribers were too slow. The ledger has what they were about.",
	})
	challenges = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "challenges_total",
		Help: "Requests that were asked for by POST /x402/access: made, claimed by a payment, cancelled. They are no payments until they are claimed.",
	}, []string{"outcome"})
	reorgs = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "x402", Name: "reorgs_total",
		Help: "Settled payments whose transaction was found gone.",
	}, []string{"network"})
)

// countRequest counts what became of a request.
func countRequest(outcome string) { requests.WithLabelValues(outcome).Inc() }

// countFacilitation counts what became of a request to a facilitator.
func countFacilitation(endpoint, outcome string) {
	facilitations.WithLabelValues(endpoint, outcome).Inc()
}

// observe counts what engines tell.
func observe(o paywall.Observation) {
	switch o.Event {
	case "settlement":
		settlements.WithLabelValues(o.Network, o.Outcome).Inc()
		settlementSeconds.WithLabelValues(o.Network).Observe(o.Took.Seconds())
	case "delivery":
		deliveries.WithLabelValues(o.Outcome).Inc()
	case "quarantine":
		quarantined.WithLabelValues(o.Network).Inc()
	case "loss":
		losses.WithLabelValues(o.Network).Inc()
		lostUnits.WithLabelValues(o.Network).Add(o.Amount.Float64()) // for graphs; the ledger has what it is
	case "refund":
		observeRefund(&o)
	case "refund_balance":
		refundBalance.WithLabelValues(o.Network).Set(o.Amount.Float64())
	case "issue":
		issued.WithLabelValues(o.Outcome).Inc()
		issueSeconds.Observe(o.Took.Seconds())
	case "credit":
		refusedCredit.WithLabelValues(o.Network).Inc()
	case "challenge":
		challenges.WithLabelValues(o.Outcome).Inc()
	case "reorg":
		reorgs.WithLabelValues(o.Network).Inc()
	}
}

func observeRefund(o *paywall.Observation) {
	if o.Outcome == "waiting" {
		refundWaits.WithLabelValues(o.Network, o.Reason).Inc()
		return
	}
	refunds.WithLabelValues(o.Network, o.Outcome).Inc()
	if o.Outcome == "refunded" {
		refundedUnits.WithLabelValues(o.Network).Add(o.Amount.Float64()) // for graphs; the ledger has what it is
	}
}

// ObserveTransaction counts a transaction of a gas wallet that was mined, for settler modules: how many payments it carried,
// whether it succeeded, and what it cost in wei.
func ObserveTransaction(network string, payments int, ok bool, wei *big.Int) {
	outcome := "succeeded"
	if !ok {
		outcome = "reverted"
	}
	transactions.WithLabelValues(network, outcome).Inc()
	carried.WithLabelValues(network).Add(float64(payments))
	gasSpent.WithLabelValues(network).Add(ether(wei))
}

// ether is for metrics alone: they know nothing but floating point.
func ether(wei *big.Int) float64 {
	f, _ := new(big.Float).Quo(new(big.Float).SetInt(wei), big.NewFloat(1e18)).Float64()
	return f
}

// gasBalances reads what the gas wallets of the process have.
type gasBalances struct{}

var gasBalanceDesc = prometheus.NewDesc("caddy_x402_gas_balance_ether",
	"What a gas wallet had when it was last looked at, in ether, by network and the wallet's place in the configuration.", []string{"network", "wallet"}, nil)

// gasHolder is a pooled settler that pays gas.
type gasHolder interface {
	GasBalances() (network string, wei []*big.Int)
}

// Describe implements prometheus.Collector.
func (gasBalances) Describe(ch chan<- *prometheus.Desc) { ch <- gasBalanceDesc }

// Collect implements prometheus.Collector.
func (gasBalances) Collect(ch chan<- prometheus.Metric) {
	seen := make(map[string]bool) // two settlers with other tokens may be on one network
	pool.Range(func(_, v any) bool {
		h, ok := v.(gasHolder)
		if !ok {
			return true
		}
		network, wei := h.GasBalances()
		for i, w := range wei {
			label := strconv.Itoa(i + 1)
			if w != nil && !seen[network+" "+label] {
				seen[network+" "+label] = true
				ch <- prometheus.MustNewConstMetric(gasBalanceDesc, prometheus.GaugeValue, ether(w), network, label)
			}
		}
		return true
	})
}

func registerMetrics(r *prometheus.Registry) {
	if r == nil {
		return
	}
	for _, c := range []prometheus.Collector{
		requests, facilitations, settlements, settlementSeconds, deliveries, transactions, carried, gasSpent, quarantined, losses, lostUnits,
		refusedCredit, refunds, refundedUnits, refundWaits, refundBalance, issued, issueSeconds, eventsDropped, challenges, reorgs,
		paymentStates{},
		gasBalances{},
	} {
		// An error means that it is registered already: two apps do not happen, but a registry may be shared.
		if err := r.Register(c); err != nil && !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			continue
		}
	}
}

// countTimeout bounds how long a count may take.
const countTimeout = 10 * time.Second

// paymentStates reads how many payments are in which state, from every open ledger of the process.
type paymentStates struct{}

var paymentsDesc = prometheus.NewDesc("caddy_x402_payments", "Payments in the ledger, by state.", []string{"state"}, nil)

// Describe implements prometheus.Collector.
func (paymentStates) Describe(ch chan<- *prometheus.Desc) { ch <- paymentsDesc }

// Collect implements prometheus.Collector. States without payments are reported as 0, so that alerts can compare.
func (paymentStates) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), countTimeout)
	defer cancel()
	var slots []*engineSlot
	pool.Range(func(_, v any) bool {
		if s, ok := v.(*engineSlot); ok {
			slots = append(slots, s)
		}
		return true
	})
	total := map[ledger.State]int64{}
	for _, s := range slots {
		counts, err := s.counts(ctx)
		if err != nil {
			ch <- prometheus.NewInvalidMetric(paymentsDesc, err)
			return
		}
		for state, n := range counts {
			total[state] += n
		}
	}
	for _, state := range ledger.States() {
		ch <- prometheus.MustNewConstMetric(paymentsDesc, prometheus.GaugeValue, float64(total[state]), string(state))
	}
}

// census is how many payments there are in which state, as counted not long ago: counting a large ledger takes seconds, and
// anybody may ask for health.
type census struct {
	mu     sync.Mutex // held while counting
	counts map[ledger.State]int64
	until  time.Time
}

// leisure is how much longer than a count took its result is good for.
const leisure = 100

func (c *census) read(ctx context.Context, count func(context.Context) (map[ledger.State]int64, error)) (map[ledger.State]int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	started := time.Now()
	if started.Before(c.until) {
		return maps.Clone(c.counts), nil
	}
	counts, err := count(ctx)
	if err != nil {
		return nil, err
	}
	c.counts, c.until = counts, time.Now().Add(leisure*time.Since(started))
	return maps.Clone(counts), nil
}

// counts reads the ledger if it is open.
func (s *engineSlot) counts(ctx context.Context) (map[ledger.State]int64, error) {
	s.mu.Lock()
	store := s.opened
	s.mu.Unlock()
	if store == nil {
		return nil, nil
	}
	return s.census.read(ctx, store.Counts)
}
