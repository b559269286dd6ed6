package paywall

import (
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// exchange is what a facilitator has to be handed so that it settles p: the header that this request brought, and our own
// requirements as the offer of p had them. They are made of the payment, not of what the route offers by now, which may be
// another price.
func (a *attempt) exchange(p *ledger.Payment) *settlement.Exchange {
	o := option{price: Price{Payee: a.payee, Amount: p.Amount}}
	if p.Binding.Plan != "" {
		o.plan = &Plan{Name: p.Binding.Plan}
	}
	r := a.Route.requirements(o)
	r.PayTo = p.PayTo.Hex()
	return &settlement.Exchange{
		Version: a.payload.Version, Payload: a.payload.Raw, Requirements: r,
		Resource: x402.ResourceInfo{URL: a.URL, Description: a.Route.Description, MimeType: a.Route.MIMEType},
	}
}
