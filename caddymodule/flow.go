package caddymodule

import (
	"errors"
	"fmt"
	"slices"

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
		case x402.FlowAuthorization:
			held = true
			if len(h.Plans) > 0 {
				return errors.New("plans can't be sold with flow authorization: a plan is paid before it is given, and all that is offered " +
					"for a request has one flow; put the plans into an x402 block of their own, or leave flow out")
			}
		default:
			return fmt.Errorf("flow %q is not known; write upfront or authorization", p.Flow)
		}
	}
	if h.Buffer != 0 && !held {
		return errors.New("buffer has no meaning without flow authorization: nothing else holds answers back")
	}
	if h.Buffer < 0 || h.Buffer > mostBuffer {
		return errors.New("flow authorization: buffer must be between 1 byte and 64 MiB")
	}
	upfront := slices.ContainsFunc(h.Prices, func(p *Price) bool { return p.Flow == x402.FlowUpfront })
	if upfront && h.app.Refund == "" {
		return errNoRefund
	}
	return nil
}

// errNoRefund makes sure that somebody has thought about payments that can't be delivered, where they are the rule: where the
// money moves before the upstream is asked.
var errNoRefund = errors.New("what is paid and can't be delivered must go back: write `refund {env.REFUND_WALLET_PRIVATE_KEY}`, or `refunds off` to pay " +
	"back by hand; with flow authorization neither is needed")
