package redis

import (
	"fmt"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// tokenLength is how long the random mark of a call is, which every entry that the call wrote carries: a call
// whose answer was lost finds by it whether it was made.
const tokenLength = 8

// What of an entry is there; the rest is zero.
const (
	entryTransaction = 1 << iota
	entryBlock
	entryBlockHash
	entryPlan
	entryServedBy
	entrySubject
	entryReason
)

// The words of entries, numbered by their places here: never reorder.
var (
	events = []string{
		string(ledger.EventChallenge), string(ledger.EventClaim), string(ledger.EventImport), string(ledger.EventSend),
		string(ledger.EventSettle), string(ledger.EventFail), string(ledger.EventVoid), string(ledger.EventExpire),
		string(ledger.EventCancel), string(ledger.EventFinal), string(ledger.EventTake), string(ledger.EventExtend),
		string(ledger.EventRelease), string(ledger.EventDeliver), string(ledger.EventDelivered), string(ledger.EventUndelivered),
		string(ledger.EventRefunded), string(ledger.EventRefundFailed), string(ledger.EventRefundRetry), string(ledger.EventMadeGood),
	}
	actors = []string{"request", "reconciler", "operator"}
)

// appendEntry writes e without what its place says: payment, version, and the hash of the entry before.
func appendEntry(trail []byte, e *ledger.Entry, token string) []byte {
	var w encoder
	w.raw([]byte(token))
	w.time(e.At)
	w.word(events, string(e.Event))
	w.word(actors, e.Actor)
	w.word(settlements, string(e.Settlement))
	w.word(deliveries, string(e.Delivery))
	w.word(refunds, string(e.Refund))
	w.uint(e.Hold.Fence)
	w.time(e.Hold.Until)
	w.raw(e.Hash[:])
	flags := len(w.b)
	w.byte(0)
	for _, h := range []struct {
		flag byte
		hash common.Hash
	}{{entryTransaction, e.Transaction}, {entryBlockHash, e.BlockHash}, {entrySubject, e.Subject}} {
		if h.hash != (common.Hash{}) {
			w.b[flags] |= h.flag
			w.raw(h.hash[:])
		}
	}
	if e.Block != 0 {
		w.b[flags] |= entryBlock
		w.uint(e.Block)
	}
	if !e.PlanUntil.IsZero() {
		w.b[flags] |= entryPlan
		w.time(e.PlanUntil)
	}
	if e.ServedBy != "" {
		w.b[flags] |= entryServedBy
		w.text(e.ServedBy)
	}
	if e.Reason != "" {
		w.b[flags] |= entryReason
		w.text(e.Reason)
	}
	out := encoder{b: trail}
	out.bytes(w.b)
	return out.b
}

// entry is one of a trail, with the token of the call that wrote it.
type entry struct {
	ledger.Entry
	token string
}

func readEntry(b []byte) (entry, error) {
	d := decoder{b: b}
	var e entry
	e.token = string(d.raw(tokenLength))
	e.At = d.time()
	e.Event, e.Actor = ledger.Event(d.word(events)), d.word(actors)
	e.Settlement = ledger.Settlement(d.word(settlements))
	e.Delivery, e.Refund = ledger.Delivery(d.word(deliveries)), ledger.Refund(d.word(refunds))
	e.Hold.Fence, e.Hold.Until = d.uint(), d.time()
	d.fixed(e.Hash[:])
	flags := d.byte()
	if flags&entryTransaction != 0 {
		d.fixed(e.Transaction[:])
	}
	if flags&entryBlockHash != 0 {
		d.fixed(e.BlockHash[:])
	}
	if flags&entrySubject != 0 {
		d.fixed(e.Subject[:])
	}
	if flags&entryBlock != 0 {
		e.Block = d.uint()
	}
	if flags&entryPlan != 0 {
		e.PlanUntil = d.time()
	}
	if flags&entryServedBy != 0 {
		e.ServedBy = d.text()
	}
	if flags&entryReason != 0 {
		e.Reason = d.text()
	}
	return e, d.end()
}

// entries reads the whole trail.
func (s *stored) entries() ([]entry, error) {
	var got []entry
	var previous common.Hash
	d := decoder{b: s.trail}
	for len(d.b) > 0 {
		b := d.bytes()
		if d.err != nil {
			return nil, fmt.Errorf("%w: the trail of %s", d.err, s.payment.ID)
		}
		e, err := readEntry(b)
		if err != nil {
			return nil, fmt.Errorf("%w: the trail of %s", err, s.payment.ID)
		}
		e.Payment, e.Version, e.Previous = s.payment.ID, uint64(len(got)+1), previous
		previous = e.Hash
		got = append(got, e)
	}
	return got, nil
}

// last is the hash of the last entry.
func (s *stored) last() (common.Hash, error) {
	d := decoder{b: s.trail}
	var b []byte
	for len(d.b) > 0 && d.err == nil {
		b = d.bytes()
	}
	if d.err != nil {
		return common.Hash{}, fmt.Errorf("%w: the trail of %s", d.err, s.payment.ID)
	}
	e, err := readEntry(b)
	return e.Hash, err
}

// sent is the transaction as its wallet keeps it.
type sent struct {
	ledger.Transaction
	attempt string
	actor   string
}

func (t *sent) value() string {
	var e encoder
	e.raw([]byte(t.attempt))
	e.text(t.actor)
	e.uint(t.Nonce)
	e.time(t.CreatedAt)
	e.bytes(t.Raw)
	for _, id := range t.Payments {
		e.text(id)
	}
	return string(e.b)
}

func parseSent(v string, r ref) (sent, error) {
	d := decoder{b: []byte(v)}
	var t sent
	t.ChainID, t.Wallet, t.Hash = r.chain, r.wallet, r.hash
	t.attempt, t.actor = string(d.raw(tokenLength)), d.text()
	t.Nonce, t.CreatedAt = d.uint(), d.time()
	t.Raw = append([]byte{}, d.bytes()...)
	for d.err == nil && len(d.b) > 0 {
		t.Payments = append(t.Payments, d.text())
	}
	if err := d.end(); err != nil {
		return sent{}, fmt.Errorf("%w: transaction %s", err, r.hash)
	}
	return t, nil
}
