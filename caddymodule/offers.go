package caddymodule

import (
	"errors"
	"fmt"
	"time"

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
