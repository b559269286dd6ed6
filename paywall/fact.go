package paywall

import (
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// FactKind names what has happened to a payment, for those who are told of it.
type FactKind string

// The kinds.
const (
	FactSettled       FactKind = "settled"        // its money was received
	FactDelivered     FactKind = "delivered"      // its payer got what it paid for
	FactRefundPending FactKind = "refund_pending" // it is to go back
	FactRefunded      FactKind = "refunded"       // it went back
	FactRefundFailed  FactKind = "refund_failed"  // it could not go back: a person has to look at it
)

// Fact is one thing that has happened to a payment.
type Fact struct {
	// ID is the same whoever tells of the fact, and no other fact's.
	ID   string
	Kind FactKind
	// At is when the ledger wrote it.
	At time.Time
	// Reason is the stable code of why, if there is one.
	Reason string
	// Back is the transaction by which the money went back, if the fact is FactRefunded; else zero.
	Back common.Hash
	// Payment is what it happened to, as it was then or later.
	Payment ledger.Payment
}

// factID names the fact of a kind that the step to version of a payment has made.
func factID(payment string, version uint64, kind FactKind) string {
	return payment + "." + strconv.FormatUint(version, 10) + "." + string(kind)
}

// kinds are the facts that a step makes: event, after which the refund stands as given.
func kinds(event ledger.Event, refund ledger.Refund) []FactKind {
	switch event {
	case ledger.EventSettle:
		if refund == ledger.RefundPending { // it had been given up
			return []FactKind{FactSettled, FactRefundPending}
		}
		return []FactKind{FactSettled}
	case ledger.EventImport:
		if refund == ledger.RefundFailed {
			return []FactKind{FactSettled, FactRefundFailed}
		}
		return []FactKind{FactSettled}
	case ledger.EventDelivered:
		return []FactKind{FactDelivered}
	case ledger.EventRefundRetry:
		return []FactKind{FactRefundPending}
	case ledger.EventUndelivered:
		if refund == ledger.RefundPending {
			return []FactKind{FactRefundPending}
		}
	case ledger.EventRefunded:
		return []FactKind{FactRefunded}
	case ledger.EventRefundFailed:
		return []FactKind{FactRefundFailed}
	}
	return nil
}

// wentBack is the transaction of a step that has made a fact of a kind, where it is that which paid back.
func wentBack(kind FactKind, transaction common.Hash) common.Hash {
	if kind != FactRefunded {
		return common.Hash{}
	}
	return transaction
}

// happened tells of the steps that led to p, which this process has just written. It does not wait for anybody.
func (e *Engine) happened(p *ledger.Payment, steps []ledger.Change) {
	tell := e.current().Happened
	if tell == nil {
		return
	}
	first := p.Version - uint64(len(steps))
	for i, c := range steps {
		for _, kind := range kinds(c.Event, p.Refund) {
			tell(Fact{
				ID: factID(p.ID, first+uint64(i)+1, kind), Kind: kind, At: p.UpdatedAt, Reason: c.Reason,
				Back: wentBack(kind, c.Transaction), Payment: *p,
			})
		}
	}
}
