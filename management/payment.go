package management

import (
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Payment is a payment as operators see it.
type Payment struct {
	ID         string `json:"id"`
	State      string `json:"state" doc:"Where it stands, in one word" example:"DELIVERED"`
	Settlement string `json:"settlement" doc:"Where the money is: claimed, settling, settled, failed, void"`
	Delivery   string `json:"delivery" doc:"Whether the payer got it: none, delivering, delivered, undelivered"`
	Refund     string `json:"refund" doc:"Whether the money went back: none, pending, refunded, refund_failed"`
	Reason     string `json:"reason,omitempty" doc:"The stable code of why it failed or was not delivered"`

	Network  string `json:"network" doc:"CAIP-2" example:"eip155:8453"`
	Livemode bool   `json:"livemode" doc:"Whether the network is a mainnet"`
	Asset    string `json:"asset" doc:"The token's contract"`
	Symbol   string `json:"symbol,omitempty"`
	Amount   string `json:"amount" doc:"In atomic units of the asset" example:"10000"`
	Decimal  string `json:"amountDecimal,omitempty" doc:"The same in the asset's own units" example:"0.01"`

	Payer string `json:"payer"`
	PayTo string `json:"payTo"`
	Flow  string `json:"flow" doc:"upfront, authorization or deferred; facilitator or refund where it is no sale"`

	Route  string `json:"route,omitempty"`
	Plan   string `json:"plan,omitempty"`
	Method string `json:"method,omitempty"`
	Host   string `json:"host,omitempty"`
	URI    string `json:"uri,omitempty" doc:"The path and query of the request that was paid for"`

	Transaction string `json:"transaction,omitempty" doc:"The one that moved the money"`
	Block       uint64 `json:"block,omitempty"`
	Final       bool   `json:"final" doc:"Nothing that happens to the chain changes it any more"`
	ServedBy    string `json:"servedBy,omitempty" doc:"The payment that served in place of this one"`

	CreatedAt   time.Time  `json:"createdAt"`
	UpdatedAt   time.Time  `json:"updatedAt"`
	SettledAt   *time.Time `json:"settledAt,omitempty"`
	DeliveredAt *time.Time `json:"deliveredAt,omitempty"`
	PlanUntil   *time.Time `json:"planUntil,omitempty" doc:"When the plan ends that was bought"`
	ValidBefore time.Time  `json:"validBefore" doc:"When what the payer signed can't be used any more"`
}

// payment is p as operators see it.
func (s *Shop) payment(p *ledger.Payment) Payment {
	out := Payment{
		ID: p.ID, State: string(p.State()), Settlement: string(p.Settlement), Delivery: string(p.Delivery), Refund: string(p.Refund),
		Reason: p.Reason, Network: x402.CAIP2(p.ChainID), Livemode: s.networkOf(p.ChainID) == Mainnet, Asset: p.Asset.Hex(),
		Amount: p.Amount.Dec(), Payer: p.Payer.Hex(), PayTo: p.PayTo.Hex(), Flow: p.Flow, Route: p.Binding.Route, Plan: p.Binding.Plan,
		Method: p.Binding.Method, Host: p.Binding.Host, URI: p.Binding.URI, Block: p.Block, Final: p.Final, ServedBy: p.ServedBy,
		CreatedAt: p.CreatedAt, UpdatedAt: p.UpdatedAt, SettledAt: moment(p.SettledAt), DeliveredAt: moment(p.DeliveredAt),
		PlanUntil: moment(p.PlanUntil), ValidBefore: unix(p.ValidBefore),
	}
	if asset := s.asset(p.ChainID, p.Asset); asset != nil {
		out.Symbol, out.Decimal = asset.Symbol, x402.FormatAmount(&p.Amount, asset.Decimals)
	}
	if p.Transaction != (common.Hash{}) {
		out.Transaction = p.Transaction.Hex()
	}
	return out
}

// moment is a time that may not have come.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// lastSecond is the end of the year 9999, after which times have no JSON.
const lastSecond = 253402300799

func unix(seconds uint64) time.Time {
	return time.Unix(int64(min(seconds, lastSecond)), 0).UTC()
}

// Step is an entry of a payment's audit trail.
type Step struct {
	Version     uint64    `json:"version"`
	At          time.Time `json:"at"`
	Event       string    `json:"event"`
	Actor       string    `json:"actor" doc:"Who did it: request, reconciler, operator and others"`
	Reason      string    `json:"reason,omitempty"`
	Settlement  string    `json:"settlement"`
	Delivery    string    `json:"delivery"`
	Refund      string    `json:"refund"`
	Transaction string    `json:"transaction,omitempty"`
	Hash        string    `json:"hash" doc:"Holds the entry and the hash of the one before it"`
}

func step(e *ledger.Entry) Step {
	out := Step{
		Version: e.Version, At: e.At, Event: string(e.Event), Actor: e.Actor, Reason: e.Reason, Settlement: string(e.Settlement),
		Delivery: string(e.Delivery), Refund: string(e.Refund), Hash: e.Hash.Hex(),
	}
	if e.Transaction != (common.Hash{}) {
		out.Transaction = e.Transaction.Hex()
	}
	return out
}

// Transaction is one of ours, without its bytes: they hold what payers have signed.
type Transaction struct {
	Network   string    `json:"network"`
	Wallet    string    `json:"wallet"`
	Nonce     uint64    `json:"nonce"`
	Hash      string    `json:"hash"`
	Payments  []string  `json:"payments" doc:"All payments that it carries"`
	CreatedAt time.Time `json:"createdAt"`
}

func transaction(t *ledger.Transaction) Transaction {
	return Transaction{
		Network: x402.CAIP2(t.ChainID), Wallet: t.Wallet.Hex(), Nonce: t.Nonce, Hash: t.Hash.Hex(), Payments: t.Payments, CreatedAt: t.CreatedAt,
	}
}

// Page says where the next page begins.
type Page struct {
	Next string `json:"next,omitempty" doc:"The cursor of the next page; there is none after the last"`
}
