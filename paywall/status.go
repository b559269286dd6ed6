package paywall

import (
	"context"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// Status is what anybody who knows a payment's id may know of it. It holds no token.
type Status struct {
	Payment     string       `json:"payment"`
	State       ledger.State `json:"state"`
	Network     string       `json:"network"`
	Asset       string       `json:"asset"`
	Amount      string       `json:"amount"` // atomic units
	PayTo       string       `json:"payTo"`
	Transaction string       `json:"transaction,omitempty"`
	Refund      string       `json:"refund,omitempty"`
	// RefundTransaction pays the payment back, or has done so. It need not be mined yet.
	RefundTransaction string    `json:"refundTransaction,omitempty"`
	Reason            string    `json:"reason,omitempty"`
	CreatedAt         time.Time `json:"createdAt"`
	UpdatedAt         time.Time `json:"updatedAt"`
}

// Status reads what became of a payment; ledger.ErrNotFound.
func (e *Engine) Status(ctx context.Context, id string) (Status, error) {
	p, err := e.store.Payment(ctx, id)
	if err != nil {
		return Status{}, err
	}
	s := Status{
		Payment: p.ID, State: p.State(), Network: networkID(p.ChainID), Asset: p.Asset.Hex(), Amount: p.Amount.Dec(),
		PayTo: p.PayTo.Hex(), Reason: p.Reason, CreatedAt: p.CreatedAt, UpdatedAt: p.UpdatedAt,
	}
	if p.Transaction != (common.Hash{}) {
		s.Transaction = p.Transaction.Hex()
	}
	if p.Refund != ledger.NotRefunded {
		s.Refund = string(p.Refund)
		hash, err := e.refundOf(ctx, &p)
		if err != nil {
			return Status{}, err
		}
		if hash != (common.Hash{}) {
			s.RefundTransaction = hash.Hex()
		}
	}
	return s, nil
}
