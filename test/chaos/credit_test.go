package chaos

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/paywall"
)

// debt is a payment that was served before it was paid.
type debt struct {
	payment *ledger.Payment
	// lent is when it was served. It ends when it was paid, or made good; zero: never.
	lent, end time.Time
	// failed is when it was known that it does not come through by itself; zero: it did.
	failed time.Time
}

// open reports whether the payer was a debtor at a time, give or take some time.
func (d *debt) open(from, to time.Time) bool {
	return !d.failed.IsZero() && !d.failed.After(to) && (d.end.IsZero() || !d.end.Before(from))
}

// debtOf reads a debt from a trail; nil if nothing was lent.
func debtOf(r *ledger.Record) *debt {
	if r.Payment.Flow != ledger.FlowDeferred {
		return nil
	}
	var d *debt
	for _, e := range r.Trail {
		if e.Delivery != ledger.Delivered {
			continue
		}
		if d == nil && e.Settlement == ledger.Settled {
			return nil // it was to be lent, and was paid before it was served
		}
		if d == nil {
			d = &debt{payment: &r.Payment, lent: e.At}
		}
		over := e.Settlement == ledger.Failed || e.Settlement == ledger.Void
		switch {
		case d.end.IsZero() && (e.Settlement == ledger.Settled || e.ServedBy != ""):
			d.end = e.At
		case d.failed.IsZero() && over:
			d.failed = e.At
		}
	}
	return d
}

// judgeCredit: what was lent was never more than may be, and who owes something was lent nothing.
func (j *judgement) judgeCredit() {
	for i := range j.records {
		if d := debtOf(&j.records[i]); d != nil {
			j.debts = append(j.debts, *d)
			j.lent++
			if !d.failed.IsZero() {
				j.judgeLoss(d)
			}
		}
	}
	j.judgeBounds()
	for i := range j.records {
		p := &j.records[i].Payment
		if p.Binding.Route != "/"+ledger.FlowDeferred+"/*" {
			continue
		}
		for _, d := range j.debts {
			if d.payment.Payer == p.Payer && d.open(p.CreatedAt.Add(skew), p.CreatedAt.Add(-hesitation)) {
				j.accuse(credit, p, "payment %s was claimed though its payer owed %s", p.ID, d.payment.ID)
			}
		}
	}
}

// hesitation is how long may pass between the question whether somebody owes something and the claim that follows it: processes and
// stores are paused for seconds here.
const hesitation = 15 * time.Second

// skew is how much what two instances take for the store's time may differ: a debt may be made good by one, and the next payment
// claimed by another that is a little behind.
const skew = time.Second

// judgeLoss looks at a debt that did not come through: it is made good by a payment that is good for nothing else, or it is a loss.
func (j *judgement) judgeLoss(d *debt) {
	p := d.payment
	by := j.payment(p.ServedBy)
	switch {
	case p.Settlement == ledger.Settled:
		return // late
	case p.ServedBy == "":
		j.unpaid++
		j.loss.Add(&j.loss, &p.Amount)
		return
	case by == nil || by.Settlement != ledger.Settled || by.Delivery != ledger.Delivered || by.Payer != p.Payer || by.Amount.Lt(&p.Amount) ||
		!strings.HasSuffix(by.Binding.Route, p.ID):
		j.accuse(free, p, "payment %s is said to be made good by %q, which is not so", p.ID, p.ServedBy)
	}
	j.madeGood++
}

