package paywall

import (
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// exchange is what a facilitator has to be handed so that it settles p: the header that this request brought, and our own
// requirements as the offer of p had them. They are made of the payment, not of what the route offers by now, which may be
// another price, or another flow.
func (a *attempt) exchange(p *ledger.Payment) *settlement.Exchange {
	r := x402.NewRequirements(a.payee.Network, p.PayTo, &p.Amount, a.Route.Timeout, p.Flow, p.Binding.Plan)
	return &settlement.Exchange{
		Version: a.payload.Version, Payload: a.payload.Raw, Requirements: r,
		Resource: x402.ResourceInfo{URL: a.URL, Description: a.Route.Description, MimeType: a.Route.MIMEType},
	}
}
