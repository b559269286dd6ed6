package chaos

import (
	"bytes"
	"context"
	"math/big"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// judgeBacks: what left the refund wallet went back to who had paid it, once, and was not delivered; and what is to go back did.
func (j *judgement) judgeBacks() {
	for _, t := range j.chain.backs {
		r := j.byNonce[t.nonce]
		if r == nil || !r.Payment.PaysBack() {
			j.accuseFor(discord, j.numberOf(t.to), "%s were paid back to %s in %s, and no payment of the ledger says so", t.amount, t.to, t.tx)
			continue
		}
		q := &r.Payment
		of := j.payment(q.Binding.URI)
		if of == nil || of.Payer != t.to || of.Amount.ToBig().Cmp(t.amount) != 0 || q.Settlement != ledger.Settled || q.Transaction != t.tx {
			j.accuse(discord, of, "the transfer back %s of %s to %s in %s is for another payment than %s", q.ID, t.amount, t.to, t.tx, q.Binding.URI)
			continue
		}
		if before, ok := j.backBy[of.ID]; ok || of.Delivery == ledger.Delivered {
			j.accuse(doubled, of, "payment %s is %s, and was paid back in %s, %s", of.ID, of.Delivery, before.tx, t.tx)
		}
		j.backBy[of.ID] = t
	}
	for i := range j.records {
		p := &j.records[i].Payment
		_, ok := j.backBy[p.ID]
		switch {
		case ok != (p.Refund == ledger.Refunded):
			j.accuse(lost, p, "payment %s is %s; that it was paid back is %t", p.ID, p.State(), ok)
		case p.Refund == ledger.RefundPending:
			j.accuse(stuck, p, "payment %s was never paid back", p.ID)
		case p.Refund == ledger.RefundFailed && p.Reason != ledger.ReasonQuarantine:
			j.accuse(lost, p, "payment %s can't be paid back: %s", p.ID, p.Reason)
		}
	}
}

// judgeBack: the ledger has no transfer back but those that were made.
func (j *judgement) judgeBack(q *ledger.Payment) {
	if t, ok := j.backBy[q.Binding.URI]; q.Settlement != ledger.Settled || !ok || t.nonce != q.Nonce {
		j.accuse(discord, q, "the transfer back %s is %s, and the chain knows nothing of it", q.ID, q.Settlement)
	}
}

func (j *judgement) countBack(p *ledger.Payment) {
	if p.Refund == ledger.Refunded {
		j.refunded++
	} else {
		j.refundable++
	}
}

// transfersBack counts them in the ledger.
func (j *judgement) transfersBack() (n int) {
	for i := range j.records {
		if j.records[i].Payment.PaysBack() {
			n++
		}
	}
	return n
}

// readPurses reads what the seller and the refund wallet have, and each payer with what it has put aside.
func readPurses(ctx context.Context, c *ethclient.Client, payers []*payer) (map[common.Address]*big.Int, error) {
	owners := map[common.Address][]common.Address{rig.PayTo: {rig.PayTo}, refundWallet.Address: {refundWallet.Address}}
	for _, p := range payers {
		owners[p.account.Address] = []common.Address{p.account.Address}
		if p.cheats != nil {
			owners[p.account.Address] = append(owners[p.account.Address], p.cheats.stash.Address)
		}
	}
	purses := make(map[common.Address]*big.Int)
	for owner, accounts := range owners {
		purses[owner] = new(big.Int)
		for _, a := range accounts {
			n, err := tokenBalance(ctx, c, a)
			if err != nil {
				return nil, err
			}
			purses[owner].Add(purses[owner], n)
		}
	}
	return purses, nil
}

// judgePurses: everybody has what the transfers leave, to the unit.
func (j *judgement) judgePurses() {
	want := make(map[common.Address]*big.Int)
	for owner, n := range j.before {
		want[owner] = new(big.Int).Set(n)
	}
	for _, list := range [][]transfer{j.chain.transfers, j.chain.backs} {
		for _, t := range list {
			if n := want[t.from]; n != nil {
				n.Sub(n, t.amount)
			}
			if n := want[t.to]; n != nil {
				n.Add(n, t.amount)
			}
		}
	}
	for owner, n := range want {
		has := j.after[owner]
		if has == nil {
			has = new(big.Int)
		}
		if has.Cmp(n) != 0 {
			j.accuseFor(discord, j.numberOf(owner), "%s has %s, and should have %s", owner, has, n)
			j.off.Add(&j.off, n.Abs(n.Sub(n, has)))
		}
	}
}

// fails lets a payment be charged and not delivered.
func (s *story) fails() *ledger.Record {
	r := s.claims(s.in)
	s.charges(r)
	s.advance(r, ledger.EventSettle, ledger.EventUndelivered)
	return r
}

// paysBack lets the money of a payment go back: on the chain, and in the ledger.
func (s *story) paysBack(of *ledger.Record) *ledger.Record {
	id := of.Payment.ID
	back := s.transferBack(&of.Payment)
	of = s.record(id)
	s.advance(of, ledger.EventRefunded)
	return back
}

// transferBack is one that was made.
func (s *story) transferBack(of *ledger.Payment) *ledger.Record {
	n := byte(len(s.e.records) + 1)
	id, err := ledger.NewID(bytes.NewReader(bytes.Repeat([]byte{n}, 16)), refundWallet.Address)
	if err != nil {
		s.t.Fatal(err)
	}
	p := ledger.Payment{
		ID: id, PayTo: of.Payer, Amount: of.Amount, Flow: ledger.FlowRefund,
		AuthorizationID: x402.AuthorizationID{
			ChainID: devnet.ChainID, Asset: devnet.TokenAddress, Payer: refundWallet.Address, Nonce: common.Hash{n},
		},
		Binding: ledger.Binding{Route: "refund", URI: of.ID},
	}
	p, first, err := ledger.Create(p, ledger.Change{Actor: "refunder"}, s.tick())
	if err != nil {
		s.t.Fatal(err)
	}
	s.e.records = append(s.e.records, ledger.Record{Payment: p, Trail: []ledger.Entry{first}})
	r := &s.e.records[len(s.e.records)-1]
	s.advance(r, ledger.EventSettle)
	s.e.chain.backs = append(s.e.chain.backs, transfer{
		from: refundWallet.Address, to: p.PayTo, nonce: p.Nonce, amount: p.Amount.ToBig(), tx: r.Payment.Transaction, block: 7,
	})
	s.wallet(1, 1, 0)
	return r
}

// What may be and what must not be where money goes back.
func TestJudgeOfRefunds(t *testing.T) {
	for name, c := range map[string]struct {
		want string
		tell func(s *story)
	}{
		"paid back":                  {"", func(s *story) { s.paysBack(s.fails()) }},
		"never paid back":            {stuck, func(s *story) { s.fails() }},
		"it can't be paid back":      {lost, func(s *story) { s.advance(s.fails(), ledger.EventRefundFailed) }},
		"said to be paid back":       {lost, func(s *story) { s.advance(s.fails(), ledger.EventRefunded) }},
		"paid back, and not said so": {lost, func(s *story) { s.transferBack(&s.fails().Payment) }},
		"paid back twice": {doubled, func(s *story) {
			r := s.fails()
			id := r.Payment.ID
			s.paysBack(r)
			s.transferBack(&s.record(id).Payment)
		}},
		"paid back, and served": {doubled, func(s *story) {
			r, _ := s.buys(s.in)
			s.transferBack(&r.Payment)
		}},
		"paid back, and answered": {doubled, func(s *story) {
			r := s.fails()
			id := r.Payment.ID
			s.paysBack(r)
			s.answers(s.asks(s.in, s.record(id), 200, ""))
		}},
		"paid back to another": {discord, func(s *story) {
			s.paysBack(s.fails())
			s.e.chain.backs[0].to = common.Address{1}
		}},
		"paid back too much": {discord, func(s *story) {
			s.paysBack(s.fails())
			s.e.chain.backs[0].amount = big.NewInt(priceGet + 1)
		}},
		"paid back by nobody": {discord, func(s *story) {
			s.paysBack(s.fails())
			s.e.chain.backs[0].nonce = common.Hash{99}
		}},
		"paid back in the ledger alone": {discord, func(s *story) {
			s.paysBack(s.fails())
			s.e.chain.backs = nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			s.buys(s.in)
			s.in = s.wants(-1)
			s.in.outcome = abandoned
			c.tell(s)
			s.judged(c.want)
		})
	}
}

// A purse that is off by a unit is found.
func TestJudgeOfPurses(t *testing.T) {
	for name, c := range map[string]struct {
		has  int64
		want string
	}{"exact": {100, ""}, "one is missing": {99, discord}, "one too many": {101, discord}} {
		s := newStory(t)
		s.buys(s.in)
		s.in = s.wants(-1)
		s.paysBack(s.fails())
		payer := s.payer.account.Address
		s.e.before = map[common.Address]*big.Int{payer: big.NewInt(100 + priceGet), rig.PayTo: new(big.Int), refundWallet.Address: big.NewInt(priceGet)}
		s.e.after = map[common.Address]*big.Int{payer: big.NewInt(c.has), rig.PayTo: big.NewInt(2 * priceGet), refundWallet.Address: new(big.Int)}
		j := s.judged(c.want)
		if off := j.off.Int64(); (off != 0) != (c.want != "") || off > 1 {
			t.Errorf("%s: %d units are off", name, off)
		}
	}
}
