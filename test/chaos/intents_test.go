package chaos

import (
	"slices"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// judgeIntent: what a client wants once it pays for once, and in the end it has it.
func (j *judgement) judgeIntent(in *intent) {
	if in.outcome == unfinished {
		j.accuseFor(stuck, in.payer, "client %d never got %s", in.payer, in.path)
	}
	if in.token {
		j.byToken++
	}
	if in.outcome == served && slices.ContainsFunc(in.authorizations, func(a *authorization) bool { return a.uncertain }) {
		j.resolved++
	}
	if in.pass >= 0 {
		if in.outcome == lostAnswer {
			j.accuseFor(lost, in.payer, "client %d was told that its pass was used: %s", in.payer, in.path)
		}
		return
	}
	charged := j.chargedFor(in)
	if in.key != "" { // its answer is found again, or it is told that there is none: it has no reason to pay again
		charged = append(charged, j.brokenFor(in)...)
	}
	if len(charged) > 1 {
		j.accuse(doubled, j.payment(charged[1]), "client %d was charged %d times for %s: %v", in.payer, len(charged), in.path, charged)
	}
	if in.outcome == lostAnswer && j.servedAnother(in) {
		j.elsewhere++
		return
	}
	if in.outcome == lostAnswer && !j.lostOnTheWay(in) {
		j.accuseFor(lost, in.payer, "client %d was told that its payment for %s was used, and no answer of it broke off", in.payer, in.path)
	}
}

// chargedFor are the payments whose answers the client has for an intent. One whose answer broke off is none of them: who
// signs again after that buys again.
func (j *judgement) chargedFor(in *intent) []string {
	var list []string
	for _, a := range j.byIntent[in.id] {
		if a.Serial != 0 && !a.Token && !slices.Contains(list, a.Payment) && j.charged(a.Payment) {
			list = append(list, a.Payment)
		}
	}
	return list
}

// charged reports whether a payment has moved money; one that the ledger does not know may have.
func (j *judgement) charged(id string) bool {
	r := j.byID[id]
	return r == nil || r.Payment.Settlement == ledger.Settled
}

// brokenFor are the payments that were delivered for an intent, and whose answers broke off.
func (j *judgement) brokenFor(in *intent) []string {
	var list []string
	for _, id := range j.paidWith[in.id] {
		r := j.byID[id]
		if r != nil && r.Payment.Delivery == ledger.Delivered && r.Payment.Settlement == ledger.Settled && len(j.serials(id)) == 0 && j.brokeOff(&r.Payment) == in.id {
			list = append(list, id)
		}
	}
	return list
}

// lostOnTheWay reports whether a payment was delivered for an intent whose client's connection broke at that moment.
func (j *judgement) lostOnTheWay(in *intent) bool { return len(j.brokenFor(in)) > 0 }
