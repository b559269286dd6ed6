package ledger

import (
	"encoding/json"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/x402"
)

// Settlement is the first facet of a payment: where its money is.
type Settlement string

// The states of Settlement. They move one way:
//
//	pending -> claimed -> settling -> settled
//	   |          |           |
//	   |          +-> void    +-> failed      claimed may fail too; void and failed may still be settled by others
//	   +-> expired, cancelled
const (
	Pending   Settlement = "pending"   // asked for under a request id, not paid
	Claimed   Settlement = "claimed"   // reserved; nothing was sent
	Settling  Settlement = "settling"  // a signed transaction is stored, so it may be on chain at any time
	Settled   Settlement = "settled"   // the money reached payTo
	Failed    Settlement = "failed"    // the answer to the client was "not paid"
	Void      Settlement = "void"      // never sent, and will not be sent by us
	Expired   Settlement = "expired"   // a challenge that nobody paid in time
	Cancelled Settlement = "cancelled" // a challenge that was withdrawn
)

// Delivery is the second facet: whether the payer got what it paid for.
type Delivery string

// The states of Delivery.
const (
	NotDelivered Delivery = "none"
	Delivering   Delivery = "delivering" // the upstream is being asked, under a fenced hold
	Delivered    Delivery = "delivered"  // committed before the first byte went to the client
	Undelivered  Delivery = "undelivered"
)

// Refund is the third facet: whether the money went back.
type Refund string

// The states of Refund.
const (
	NotRefunded   Refund = "none"
	RefundPending Refund = "pending"
	Refunded      Refund = "refunded"
	RefundFailed  Refund = "refund_failed"
)

// State is the one word that operators see, derived from the three facets.
type State string

// The words of State.
const (
	StatePending       State = "PENDING"
	StateSettling      State = "SETTLING"
	StatePaid          State = "PAID"
	StateDelivered     State = "DELIVERED"
	StateSettled       State = "SETTLED" // made for another server, which delivers: see FlowFacilitator
	StateOwed          State = "OWED"
	StateFailed        State = "FAILED"
	StateVoid          State = "VOID"
	StateExpired       State = "EXPIRED"
	StateCancelled     State = "CANCELLED"
	StateRefundPending State = "REFUND_PENDING"
	StateRefunded      State = "REFUNDED"
	StateRefundFailed  State = "REFUND_FAILED"
	StateRefund        State = "REFUND" // not a sale: the transfer by which another payment goes back, see FlowRefund
)

// States lists every State in the order in which a payment meets them.
func States() []State {
	return []State{
		StatePending, StateSettling, StatePaid, StateDelivered, StateSettled, StateOwed, StateFailed,
		StateVoid, StateExpired, StateCancelled, StateRefundPending, StateRefunded, StateRefundFailed, StateRefund,
	}
}

// Hold is the right to deliver a payment. Whoever takes it raises Fence; a step
// that needs the hold names the fence it was given, so a holder that was overtaken
// can do no harm.
type Hold struct {
	Fence uint64    `json:"fence"`
	Until time.Time `json:"until"` // zero: nobody holds it
}

// Binding says what a payment was claimed for. A payment is good for nothing else. Its texts are as Text leaves them.
type Binding struct {
	Route  string `json:"route"`            // the name of the price rule
	Plan   string `json:"plan,omitempty"`   // the name of the plan, if one was bought
	Method string `json:"method,omitempty"` // HTTP method of the request that claimed it
	Host   string `json:"host,omitempty"`
	URI    string `json:"uri,omitempty"` // original request URI, path and query
}

func (b Binding) text() Binding {
	return Binding{Route: Text(b.Route), Plan: Text(b.Plan), Method: Text(b.Method), Host: Text(b.Host), URI: Text(b.URI)}
}

// Payment is the record of one authorization, from claim to delivery or refund.
type Payment struct {
	// ID is unguessable (see NewID): it is the key to the payment's status.
	ID string `json:"id"`
	// Version counts the changes made so far; every change is a compare-and-set on it.
	Version uint64 `json:"version"`

	// AuthorizationID is unique over all payments, for ever (invariant I1).
	x402.AuthorizationID
	PayTo common.Address `json:"pay_to"`
	// Amount in atomic units of the asset.
	Amount uint256.Int `json:"amount"`
	// ValidBefore is the authorization's end, in unix seconds.
	ValidBefore uint64 `json:"valid_before"`
	// HeaderHash is of the payment header that claimed it, and of what the price depended on beside the binding, if on anything. Zero: the
	// header carried no random echo, so it could be rebuilt from calldata and must never resume this payment.
	HeaderHash common.Hash `json:"header_hash,omitzero"`
	Binding    Binding     `json:"binding"`
	// Flow is "upfront", "authorization" or "deferred", or "facilitator" or "refund": see Facilitated and PaysBack.
	Flow string `json:"flow"`
	// ClaimBlock is the chain's head when the authorization was seen unused: only a transfer in a
	// later block pays for this payment.
	ClaimBlock uint64 `json:"claim_block"`

	Settlement Settlement `json:"settlement"`
	Delivery   Delivery   `json:"delivery"`
	Refund     Refund     `json:"refund"`

	// Reason is the stable code of why it failed, is void or was not delivered.
	Reason string `json:"reason,omitempty"`
	// Transaction settled the payment, in block Block.
	Transaction common.Hash `json:"transaction,omitzero"`
	Block       uint64      `json:"block,omitempty"`
	BlockHash   common.Hash `json:"block_hash,omitzero"`
	// Final: the settling block is safe, or a failed or void authorization can never execute again.
	Final bool `json:"final"`

	Hold Hold `json:"hold"`
	// PlanUntil is when the plan that was bought ends; zero where none was.
	PlanUntil time.Time `json:"plan_until,omitzero"`
	// ServedBy is the payment that served the request of this void one (rule 6), or that has made good this one, which was delivered
	// and did not come through.
	ServedBy string `json:"served_by,omitempty"`

	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
	SettledAt   time.Time `json:"settled_at,omitzero"`
	DeliveredAt time.Time `json:"delivered_at,omitzero"`
}

