package chaos

import (
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// violation is something that must never happen.
type violation struct {
	kind    string // one of the kinds below
	text    string
	payment string // whose trail tells more, if any
	payer   int    // whose requests tell more; -1: nobody's
}

// Kinds of violations.
const (
	lost    = "lost"    // charged, and neither served nor refundable
	doubled = "doubled" // charged, served or credited twice
	free    = "free"    // served without a payment
	discord = "discord" // the chain and the ledger disagree
	audit   = "audit"
	untrue  = "untrue" // a client was told what is not so
	stuck   = "stuck"  // something never ends
	credit  = "credit" // more was lent than may be, or to somebody who owes
)

// statusGone is what Caddy writes into its access log of who has left. Nobody is to be answered with it.
const statusGone = 499

// evidence is everything that was seen.
type evidence struct {
	records []ledger.Record
	chain   books
	wallets []ledger.Wallet // as the ledger has them
	// verified is what the ledger's own verification says, of the trails and of the anchors over them.
	verified ledger.Report
	forwards []forward
	payers   []*payer
	// before and after are what the seller, the refund wallet, and each payer with what it has put aside, had.
	before, after map[common.Address]*big.Int
}

// judgement is what the evidence comes to.
type judgement struct {
	*evidence
	violations []violation

	byID    map[string]*ledger.Record
	byNonce map[common.Hash]*ledger.Record // nonces are random: unique over all payers
	payerOf map[common.Address]int
	intents map[string]*intent
	// byPayment are the attempts that a payment's id, or its nonce, appears in.
	byPayment map[string][]*attempt
	byIntent  map[string][]*attempt
	routed    map[string][]forward // by payment
	paidWith  map[string][]string  // by intent: the payments that its requests reached the upstream with

	// What the table tells.
	settled, delivered, refunded, refundable, unused int
	resolved, onTheWay, byToken, answers             int
	quarantined                                      int
	voided                                           int // the upstream has refused them, and nothing was charged
	elsewhere                                        int // wanted things whose payment has served another thing that its payer wanted
	// lent were served before they were paid; unpaid are those that did not come through, loss what they come to, and madeGood those that
	// were paid by another payment.
	lent, unpaid, madeGood, debtorsRefused int
	loss, mostLent                         uint256.Int
	debts                                  []debt
	backBy                                 map[string]transfer // by the payment that went back
	off                                    big.Int             // by how much all purses together are not what they should be
}

func newJudgement(e *evidence) *judgement {
	j := &judgement{
		evidence: e, byID: make(map[string]*ledger.Record), byNonce: make(map[common.Hash]*ledger.Record),
		payerOf: make(map[common.Address]int), intents: make(map[string]*intent), byPayment: make(map[string][]*attempt),
		byIntent: make(map[string][]*attempt), routed: make(map[string][]forward), paidWith: make(map[string][]string),
		backBy: make(map[string]transfer),
	}
	j.index()
	return j
}

func judge(e *evidence) *judgement {
	j := newJudgement(e)
	j.judgeBooks()
	j.judgeBacks()
	j.judgePurses()
	for _, p := range j.verified.Problems {
		j.accuse(audit, j.payment(p.Payment), "anchor %d: %s: %s", p.Anchor, p.Kind, p.Message)
	}
	for i := range j.records {
		j.judgePayment(&j.records[i])
	}
	j.judgeCredit()
	for _, p := range j.payers {
		j.judgePasses(p)
		for _, in := range p.intents {
			j.judgeIntent(in)
		}
		for _, a := range p.attempts {
			j.judgeAttempt(a)
		}
	}
	return j
}

func (j *judgement) index() {
	for i := range j.records {
		r := &j.records[i]
		j.byID[r.Payment.ID] = r
		j.byNonce[r.Payment.Nonce] = r
	}
	for _, f := range j.forwards {
		j.routed[f.payment] = append(j.routed[f.payment], f)
		if !slices.Contains(j.paidWith[f.intent], f.payment) {
			j.paidWith[f.intent] = append(j.paidWith[f.intent], f.payment)
		}
	}
	for _, p := range j.payers {
		j.payerOf[p.account.Address] = p.number
		for _, in := range p.intents {
			j.intents[in.id] = in
		}
		for _, a := range p.attempts {
			j.byIntent[a.Intent] = append(j.byIntent[a.Intent], a)
			ids := []string{a.Payment}
			if r := j.byNonce[a.Nonce]; r != nil {
				ids = append(ids, r.Payment.ID, r.Payment.ServedBy)
			}
			slices.Sort(ids)
			for _, id := range slices.Compact(ids) {
				j.byPayment[id] = append(j.byPayment[id], a)
			}
		}
	}
}

func (j *judgement) accuse(kind string, p *ledger.Payment, format string, args ...any) {
	v := violation{kind: kind, text: fmt.Sprintf(format, args...), payer: -1}
	if p != nil {
		v.payment = p.ID
		if n, ok := j.payerOf[p.Payer]; ok {
			v.payer = n
		}
	}
	j.violations = append(j.violations, v)
}

// payment is nil if the ledger does not know it.
func (j *judgement) payment(id string) *ledger.Payment {
	if r := j.byID[id]; r != nil {
		return &r.Payment
	}
	return nil
}

func (j *judgement) accuseFor(kind string, payer int, format string, args ...any) {
	j.violations = append(j.violations, violation{kind: kind, text: fmt.Sprintf(format, args...), payer: payer})
}

// judgeBooks compares the chain with the ledger: each transfer is one payment's, and each settled payment has one.
func (j *judgement) judgeBooks() {
	for _, s := range j.chain.strangers {
		j.accuse(discord, nil, "a transfer that no authorization made: %s", s)
	}
	paidBy := make(map[string]transfer)
	for _, t := range j.chain.transfers {
		r := j.byNonce[t.nonce]
		switch {
		case r == nil:
			j.accuseFor(discord, j.numberOf(t.from), "the transfer %s of %s from %s with nonce %s is no payment of the ledger", t.tx, t.amount, t.from, t.nonce)
			continue
		case r.Payment.Payer != t.from || r.Payment.Amount.ToBig().Cmp(t.amount) != 0 || r.Payment.PayTo != rig.PayTo ||
			r.Payment.ChainID != devnet.ChainID || r.Payment.Asset != devnet.TokenAddress:
			j.accuse(discord, &r.Payment, "payment %s is for another transfer than %s", r.Payment.ID, t.tx)
		case r.Payment.Settlement != ledger.Settled:
			j.accuse(lost, &r.Payment, "payment %s was charged in %s, and the ledger says %s", r.Payment.ID, t.tx, r.Payment.State())
		case r.Payment.Transaction != t.tx || r.Payment.Block != t.block:
			j.accuse(discord, &r.Payment, "payment %s was settled in %s, the ledger says %s", r.Payment.ID, t.tx, r.Payment.Transaction)
		}
		if before, ok := paidBy[r.Payment.ID]; ok {
			j.accuse(doubled, &r.Payment, "payment %s was charged in %s and in %s", r.Payment.ID, before.tx, t.tx)
		}
		paidBy[r.Payment.ID] = t
	}
	for i := range j.records {
		p := &j.records[i].Payment
		if _, ok := paidBy[p.ID]; !ok && p.Settlement == ledger.Settled && !p.PaysBack() {
			j.accuse(discord, p, "payment %s is settled in the ledger, and the chain knows nothing of it", p.ID)
		}
	}
	for _, w := range j.wallets {
		if on := j.chain.wallets[w.Address]; on.pending != 0 || w.NextNonce != on.sent {
			j.accuse(discord, nil, "the gas wallet %s has sent %d transactions, %d more wait, and the ledger's next nonce is %d", w.Address, on.sent, on.pending, w.NextNonce)
		}
	}
}

func (j *judgement) numberOf(a common.Address) int {
	if n, ok := j.payerOf[a]; ok {
		return n
	}
	return -1
}

// judgePayment looks at one payment: its trail, and that it ended well.
func (j *judgement) judgePayment(r *ledger.Record) {
	p := &r.Payment
	if err := ledger.VerifyAudit(p, r.Trail); err != nil {
		j.accuse(audit, p, "%v", err)
	}
	count := map[ledger.Event]int{}
	for _, e := range r.Trail {
		count[e.Event]++
	}
	if count[ledger.EventDelivered] > 1 || count[ledger.EventSettle] > 1 {
		j.accuse(doubled, p, "payment %s was delivered %d times and settled %d times", p.ID, count[ledger.EventDelivered], count[ledger.EventSettle])
	}
	if p.PaysBack() {
		j.judgeBack(p)
		return
	}
	got := j.serials(p.ID)
	held := p.Refund != ledger.NotRefunded
	switch {
	case p.Settlement != ledger.Settled:
		if p.Settlement == ledger.Claimed || p.Settlement == ledger.Settling {
			j.accuse(stuck, p, "payment %s is still %s", p.ID, p.Settlement)
		}
		if p.Delivery == ledger.Delivered && p.Flow == ledger.FlowDeferred {
			return // see judgeCredit
		}
		j.unused++
		if j.refusedOnly(p) {
			j.voided++
		}
		if len(got) > 0 {
			j.accuse(free, p, "payment %s is %s, and served the requests %v", p.ID, p.State(), got)
		}
		return
	case p.Delivery == ledger.Delivered && p.Refund != ledger.NotRefunded:
		j.accuse(doubled, p, "payment %s was delivered and is to be refunded", p.ID)
	case p.Delivery != ledger.Delivered && !held:
		j.accuse(lost, p, "payment %s was charged, and is neither delivered nor refundable: %s, %s", p.ID, p.State(), p.Delivery)
	}
	j.settled++
	// What was to be deferred is paid up front if the process died that served it: then it goes back like that.
	if j.refusedOnly(p) && (p.Flow == ledger.FlowAuthorization || p.Flow == ledger.FlowDeferred && !held) {
		j.accuse(lost, p, "payment %s was charged, and the upstream has refused what it was for", p.ID)
	}
	if held {
		j.countBack(p)
		if len(got) > 0 {
			j.accuse(doubled, p, "payment %s is to be refunded, and served %v", p.ID, got)
		}
		return
	}
	j.delivered++
	if p.Binding.Plan != "" || strings.HasPrefix(p.Binding.Route, "owed:") {
		return
	}
	switch {
	case len(got) > 1:
		j.accuse(doubled, p, "payment %s got %d answers: %v", p.ID, len(got), got)
	case len(got) == 0 && j.brokeOff(p) == "":
		j.accuse(lost, p, "payment %s is delivered, and its client got nothing though no connection broke then", p.ID)
	case len(got) == 0:
		j.onTheWay++
	}
}

// serials are the answers that clients got for a payment.
func (j *judgement) serials(id string) []int {
	var list []int
	for _, a := range j.byPayment[id] {
		if a.Payment == id && a.Serial != 0 && !a.Token {
			list = append(list, a.Serial)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// slack is how far the clocks of two processes, and the moments before and after a write, lie apart. noticing is how long it takes
// an instance to notice that a client has left, on a busy machine.
const (
	slack    = 500 * time.Millisecond
	noticing = 3 * time.Second
)

// brokeOff names the intent for which p was delivered, if its client was still there when the upstream was asked, and its
// connection broke before it had the answer.
func (j *judgement) brokeOff(p *ledger.Payment) string {
	for _, f := range j.routed[p.ID] {
		for _, a := range j.byIntent[f.intent] {
			if a.broken() && !a.Start.After(p.DeliveredAt.Add(slack)) && !a.End.Before(f.at.Add(-noticing)) {
				return f.intent
			}
		}
	}
	return ""
}

// judgePasses: of a pass that lasts longer than the test, nobody wants a second one.
func (j *judgement) judgePasses(p *payer) {
	bought := make(map[string][]string)
	for i := range j.records {
		q := &j.records[i].Payment
		if q.Payer == p.account.Address && q.Binding.Plan != "" && q.Settlement == ledger.Settled && q.Refund == ledger.NotRefunded {
			bought[q.Binding.Route] = append(bought[q.Binding.Route], q.ID)
		}
	}
	for route, ids := range bought {
		if len(ids) > 1 {
			j.accuse(doubled, &j.byID[ids[1]].Payment, "payer %d bought the pass of %s %d times: %v", p.number, route, len(ids), ids)
		}
	}
}

// judgeAttempt: whatever a client is told is so.
func (j *judgement) judgeAttempt(a *attempt) {
	if a.broken() {
		return
	}
	switch {
	case a.Status == http.StatusOK && a.Repays != "":
		j.judgeRepayment(a)
	case a.Status == http.StatusOK:
		j.answers++
		j.judgeAnswer(a)
	case a.Void:
		j.judgeVoid(a)
	case a.Status == statusGone:
		j.accuseFor(untrue, a.Payer, "client %d was there, and was told that it had left: %s", a.Payer, a.Intent)
	case owedCode(a) && a.Repays == "":
		j.judgeDebtor(a)
	case a.Status == http.StatusPaymentRequired && a.Nonce != (common.Hash{}):
		j.judgeRefusal(a)
	case a.Status == http.StatusPaymentRequired && a.Token:
		j.accuseFor(untrue, a.Payer, "client %d has a pass for %s, and was told to pay", a.Payer, a.Intent)
	case a.Code == codeNotStored:
		if p := j.payment(a.Payment); p != nil && p.Refund != ledger.NotRefunded {
			j.accuse(untrue, p, "client %d was told that payment %s was answered, and it is %s", a.Payer, p.ID, p.State())
		}
	case a.Held:
		if r := j.byID[a.Payment]; r == nil || r.Payment.Refund == ledger.NotRefunded {
			j.accuseFor(untrue, a.Payer, "client %d was told that %s is held for refund, and it is not", a.Payer, a.Payment)
		}
	}
}

func (j *judgement) judgeAnswer(a *attempt) {
	if a.Said != a.Intent {
		j.accuseFor(untrue, a.Payer, "client %d asked for %s and got %s", a.Payer, a.Intent, a.Said)
	}
	if a.Token {
		return
	}
	r := j.byID[a.Payment]
	switch {
	case r == nil:
		j.accuseFor(free, a.Payer, "client %d got %s for payment %q, which the ledger does not know", a.Payer, a.Intent, a.Payment)
	case r.Payment.Payer != devnet.Payer(a.Payer).Address:
		j.accuse(free, &r.Payment, "client %d was served with the payment %s of another", a.Payer, a.Payment)
	}
}

// judgeRefusal: who is told to pay (again) was not charged, or was told that it was.
func (j *judgement) judgeRefusal(a *attempt) {
	r := j.byNonce[a.Nonce]
	if r == nil {
		return // it was not even claimed
	}
	p := &r.Payment
	delivered := func() bool { return p.Delivery == ledger.Delivered && !p.DeliveredAt.After(a.End.Add(slack)) }
	used := delivered()                                    // a debt was served before what made it good
	for p.ServedBy != "" && j.payment(p.ServedBy) != nil { // the answer is about the payment that serves in its place
		p = j.payment(p.ServedBy)
		used = used || delivered()
	}
	switch {
	case a.Code == string(x402.ReasonNonceUsed):
		if !used {
			j.accuse(untrue, p, "client %d was told that payment %s was used, and it is %s", a.Payer, p.ID, p.State())
		}
	case a.Code == string(paywall.ReasonRefund):
		if p.Refund == ledger.NotRefunded && p.Delivery != ledger.Undelivered {
			j.accuse(untrue, p, "client %d was told that payment %s is held for refund, and it is %s", a.Payer, p.ID, p.State())
		}
	case p.Settlement == ledger.Settled && p.SettledAt.Before(a.Start.Add(-slack)):
		j.accuse(untrue, p, "client %d was told %s of payment %s, which had charged it before", a.Payer, a.Code, p.ID)
	}
}
