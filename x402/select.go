package x402

import "strings"

// Select finds which of our own offers the client chose, and gives its index. What the client says only
// selects: price, recipient, asset and network are then taken from offers, never from p. A version 2
// payment selects the offer that it names in all of scheme, network, amount, asset, payTo and plan. A
// version 1 payment names scheme and network only: it selects the first offer on that network that is no
// plan, which is the price of a request.
//
// The error is an *Error with ReasonNoMatchingRequirements.
func Select(offers []Requirements, p *Payload) (int, error) {
	for i := range offers {
		if p.Version == 2 && p.Accepted != nil && offers[i].chosenBy(p.Accepted) {
			return i, nil
		}
		if p.Version == 1 && offers[i].Extra.Plan == "" && offers[i].onNetworkV1(p.Scheme, p.Network) {
			return i, nil
		}
	}
	return -1, Refuse(ReasonNoMatchingRequirements, "the payment is for none of the requirements offered here; ask again and choose one of accepts")
}

// chosenBy leaves out maxTimeoutSeconds and the rest of extra: they don't say what is bought, and old
// clients rewrite them.
func (r *Requirements) chosenBy(accepted *Requirements) bool {
	return r.Scheme == accepted.Scheme &&
		r.Network == accepted.Network &&
		r.Amount == accepted.Amount &&
		strings.EqualFold(r.Asset, accepted.Asset) &&
		strings.EqualFold(r.PayTo, accepted.PayTo) &&
		r.Extra.Plan == accepted.Extra.Plan
}

func (r *Requirements) onNetworkV1(scheme, name string) bool {
	chainID, ok := v1ChainID(name)
	return ok && r.Scheme == scheme && r.Network == CAIP2(chainID)
}
