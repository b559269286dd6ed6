package ledger

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// Event names a step of a payment; the audit trail is a list of them.
type Event string

// The events, each with the facets it moves.
const (
	EventChallenge    Event = "challenge"     // creates a pending payment
	EventClaim        Event = "claim"         // creates a claimed payment
	EventImport       Event = "import"        // creates a payment in quarantine: settled, but what it was for is lost
	EventSend         Event = "send"          // claimed, settling -> settling; made by Store.Record only
	EventSettle       Event = "settle"        // any unsettled -> settled
	EventFail         Event = "fail"          // claimed, settling -> failed
	EventVoid         Event = "void"          // claimed -> void
	EventExpire       Event = "expire"        // pending -> expired
	EventCancel       Event = "cancel"        // pending -> cancelled
	EventFinal        Event = "final"         // settled: its block is safe; failed, void: can never execute again
	EventTake         Event = "take"          // somebody takes the free hold
	EventExtend       Event = "extend"        // the holder keeps it longer
	EventRelease      Event = "release"       // the holder gives it back
	EventDeliver      Event = "deliver"       // none, delivering -> delivering
	EventDelivered    Event = "delivered"     // delivering -> delivered
	EventUndelivered  Event = "undelivered"   // none, delivering -> undelivered; a settled one is then to be refunded
	EventRefunded     Event = "refunded"      // refund pending -> refunded
	EventRefundFailed Event = "refund_failed" // refund pending -> refund_failed
	EventRefundRetry  Event = "refund_retry"  // refund_failed -> pending
	EventMadeGood     Event = "made_good"     // delivered, and failed or void: another payment has paid for it
)

// Change asks for one step. Only the fields that its event names are read.
type Change struct {
	Event Event
	// Actor is who does it: "request", "reconciler", "operator".
	Actor string
	// Reason is a stable code; read by fail, void, undelivered, refund_failed.
	Reason string
	// Fence proves the hold; read by extend, release, deliver, delivered, undelivered. An undelivered
	// without a fence (0) needs a free hold.
	Fence uint64
	// Hold is how long the hold is wanted from now; read by claim, take, extend, deliver.
	Hold time.Duration
	// Transaction, Block and BlockHash are where the money moved; read by settle, import and final,
	// Transaction by send, refunded.
	Transaction common.Hash
	Block       uint64
	BlockHash   common.Hash
	// PlanUntil is when the bought plan ends; read by delivered.
	PlanUntil time.Time
	// ServedBy is the payment that served in place of this one, or has made it good; read by void, made_good.
	ServedBy string
}

// Errors of the state machine and the stores. They are compared with errors.Is.
var (
	// ErrTransition: the payment is in a state that the event can't leave.
	ErrTransition = errors.New("ledger: the payment's state does not allow this step")
	// ErrFence: the hold belongs to somebody else.
	ErrFence = errors.New("ledger: the payment is held by another")
	// ErrConflict: the payment changed since it was read; read it again.
	ErrConflict = errors.New("ledger: the payment changed meanwhile")
	// ErrNotFound: there is no such payment.
	ErrNotFound = errors.New("ledger: no such payment")
	// ErrExists: the authorization is claimed already.
	ErrExists = errors.New("ledger: the authorization is claimed already")
	// ErrNonce: another transaction has taken the wallet's nonce; ask for the next one and sign again.
	ErrNonce = errors.New("ledger: the wallet's nonce is taken")
	// ErrIncomplete: a copy into this ledger was begun and is not complete; go on with it.
	ErrIncomplete = errors.New("ledger: the copy into this ledger is not complete")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("ledger: the store is closed")
)

// Apply makes one step of p at the time now, or leaves p as it was and returns an error that wraps
// ErrTransition or ErrFence. It is the state machine (one for all stores): pure, and the only code
// that writes facets. Times and holds are kept in UTC and whole microseconds, which every store can
// give back unchanged: the audit trail's hashes depend on it.
func Apply(p *Payment, c Change, now time.Time) error {
	next := *p
	now = moment(now)
	c.Hold = c.Hold.Truncate(time.Microsecond)
	c.PlanUntil = moment(c.PlanUntil)
	if err := next.step(c, now); err != nil {
		return fmt.Errorf("%w: %s of payment %s (%s, %s, %s)", err, c.Event, p.ID, p.Settlement, p.Delivery, p.Refund)
	}
	next.Version++
	next.UpdatedAt = now
	*p = next
	return nil
}

