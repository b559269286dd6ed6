package caddymodule

import (
	"errors"
	"fmt"
	"slices"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/x402"
)

// mostBuffer bounds how much of one answer is held back until it is paid for.
const mostBuffer = 64 << 20

// checkFlows gives each price its flow, and refuses what does not go together.
func (h *Handler) checkFlows() error {
	held := false
	for _, p := range h.Prices {
		if p.Flow == "" {
			p.Flow = h.Flow
		}
		switch p.Flow {
		case "":
			p.Flow = x402.FlowUpfront
		case x402.FlowUpfront:
		case x402.FlowAuthorization, flowDeferred:
			held = held || p.Flow == x402.FlowAuthorization
			if len(h.Plans) > 0 {
				return fmt.Errorf("plans can't be sold with flow %s: a plan is paid before it is given, and all that is offered "+
					"for a request has one flow; put the plans into an x402 block of their own, or leave flow out", p.Flow)
			}
		default:
			return fmt.Errorf("flow %q is not known; write upfront, authorization or deferred", p.Flow)
		}
	}
	if h.Buffer != 0 && !held {
		return errors.New("buffer has no meaning without flow authorization: nothing else holds answers back")
	}
	if h.Buffer < 0 || h.Buffer > mostBuffer {
		return errors.New("flow authorization: buffer must be between 1 byte and 64 MiB")
	}
	// Who is not good for a deferred payment pays up front.
	upfront := slices.ContainsFunc(h.Prices, func(p *Price) bool { return p.Flow != x402.FlowAuthorization })
	if upfront && !h.app.saysRefund() {
		return errNoRefund
	}
	deferred := slices.ContainsFunc(h.Prices, func(p *Price) bool { return p.Flow == flowDeferred })
	lends := slices.ContainsFunc(h.app.payees, func(y *paywall.Payee) bool { return !y.Lending.Total.IsZero() })
	if deferred && !lends {
		return errors.New("flow deferred lends to payers, and no network says how much; write `credit <for each payer> <in total>` beside " +
			"its pay_to, such as `credit $0.50 $50`")
	}
	return nil
}

// flowDeferred has no word in the protocol: its clients notice nothing of it.
const flowDeferred = ledger.FlowDeferred

// Credit is how much payers may owe on a network: what was served by the flow deferred and is not settled yet.
type Credit struct {
	// For each payer, such as `0.50`.
	PerPayer string `json:"per_payer"`
	// For all payers together, over all instances that share the ledger: what may be lost at worst in a day.
	Total string `json:"total"`
}

func (c *Credit) provision(asset x402.Asset) (l paywall.Lending, err error) {
	if c == nil {
		return l, nil
	}
	if l.PerPayer, err = x402.ParseAmount(c.PerPayer, asset.Decimals); err != nil {
		return l, fmt.Errorf("credit %q for each payer: %w", c.PerPayer, err)
	}
	if l.Total, err = x402.ParseAmount(c.Total, asset.Decimals); err != nil {
		return l, fmt.Errorf("credit %q in total: %w", c.Total, err)
	}
	if l.Total.Lt(&l.PerPayer) {
		return l, fmt.Errorf("credit: %s in total is less than %s for each payer", c.Total, c.PerPayer)
	}
	return l, nil
}

// errNoRefund makes sure that somebody has thought about payments that can't be delivered, where they are the rule: where the
// money moves before the upstream is asked.
var errNoRefund = errors.New("what is paid and can't be delivered must go back: write `refund {env.REFUND_WALLET_PRIVATE_KEY}`, or `refunds off` to pay " +
	"back by hand; with flow authorization neither is needed")