// judgeBounds adds up what was outstanding at each time.
func (j *judgement) judgeBounds() {
	type step struct {
		at   time.Time
		d    *debt
		lent bool
	}
	var steps []step
	for i := range j.debts {
		d := &j.debts[i]
		steps = append(steps, step{d.lent, d, true})
		if !d.end.IsZero() {
			steps = append(steps, step{d.end, d, false})
		}
	}
	slices.SortStableFunc(steps, func(a, b step) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return cmp.Compare(order(a.lent), order(b.lent)) // what is given back may be lent again at once
	})
	byPayer, total := make(map[common.Address]*uint256.Int), new(uint256.Int)
	for _, s := range steps {
		p := s.d.payment
		if byPayer[p.Payer] == nil {
			byPayer[p.Payer] = new(uint256.Int)
		}
		for _, sum := range []*uint256.Int{byPayer[p.Payer], total} {
			if s.lent {
				sum.Add(sum, &p.Amount)
			} else {
				sum.Sub(sum, &p.Amount)
			}
		}
		if j.mostLent.Lt(total) {
			j.mostLent.Set(total)
		}
		if s.lent && (byPayer[p.Payer].GtUint64(creditPayer) || total.GtUint64(creditTotal)) {
			j.accuse(credit, p, "with payment %s its payer owed %s, and all together %s", p.ID, byPayer[p.Payer], total)
		}
	}
}

func order(lent bool) int {
	if lent {
		return 1
	}
	return 0
}

// judgeDebtor: who is told to pay what it owes does owe something.
func (j *judgement) judgeDebtor(a *attempt) {
	j.debtorsRefused++
	for _, d := range j.debts {
		if j.payerOf[d.payment.Payer] == a.Payer && d.open(a.Start.Add(-slack), a.End.Add(slack)) {
			return
		}
	}
	j.accuseFor(untrue, a.Payer, "client %d was told that it owes something, and it does not", a.Payer)
}

// judgeRepayment: who is told that its debt is made good has paid it.
func (j *judgement) judgeRepayment(a *attempt) {
	owed, by := j.payment(a.Repays), j.payment(a.Payment)
	if a.MadeGood != a.Repays || owed == nil || by == nil || owed.ServedBy != by.ID || by.Settlement != ledger.Settled {
		j.accuseFor(untrue, a.Payer, "client %d was told that payment %s is made good, and it is not", a.Payer, a.Repays)
	}
}

// judgeVoid: where the upstream is asked before the money moves, what it refuses costs nothing.
func (j *judgement) judgeVoid(a *attempt) {
	if p := j.payment(a.Payment); p == nil || p.Settlement == ledger.Settled {
		j.accuseFor(lost, a.Payer, "client %d was told that nothing was charged for payment %q, and it was", a.Payer, a.Payment)
	}
}

// refusedOnly reports whether the upstream has answered all requests of a payment with an error.
func (j *judgement) refusedOnly(p *ledger.Payment) bool {
	list := j.routed[p.ID]
	return len(list) > 0 && !slices.ContainsFunc(list, func(f forward) bool { return f.status < 400 })
}

// servedAnother reports whether a payment that was meant for one thing has served another one, and only that, of a payer who wanted both
// at once: each of its payments is worth the same to it.
func (j *judgement) servedAnother(in *intent) bool {
	return slices.ContainsFunc(in.authorizations, func(a *authorization) bool {
		r := j.byNonce[a.nonce]
		if r == nil {
			return false
		}
		p := &r.Payment
		if by := j.payment(p.ServedBy); by != nil {
			p = by
		}
		return slices.ContainsFunc(j.routed[p.ID], func(f forward) bool {
			other := j.intents[f.intent]
			return f.intent != in.id && other != nil && other.payer == in.payer && p.Delivery == ledger.Delivered &&
				(len(j.serials(p.ID)) == 1 || j.brokeOff(p) == f.intent)
		})
	})
}

// debtors are the payers that owe something now, with what they owe.
func debtors(records []ledger.Record) map[common.Address][]debt {
	all := make(map[common.Address][]debt)
	for i := range records {
		if d := debtOf(&records[i]); d != nil && records[i].Payment.Owes() {
			all[d.payment.Payer] = append(all[d.payment.Payer], *d)
		}
	}
	return all
}

func owedCode(a *attempt) bool { return a.Code == string(paywall.ReasonOwed) }
