package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/x402"
)

// hooks are the webhooks of one ledger. They live as long as its engine: a reload changes their settings, and drops nothing.
// configure and close are called under the engineSlot's lock.
type hooks struct {
	service atomic.Pointer[webhooks.Service]
	outbox  *factOutbox
	closing sync.WaitGroup
}

// configure takes the settings of a, and starts or ends the service as they say.
func (h *hooks) configure(a *App, store ledger.Store) {
	running := h.service.Load()
	switch {
	case a.webhooks == nil && running != nil:
		h.service.Store(nil)
		h.closing.Go(func() { _ = running.Close() })
	case a.webhooks == nil:
	case running != nil:
		h.outbox.know(a.payees)
		running.Configure(*a.webhooks)
	default:
		h.outbox = &factOutbox{feed: paywall.Feed{Store: store}}
		h.outbox.know(a.payees)
		h.service.Store(webhooks.New(webhooks.Options{Store: store, Outbox: h.outbox}, *a.webhooks))
	}
}

// close ends the service and waits for it.
func (h *hooks) close() {
	if running := h.service.Swap(nil); running != nil {
		_ = running.Close()
	}
	h.closing.Wait()
}

// hearing is tell that wakes the service, too.
func (h *hooks) hearing(tell func(paywall.Fact)) func(paywall.Fact) {
	return func(f paywall.Fact) {
		if s := h.service.Load(); s != nil {
			s.Wake()
		}
		if tell != nil {
			tell(f)
		}
	}
}

// syncWebhooks writes down which endpoints the configuration has, so that they are told what happens from now on.
func (s *engineSlot) syncWebhooks(ctx context.Context) error {
	if service := s.hooks.service.Load(); service != nil {
		return service.Sync(ctx)
	}
	return nil
}

// factOutbox tells webhooks what has happened to payments.
type factOutbox struct {
	feed     paywall.Feed
	networks atomic.Pointer[[]x402.Network] // that are configured
}

func (o *factOutbox) know(payees []*paywall.Payee) {
	list := networksOf(payees)
	o.networks.Store(&list)
}

// Start implements webhooks.Outbox.
func (o *factOutbox) Start(at time.Time) (json.RawMessage, error) {
	text, err := paywall.Cursor{After: ledger.Mark{At: at}}.Encode()
	return json.RawMessage(text), err
}

// Next implements webhooks.Outbox.
func (o *factOutbox) Next(ctx context.Context, cursor json.RawMessage, limit int) ([]webhooks.Event, json.RawMessage, error) {
	c, err := paywall.ParseCursor(string(cursor))
	if err != nil {
		return nil, nil, err
	}
	facts, next, err := o.feed.Next(ctx, c, limit)
	if err != nil {
		return nil, nil, err
	}
	events := make([]webhooks.Event, 0, len(facts))
	for i := range facts {
		ev, err := o.event(&facts[i])
		if err != nil {
			return nil, nil, err
		}
		if ev.Type != "" {
			events = append(events, ev)
		}
	}
	text, err := next.Encode()
	return events, json.RawMessage(text), err
}

var webhookTypes = map[paywall.FactKind]string{
	paywall.FactSettled:       webhooks.TypeSettled,
	paywall.FactFailed:        webhooks.TypeSettlementFailed,
	paywall.FactDelivered:     webhooks.TypeDelivered,
	paywall.FactUndelivered:   webhooks.TypeUpstreamFailed,
	paywall.FactRefundPending: webhooks.TypeRefundPending,
	paywall.FactRefunded:      webhooks.TypeRefunded,
	paywall.FactRefundFailed:  webhooks.TypeRefundFailed,
}

// network is what is known of the network of a payment, which may have left the configuration. What is not known is taken for real money.
func (o *factOutbox) network(p *ledger.Payment) (n x402.Network, configured bool) {
	for _, n := range *o.networks.Load() {
		if n.ChainID == p.ChainID && n.Asset.Address == p.Asset {
			return n, true
		}
	}
	n, _ = x402.LookupNetwork(x402.CAIP2(p.ChainID))
	return n, false
}

func (o *factOutbox) event(f *paywall.Fact) (webhooks.Event, error) {
	p := &f.Payment
	n, configured := o.network(p)
	d := webhookPayment{
		PaymentID: p.ID, State: string(p.State()), Reason: f.Reason, Amount: p.Amount.Dec(), Asset: p.Asset.Hex(),
		Payer: p.Payer.Hex(), PayTo: p.PayTo.Hex(), Route: p.Binding.Route, Plan: p.Binding.Plan, Method: cut(p.Binding.Method, longestMethod),
		Host: cut(p.Binding.Host, longestHost), URI: cut(p.Binding.URI, longestURI), Flow: p.Flow,
		CreatedAt: p.CreatedAt.UTC(), SettledAt: p.SettledAt.UTC(), DeliveredAt: p.DeliveredAt.UTC(),
	}
	if configured {
		d.Symbol = n.Asset.Symbol
	}
	if p.Transaction != (common.Hash{}) {
		d.Transaction = p.Transaction.Hex()
	}
	data, err := json.Marshal(&d)
	if err != nil {
		return webhooks.Event{}, fmt.Errorf("encoding what has happened to payment %s: %w", p.ID, err)
	}
	return webhooks.Event{
		ID: "evt_" + strings.ReplaceAll(f.ID, ".", "_"), Type: webhookTypes[f.Kind], At: f.At, Live: !n.Testnet,
		Network: x402.CAIP2(p.ChainID), Data: data,
	}, nil
}

// webhookPayment is what an event tells of a payment: as it is when the event is told, which may be later than what the event is about.
type webhookPayment struct {
	PaymentID string `json:"paymentId"`
	State     string `json:"state"`
	// Reason is the stable code of why, if there is one.
	Reason string `json:"reason,omitempty"`
	// Amount in atomic units of the asset.
	Amount      string    `json:"amount"`
	Asset       string    `json:"asset"`
	Symbol      string    `json:"symbol,omitempty"`
	Payer       string    `json:"payer"`
	PayTo       string    `json:"payTo"`
	Transaction string    `json:"transaction,omitempty"`
	Route       string    `json:"route"`
	Plan        string    `json:"plan,omitempty"`
	Method      string    `json:"method,omitempty"`
	Host        string    `json:"host,omitempty"`
	URI         string    `json:"uri,omitempty"`
	Flow        string    `json:"flow"`
	CreatedAt   time.Time `json:"createdAt"`
	SettledAt   time.Time `json:"settledAt,omitzero"`
	DeliveredAt time.Time `json:"deliveredAt,omitzero"`
}

// How much of a request an event tells, in bytes. All of it is the payer's choice, and what is too long to be sent is told to nobody.
const (
	longestURI    = 2048
	longestHost   = 255
	longestMethod = 32
)

func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
