package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/x402"
)

func init() {
	caddy.RegisterModule(new(Facilitator))
}

// Facilitator is an x402 facilitator for other servers: it verifies and settles the payments of their clients from the app's own
// wallets. It speaks versions 1 and 2 of the protocol, and the scheme `exact` with EIP-3009, on the networks and in the
// assets of the app. Everything else passes on to the next handler.
//
//   - `POST /verify`: whether a payment would be settled now
//   - `POST /settle`: settles a payment; the same request again gets the same answer
//   - `GET /supported`: the networks, and the addresses of the wallets
//
// The money goes from the payer to the payee directly. It costs gas of ours, so it must be said who may ask: those who have a key,
// or, for certain payees, everybody.
type Facilitator struct {
	// What stands before the facilitator's paths, such as `/facilitator`. Default in a Caddyfile: the matcher, if that is a path such
	// as `/facilitator/*`; otherwise nothing.
	Prefix string `json:"prefix,omitempty"`

	// What these payments are filed under in the ledger. Default: `facilitator`.
	Name string `json:"name,omitempty"`

	// The addresses to which payments are settled. Default: all, which needs keys.
	AllowPayTo []string `json:"allow_pay_to,omitempty"`

	// Those who may ask, each with a secret that it sends as `Authorization: Bearer`.
	Keys []*FacilitatorKey `json:"keys,omitempty"`

	// Everybody may ask, without a key; `allow_pay_to` must say for whom.
	Open bool `json:"open,omitempty"`

	// The networks on which payments are settled, by their names or CAIP-2 identifiers. Default: all of the app.
	Networks []string `json:"networks,omitempty"`

	// The least amount that is settled, in the asset's own unit, such as `0.001`. Default: 0.001.
	MinAmount string `json:"min_amount,omitempty"`

	// How many requests each key, or without keys each client address, may send in `per`. Default: 1000 for a key, 100 for an address.
	Requests int `json:"requests,omitempty"`

	// Default: 1s.
	Per caddy.Duration `json:"per,omitempty"`

	// How far the end of an authorization may lie ahead. Default: the app's `max_validity`.
	MaxValidity caddy.Duration `json:"max_validity,omitempty"`

	// A success is told to every request for the same settlement, at any time: only for servers that keep books of what they have
	// served. Default: to one request alone; the same again is refused as `duplicate_settlement`, with the transaction. Servers may serve
	// before they settle, as the reference does: of many copies of a payment that are sent to them at once, one is then served.
	Repeat bool `json:"repeat,omitempty"`

	rules *paywall.Facilitator
}

// FacilitatorKey is the key of one who may ask.
type FacilitatorKey struct {
	// What its owner is called in the ledger and in logs.
	Name string `json:"name"`
	// The secret, as a placeholder such as `{env.SHOP_KEY}`. A literal one is accepted on a local chain only.
	Secret string `json:"secret"`
}

// CaddyModule implements caddy.Module.
func (*Facilitator) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.x402_facilitator", New: func() caddy.Module { return new(Facilitator) }}
}

// Provision implements caddy.Provisioner.
func (f *Facilitator) Provision(ctx caddy.Context) error {
	app, err := ctx.AppIfConfigured("x402")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return fmt.Errorf("x402_facilitator needs the x402 app; add the global option x402 with a network, pay_to, rpc and wallet: %w", err)
	}
	if err != nil {
		return err
	}
	a := app.(*App)
	if f.Name == "" {
		f.Name = "facilitator"
	}
	keys, err := f.provisionKeys(a)
	if err != nil {
		return err
	}
	offers, err := f.offers(a)
	if err != nil {
		return err
	}
	var payees []common.Address
	for _, text := range f.AllowPayTo {
		payee, err := address("allow_pay_to", text)
		if err != nil {
			return err
		}
		payees = append(payees, payee)
	}
	if f.Requests < 0 || f.Per < 0 || f.MaxValidity < 0 {
		return errors.New("requests, per and max_validity must be more than zero")
	}
	if f.Requests > 0 && f.Per == 0 {
		f.Per = caddy.Duration(time.Second)
	}
	if f.MaxValidity == 0 {
		f.MaxValidity = a.MaxValidity
	}
	if f.Prefix != "" && (!strings.HasPrefix(f.Prefix, "/") || strings.HasSuffix(f.Prefix, "/")) {
		return fmt.Errorf("prefix %q must begin with / and end without, such as /facilitator", f.Prefix)
	}
	f.rules, err = paywall.NewFacilitator(paywall.FacilitatorConfig{
		Name: f.Name, Prefix: f.Prefix, Acquire: a.acquire, Offers: offers, AllowPayTo: payees, Keys: keys, Requests: f.Requests, Per: time.Duration(f.Per),
		Repeat: f.Repeat, MaxValidity: time.Duration(f.MaxValidity), Now: a.now, Decided: countFacilitation, Filed: logPayment, Logger: ctx.Slogger(),
	})
	return err
}

