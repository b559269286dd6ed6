package doctor_test

import (
	"errors"
	"math/big"
	"net/http"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/management/doctor"
	"github.com/caddy-x402/caddy-x402/x402"
)

// another adds a network that is sound.
func another(s *doctor.Subject, name string) *doctor.Network {
	n, _ := x402.LookupNetwork(name)
	s.Live.Chains[n.ID] = &world{
		endpoint: doctor.Endpoint{ChainID: n.ChainID, Dated: true}, token: doctor.Token{Separator: n.Domain().Separator(), Decimals: 6}, balance: 100e6,
	}
	s.Networks = append(s.Networks, doctor.Network{Network: n, PayTo: payTo, Endpoints: 2, Settler: "wallet"})
	return &s.Networks[len(s.Networks)-1]
}

// breaks are, for each item, ways in which it alone is broken.
var breaks = map[string][]func(*doctor.Subject, *world){
	"config.sound":    {func(s *doctor.Subject, _ *world) { s.Refused = "no" }},
	"secrets.literal": {func(s *doctor.Subject, _ *world) { s.Literals = []string{"apps/x402/refund"} }},
	"secrets.set": {
		func(s *doctor.Subject, _ *world) { s.Secrets[0].Problem = "gives nothing" },
		func(s *doctor.Subject, _ *world) { s.Secrets[0].Exposed = "everybody may read it" },
	},
	"secrets.strong": {
		func(s *doctor.Subject, _ *world) { s.Secrets[0].Weak = "is short" },
		func(s *doctor.Subject, _ *world) { s.Secrets[1].Print = s.Secrets[0].Print },
	},
	"secrets.logs": {func(s *doctor.Subject, _ *world) { s.Logs[0].Redacted = false }},

	"network.kind": {func(s *doctor.Subject, _ *world) { another(s, "base-sepolia") }},
	"network.asset": {
		func(s *doctor.Subject, w *world) {
			s.Networks[0].Asset.Name = "USDC"
			w.token.Separator = s.Networks[0].Domain().Separator()
		},
		func(s *doctor.Subject, w *world) { s.Networks[0].Asset.Decimals, w.token.Decimals = 18, 18 },
	},
	"network.endpoints": {func(s *doctor.Subject, _ *world) { s.Networks[0].Endpoints = 1 }},
	"network.chain": {
		func(_ *doctor.Subject, w *world) { w.endpoint.ChainID = 1 },
	},
	"network.token": {
		func(_ *doctor.Subject, w *world) { w.token.Separator = common.Hash{} },
		func(_ *doctor.Subject, w *world) { w.token.Decimals = 18 },
		func(_ *doctor.Subject, w *world) { w.token.Paused = true },
	},
	"clock": {
		func(_ *doctor.Subject, w *world) { w.endpoint.Ahead = time.Minute },
		func(_ *doctor.Subject, w *world) { w.endpoint.Ahead = -time.Minute },
		func(_ *doctor.Subject, w *world) { w.endpoint.Dated = false },
	},

	"settlement.mode": {func(s *doctor.Subject, _ *world) { s.Networks[0].Settler = "" }},
	"wallet.apart": {
		func(s *doctor.Subject, _ *world) { s.Wallets[2].Address = gas },
		func(s *doctor.Subject, _ *world) { s.Wallets[1].Address = payTo },
	},
	"wallet.gas": {
		func(_ *doctor.Subject, w *world) { w.wei[gas] = big.NewInt(1) },
		func(_ *doctor.Subject, w *world) { w.wei[gas] = new(big.Int).Mul(big.NewInt(11), big.NewInt(1e18)) },
		func(s *doctor.Subject, _ *world) { another(s, "polygon").Plain = true }, // and nobody knows its wallet
	},
	"wallet.allowed": {
		func(_ *doctor.Subject, w *world) { w.shutOut = payTo },
		func(_ *doctor.Subject, w *world) { w.shutOut = refund },
	},

	"refund.on": {func(s *doctor.Subject, _ *world) { s.Refunds.On = false }},
	"refund.min_age": {
		func(s *doctor.Subject, _ *world) { s.Refunds.MinAge = 10 * time.Second },
		func(s *doctor.Subject, _ *world) { s.SettleTimeout = 6 * time.Minute },
		func(s *doctor.Subject, _ *world) { s.Issuers = 6 * time.Minute },
		func(s *doctor.Subject, _ *world) { s.Refunds.MinAge = 48 * time.Hour },
	},
	"refund.wallet": {
		func(_ *doctor.Subject, w *world) { w.balance = 1 },
		func(_ *doctor.Subject, w *world) { w.balance = 0 },
		func(s *doctor.Subject, _ *world) { s.Refunds.Known = false },
	},
	"refund.states": {
		func(_ *doctor.Subject, w *world) { w.states["REFUND_FAILED"] = 1 },
		func(_ *doctor.Subject, w *world) { w.states["REFUND_PENDING"] = 51 },
	},

	"store.durable": {
		func(s *doctor.Subject, _ *world) { s.Store.Path = "/dev/shm/ledger.db" },
		func(s *doctor.Subject, _ *world) { s.Store.Path = ":memory:" },
		func(s *doctor.Subject, _ *world) { s.Store.Kind, s.Store.Careless = "redis", true },
	},
	"store.shared": {
		func(s *doctor.Subject, _ *world) { s.Instances = 2 },
		func(s *doctor.Subject, _ *world) { s.Instances, s.Store.Kind = 2, "postgres" },
	},
	"store.writes": {func(_ *doctor.Subject, w *world) { w.ledger = errors.New("it is away") }},
	"audit.kept":   {func(s *doctor.Subject, _ *world) { s.Retention = 48 * time.Hour }},

	"prices.sane": {
		func(s *doctor.Subject, _ *world) { s.Handlers[0].Prices[0].Amount = "$0.0001" },
		func(s *doctor.Subject, _ *world) { s.Handlers[0].Prices[0].Amount = "0.001" },
		func(s *doctor.Subject, _ *world) { s.Handlers[0].Prices[0].Amount = "$10000" },
		func(s *doctor.Subject, _ *world) { s.Handlers = nil },
	},
	"idempotency.on": {
		func(s *doctor.Subject, _ *world) { s.Handlers[0].Idempotency = "off" },
		func(s *doctor.Subject, _ *world) { s.Management.IdempotencyTTL = time.Hour },
	},
	"limits.on": {
		func(s *doctor.Subject, _ *world) {
			s.Handlers = append(s.Handlers, doctor.Handler{Name: "more", CORS: true})
		},
		func(s *doctor.Subject, _ *world) {
			s.Handlers = append(s.Handlers, doctor.Handler{Name: "more", CORS: true, Limits: []string{"refused"}})
		},
		func(s *doctor.Subject, _ *world) { s.Management.Unlimited = true },
	},
	"limits.told": {func(_ *doctor.Subject, w *world) { w.policy = "" }},
	"apikeys.rotation": {
		func(s *doctor.Subject, _ *world) { s.Management = nil },
		func(s *doctor.Subject, _ *world) { s.Management.KeyMaxAge = 0 },
	},
	"apikeys.live": {
		func(_ *doctor.Subject, w *world) { w.keys = nil },
		func(_ *doctor.Subject, w *world) { w.keys[0].Consumer = true },
		func(_ *doctor.Subject, w *world) { w.keys[0].Mode = "test" },
	},
	"apikeys.age": {
		func(_ *doctor.Subject, w *world) { w.keys[0].CreatedAt = now.Add(-91 * 24 * time.Hour) },
		func(_ *doctor.Subject, w *world) { w.tokenKey = 200 * 24 * time.Hour },
	},

	"public_url.set": {func(s *doctor.Subject, w *world) { s.PublicURL, w.card = "https://localhost", "https://localhost" }},
	"public_url.reached": {func(s *doctor.Subject, w *world) { // the certificate of test servers ends on 2084-01-29
		late := time.Date(2084, 1, 28, 0, 0, 0, 0, time.UTC)
		s.Live.Now, w.keys[0].CreatedAt = func() time.Time { return late }, late
	}},
	"public_url.told": {func(_ *doctor.Subject, w *world) { w.card = "https://shop.test.net.elsewhere.net" }},
	"health.on":       {func(s *doctor.Subject, _ *world) { s.Service = false }},
	"health.ok":       {func(_ *doctor.Subject, w *world) { w.health = "unavailable" }},
	"headers.pass": {
		func(_ *doctor.Subject, w *world) { w.required = false },
		func(s *doctor.Subject, _ *world) { s.Networks[0].PayTo = gas },
	},
	"cors.on": {func(s *doctor.Subject, _ *world) { s.Handlers[0].CORS = false }},
	"cors.answers": {
		func(_ *doctor.Subject, w *world) { w.allowed = "Content-Type" },
		func(_ *doctor.Subject, w *world) { w.origin = "" },
		func(s *doctor.Subject, w *world) {
			s.Handlers[0].Origins, w.origin = []string{"https://app.test.net"}, "https://other.test.net"
		},
	},

	"webhooks.endpoint": {
		func(s *doctor.Subject, _ *world) { s.Webhooks[0].URL = "http://receiver.test.net/hook" },
		func(s *doctor.Subject, w *world) { // what is told is no payment
			s.Hooked, s.Webhooks = true, nil
			w.made = []doctor.Webhook{{ID: "we_1", URL: "https://made.test.net", Live: true, Events: []string{"apikey.*"}}}
		},
	},
	"webhooks.apart": {func(s *doctor.Subject, _ *world) {
		s.Webhooks = append(s.Webhooks, doctor.Webhook{URL: "https://receiver.test.net/test", Prints: s.Webhooks[0].Prints})
	}},
	"webhooks.verified": {
		func(_ *doctor.Subject, w *world) { w.probe.Signed = "status (status 500)" },
		func(_ *doctor.Subject, w *world) { w.probe.TookForgery = true },
		func(_ *doctor.Subject, w *world) {
			w.made = []doctor.Webhook{{ID: "we_1", URL: "https://made.test.net", Live: true}}
			w.probed = map[string]doctor.Probe{"we_1": {TookForgery: true}}
		},
		func(_ *doctor.Subject, w *world) {
			w.made = []doctor.Webhook{{ID: "we_1", URL: "https://made.test.net", Live: true, Gone: true}}
		},
	},

	"events.told":  {func(s *doctor.Subject, _ *world) { s.Webhooks[0].Events = []string{"payment.refund_failed"} }},
	"metrics.on":   {func(s *doctor.Subject, _ *world) { s.Metrics = false }},
	"metrics.read": {func(_ *doctor.Subject, w *world) { w.metrics = "go_goroutines 9" }},
	"alerts.rules": {
		func(s *doctor.Subject, _ *world) { without(s, "REFUND_FAILED") },
		func(s *doctor.Subject, _ *world) { without(s, "REFUND_PENDING") },
		func(s *doctor.Subject, _ *world) { without(s, "INTERNAL_ERROR") },
		func(s *doctor.Subject, _ *world) { without(s, "TOKEN_ISSUE_TIMEOUT") },
		func(s *doctor.Subject, _ *world) { without(s, "caddy_x402_gas_balance_ether") },
		func(s *doctor.Subject, _ *world) { s.Alerts = new("# " + strings.ReplaceAll(*s.Alerts, "\n", "\n# ")) },
		func(s *doctor.Subject, _ *world) { s.Alerts = new(strings.ReplaceAll(*s.Alerts, "alert:", "record:")) },
		func(s *doctor.Subject, _ *world) { // another rule looks at the metric
			s.Alerts = new(strings.ReplaceAll(*s.Alerts, `caddy_x402_payments{state="REFUND_FAILED"}`, `other{state="REFUND_FAILED"}`))
		},
	},
	"image.pinned": {
		func(s *doctor.Subject, _ *world) { s.Deployment = new("image: ghcr.io/caddy-x402/caddy-x402:latest") },
		func(s *doctor.Subject, _ *world) { s.Deployment = new("FROM registry:5000/caddy-x402") },
		func(s *doctor.Subject, _ *world) { s.Deployment = new("nothing") },
	},

	"settlement.path": {
		func(_ *doctor.Subject, w *world) { w.payment.Problem = "it was refused" },
		func(_ *doctor.Subject, w *world) { w.payment.Status = http.StatusBadGateway },
		func(_ *doctor.Subject, w *world) { w.payment.Transaction = common.Hash{} },
		func(_ *doctor.Subject, w *world) { w.mined = false },
		func(s *doctor.Subject, _ *world) { s.Live.Pay = nil },
	},
}
