package redis

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// A payment is one string in Redis, so that it costs one key:
//
//	version 8 | check 18 digits | length of body 4 | length of mark 2 | mark | body | trail
//
// The scripts read and replace these sections, and understand no more of them. check is when the payment is looked at next
// (microseconds, decimal); it may change without the version. mark is there while a transaction is being recorded for the
// payment. body is the payment and the transactions recorded for it; trail is its audit entries.
const (
	checkAt    = 8
	checkWidth = 18
	bodyLenAt  = checkAt + checkWidth
	markLenAt  = bodyLenAt + 4
	sectionsAt = markLenAt + 2
)

// stored is a payment as it is in Redis.
type stored struct {
	payment ledger.Payment
	refs    []ref
	mark    []byte
	check   int64
	trail   []byte
}

// ref names a transaction that was recorded for a payment.
type ref struct {
	chain  uint64
	wallet common.Address
	hash   common.Hash
}

func versionBytes(v uint64) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], v)
	return string(b[:])
}

// digits is a time in microseconds as the scripts keep it.
func digits(micros int64) string { return fmt.Sprintf("%018d", max(micros, 0)) }

// value is a payment that nothing marks, as a string for Redis.
func (s *stored) value() string {
	body := s.body()
	b := make([]byte, 0, sectionsAt+len(body)+len(s.trail))
	b = binary.BigEndian.AppendUint64(b, s.payment.Version)
	b = append(b, digits(s.check)...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = append(b, 0, 0)
	b = append(b, body...)
	return string(append(b, s.trail...))
}

// parse reads a payment and keeps its trail unread.
func parse(v string) (*stored, error) {
	if len(v) < sectionsAt {
		return nil, errDamaged
	}
	b := []byte(v)
	check, err := strconv.ParseInt(v[checkAt:bodyLenAt], 10, 64)
	if err != nil {
		return nil, errDamaged
	}
	d := decoder{b: b[sectionsAt:]}
	s := &stored{check: check}
	s.mark = d.raw(uint64(binary.BigEndian.Uint16(b[markLenAt:])))
	body := d.raw(uint64(binary.BigEndian.Uint32(b[bodyLenAt:])))
	if d.err != nil {
		return nil, d.err
	}
	s.trail = d.b
	if err := s.readBody(body); err != nil {
		return nil, err
	}
	s.payment.Version = binary.BigEndian.Uint64(b)
	return s, nil
}

var (
	settlements = []string{
		string(ledger.Pending), string(ledger.Claimed), string(ledger.Settling), string(ledger.Settled),
		string(ledger.Failed), string(ledger.Void), string(ledger.Expired), string(ledger.Cancelled),
	}
	deliveries = []string{
		string(ledger.NotDelivered), string(ledger.Delivering), string(ledger.Delivered), string(ledger.Undelivered),
	}
	refunds = []string{
		string(ledger.NotRefunded), string(ledger.RefundPending), string(ledger.Refunded), string(ledger.RefundFailed),
	}
	flows   = []string{ledger.FlowUpfront, ledger.FlowAuthorization, ledger.FlowDeferred, ledger.FlowFacilitator, ledger.FlowRefund}
	methods = []string{"", "GET", "POST", "HEAD"}
)

// What of a payment is there; the rest is zero.
const (
	hasTransaction = 1 << iota
	hasBlockHash
	hasHeaderHash
	isFinal
)

func (s *stored) body() []byte {
	p := &s.payment
	var e encoder
	e.text(p.ID)
	e.uint(p.ChainID)
	e.raw(p.Asset[:])
	e.raw(p.Payer[:])
	e.raw(p.Nonce[:])
	e.raw(p.PayTo[:])
	e.bytes(p.Amount.Bytes())
	e.uint(p.ValidBefore)
	e.text(p.Binding.Route)
	e.text(p.Binding.Plan)
	e.word(methods, p.Binding.Method)
	e.text(p.Binding.Host)
	e.text(p.Binding.URI)
	e.word(flows, p.Flow)
	e.uint(p.ClaimBlock)
	e.word(settlements, string(p.Settlement))
	e.word(deliveries, string(p.Delivery))
	e.word(refunds, string(p.Refund))
	e.text(p.Reason)
	e.uint(p.Block)
	e.uint(p.Hold.Fence)
	e.time(p.Hold.Until)
	e.time(p.PlanUntil)
	e.text(p.ServedBy)
	e.time(p.CreatedAt)
	e.time(p.UpdatedAt)
	e.time(p.SettledAt)
	e.time(p.DeliveredAt)
	flags := len(e.b)
	e.byte(0)
	for _, h := range []struct {
		flag byte
		hash common.Hash
	}{{hasTransaction, p.Transaction}, {hasBlockHash, p.BlockHash}, {hasHeaderHash, p.HeaderHash}} {
		if h.hash != (common.Hash{}) {
			e.b[flags] |= h.flag
			e.raw(h.hash[:])
		}
	}
	if p.Final {
		e.b[flags] |= isFinal
	}
	for _, r := range s.refs {
		e.uint(r.chain)
		e.raw(r.wallet[:])
		e.raw(r.hash[:])
	}
	return e.b
}

func (s *stored) readBody(body []byte) error {
	p, d := &s.payment, decoder{b: body}
	p.ID, p.ChainID = d.text(), d.uint()
	d.fixed(p.Asset[:])
	d.fixed(p.Payer[:])
	d.fixed(p.Nonce[:])
	d.fixed(p.PayTo[:])
	amount := d.bytes()
	if len(amount) > 32 {
		return errDamaged
	}
	p.Amount.SetBytes(amount)
	p.ValidBefore = d.uint()
	p.Binding.Route, p.Binding.Plan, p.Binding.Method = d.text(), d.text(), d.word(methods)
	p.Binding.Host, p.Binding.URI = d.text(), d.text()
	p.Flow, p.ClaimBlock = d.word(flows), d.uint()
	p.Settlement = ledger.Settlement(d.word(settlements))
	p.Delivery, p.Refund = ledger.Delivery(d.word(deliveries)), ledger.Refund(d.word(refunds))
	p.Reason, p.Block = d.text(), d.uint()
	p.Hold.Fence, p.Hold.Until = d.uint(), d.time()
	p.PlanUntil, p.ServedBy = d.time(), d.text()
	p.CreatedAt, p.UpdatedAt, p.SettledAt, p.DeliveredAt = d.time(), d.time(), d.time(), d.time()
	flags := d.byte()
	if flags&hasTransaction != 0 {
		d.fixed(p.Transaction[:])
	}
	if flags&hasBlockHash != 0 {
		d.fixed(p.BlockHash[:])
	}
	if flags&hasHeaderHash != 0 {
		d.fixed(p.HeaderHash[:])
	}
	p.Final = flags&isFinal != 0
	for d.err == nil && len(d.b) > 0 {
		var r ref
		r.chain = d.uint()
		d.fixed(r.wallet[:])
		d.fixed(r.hash[:])
		s.refs = append(s.refs, r)
	}
	return d.end()
}
