package paywall

import (
	"errors"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

// retired finds a payment on a network, or in an asset, that is not configured any more: a reload may take it away while a
// client still waits. Its owner must not be told to sign anew for what it has paid. Nil: there is none that this
// request resumes.
func (a *attempt) retired() (*ledger.Payment, error) {
	accepted := a.payload.Accepted
	if a.hash == (common.Hash{}) || accepted == nil || !common.IsHexAddress(accepted.Asset) {
		return nil, nil
	}
	chainID, err := x402.ParseCAIP2(a.payload.Network)
	if err != nil {
		return nil, nil //nolint:nilerr // no network, no payment
	}
	id := a.payload.Authorization.ID(chainID, common.HexToAddress(accepted.Asset))
	p, err := a.engine.store.ByAuthorization(a.r.Context(), id)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, unavailable(codeStore, err)
	case !sameAuthorization(&p, id):
		return nil, nil
	}
	if ok, err := a.resumes(&p); err != nil || !ok {
		return nil, err
	}
	return &p, nil
}

// resumeRetired serves p if it was settled before its network went. Whether it will be settled, nobody can tell now.
func (a *attempt) resumeRetired(p *ledger.Payment) error {
	if p.Settlement == ledger.Claimed || p.Settlement == ledger.Settling {
		return busy(p.ID)
	}
	a.payee = &Payee{Network: x402.Network{ID: networkID(p.ChainID), ChainID: p.ChainID}}
	return a.known(*p)
}
