package caddymodule

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

// Webhooks are requests by which the seller's own systems are told what has happened, by the Standard Webhooks specification: signed, repeated until
// they are answered, from an outbox that forgets nothing.
//
//	webhook https://example.com/hooks/x402 {
//		secret {env.WEBHOOK_SECRET}
//		events payment.settled payment.refund_failed
//	}
type Webhooks struct {
	// Who is told. More can be added by the management API.
	Endpoints []*Webhook `json:"endpoints,omitempty"`

	// Secrets of at least 32 bytes, as placeholders: the first one seals the secrets of endpoints that the management API adds, all of them open
	// them. Default: one that is made at the first start and kept in Caddy's storage, which all instances must share then.
	Keys []string `json:"keys,omitempty"`

	// Addresses that endpoints may be at though they are not public, as ranges such as `10.0.0.0/8`; `private` is for all private addresses and
	// this machine's. Default: none, so that nobody who may add an endpoint can reach what is in your network.
	AllowPrivate []string `json:"allow_private,omitempty"`

	// How long an attempt may take. Default: 15s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// How long deliveries stay in the log after they have arrived or were given up. Default: 720h.
	Keep caddy.Duration `json:"keep,omitempty"`
}

// Webhook is one endpoint.
type Webhook struct {
	// Where it is; `https`, or for tests `http`. It must hold no secret.
	URL string `json:"url"`

	// What its deliveries are signed with: `whsec_` and 24 to 64 bytes in base64, as placeholders. All of them sign, so a secret is
	// replaced by listing the new one first, and removing the old one when every receiver has the new one.
	Secrets []string `json:"secrets"`

	// The types of events that it is told of, such as `payment.settled`, or groups such as `payment.*`. Default: all.
	Events []string `json:"events,omitempty"`

	// `live` or `test`: whether it is told of real money or of test networks. It must be given where both are configured.
	Mode string `json:"mode,omitempty"`

	// Whether headers are added that receivers know which were written for Blockchain0x.
	Compatibility bool `json:"compatibility,omitempty"`

	// What it is for.
	Description string `json:"description,omitempty"`
}

const (
	modeLive       = "live"
	modeTest       = "test"
	privateAddress = "private"
)

// provisionWebhooks resolves them; nothing is asked.
func (a *App) provisionWebhooks() error {
	if a.Webhooks == nil {
		return nil
	}
	w, set := a.Webhooks, &webhooks.Settings{Observe: observeWebhook, Logger: a.slog}
	if w.Keep < 0 || w.Timeout < 0 {
		return errors.New("webhooks: keep and timeout must be more than zero")
	}
	set.Keep, set.Timeout = time.Duration(w.Keep), time.Duration(w.Timeout)
	var err error
	if set.AllowPrivate, err = addressRanges(w.AllowPrivate); err != nil {
		return fmt.Errorf("webhooks: %w", err)
	}
	if err := a.readSealing(); err != nil {
		return err
	}
	for i, e := range w.Endpoints {
		if e == nil {
			return fmt.Errorf("webhook number %d is null", i+1)
		}
		c, err := a.provisionWebhook(e)
		if err != nil {
			return fmt.Errorf("webhook number %d: %w", i+1, err)
		}
		set.Endpoints = append(set.Endpoints, c)
	}
	if err := set.Check(); err != nil {
		return fmt.Errorf("webhooks: %w", err)
	}
	a.webhooks = set
	return nil
}

// readSealing reads what the configuration has to seal secrets with; see loadSealingKey.
func (a *App) readSealing() error {
	for _, k := range a.Webhooks.Keys {
		s, err := Secret("the key of webhooks", k, a.localOnly())
		if err != nil {
			return err
		}
		a.sealing = append(a.sealing, s)
	}
	if len(a.sealing) == 0 {
		return nil
	}
	if _, err := webhooks.NewKeys(a.sealing...); err != nil {
		return fmt.Errorf("webhooks: %w", err)
	}
	return nil
}

func (a *App) provisionWebhook(e *Webhook) (c webhooks.Configured, err error) {
	c = webhooks.Configured{Description: e.Description, Events: e.Events, Compatibility: e.Compatibility}
	if c.URL, err = resolve("its url", e.URL); err != nil {
		return c, err
	}
	if c.Live, err = a.webhookMode(e.Mode); err != nil {
		return c, err
	}
	for _, placeholder := range e.Secrets {
		s, err := Secret("its secret", placeholder, a.localOnly())
		if err != nil {
			return c, err
		}
		c.Secrets = append(c.Secrets, s)
	}
	err = c.Check()
	return c, err
}

// webhookMode says whether an endpoint is told of real money.
func (a *App) webhookMode(mode string) (live bool, err error) {
	switch mode {
	case modeLive, modeTest:
		return mode == modeLive, nil
	case "":
	default:
		return false, fmt.Errorf("mode %q is neither %s nor %s", mode, modeLive, modeTest)
	}
	test := false
	for _, y := range a.payees {
		live, test = live || !y.Network.Testnet, test || y.Network.Testnet
	}
	if live && test {
		return false, fmt.Errorf("there are networks of both kinds; say whether it is told of real money (`mode %s`) or of the others (`mode %s`)", modeLive, modeTest)
	}
	return live, nil
}

func addressRanges(list []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range list {
		if s == privateAddress {
			out = append(out, webhooks.PrivateRanges()...)
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("allow_private %q is not a range of addresses; write one such as 10.0.0.0/8", s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
