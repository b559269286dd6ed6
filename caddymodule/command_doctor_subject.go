package caddymodule

import (
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/management/doctor"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/x402"
)

// patient is a configuration that the doctor looks at.
type patient struct {
	subject    doctor.Subject
	configured *configured
	app        *App // as it is written, not provisioned
	hooks      *webhooks.Settings
}

// doctorConfig is what the doctor reads of a configuration beside what other commands do.
type doctorConfig struct {
	Logging struct {
		Logs map[string]struct {
			Writer struct {
				Output string `json:"output"`
			} `json:"writer"`
			Encoder doctorEncoder `json:"encoder"`
			Include []string      `json:"include"`
		} `json:"logs"`
	} `json:"logging"`
	Apps struct {
		X402   json.RawMessage `json:"x402"`
		HTTP   json.RawMessage `json:"http"`
		Events struct {
			Subscriptions []struct {
				Events  []string `json:"events"`
				Modules []string `json:"modules"`
			} `json:"subscriptions"`
		} `json:"events"`
	} `json:"apps"`
}

// doctorEncoder is an encoder of a log, and what it wraps.
type doctorEncoder struct {
	Format string         `json:"format"`
	Wrap   *doctorEncoder `json:"wrap"`
}

func (e *doctorEncoder) redacts() bool {
	return e != nil && (e.Format == "x402_redact" || e.Wrap.redacts())
}

// patient reads the configuration that the flags name.
func (f *doctorFlags) patient() (*patient, error) {
	raw, file, _, err := caddycmd.LoadConfig(f.config, f.adapter)
	switch {
	case err != nil:
		return nil, invalidRequest("%v", err)
	case len(raw) == 0:
		return nil, invalidRequest("there is no configuration: name one by --config")
	}
	p := &patient{configured: new(configured), app: new(App)}
	var c doctorConfig
	for _, into := range [...]any{p.configured, &c} {
		if err := json.Unmarshal(raw, into); err != nil {
			return nil, invalidRequest("reading the configuration %s: %v", file, err)
		}
	}
	if len(c.Apps.X402) == 0 {
		return nil, invalidRequest("%s has no x402 app", file)
	}
	if err := json.Unmarshal(c.Apps.X402, p.app); err != nil {
		return nil, invalidRequest("reading the x402 app of %s: %v", file, err)
	}
	s := &p.subject
	s.Instances = f.instances
	if s.Alerts, err = readFlagFile("--alerts", f.alerts); err != nil {
		return nil, err
	}
	if s.Deployment, err = readFlagFile("--deployment", f.deployment); err != nil {
		return nil, err
	}
	s.Refused = refusal(raw)
	p.logs(&c)
	p.readApp()
	p.readHandlers(c.Apps.HTTP)
	p.readSecrets(raw, &c)
	return p, nil
}

// refusal is why Caddy would refuse a configuration.
func refusal(raw []byte) string {
	var c *caddy.Config
	if err := caddy.StrictUnmarshalJSON(caddy.RemoveMetaFields(raw), &c); err != nil {
		return err.Error()
	}
	if c == nil {
		return "the configuration is empty"
	}
	// The logs of the configuration are the running Caddy's: nothing of this goes into them.
	c.Logging = &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: caddy.BaseLog{Level: "ERROR"}}}}
	if err := caddy.Validate(c); err != nil {
		return err.Error()
	}
	return ""
}

// logs are those that may hold requests: http.log.access has those that were answered, and http.log.error those that failed.
func (p *patient) logs(c *doctorConfig) {
	names := []string{"default"}
	for name := range c.Logging.Logs {
		if name != "default" {
			names = append(names, name)
		}
	}
	slices.Sort(names[1:])
	for _, name := range names {
		l := c.Logging.Logs[name]
		requests := len(l.Include) == 0 || slices.ContainsFunc(l.Include, func(in string) bool {
			return in == "http" || in == "http.log" || strings.HasPrefix(in, "http.log.")
		})
		if requests && l.Writer.Output != "discard" {
			p.subject.Logs = append(p.subject.Logs, doctor.Log{Name: name, Redacted: l.Encoder.redacts()})
		}
	}
	for _, sub := range c.Apps.Events.Subscriptions {
		if len(sub.Modules) == 0 || slices.Contains(sub.Modules, "x402") {
			p.subject.Hooked = true
		}
	}
}

// readApp takes what the app says, as far as it can be read: what can't is said by config.sound.
func (p *patient) readApp() {
	a, s := p.app, &p.subject
	a.slog = slog.New(slog.DiscardHandler)
	a.defaults()
	s.PublicURL = strings.TrimSuffix(a.PublicURL, "/")
	s.SettleTimeout, s.Retention = time.Duration(a.SettleTimeout), time.Duration(a.Retention)
	for _, n := range a.Networks {
		if n == nil || n.resolveNetwork() != nil {
			continue
		}
		p.readNetwork(n)
	}
	p.readRefunds()
	p.readStore()
	p.readWebhooks()
	s.Metrics = !p.configured.Admin.Disabled
}

