package caddymodule

import (
	"encoding/json"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/x402"
)

// plainPayment is a payment without its own way to become JSON, so that more can stand beside its fields.
type plainPayment ledger.Payment

// operatorPayment is a payment as operators see it: all that the ledger knows of it, and the amount in the asset's units.
type operatorPayment struct {
	plainPayment
	State   ledger.State `json:"state"`
	Network string       `json:"network"` // CAIP-2
	// Where the asset is known.
	Symbol        string `json:"symbol,omitempty"`
	AmountDecimal string `json:"amount_decimal,omitempty"`
}

func newOperatorPayment(p *ledger.Payment, configured []x402.Network) operatorPayment {
	out := operatorPayment{plainPayment: plainPayment(*p), State: p.State(), Network: x402.CAIP2(p.ChainID)}
	for _, networks := range [...][]x402.Network{configured, x402.Networks()} {
		for i := range networks {
			if n := &networks[i]; n.ChainID == p.ChainID && n.Asset.Address == p.Asset {
				out.Symbol, out.AmountDecimal = n.Asset.Symbol, x402.FormatAmount(&p.Amount, n.Asset.Decimals)
				return out
			}
		}
	}
	return out
}

// paymentPage is a page of payments, newest first.
type paymentPage struct {
	Payments []operatorPayment `json:"payments"`
	Page     management.Page   `json:"page"`
}

// paymentFile is all there is about one payment.
type paymentFile struct {
	Payment      operatorPayment       `json:"payment"`
	Trail        []ledger.Entry        `json:"trail"`
	Transactions []operatorTransaction `json:"transactions"`
}

// operatorTransaction is a transaction of ours without its bytes, which hold the payers' signatures.
type operatorTransaction struct {
	ChainID   uint64         `json:"chain_id"`
	Wallet    common.Address `json:"wallet"`
	Nonce     uint64         `json:"nonce"`
	Hash      common.Hash    `json:"hash"`
	Payments  []string       `json:"payments,omitempty"`
	CreatedAt time.Time      `json:"created_at"`
}

func newOperatorTransaction(t *ledger.Transaction) operatorTransaction {
	return operatorTransaction{
		ChainID: t.ChainID, Wallet: t.Wallet, Nonce: t.Nonce, Hash: t.Hash, Payments: t.Payments, CreatedAt: t.CreatedAt,
	}
}

// stateCounts says how many payments are in each state; all states are there, in the order in which a payment meets them.
type stateCounts struct {
	States []stateCount `json:"states"`
	Total  int64        `json:"total"`
}

type stateCount struct {
	State    ledger.State `json:"state"`
	Payments int64        `json:"payments"`
}

// MarshalJSON makes the fields addressable: an amount is written as a decimal only if it is.
func (p operatorPayment) MarshalJSON() ([]byte, error) {
	type plain operatorPayment
	return json.Marshal((*plain)(&p))
}
