package main

import (
	"fmt"
	"math"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// soakVerdict compares what every client was told, what the chain has, and what the ledger says.
type soakVerdict struct {
	// Wanted are the authorizations that clients signed and sent; Served those that they got something for.
	Wanted int `json:"wanted"`
	Served int `json:"served"`
	// By flow: what was served.
	ByFlow map[string]int `json:"served_by_flow"`
	// Void: the upstream failed, and nothing was charged. Held: it failed, and the payment goes back. Refused: the payment was.
	// Used: the answer was lost with the connection that the client had given up. Left: the client never came back. Resumed:
	// served with an earlier payment of the payer's, whose client had left.
	Void    int `json:"void"`
	Held    int `json:"held"`
	Resumed int `json:"resumed"`
	Refused int `json:"refused"`
	Used    int `json:"answer_lost_on_the_way"`
	Left    int `json:"left"`
	// Transfers are on chain; Payments are in the ledger, Settled among them, Refundable among these.
	Transfers  int                  `json:"transfers"`
	Payments   int                  `json:"ledger_payments"`
	Trails     int                  `json:"trails_verified"`
	States     map[ledger.State]int `json:"ledger_states"`
	Settled    int                  `json:"settled"`
	Refundable int                  `json:"refundable"`
	// Behind are settled payments of which nobody has looked whether they are safe, long after they were.
	Behind int `json:"behind"`
	// Lost: charged, and neither served nor refundable. Doubled: charged, served or credited twice. Free: served, not charged.
	// Discord: chain, ledger and clients say different things. Stuck: something never ended.
	Lost    int      `json:"lost"`
	Doubled int      `json:"doubled"`
	Free    int      `json:"free"`
	Discord int      `json:"discord"`
	Stuck   int      `json:"stuck"`
	Wrong   []string `json:"wrong,omitempty"`
}

// wrong counts something that is not so as it should be, and keeps the first few.
func (v *soakVerdict) wrong(format string, args ...any) {
	v.Discord++
	v.note(format, args...)
}

func (v *soakVerdict) note(format string, args ...any) {
	const enough = 20
	if len(v.Wrong) < enough {
		v.Wrong = append(v.Wrong, fmt.Sprintf(format, args...))
	}
}

// ok reports whether nothing is wrong.
func (v *soakVerdict) ok() bool { return v.Lost+v.Doubled+v.Free+v.Discord+v.Stuck+v.Behind == 0 }

// soakJudge hears of everything, one by one, and then judges.
type soakJudge struct {
	all   []purchase
	index map[common.Hash]int32 // by nonce: nonces are random
	over  time.Time             // when the run had ended
	v     soakVerdict
}

// lookedAfter is how long after its settlement a payment is known to be safe at the latest, on a chain whose head is safe.
const lookedAfter = time.Minute

func newSoakJudge(all []purchase, over time.Time) *soakJudge {
	j := &soakJudge{all: all, over: over, index: make(map[common.Hash]int32, len(all))}
	j.v.ByFlow, j.v.States = map[string]int{}, map[ledger.State]int{}
	for i := range all {
		j.index[all[i].nonce] = int32(i)
	}
	return j
}

func (j *soakJudge) find(nonce common.Hash) *purchase {
	if i, ok := j.index[nonce]; ok {
		return &j.all[i]
	}
	return nil
}

// transfer hears of one that the chain has.
func (j *soakJudge) transfer(t *transfer) {
	j.v.Transfers++
	p := j.find(t.nonce)
	if p == nil {
		j.v.wrong("nobody has asked for the transfer in %s", t.tx)
		return
	}
	if p.transfers < math.MaxUint8 {
		p.transfers++
	}
	p.moved = t.tx
}

// trail hears of that of a payment.
func (j *soakJudge) trail(q *ledger.Payment, entries []ledger.Entry) {
	j.v.Trails++
	if err := ledger.VerifyAudit(q, entries); err != nil {
		j.v.wrong("the trail of payment %s: %v", q.ID, err)
	}
}

// payment hears of one that the ledger has.
func (j *soakJudge) payment(q *ledger.Payment) {
	j.v.Payments++
	j.v.States[q.State()]++
	if q.Settlement == ledger.Settled && !q.Final && j.over.Sub(q.SettledAt) > lookedAfter {
		j.v.Behind++
	}
	p := j.find(q.Nonce)
	if p == nil || p.known {
		j.v.wrong("the ledger has the payment %s, which nobody has sent, or has it twice", q.ID)
		return
	}
	p.known, p.settled, p.delivered = true, q.Settlement == ledger.Settled, q.Delivery == ledger.Delivered
	p.refunding = q.Refund == ledger.RefundPending
	p.ended = q.Settlement != ledger.Claimed && q.Settlement != ledger.Settling && q.State() != ledger.StatePaid
	if p.settled {
		j.v.Settled++
		if p.transfers > 0 && q.Transaction != p.moved {
			j.v.wrong("the ledger says that payment %s was made in %s, and it was in %s", q.ID, q.Transaction, p.moved)
		}
	}
	if p.refunding {
		j.v.Refundable++
	}
}

// instead hears of a payment that was given up for an earlier one of its payer's, which served in its place.
func (j *soakJudge) instead(q, earlier *ledger.Payment) {
	p, by := j.find(q.Nonce), j.index[earlier.Nonce]
	if p == nil || j.all[by].nonce != earlier.Nonce || j.all[by].payer != p.payer {
		j.v.wrong("payment %s was served by %s, which nobody of this payer has sent", q.ID, earlier.ID)
		return
	}
	p.by = by + 1
}

// verdict judges each authorization.
func (j *soakJudge) verdict() soakVerdict {
	j.v.Wanted = len(j.all)
	for i := range j.all {
		if p := &j.all[i]; p.by > 0 {
			j.v.Resumed++
			earlier := &j.all[p.by-1]
			earlier.answers += p.answers
			if p.answers > 0 && p.tx != (common.Hash{}) && p.tx != earlier.moved {
				j.v.wrong("the receipt for %s names %s, and the money moved in %s", p.nonce, p.tx, earlier.moved)
			}
			p.answers = 0
		}
	}
	for i := range j.all {
		j.judge(&j.all[i])
	}
	return j.v
}

func (j *soakJudge) judge(p *purchase) {
	v := &j.v
	switch p.told {
	case served:
		v.Served++
		v.ByFlow[flows[p.flow]]++
	case void:
		v.Void++
	case held:
		v.Held++
	case refused:
		v.Refused++
	case used:
		v.Used++
	case left:
		v.Left++
	}
	charged := p.transfers > 0
	switch {
	case p.transfers > 1 || p.answers > 1 || p.refunding && (p.delivered || p.answers > 0):
		v.Doubled++
		v.note("doubled: %s was charged %d times and answered %d times, delivered %t, to be refunded %t", p.nonce, p.transfers, p.answers, p.delivered, p.refunding)
	case charged && (p.told == void || p.answers == 0 && !p.refunding && !(p.delivered && p.broke)):
		v.Lost++
		v.note("lost: %s was charged in %s, its client was told %d, delivered %t", p.nonce, p.moved, p.told, p.delivered)
	case !charged && p.answers > 0:
		v.Free++
		v.note("free: %s was answered and not charged", p.nonce)
	}
	switch {
	case p.told == held && !p.refunding:
		v.wrong("%s is not to be refunded, and its client was told so", p.nonce)
	case p.settled != charged:
		v.wrong("of %s the ledger says settled %t, and the chain has %d transfers", p.nonce, p.settled, p.transfers)
	case charged && p.tx != (common.Hash{}) && p.tx != p.moved:
		v.wrong("the receipt for %s names %s, and the money moved in %s", p.nonce, p.tx, p.moved)
	}
	if p.told == unsure || p.known && !p.ended {
		v.Stuck++
		v.note("stuck: %s, its client was told %d, ended in the ledger %t", p.nonce, p.told, p.ended)
	}
}
