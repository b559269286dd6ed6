package caddymodule

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/token"
)

// countTimeout bounds how long a count may take. Who scrapes does not wait for more than 10 s.
const countTimeout = 7 * time.Second

var (
	paymentsDesc = describe("payments", "Payments in the ledger, by state.", "state")
	ledgerDesc   = describe("ledger_up", "Whether the ledger could be read for this: 1 or 0. It does not tell of payments where it is 0.")
	silenceDesc  = describe("revocations_silence_seconds",
		"How long ago it was last known which tokens were revoked, in seconds. Above max_stale tokens of plans are refused.")
	keyAgeDesc = describe("token_key_age_seconds", "The age of the key that signs tokens, in seconds, where that is known.")
	keysDesc   = describe("token_keys", "Keys of tokens, by what they are for now.", "state")
)

// ledgerMetrics tells of the ledger that is in use, and of the keys of tokens.
type ledgerMetrics struct{}

// Describe implements prometheus.Collector.
func (ledgerMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{paymentsDesc, ledgerDesc, silenceDesc, keyAgeDesc, keysDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. A ledger that can't be read takes nothing else with it.
func (ledgerMetrics) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), countTimeout)
	defer cancel()
	var slots []*engineSlot
	pool.Range(func(_, v any) bool {
		if s, ok := v.(*engineSlot); ok {
			slots = append(slots, s)
		}
		return true
	})
	collectPayments(ctx, ch, slots)
	var newest *App // while a configuration changes its ledger, there are two
	var revoked *token.Revoked
	for _, s := range slots {
		if a := s.newest(); a != nil && (newest == nil || a.startedAt.After(newest.startedAt)) {
			newest, revoked = a, s.revoked
		}
	}
	if newest != nil {
		newest.collect(ch, revoked)
	}
}

// collectPayments tells how many payments are in which state. States without payments are reported as 0, so that alerts can compare.
func collectPayments(ctx context.Context, ch chan<- prometheus.Metric, slots []*engineSlot) {
	total, up := map[ledger.State]int64{}, 1.0
	for _, s := range slots {
		counts, err := s.counts(ctx)
		switch {
		case errors.Is(err, errNotOpen) && s.newest() == nil: // of a configuration that did not start
			continue
		case err != nil:
			up = 0
			continue
		}
		for state, n := range counts {
			total[state] += n
		}
	}
	ch <- prometheus.MustNewConstMetric(ledgerDesc, prometheus.GaugeValue, up)
	if up == 0 {
		return
	}
	for _, state := range ledger.States() {
		ch <- prometheus.MustNewConstMetric(paymentsDesc, prometheus.GaugeValue, float64(total[state]), string(state))
	}
}

// collect tells of what a configuration has beside its ledger.
func (a *App) collect(ch chan<- prometheus.Metric, revoked *token.Revoked) {
	now := a.now()
	if silence, heard := revoked.Silence(now); heard {
		ch <- prometheus.MustNewConstMetric(silenceDesc, prometheus.GaugeValue, silence.Seconds())
	}
	ring := a.keyring.Load()
	if ring == nil {
		return
	}
	count := map[token.KeyState]int{}
	keys := ring.Info(now)
	for i := range keys {
		count[keys[i].State]++
	}
	if since := signingSince(keys); !since.IsZero() {
		ch <- prometheus.MustNewConstMetric(keyAgeDesc, prometheus.GaugeValue, max(0, now.Sub(since).Seconds()))
	}
	for _, state := range []token.KeyState{token.KeyNext, token.KeySigning, token.KeyVerifying, token.KeyEnded} {
		ch <- prometheus.MustNewConstMetric(keysDesc, prometheus.GaugeValue, float64(count[state]), string(state))
	}
}

// signingSince is since when the key that signs has been in use: it may have been made before. Zero: that is not known.
func signingSince(keys []token.KeyInfo) time.Time {
	for i := range keys {
		k := &keys[i]
		if k.State != token.KeySigning {
			continue
		}
		if k.SignsFrom.After(k.CreatedAt) {
			return k.SignsFrom
		}
		return k.CreatedAt
	}
	return time.Time{}
}

// census is how many payments there are in which state, as counted not long ago: counting a large ledger takes seconds, and
// anybody may ask for health.
type census struct {
	mu       sync.Mutex
	counting chan struct{} // closed when the count that is under way ends; nil if there is none
	counts   map[ledger.State]int64
	until    time.Time
}

// leisure is how much longer than a count took its result is good for.
const leisure = 100

func (c *census) read(ctx context.Context, count func(context.Context) (map[ledger.State]int64, error)) (map[ledger.State]int64, error) {
	for {
		c.mu.Lock()
		if time.Now().Before(c.until) {
			counts := maps.Clone(c.counts)
			c.mu.Unlock()
			return counts, nil
		}
		under := c.counting
		if under == nil {
			c.counting = make(chan struct{})
			c.mu.Unlock()
			return c.take(ctx, count)
		}
		c.mu.Unlock()
		select {
		case <-under:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// take counts, for all who wait.
func (c *census) take(ctx context.Context, count func(context.Context) (map[ledger.State]int64, error)) (map[ledger.State]int64, error) {
	started := time.Now()
	counts, err := count(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.counting)
	c.counting = nil
	if err != nil {
		return nil, err
	}
	c.counts, c.until = counts, time.Now().Add(leisure*time.Since(started))
	return maps.Clone(counts), nil
}

var errNotOpen = errors.New("the ledger is not open")

// counts reads the ledger; errNotOpen.
func (s *engineSlot) counts(ctx context.Context) (map[ledger.State]int64, error) {
	s.mu.Lock()
	store := s.opened
	s.mu.Unlock()
	if store == nil {
		return nil, errNotOpen
	}
	return s.census.read(ctx, store.Counts)
}

// newest is the configuration whose settings count; nil if none is live.
func (s *engineSlot) newest() *App {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.live); n > 0 {
		return s.live[n-1]
	}
	return nil
}