// State derives the operator's word from the facets.
func (p *Payment) State() State {
	if p.PaysBack() {
		return StateRefund
	}
	switch p.Refund {
	case RefundPending:
		return StateRefundPending
	case Refunded:
		return StateRefunded
	case RefundFailed:
		return StateRefundFailed
	}
	switch p.Settlement {
	case Pending:
		return StatePending
	case Expired:
		return StateExpired
	case Cancelled:
		return StateCancelled
	case Settled:
		switch {
		case p.Facilitated():
			return StateSettled
		case p.Delivery == Delivered:
			return StateDelivered
		}
		return StatePaid
	}
	if p.Delivery == Delivered {
		if over := p.Settlement == Failed || p.Settlement == Void; over && p.ServedBy != "" {
			return StateDelivered
		}
		return StateOwed
	}
	switch p.Settlement {
	case Failed:
		return StateFailed
	case Void:
		return StateVoid
	}
	return StateSettling
}

// Open reports whether something must still happen to the payment without anybody asking:
// its money's fate is not final, it was paid and neither delivered nor held for refund, or its refund is pending.
func (p *Payment) Open() bool {
	switch p.Settlement {
	case Expired, Cancelled:
		return false
	case Settled:
		return !p.Final || p.Refund == RefundPending || p.sale() && p.Delivery != Delivered && p.Refund == NotRefunded
	}
	return !p.Final
}

// Closed reports whether nothing will be done or asked for any more: Sweep may remove what it left behind.
func (p *Payment) Closed() bool {
	return !p.Open() && p.Refund != RefundPending && p.Refund != RefundFailed && !p.Owes()
}

// Unserved reports whether its payer may still get what it paid for: the money is on its way or here, and
// the payment is neither delivered nor given up nor to be refunded (rule 6 asks for these).
func (p *Payment) Unserved() bool {
	if !p.sale() {
		return false
	}
	switch p.Settlement {
	case Claimed, Settling, Settled:
		return p.Refund == NotRefunded && (p.Delivery == NotDelivered || p.Delivery == Delivering)
	}
	return false
}

// Facilitated reports whether p is of another kind: its money was moved for another server, which delivers by itself what was
// bought. It ends when it is settled; here it is neither delivered nor refunded, and pays for nothing.
func (p *Payment) Facilitated() bool { return p.Flow == FlowFacilitator }

// PaysBack reports whether p is of a third kind: the transfer by which the refund wallet, its payer, pays another payment back. It is
// a payment so that it is claimed, recorded, settled and proven as every other, and is so for ever the only one of its authorization. It
// ends when it is settled, or given up; it is neither delivered nor refunded, pays for nothing, and is nobody's income.
func (p *Payment) PaysBack() bool { return p.Flow == FlowRefund }

// sale reports whether p pays for something of ours, which is to be delivered or to be paid back.
func (p *Payment) sale() bool { return !p.Facilitated() && !p.PaysBack() }

// Held reports whether somebody holds the payment at the time now.
func (p *Payment) Held(now time.Time) bool { return p.Hold.Until.After(now) }

// bare is the payment without all that Apply writes: what was claimed, and nothing of what became of it.
func (p *Payment) bare() Payment {
	return Payment{
		ID: p.ID, AuthorizationID: p.AuthorizationID, PayTo: p.PayTo, Amount: p.Amount,
		ValidBefore: p.ValidBefore, HeaderHash: p.HeaderHash, Binding: p.Binding.text(), Flow: p.Flow, ClaimBlock: p.ClaimBlock,
	}
}

// MarshalJSON writes the payment with its State, for readers; UnmarshalJSON passes over that.
func (p Payment) MarshalJSON() ([]byte, error) {
	type plain Payment
	return json.Marshal(struct {
		*plain
		State State `json:"state"`
	}{(*plain)(&p), p.State()})
}