func moment(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

func (p *Payment) step(c Change, now time.Time) error {
	switch c.Event {
	case EventChallenge:
		return p.create(Pending, c, now)
	case EventClaim:
		return p.create(Claimed, c, now)
	case EventImport:
		return p.quarantine(c, now)
	case EventSend:
		return p.settlementFrom(Settling, Claimed, Settling)
	case EventSettle:
		return p.settle(c, now)
	case EventFail:
		return p.end(c, Failed, Claimed, Settling)
	case EventVoid:
		p.ServedBy = c.ServedBy
		return p.end(c, Void, Claimed)
	case EventExpire:
		return p.settlementFrom(Expired, Pending)
	case EventCancel:
		return p.settlementFrom(Cancelled, Pending)
	case EventFinal:
		return p.final(c)
	case EventTake, EventExtend, EventRelease:
		return p.hold(c, now)
	case EventDeliver, EventDelivered, EventUndelivered:
		return p.deliver(c, now)
	case EventRefunded:
		return p.refundFrom(Refunded, RefundPending)
	case EventRefundFailed:
		p.Reason = c.Reason
		return p.refundFrom(RefundFailed, RefundPending)
	case EventRefundRetry:
		return p.refundFrom(RefundPending, RefundFailed)
	case EventMadeGood:
		if !p.Owes() || c.ServedBy == "" {
			return ErrTransition
		}
		p.ServedBy = c.ServedBy
		return nil
	}
	return ErrTransition
}

func (p *Payment) create(s Settlement, c Change, now time.Time) error {
	switch {
	case s == Claimed && p.Settlement == Pending:
		p.Settlement = Claimed // a challenge is paid
	case p.Version != 0:
		return ErrTransition
	default:
		p.Settlement, p.Delivery, p.Refund = s, NotDelivered, NotRefunded
		p.CreatedAt = now
	}
	if c.Hold > 0 {
		p.Hold = Hold{Fence: p.Hold.Fence + 1, Until: now.Add(c.Hold)}
	}
	return nil
}

// ReasonQuarantine is why an imported payment waits for the operator.
const ReasonQuarantine = "quarantine"

// quarantine creates a payment of which only the money is known, because the record of it was lost. Whether it was
// delivered nobody knows, so nothing but the operator's word makes it a refund.
func (p *Payment) quarantine(c Change, now time.Time) error {
	if p.Version != 0 {
		return ErrTransition
	}
	p.Settlement, p.Delivery, p.Refund, p.Reason = Settled, Undelivered, RefundFailed, ReasonQuarantine
	if !p.sale() {
		p.Delivery, p.Refund = NotDelivered, NotRefunded
	}
	p.Transaction, p.Block, p.BlockHash = c.Transaction, c.Block, c.BlockHash
	p.CreatedAt, p.SettledAt = now, now
	return nil
}

func (p *Payment) settlementFrom(to Settlement, from ...Settlement) error {
	if !slices.Contains(from, p.Settlement) {
		return ErrTransition
	}
	p.Settlement = to
	return nil
}

func (p *Payment) refundFrom(to, from Refund) error {
	if p.Refund != from {
		return ErrTransition
	}
	p.Refund = to
	return nil
}

// end gives a payment up: the client is, or will be, told that nothing was charged.
func (p *Payment) end(c Change, to Settlement, from ...Settlement) error {
	p.Reason = c.Reason
	p.Hold.Until = time.Time{}
	return p.settlementFrom(to, from...)
}

// settle credits the money. One that was given up before was not served, and its payer was told
// so: it goes back. So does one whose delivery had failed while its money was still on the way.
func (p *Payment) settle(c Change, now time.Time) error {
	givenUp := p.Settlement == Failed || p.Settlement == Void
	if err := p.settlementFrom(Settled, Claimed, Settling, Failed, Void); err != nil {
		return err
	}
	p.Transaction, p.Block, p.BlockHash = c.Transaction, c.Block, c.BlockHash
	p.SettledAt, p.Final = now, false
	if p.sale() && (p.Delivery == Undelivered || givenUp && p.Delivery != Delivered) {
		p.Delivery, p.Refund = Undelivered, RefundPending
	}
	return nil
}

func (p *Payment) final(c Change) error {
	switch p.Settlement {
	case Settled:
		p.Transaction, p.Block, p.BlockHash = c.Transaction, c.Block, c.BlockHash
	case Failed, Void:
	default:
		return ErrTransition
	}
	p.Final = true
	return nil
}

func (p *Payment) hold(c Change, now time.Time) error {
	if c.Event == EventTake {
		if p.Held(now) {
			return ErrFence
		}
		if p.Delivery == Delivered || p.Delivery == Undelivered || p.Refund != NotRefunded {
			return ErrTransition
		}
		p.Hold = Hold{Fence: p.Hold.Fence + 1, Until: now.Add(c.Hold)}
		return nil
	}
	if c.Fence != p.Hold.Fence || c.Event == EventExtend && p.lapsed(now) {
		return ErrFence
	}
	if c.Event == EventExtend {
		p.Hold.Until = now.Add(c.Hold)
	} else {
		p.Hold.Until = time.Time{}
	}
	return nil
}

// lapsed reports whether p was to be served without being paid, and its hold has run out: what was lent for it may be lent to
// another since (see Credit).
func (p *Payment) lapsed(now time.Time) bool {
	return p.Flow == FlowDeferred && (p.Settlement == Claimed || p.Settlement == Settling) && !p.Held(now)
}

// deliver moves the second facet. Delivering again is for a payment whose holder died: its client
// got nothing, because delivered is committed before the first byte.
func (p *Payment) deliver(c Change, now time.Time) error {
	if !p.sale() || p.Delivery != NotDelivered && p.Delivery != Delivering {
		return ErrTransition
	}
	if c.Fence != p.Hold.Fence && !(c.Event == EventUndelivered && c.Fence == 0 && !p.Held(now)) {
		return ErrFence
	}
	// Flows that ask the upstream before they settle begin with what is claimed; upfront settles first. Of these, authorization
	// lets nothing out that is not settled.
	paid := p.Settlement == Settled ||
		p.Flow != FlowUpfront && (p.Settlement == Claimed || p.Settlement == Settling)
	if c.Event != EventUndelivered && p.lapsed(now) {
		return ErrFence
	}
	switch c.Event {
	case EventDeliver:
		if !paid || p.Refund != NotRefunded {
			return ErrTransition
		}
		p.Delivery = Delivering
		p.Hold.Until = now.Add(c.Hold)
	case EventDelivered:
		if p.Delivery != Delivering || p.Flow == FlowAuthorization && p.Settlement != Settled {
			return ErrTransition
		}
		p.Delivery, p.DeliveredAt, p.PlanUntil = Delivered, now, c.PlanUntil
		p.Hold.Until = time.Time{}
	case EventUndelivered:
		if !paid {
			return ErrTransition
		}
		p.Delivery, p.Reason = Undelivered, c.Reason
		p.Hold.Until = time.Time{}
		if p.Settlement == Settled {
			p.Refund = RefundPending
		}
	}
	return nil
}

// The flows of a route (design of the paywall; x402 2.27 calls the word extra.paymentFlow).
const (
	FlowUpfront       = "upfront"
	FlowAuthorization = "authorization"
	FlowDeferred      = "deferred"
)

// FlowFacilitator stands in a flow's place where a payment is of no route of ours: see Payment.Facilitated.
const FlowFacilitator = "facilitator"

// FlowRefund stands there where a payment is the transfer that pays another one back: see Payment.PaysBack.
const FlowRefund = "refund"
