package caddymodule

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/caddyserver/caddy/v2"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Idempotency says what is made of keys by which clients say that a request is the same as one before.
type Idempotency struct {
	// `off`, `optional` or `required`: then a payment without a key of either kind is answered 400. Default: optional.
	Mode string `json:"mode,omitempty"`
	// How long a key and the answer to its request are remembered, 10 minutes at least. Default: 24h.
	TTL caddy.Duration `json:"ttl,omitempty"`
	// How long the body of an answer may be to be stored, in bytes, 16 MiB at most. A request whose answer was longer is not
	// answered again, and not charged again either. Default: 1048576 (1 MiB).
	MaxAnswer int `json:"max_answer,omitempty"`
}

// mostAnswer bounds what ledgers are asked to keep, and what each request with a key may take of memory.
const mostAnswer = 16 << 20

// leastKeyTTL outlasts an answer: a key must not be forgotten before its request is answered.
const leastKeyTTL = 10 * time.Minute

func (i *Idempotency) provision() (paywall.Idempotency, error) {
	out := paywall.Idempotency{Mode: paywall.IdempotencyOptional}
	if i == nil {
		return out, nil
	}
	switch mode := paywall.IdempotencyMode(i.Mode); mode {
	case "":
	case paywall.IdempotencyOff, paywall.IdempotencyOptional, paywall.IdempotencyRequired:
		out.Mode = mode
	default:
		return out, fmt.Errorf("idempotency %q is neither off nor optional nor required", i.Mode)
	}
	switch {
	case out.Mode == paywall.IdempotencyOff && (i.TTL != 0 || i.MaxAnswer != 0):
		return out, errors.New("idempotency off leaves nothing to configure")
	case i.TTL < 0 || i.TTL != 0 && time.Duration(i.TTL) < leastKeyTTL:
		return out, errors.New("idempotency: ttl must be 10 minutes or more; a key that is forgotten before its request is answered " +
			"would let that be charged twice")
	case i.MaxAnswer < 0 || i.MaxAnswer > mostAnswer:
		return out, errors.New("idempotency: max_answer must be between 1 byte and 16 MiB")
	}
	out.TTL, out.MaxAnswer = time.Duration(i.TTL), i.MaxAnswer
	return out, nil
}

func (h *Handler) plans() ([]paywall.Plan, error) {
	var out []paywall.Plan
	for _, p := range h.Plans {
		switch {
		case p.Name == "":
			return nil, errors.New("a plan needs a name")
		case strings.ContainsFunc(p.Name, unicode.IsControl):
			return nil, fmt.Errorf("the name of plan %q has a character that a header can't hold", p.Name)
		case slices.ContainsFunc(out, func(q paywall.Plan) bool { return q.Name == p.Name }):
			return nil, fmt.Errorf("plan %s is there twice", p.Name)
		case time.Duration(p.TTL) < time.Second:
			return nil, fmt.Errorf("plan %s needs a ttl of a second or more; write how long it is good for, such as `ttl 24h`", p.Name)
		}
		prices, err := h.prices(p.Price)
		if err != nil {
			return nil, fmt.Errorf("plan %s: %w", p.Name, err)
		}
		plan := paywall.Plan{Name: p.Name, TTL: time.Duration(p.TTL), Prices: prices}
		if plan.Granter, err = h.granter(p); err != nil {
			return nil, fmt.Errorf("plan %s: %w", p.Name, err)
		}
		if err := h.app.sell(h.Name, plan); err != nil {
			return nil, err
		}
		out = append(out, plan)
	}
	return out, nil
}

// sell refuses plans that would share their tokens on different terms. A token names a set of routes and a plan, and one
// that was bought cheap must not open what is dear.
func (a *App) sell(set string, p paywall.Plan) error {
	if a.sold == nil {
		a.sold = make(map[[2]string]paywall.Plan)
	}
	key := [2]string{set, p.Name}
	q, ok := a.sold[key]
	same := func(x, y paywall.Price) bool { return x.Payee == y.Payee && x.Amount == y.Amount }
	if ok && (p.TTL != q.TTL || !slices.EqualFunc(p.Prices, q.Prices, same)) {
		return fmt.Errorf("two sets of routes are called %q and sell plan %s on different terms, so that a token of one would "+
			"open the other; give each x402 block a name of its own, such as `name reports`", set, p.Name)
	}
	a.sold[key] = p
	return nil
}

func (h *Handler) route(i int, p *Price, plans []paywall.Plan) (*paywall.Route, error) {
	r := &paywall.Route{
		Name: h.Name, Scope: h.Name, Description: p.Description, MIMEType: p.MIMEType, Plans: plans,
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
	if p.isMoving() {
		most, err := h.mostOf(p)
		if err != nil {
			return nil, err
		}
		return r, h.checkFinality(p, most)
	}
	if p.Min != "" || p.Max != "" {
		return nil, errors.New("min and max are for prices that move; write `price {http.request.header.X-Units}`, or a pricer")
	}
	if p.Amount == "" {
		if len(plans) == 0 {
			return nil, errors.New("a price needs an amount, such as $0.01")
		}
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
