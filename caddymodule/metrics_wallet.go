package caddymodule

import (
	"cmp"
	"fmt"
	"log/slog"
	"math/big"
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-x402/caddy-x402/settlement/chain"
)

// What settlers tell of their wallets and of the chain's endpoints. Wallets and endpoints are told by their place in the configuration.
var (
	transactions = counters("transactions_total",
		"Transactions of the gas wallets that were mined, by network and outcome. One carries many payments.", "network", "outcome")
	carried = counters("carried_payments_total",
		"Payments that those transactions carried, by network.", "network")
	gasSpent = counters("gas_spent_ether_total",
		"What those transactions cost, in ether. Divided by carried_payments_total: the cost of a payment.", "network")
	gasUsed = counters("gas_used_total",
		"Gas that those transactions used, in units of gas.", "network")
	replacements = counters("replacements_total",
		"Stuck transactions that were sent again with higher fees.", "network")
	queueSeconds = durations("queue_seconds",
		"How long payments waited for the transaction that carries them.", []float64{.001, .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 20}, "network")
	rpcSeconds = durations("rpc_seconds",
		"How long requests to the chain's endpoints took, by the endpoint's place in the configuration.",
		[]float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}, "network", "endpoint")
	rpcFailures = counters("rpc_failures_total",
		"Requests to the chain's endpoints that were of no use: failed, or behind what another endpoint had shown.", "network", "endpoint", "reason")
)

// ObserveTransaction counts a transaction of a gas wallet that was mined, for settler modules: how many payments it carried,
// whether it succeeded, the gas that it used, and what it cost in wei.
func ObserveTransaction(network string, payments int, ok bool, gas uint64, wei *big.Int) {
	outcome := "succeeded"
	if !ok {
		outcome = "reverted"
	}
	transactions.WithLabelValues(network, outcome).Inc()
	carried.WithLabelValues(network).Add(float64(payments))
	gasSpent.WithLabelValues(network).Add(ether(wei))
	gasUsed.WithLabelValues(network).Add(float64(gas))
	spending.add(network, wei)
}

// ObserveQueue notes how long a payment has waited for its transaction, for settler modules.
func ObserveQueue(network string, waited time.Duration) {
	queueSeconds.WithLabelValues(network).Observe(waited.Seconds())
}

// ObserveReplacement counts a stuck transaction that was replaced, for settler modules.
func ObserveReplacement(network string) { replacements.WithLabelValues(network).Inc() }

// NewChain gives a client of the settler's chain, whose endpoints are measured. It asks nobody yet, and is the caller's to close.
func (c SettlerContext) NewChain(log *slog.Logger) (*chain.Client, error) {
	network := c.Network.ID
	client, err := chain.New(chain.Config{
		Endpoints: c.RPC, ChainID: c.Network.ChainID, Logger: log,
		Asked: func(endpoint int, took time.Duration) {
			rpcSeconds.WithLabelValues(network, strconv.Itoa(endpoint)).Observe(took.Seconds())
		},
		Blamed: func(endpoint int, behind bool) {
			reason := "failed"
			if behind {
				reason = "behind"
			}
			rpcFailures.WithLabelValues(network, strconv.Itoa(endpoint), reason).Inc()
		},
	})
	if err != nil {
		return nil, fmt.Errorf("rpc: %w", err)
	}
	return client, nil
}

// ether is for metrics alone: they know nothing but floating point.
func ether(wei *big.Int) float64 { return inUnits(wei) / 1e18 }

func inUnits(n *big.Int) float64 {
	f, _ := new(big.Float).SetInt(n).Float64()
	return f
}

// WalletTeller is a pooled settler with gas wallets. It is asked when metrics are, and must not ask anybody itself.
type WalletTeller interface {
	WalletStats() WalletStats
}

// WalletStats is what a settler's wallets are at.
type WalletStats struct {
	Network string // CAIP-2
	// Queued is how many payments wait for a transaction, Queue how many may.
	Queued, Queue int
	// Warn and Min are the balances in wei below which is warned, and nothing is sent; MaxFee is the ceiling of what a unit of gas may cost, in
	// wei, and Fee what it would cost by now. Nil: there is none, or it is not known.
	Warn, Min, MaxFee, Fee *big.Int
	// Wallets are in the order of the configuration.
	Wallets []WalletStat
}

// WalletStat is of one wallet.
type WalletStat struct {
	Address  common.Address
	Wei      *big.Int  // its balance when it was last looked at; nil: it never was
	SeenAt   time.Time // when that was
	Mined    uint64    // how many of its transactions were on the chain then
	InFlight int       // its transactions that are under way from this process
	Oldest   time.Time // when the first of those was made; zero: there is none
}

