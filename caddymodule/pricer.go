package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/x402"
)

// PricerModule is what a module in the namespace x402.pricers offers: it says what a request costs.
type PricerModule interface {
	paywall.Pricer
	// ByClient reports whether the price comes from what the client sends. What is wrong with it is then the client's fault, and
	// both bounds must be said.
	ByClient() bool
}

// appUser is a pricer of ours that needs the app.
type appUser interface{ useApp(*App) error }

// isMoving reports whether the price is another from request to request.
func (p *Price) isMoving() bool { return p.PricerRaw != nil }

// provisionPricer loads what says the price, and bounds it.
func (h *Handler) provisionPricer(ctx caddy.Context, p *Price) (paywall.Pricer, error) {
	if p.Amount != "" {
		return nil, fmt.Errorf("the price %s and a pricer contradict each other; write one of them", p.Amount)
	}
	raw, err := ctx.LoadModule(p, "PricerRaw")
	if err != nil {
		return nil, fmt.Errorf("loading the pricer: %w", err)
	}
	mod, ok := raw.(PricerModule)
	if !ok {
		return nil, fmt.Errorf("the pricer is a %T, which is no caddymodule.PricerModule", raw)
	}
	if u, ok := mod.(appUser); ok {
		if err := u.useApp(h.app); err != nil {
			return nil, err
		}
	}
	b := &bounded{PricerModule: mod, decimals: h.app.leastDecimals()}
	for _, bound := range []struct {
		name, text string
		into       **uint256.Int
	}{{"min", p.Min, &b.least}, {"max", p.Max, &b.most}} {
		if bound.text == "" {
			if mod.ByClient() {
				return nil, fmt.Errorf("a price that the client has a say in needs min and max; write %s, such as `%s $0.01`", bound.name, bound.name)
			}
			continue
		}
		v, err := x402.ParseAmount(bound.text, b.decimals)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", bound.name, err)
		}
		*bound.into = &v
	}
	if b.least != nil && b.most != nil && b.most.Lt(b.least) {
		return nil, fmt.Errorf("max %s is less than min %s", p.Max, p.Min)
	}
	return b, nil
}

// leastDecimals are those that an amount may have in every asset.
func (a *App) leastDecimals() uint8 {
	least := uint8(anyDecimals)
	for _, y := range a.payees {
		least = min(least, y.Network.Asset.Decimals)
	}
	return least
}

// bounded is a pricer whose word is checked: an amount that every asset has, between the bounds, in one spelling.
type bounded struct {
	PricerModule
	decimals    uint8
	least, most *uint256.Int
}

// Price implements paywall.Pricer.
func (b *bounded) Price(ctx context.Context, subject string) (string, error) {
	text, err := b.PricerModule.Price(ctx, subject)
	if err != nil {
		return "", err
	}
	v, err := x402.ParseAmount(text, b.decimals)
	switch {
	case err != nil:
		err = errors.New("it comes to something that is no amount of the asset")
	case b.least != nil && v.Lt(b.least):
		err = fmt.Errorf("it comes to less than %s, for which nothing is sold", x402.FormatAmount(b.least, b.decimals))
	case b.most != nil && v.Gt(b.most):
		err = fmt.Errorf("it comes to more than %s, for which nothing is sold", x402.FormatAmount(b.most, b.decimals))
	default:
		return x402.FormatAmount(&v, b.decimals), nil
	}
	if b.ByClient() {
		return "", &paywall.PriceError{Detail: err.Error()}
	}
	return "", fmt.Errorf("the pricer's word is not taken: %w", err)
}

// mostOf is the most that a moving price may come to; nil where it has no bound.
func (h *Handler) mostOf(p *Price) ([]paywall.Price, error) {
	if p.Max == "" {
		return nil, nil
	}
	return h.prices(p.Max)
}

// parsePricer reads
//
//	pricer <module> [<args...>] { ... }
func (p *Price) parsePricer(d *caddyfile.Dispenser) (err error) {
	if p.PricerRaw != nil || p.Amount != "" {
		return d.Err("what the price is, is said already")
	}
	p.PricerRaw, err = parseModule(d, "x402.pricers.", "pricer")
	return err
}

// parseAmount takes what stands behind `price`: an amount, a placeholder that gives one, or nothing, where a pricer follows.
func (p *Price) parseAmount(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	switch {
	case len(args) > 1:
		return d.ArgErr()
	case len(args) == 1:
		p.setAmount(args[0])
	}
	return nil
}

func (p *Price) setAmount(amount string) {
	if !strings.Contains(amount, "{") {
		p.Amount = amount
		return
	}
	p.PricerRaw = caddyconfig.JSONModuleObject(&PlaceholderPricer{Value: amount}, "pricer", "placeholder", nil)
}

// setEach makes a placeholder's value a number of units.
func (p *Price) setEach(d *caddyfile.Dispenser) error {
	var each string
	if err := one(d, &each)(); err != nil {
		return err
	}
	var m struct {
		Pricer string `json:"pricer"`
		PlaceholderPricer
	}
	if err := json.Unmarshal(p.PricerRaw, &m); err != nil || m.Pricer != "placeholder" {
		return d.Err("each is for a price by placeholder, such as `price {http.request.header.X-Units}`")
	}
	m.PlaceholderPricer.Each = each
	p.PricerRaw = caddyconfig.JSONModuleObject(&m.PlaceholderPricer, "pricer", "placeholder", nil)
	return nil
}
