package main

import (
	"fmt"

	"github.com/ethereum/go-ethereum/common"
)

// verdict compares what the clients were answered with what the chain has.
type verdict struct {
	// Answered are the paid answers, Transfers what arrived at the seller: over the whole cell, its warm-up included.
	Answered  int `json:"answered"`
	Transfers int `json:"transfers"`
	// Resumed are answers that were given for an earlier payment of the same payer.
	Resumed int `json:"resumed,omitempty"`
	// Unanswered are transfers without a paid answer, by what the client was told instead: it knows that its payment may have
	// gone through.
	Unanswered map[string]int `json:"unanswered,omitempty"`
	// Wrong is what must never be: an answer without a transfer, and a transfer that the client was told had failed, or that
	// nobody asked for.
	Wrong []string `json:"wrong,omitempty"`
}

// authorization is what makes a payment unique.
type authorization struct {
	payer common.Address
	nonce common.Hash
}

func judge(sales []sale, r *record) verdict {
	v := verdict{Transfers: len(r.transfers), Unanswered: map[string]int{}}
	asked := make(map[authorization]*sale, len(sales))
	for i := range sales {
		if s := &sales[i]; !s.sent.IsZero() {
			asked[authorization{s.payer, s.nonce}] = s
		}
	}
	moved := make(map[authorization]transfer, len(r.transfers))
	left := map[authorization]transfer{} // transfers that nothing was given for
	for _, t := range r.transfers {
		key := authorization{t.payer, t.nonce}
		s := asked[key]
		if _, twice := moved[key]; twice {
			v.wrong("the authorization %s moved money twice", t.nonce)
		} else if s == nil {
			v.wrong("the transfer in %s was not asked for", t.tx)
		} else if s.status != 200 {
			left[key] = t
		}
		moved[key] = t
	}
	for i := range sales {
		if s := &sales[i]; s.status == 200 {
			v.Answered++
			v.answer(s, moved, left)
		}
	}
	for key := range left {
		s := asked[key]
		if s.status >= 300 && s.status < 500 {
			v.wrong("the payment %s was answered %q and moved money all the same", s.nonce, s.why)
			continue
		}
		v.Unanswered[s.why]++
	}
	if r.strays > 0 {
		v.wrong("%d transfers to the seller are not what a price was signed for", r.strays)
	}
	return v
}

// answer judges a 200: its own payment moved money, or an earlier one of the same payer had and was not answered.
func (v *verdict) answer(s *sale, moved, left map[authorization]transfer) {
	if t, ok := moved[authorization{s.payer, s.nonce}]; ok {
		if s.tx != (common.Hash{}) && s.tx != t.tx {
			v.wrong("the receipt for %s names %s, and the money moved in %s", s.nonce, s.tx, t.tx)
		}
		return
	}
	for key, t := range left {
		if key.payer == s.payer && t.tx == s.tx {
			v.Resumed++
			delete(left, key)
			return
		}
	}
	v.wrong("the payment %s was answered 200 and moved no money", s.nonce)
}

// unpaid counts the answers that no transfer was found for yet.
func unpaid(sales []sale, r *record) int {
	moved := make(map[authorization]bool, len(r.transfers))
	for _, t := range r.transfers {
		moved[authorization{t.payer, t.nonce}] = true
	}
	n := 0
	for i := range sales {
		if s := &sales[i]; s.status == 200 && !moved[authorization{s.payer, s.nonce}] {
			n++
		}
	}
	return n
}

func (v *verdict) wrong(format string, args ...any) {
	const enough = 20
	if len(v.Wrong) < enough {
		v.Wrong = append(v.Wrong, fmt.Sprintf(format, args...))
	}
}