var (
	gasBalanceDesc = describe("gas_balance_ether",
		"What a gas wallet had when it was last looked at, in ether, by network and the wallet's place in the configuration.", "network", "wallet")
	gasSeenDesc = describe("gas_balance_timestamp_seconds",
		"When that was, in seconds since 1970.", "network", "wallet")
	gasWarnDesc = describe("gas_balance_warn_ether",
		"The balance of a gas wallet below which is warned (warn_balance), in ether.", "network")
	gasMinDesc = describe("gas_balance_min_ether",
		"The balance of a gas wallet below which it sends nothing (min_balance), in ether.", "network")
	gasPriceDesc = describe("gas_price_wei",
		"The most that a unit of gas would be paid for, in wei, when fees were last looked at.", "network")
	gasCeilingDesc = describe("gas_price_max_wei",
		"The ceiling of that (max_fee), in wei: above it nothing is sent.", "network")
	nonceDesc = describe("wallet_nonce",
		"How many transactions of a gas wallet were on the chain when it was last looked at: the next nonce there.", "network", "wallet")
	inFlightDesc = describe("wallet_in_flight",
		"Transactions of a gas wallet that are under way from this process.", "network", "wallet")
	oldestDesc = describe("wallet_oldest_seconds",
		"How long the first of those has been under way, in seconds; 0 if there is none.", "network", "wallet")
	queuedDesc = describe("queue_payments",
		"Payments that wait for a transaction.", "network")
	queueDesc = describe("queue_size",
		"How many may; who comes then is put off.", "network")
)

// walletMetrics tells what the gas wallets of the process are at.
type walletMetrics struct{}

// Describe implements prometheus.Collector.
func (walletMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		gasBalanceDesc, gasSeenDesc, gasWarnDesc, gasMinDesc, gasPriceDesc, gasCeilingDesc, nonceDesc, inFlightDesc, oldestDesc, queuedDesc,
		queueDesc,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (walletMetrics) Collect(ch chan<- prometheus.Metric) {
	var tellers []WalletTeller // asked when the pool is let go of: every request goes through it
	pool.Range(func(_, v any) bool {
		if t, ok := v.(WalletTeller); ok {
			tellers = append(tellers, t)
		}
		return true
	})
	byNetwork := make(map[string]*WalletStats) // two settlers with other tokens may be on one network, with the same wallets
	for _, t := range tellers {
		s := t.WalletStats()
		if had := byNetwork[s.Network]; had != nil {
			had.add(&s)
		} else {
			byNetwork[s.Network] = &s
		}
	}
	for _, s := range byNetwork {
		s.collect(ch)
	}
}

// add puts another settler of the same network together with s: of a wallet that both have, what was seen last.
func (s *WalletStats) add(o *WalletStats) {
	s.Queued, s.Queue = s.Queued+o.Queued, s.Queue+o.Queue
	s.Warn, s.Min, s.MaxFee, s.Fee = cmp.Or(s.Warn, o.Warn), cmp.Or(s.Min, o.Min), cmp.Or(s.MaxFee, o.MaxFee), cmp.Or(s.Fee, o.Fee)
	for i, w := range o.Wallets {
		if i >= len(s.Wallets) {
			s.Wallets = append(s.Wallets, w)
			continue
		}
		had := &s.Wallets[i]
		if w.SeenAt.After(had.SeenAt) {
			had.Wei, had.SeenAt, had.Mined = w.Wei, w.SeenAt, w.Mined
		}
		had.InFlight += w.InFlight
		if had.Oldest.IsZero() || !w.Oldest.IsZero() && w.Oldest.Before(had.Oldest) {
			had.Oldest = w.Oldest
		}
	}
}

func (s *WalletStats) collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{s.Network}, labels...)...)
	}
	if len(s.Wallets) == 0 {
		return
	}
	gauge(queuedDesc, float64(s.Queued))
	gauge(queueDesc, float64(s.Queue))
	for d, wei := range map[*prometheus.Desc]*big.Int{gasWarnDesc: s.Warn, gasMinDesc: s.Min} {
		if wei != nil {
			gauge(d, ether(wei))
		}
	}
	for d, wei := range map[*prometheus.Desc]*big.Int{gasPriceDesc: s.Fee, gasCeilingDesc: s.MaxFee} {
		if wei != nil {
			gauge(d, inUnits(wei))
		}
	}
	for i := range s.Wallets {
		w, label := &s.Wallets[i], strconv.Itoa(i+1)
		gauge(inFlightDesc, float64(w.InFlight), label)
		age := 0.0
		if !w.Oldest.IsZero() {
			age = max(0, time.Since(w.Oldest).Seconds())
		}
		gauge(oldestDesc, age, label)
		if w.Wei != nil {
			gauge(gasBalanceDesc, ether(w.Wei), label)
			gauge(gasSeenDesc, float64(w.SeenAt.UnixMilli())/1000, label)
			gauge(nonceDesc, float64(w.Mined), label)
		}
	}
}