// walletFields are those of settlers that the doctor looks at.
type walletFields struct {
	Settler     string            `json:"settler"`
	Keys        []string          `json:"keys"`
	Signers     []json.RawMessage `json:"signers"`
	WarnBalance string            `json:"warn_balance"`
}

// signerAddress is the address of a wallet whose signer is a module, as far as the configuration tells.
func signerAddress(raw json.RawMessage) (a common.Address, known bool) {
	var s struct {
		Signer  string `json:"signer"`
		Key     string `json:"key"`
		Address string `json:"address"`
	}
	if len(raw) == 0 || json.Unmarshal(raw, &s) != nil {
		return a, false
	}
	if s.Signer == "key" {
		return keyAddress(s.Key)
	}
	a, err := address("address", s.Address)
	return a, err == nil
}

func keyAddress(placeholder string) (a common.Address, known bool) {
	key, err := privateKey("a wallet's key", placeholder, true)
	if err != nil {
		return a, false
	}
	return crypto.PubkeyToAddress(key.PublicKey), true
}

const (
	defaultWarnBalance = "0.001"
	etherDecimals      = 18
)

func (p *patient) readNetwork(n *Network) {
	s := &p.subject
	out := doctor.Network{Network: n.network, Endpoints: len(n.RPC)}
	if payTo, err := address("pay_to", n.PayTo); err == nil {
		out.PayTo = payTo
		s.Wallets = append(s.Wallets, doctor.Wallet{Role: "pay_to", Network: n.network.ID, Address: payTo})
	}
	n.rpc = nil
	for _, raw := range n.RPC {
		if u, err := endpoint(raw); err == nil {
			n.rpc = append(n.rpc, u)
		}
	}
	out.Local = n.local()
	var w walletFields
	if json.Unmarshal(n.SettlerRaw, &w) == nil {
		out.Settler, out.Plain = w.Settler, w.Settler == "wallet"
	}
	gas := func(a common.Address, known bool) {
		if known {
			s.Wallets = append(s.Wallets, doctor.Wallet{Role: "gas", Network: n.network.ID, Address: a})
		}
	}
	for _, k := range w.Keys {
		gas(keyAddress(k))
	}
	for _, raw := range w.Signers {
		gas(signerAddress(raw))
	}
	if w.WarnBalance == "" {
		w.WarnBalance = defaultWarnBalance
	}
	if wei, err := x402.ParseAmount(w.WarnBalance, etherDecimals); err == nil {
		out.WarnWei = wei.ToBig()
	}
	s.Networks = append(s.Networks, out)
	p.app.payees = append(p.app.payees, &paywall.Payee{Network: n.network, PayTo: out.PayTo})
}

const defaultRefundInterval = time.Minute

func (p *patient) readRefunds() {
	a, r := p.app, &p.subject.Refunds
	r.MinAge, r.Interval = time.Duration(a.MinAge), defaultRefundInterval
	r.On = a.saysRefund() && a.Refund != refundOff
	if a.Refunds != nil {
		if a.Refunds.MinAge > 0 {
			r.MinAge = min(r.MinAge, time.Duration(a.Refunds.MinAge))
		}
		if a.Refunds.Interval > 0 {
			r.Interval = time.Duration(a.Refunds.Interval)
		}
	}
	if !r.On {
		return
	}
	if a.Refund != "" {
		r.Wallet, r.Known = keyAddress(a.Refund)
	} else {
		r.Wallet, r.Known = signerAddress(a.Refunds.SignerRaw)
	}
	if r.Known {
		p.subject.Wallets = append(p.subject.Wallets, doctor.Wallet{Role: "refund", Address: r.Wallet})
	}
}

func (p *patient) readStore() {
	store := struct {
		Store   string `json:"store"`
		Path    string `json:"path"`
		Durable *bool  `json:"durable"`
	}{Store: "sqlite"}
	if p.app.StoreRaw != nil && json.Unmarshal(p.app.StoreRaw, &store) != nil {
		return
	}
	out := doctor.Store{Kind: store.Store, Path: store.Path, TokenKeys: len(p.app.TokenKeys) > 0, Careless: store.Durable != nil && !*store.Durable}
	if path, err := resolve("store", store.Path); err == nil {
		out.Path = path
	}
	var module struct {
		Module string `json:"module"`
	}
	storage := p.configured.Storage
	out.Files = storage == nil || json.Unmarshal(storage, &module) == nil && module.Module == "file_system"
	p.subject.Store = out
}

// readWebhooks resolves the endpoints as the app does.
func (p *patient) readWebhooks() {
	if p.app.Webhooks == nil || slices.Contains(p.app.Networks, nil) || slices.Contains(p.app.Webhooks.Endpoints, nil) || p.app.provisionWebhooks() != nil {
		return
	}
	p.hooks = p.app.webhooks
	salt := rand.Text()
	for _, e := range p.hooks.Endpoints {
		w := doctor.Webhook{URL: e.URL, Live: e.Live, Events: e.Events}
		for _, secret := range e.Secrets {
			w.Prints = append(w.Prints, fingerprint(salt, secret))
		}
		p.subject.Webhooks = append(p.subject.Webhooks, w)
	}
}
