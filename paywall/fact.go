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
	FactFailed        FactKind = "failed"         // its money did not come
	FactDelivered     FactKind = "delivered"      // its payer got what it paid for
	FactUndelivered   FactKind = "undelivered"    // its payer did not get what it paid for, or was to pay for
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
	case ledger.EventFail:
		return []FactKind{FactFailed}
	case ledger.EventDelivered:
		return []FactKind{FactDelivered}
	case ledger.EventUndelivered:
		if refund == ledger.RefundPending {
			return []FactKind{FactUndelivered, FactRefundPending}
		}
		return []FactKind{FactUndelivered}
	case ledger.EventRefundRetry:
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

// happened counts the steps that led to p, which this process has just written, and tells of them. It does not wait for anybody.
func (e *Engine) happened(p *ledger.Payment, steps []ledger.Change) {
	s := e.current()
	for i := range steps {
		s.count(p, &steps[i])
	}
	tell := s.Happened
	if tell == nil || p.PaysBack() {
		return // a transfer that pays back is told of as what becomes of the payment that it pays back
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

// count observes what a step says of money and goods. A step is written once, by one of all instances.
func (s *Settings) count(p *ledger.Payment, c *ledger.Change) {
	switch c.Event {
	case ledger.EventSettle:
		if p.PaysBack() {
			return // it is nobody's income
		}
		o := Observation{Event: "received", Network: networkID(p.ChainID), Asset: s.symbol(p), Outcome: "sale", Amount: p.Amount}
		if p.Facilitated() {
			o.Outcome = "facilitated"
		}
		s.Observe(o)
	case ledger.EventUndelivered:
		s.Observe(Observation{Event: "undelivered", Network: networkID(p.ChainID), Reason: c.Reason})
	}
}

// otherAsset stands for the symbol of an asset that the configuration does not have.
const otherAsset = "other"

// symbol is what the configuration calls the asset of p.
func (s *Settings) symbol(p *ledger.Payment) string {
	for _, y := range s.Payees {
		if y.Network.ChainID == p.ChainID && y.Network.Asset.Address == p.Asset && y.Network.Asset.Symbol != "" {
			return y.Network.Asset.Symbol
		}
	}
	return otherAsset
}
