package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Price is one rule: what matching requests cost.
type Price struct {
	// The amount in the asset's own unit, exact, such as `0.01` or `$0.01`; or `free`. Empty: only a plan opens the route.
	Amount string `json:"amount,omitempty"`
	// What says the price of each request, where it is not always the same; in place of an amount.
	PricerRaw json.RawMessage `json:"pricer,omitempty" caddy:"namespace=x402.pricers inline_key=pricer"`
	// The least that a pricer may say, such as `0.01`; less is not taken. It is needed where clients have a say in the price.
	Min string `json:"min,omitempty"`
	// The most that a pricer may say, such as `5.00`; more is not taken. It is needed where clients have a say in the price.
	Max string `json:"max,omitempty"`
	// Which requests this is the price of. Default: all.
	MatcherSetsRaw caddyhttp.RawMatcherSets `json:"match,omitempty" caddy:"namespace=http.matchers"`
	// The rule's name within the handler; payments are bound to it. Default: its place in the list.
	Name string `json:"name,omitempty"`
	// What is sold, for people and agents. Default: the handler's description.
	Description string `json:"description,omitempty"`
	// The media type of what is sold, such as `application/json`. Default: the handler's.
	MIMEType string `json:"mime_type,omitempty"`
	// When the money moves for this. Default: the handler's flow.
	Flow string `json:"flow,omitempty"`
	// Which answers are paid back. Default: as the handler says.
	RefundOn []string `json:"refund_on,omitempty"`
	// Plans must be of this tier to open this. Default: all plans do.
	Tier string `json:"tier,omitempty"`
	// What is free of this. Default: the handler's, which counts for all its prices together.
	FreeTier *FreeTier `json:"free_tier,omitempty"`
	// Entries of the catalogue for what this is the price of.
	Routes []*RouteEntry `json:"routes,omitempty"`

	matchers caddyhttp.MatcherSets
	route    *paywall.Route
	methods  map[string]*paywall.Route // instead of route, where plans are for some methods only
}

// route is what the price p, the i-th of the handler, says of the requests that it matches. plans are those of the handler.
func (h *Handler) route(i int, p *Price, plans []paywall.Plan) (*paywall.Route, error) {
	r := &paywall.Route{
		Name: h.Name, Scope: h.Name, Description: p.Description, MIMEType: p.MIMEType, Plans: h.opening(p, plans),
		Timeout: time.Duration(h.app.MaxTimeout), Flow: p.Flow, Held: h.Buffer,
	}
	switch {
	case p.Name != "":
		r.Name += "#" + p.Name
	case len(h.Prices) > 1:
		r.Name += fmt.Sprintf("#%d", i+1)
	}
	if r.Description == "" {
		r.Description = h.Description
	}
	words := p.RefundOn
	if len(words) == 0 {
		words = h.RefundOn
	}
	var err error
	if r.RefundOn, err = refundOn(words); err != nil {
		return nil, err
	}
	if r.MIMEType == "" {
		r.MIMEType = h.MIMEType
	}
	if r.FreeTier, err = h.freeTier(p, r.Name); err != nil {
		return nil, err
	}
	if err := h.checkPlansOf(p, r.Plans); err != nil {
		return nil, err
	}
	switch {
	case p.isMoving():
		most, err := h.mostOf(p)
		if err != nil {
			return nil, err
		}
		return r, h.checkFinality(p, most)
	case p.Min != "" || p.Max != "":
		return nil, errors.New("min and max are for prices that move; write `price {http.request.header.X-Units}`, or a pricer")
	case p.Amount == "":
		return r, nil
	}
	if r.Prices, err = h.prices(p.Amount); err != nil {
		return r, err
	}
	return r, h.checkFinality(p, r.Prices)
}

// prices gives an amount in the atomic units of each network's asset.
func (h *Handler) prices(amount string) ([]paywall.Price, error) {
	var out []paywall.Price
	for _, y := range h.app.payees {
		var atomic uint256.Int
		atomic, err := x402.ParseAmount(amount, y.Network.Asset.Decimals)
		if err != nil {
			return nil, fmt.Errorf("price %q on %s: %w", amount, y.Network.ID, err)
		}
		out = append(out, paywall.Price{Payee: y, Amount: atomic})
	}
	return out, nil
}
