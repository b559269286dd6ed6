package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/x402"
)

func init() {
	caddy.RegisterModule(new(PlaceholderPricer))
}

// PlaceholderPricer takes the price from a placeholder, such as a header or a parameter of the query. What clients send is theirs to choose, so
// the price needs `min` and `max`; what gives no amount between them is answered 400.
type PlaceholderPricer struct {
	// The placeholder, such as `{http.request.header.X-Units}`.
	Value string `json:"value"`
	// What one unit costs, where the placeholder gives a whole number of units. Default: it gives the price itself.
	Each string `json:"each,omitempty"`
}

// CaddyModule implements caddy.Module.
func (*PlaceholderPricer) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "x402.pricers.placeholder", New: func() caddy.Module { return new(PlaceholderPricer) }}
}

// Provision implements caddy.Provisioner.
func (p *PlaceholderPricer) Provision(caddy.Context) error {
	if !isPlaceholder(p.Value) {
		return fmt.Errorf("the price %q is no placeholder; write one such as {http.request.header.X-Units}", p.Value)
	}
	if p.Each != "" {
		if _, err := x402.ParseAmount(p.Each, anyDecimals); err != nil {
			return fmt.Errorf("each: %w", err)
		}
	}
	return nil
}

// ByClient implements PricerModule.
func (*PlaceholderPricer) ByClient() bool { return true }

// Subject is the placeholder's value, which is all that the price depends on.
func (p *PlaceholderPricer) Subject(r *http.Request, _ *paywall.Request) (string, error) {
	repl, ok := replacer(r)
	if !ok {
		return "", errors.New("the request has no placeholders")
	}
	value := repl.ReplaceAll(p.Value, "")
	if value == "" || len(value) > longestValue {
		return "", &paywall.PriceError{Detail: p.name() + " is missing, or too long"}
	}
	return value, nil
}

// longestValue bounds what a client may say of its price.
const longestValue = 64

// name is how clients are told what to send.
func (p *PlaceholderPricer) name() string {
	name := strings.Trim(p.Value, "{}")
	if h, ok := strings.CutPrefix(name, "http.request.header."); ok {
		return "the header " + h
	}
	if q, ok := strings.CutPrefix(name, "http.request.uri.query."); ok {
		return "the parameter " + q + " of the query"
	}
	return "a value of the request"
}

// Price reads the value.
func (p *PlaceholderPricer) Price(_ context.Context, value string) (string, error) {
	if p.Each == "" {
		if _, err := x402.ParseAmount(value, anyDecimals); err != nil {
			return "", &paywall.PriceError{Detail: p.name() + " is no amount; write one such as 0.01"}
		}
		return value, nil
	}
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != value {
		return "", &paywall.PriceError{Detail: p.name() + " is no whole number above 0"}
	}
	each, err := x402.ParseAmount(p.Each, anyDecimals)
	if err != nil {
		return "", err
	}
	var total uint256.Int
	if _, over := total.MulOverflow(&each, uint256.NewInt(n)); over {
		return "", &paywall.PriceError{Detail: p.name() + " is too much"}
	}
	return x402.FormatAmount(&total, anyDecimals), nil
}

// UnmarshalCaddyfile reads
//
//	pricer placeholder <placeholder> {
//		each <price>
//	}
func (p *PlaceholderPricer) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the module's name
	if !d.Args(&p.Value) || d.NextArg() {
		return d.ArgErr()
	}
	return subdirectives(d, "pricer placeholder", map[string]func() error{"each": one(d, &p.Each)})
}

// Interface guards.
var (
	_ PricerModule          = (*PlaceholderPricer)(nil)
	_ caddy.Provisioner     = (*PlaceholderPricer)(nil)
	_ caddyfile.Unmarshaler = (*PlaceholderPricer)(nil)
)