// leastSecret is how long a key must be at least: nobody shall guess it.
const leastSecret = 16

func (f *Facilitator) provisionKeys(a *App) ([]paywall.FacilitatorKey, error) {
	switch {
	case f.Open && len(f.Keys) > 0:
		return nil, errors.New("`keys off` and key contradict each other; write one of them")
	case f.Open && len(f.AllowPayTo) == 0:
		return nil, errors.New("a facilitator that everybody may ask would move anybody's money to anywhere, and you would pay for it: " +
			"write `allow_pay_to` and the addresses that it is for, or keys")
	case !f.Open && len(f.Keys) == 0:
		return nil, errors.New("who may ask this facilitator? Write `key <name> {env.SHOP_KEY}` for each who may, or `keys off`, with " +
			"`allow_pay_to` and the addresses that it is for")
	}
	var keys []paywall.FacilitatorKey
	var secrets []string
	for i, k := range f.Keys {
		if k == nil || k.Name == "" {
			return nil, fmt.Errorf("key number %d has no name", i+1)
		}
		secret, err := Secret("key "+k.Name, k.Secret, a.localOnly())
		if err != nil {
			return nil, err
		}
		switch {
		case len(secret) < leastSecret:
			return nil, fmt.Errorf("key %s is too short to be safe; take at least %d characters, such as those of `openssl rand -hex 24`", k.Name, leastSecret)
		case slices.Contains(secrets, secret):
			return nil, fmt.Errorf("key %s is that of another, too, so that nobody could tell who asks", k.Name)
		case slices.ContainsFunc(keys, func(o paywall.FacilitatorKey) bool { return o.Name == k.Name }):
			return nil, fmt.Errorf("two keys have the name %s", k.Name)
		}
		secrets = append(secrets, secret)
		keys = append(keys, paywall.NewFacilitatorKey(k.Name, secret))
	}
	return keys, nil
}

// offers are the app's networks that are settled on.
func (f *Facilitator) offers(a *App) ([]paywall.FacilitatorOffer, error) {
	least := f.MinAmount
	if least == "" {
		least = "0.001"
	}
	for _, name := range f.Networks {
		if !slices.ContainsFunc(a.payees, func(y *paywall.Payee) bool { return isNamed(y, name) }) {
			return nil, fmt.Errorf("network %s is none of those of the x402 app", name)
		}
	}
	var offers []paywall.FacilitatorOffer
	for _, y := range a.payees {
		if len(f.Networks) > 0 && !slices.ContainsFunc(f.Networks, func(name string) bool { return isNamed(y, name) }) {
			continue
		}
		amount, err := x402.ParseAmount(least, y.Network.Asset.Decimals)
		if err != nil {
			return nil, fmt.Errorf("min_amount %q on %s: %w", least, y.Network.ID, err)
		}
		offers = append(offers, paywall.FacilitatorOffer{Payee: y, Least: amount, MinRemaining: leastRemaining(y.Network.ChainID)})
	}
	if len(offers) == 0 {
		return nil, errors.New("the x402 app has no network to settle on; add network, pay_to, rpc and wallet to the global option x402")
	}
	return offers, nil
}

// leastRemaining is how long an authorization must still be good for its transfer to come into a block before it ends, on chains whose
// blocks take long, or where it is not known how long.
func leastRemaining(chainID uint64) time.Duration {
	t, known := blockTimes[chainID]
	if !known {
		return 15 * time.Second
	}
	return t.block + 3*time.Second
}

func isNamed(y *paywall.Payee, name string) bool {
	return name != "" && (name == y.Network.ID || name == y.Network.V1Name)
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (f *Facilitator) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ours, err := f.rules.Serve(w, r, clientAddress(r))
	if !ours {
		return next.ServeHTTP(w, r)
	}
	return err
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Facilitator)(nil)
	_ caddyhttp.MiddlewareHandler = (*Facilitator)(nil)
)
