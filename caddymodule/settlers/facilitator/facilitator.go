// Package facilitator is the Caddy module x402.settlers.facilitator: payments are settled by x402 facilitators over HTTP.
package facilitator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-x402/caddy-x402/caddymodule"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/facilitator"
	"github.com/caddy-x402/caddy-x402/settlement/facilitator/cdp"
)

func init() {
	caddy.RegisterModule(new(Facilitator))
}

// Facilitator settles payments through x402 facilitators: others make the transactions and pay their gas. The money goes
// from the payer to `pay_to` directly. What a facilitator says is checked on the chain, so that `rpc` is needed all the same.
type Facilitator struct {
	// The facilitators, in the order in which they are asked. The next one is asked where one can't be reached, or refuses
	// what the chain would settle; a payment whose outcome at one is unknown stays there.
	Facilitators []*Remote `json:"facilitators"`

	// Whether a facilitator's word counts as it is: a success is not looked up on the chain before the payer is served, and a
	// refusal that the chain does not explain is believed. Write it only for facilitators whose mistakes you answer for.
	Trust bool `json:"trust_facilitator,omitempty"`

	settings facilitator.Settings
	log      *slog.Logger
	office   *caddymodule.Lease[*office]
}

// Remote is one facilitator.
type Remote struct {
	// Its address, before /verify, /settle and /supported. Default with `cdp`: that of the Coinbase Developer Platform.
	URL string `json:"url,omitempty"`

	// The token that goes with each request, as a placeholder such as `{env.FACILITATOR_TOKEN}`.
	Bearer string `json:"bearer,omitempty"`

	// Headers that go with each request. One whose name speaks of keys, tokens or secrets must have a placeholder as its value.
	Headers map[string]string `json:"headers,omitempty"`

	// The API key of the Coinbase Developer Platform that signs each request.
	CDP *CDP `json:"cdp,omitempty"`

	// How long one request may take. Default: 30s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// Whether /verify is asked before /settle, for facilitators that demand it.
	Verify bool `json:"verify,omitempty"`
}

// CDP is an API key of the Coinbase Developer Platform, of either kind (Ed25519, ES256).
type CDP struct {
	// The key's id.
	KeyID string `json:"key_id"`
	// The key's secret, as a placeholder such as `{env.CDP_API_KEY_SECRET}`.
	KeySecret string `json:"key_secret"`
}

// CaddyModule implements caddy.Module.
func (*Facilitator) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "x402.settlers.facilitator", New: func() caddy.Module { return new(Facilitator) }}
}

// Provision implements caddy.Provisioner.
func (f *Facilitator) Provision(ctx caddy.Context) error {
	f.log = ctx.Slogger()
	if len(f.Facilitators) == 0 {
		return errors.New("the address of a facilitator is missing, such as `facilitator https://facilitator.example.com`")
	}
	return nil
}

// Join implements caddymodule.SettlerModule.
func (f *Facilitator) Join(_ caddy.Context, c caddymodule.SettlerContext) (settlement.Settler, error) {
	f.settings = facilitator.Settings{Trust: f.Trust}
	for i, r := range f.Facilitators {
		if r == nil {
			return nil, fmt.Errorf("facilitator number %d is null", i+1)
		}
		one, err := r.resolve(c.Local)
		if err != nil {
			return nil, fmt.Errorf("facilitator number %d: %w", i+1, err)
		}
		f.settings.Facilitators = append(f.settings.Facilitators, one)
	}
	if err := facilitator.Validate(f.settings); err != nil {
		return nil, err
	}
	// Which facilitators they are, a reload may change: payments are found on the chain, whoever was handed them.
	asset := c.Network.Asset
	id := fmt.Sprintf("x402 facilitator on %d for %s (%q, %q) in %s", c.Network.ChainID, asset.Address, asset.Name, asset.Version, c.Ledger)
	var err error
	if f.office, err = caddymodule.Acquire(id, func() (*office, error) { return newOffice(f, c) }); err != nil {
		return nil, err
	}
	return f.office.Value(), nil
}

// Start implements caddymodule.SettlerModule.
func (f *Facilitator) Start(ctx context.Context, c caddymodule.SettlerContext) error {
	o := f.office.Value()
	if err := o.follow(liveConfig{owner: f, context: c, settings: f.settings}); err != nil {
		return err
	}
	o.Settler.Start()
	err := o.verify(ctx)
	if errors.Is(err, settlement.ErrUnavailable) {
		f.log.Error("the chain does not answer; payments are refused until it does", slog.String("network", c.Network.ID), slog.Any("error", err))
		return nil
	}
	return err
}

// Leave implements caddymodule.SettlerModule.
func (f *Facilitator) Leave() error {
	if f.office == nil {
		return nil
	}
	return errors.Join(f.office.Value().unfollow(f), f.office.Release())
}

// resolve gives r with its placeholders replaced. local: secrets may stand in the configuration.
func (r *Remote) resolve(local bool) (facilitator.Facilitator, error) {
	out := facilitator.Facilitator{Timeout: time.Duration(r.Timeout), Verify: r.Verify, Header: make(http.Header)}
	if r.Timeout < 0 {
		return out, errors.New("timeout must be more than zero")
	}
	address := r.URL
	if address == "" && r.CDP != nil {
		address = cdp.URL
	}
	var err error
	if out.URL, err = caddymodule.Resolve("the facilitator's address", address); err != nil {
		return out, err
	}
	for name, value := range r.Headers {
		if out.Header[http.CanonicalHeaderKey(name)], err = header(name, value, local); err != nil {
			return out, err
		}
	}
	if r.Bearer != "" {
		token, err := caddymodule.Secret("bearer", r.Bearer, local)
		if err != nil {
			return out, err
		}
		out.Header.Set("Authorization", "Bearer "+token)
	}
	if r.CDP != nil {
		if out.Authorizer, err = r.CDP.resolve(local); err != nil {
			return out, err
		}
	}
	if len(out.Header) > 0 || out.Authorizer != nil {
		return out, inTheClear(out.URL)
	}
	return out, nil
}

func (c *CDP) resolve(local bool) (facilitator.Authorizer, error) {
	id, err := caddymodule.Resolve("key_id", c.KeyID)
	if err != nil {
		return nil, err
	}
	secret, err := caddymodule.Secret("key_secret", c.KeySecret, local)
	if err != nil {
		return nil, err
	}
	key, err := cdp.NewKey(id, secret, nil)
	if err != nil {
		return nil, err
	}
	return key, nil
}

// confidential are names of headers that let somebody in.
var confidential = regexp.MustCompile(`(?i)auth|key|token|secret|cookie|pass|credential|signature`)

// headerName is a token of HTTP (RFC 9110, section 5.6.2).
var headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

func header(name, value string, local bool) ([]string, error) {
	if !headerName.MatchString(name) {
		return nil, fmt.Errorf("header: %q is not the name of a header", name)
	}
	// A part may be literal, such as the word before a token.
	plain := local || !confidential.MatchString(name) || strings.Contains(value, "{")
	v, err := caddymodule.Secret("header "+name, value, plain)
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(v, "\r\n\x00") {
		return nil, fmt.Errorf("header %s: its value holds a line break", name)
	}
	return []string{v}, nil
}

// inTheClear refuses to send credentials over a network for everybody to read.
func inTheClear(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" {
		return nil //nolint:nilerr // the settler says what is wrong with an address
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return errors.New("its address begins with http://, so everybody on the way could read what shows who you are; use https://")
}

// Interface guards.
var (
	_ caddy.Provisioner         = (*Facilitator)(nil)
	_ caddymodule.SettlerModule = (*Facilitator)(nil)
)
