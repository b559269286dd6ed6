package chaos

import (
	"net/http"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/x402"
)

// refuses lets the upstream fail, and the client be told that nothing was charged.
func (s *story) refuses(r *ledger.Record) *attempt {
	a := s.asks(s.in, r, http.StatusBadGateway, "")
	a.Void = true
	s.forwards(a)
	s.e.forwards[len(s.e.forwards)-1].status = http.StatusBadGateway
	return a
}

// lends serves a payment before it is paid.
func (s *story) lends() *ledger.Record {
	s.flow = ledger.FlowDeferred
	r := s.claims(s.in)
	s.advance(r, ledger.EventDeliver, ledger.EventDelivered)
	a := s.asks(s.in, r, http.StatusOK, "")
	a.Owed = true
	s.answers(a)
	return r
}

// pays lets what was lent be paid.
func (s *story) pays(r *ledger.Record) {
	s.charges(r)
	s.advance(r, ledger.EventSettle)
}

// repays lets a payment make another good.
func (s *story) repays(owed *ledger.Record) *attempt {
	id := owed.Payment.ID
	s.flow = ledger.FlowUpfront
	r := s.claims(s.in)
	r.Payment.Binding.Route = "owed:" + id
	p, first, err := ledger.Create(r.Payment, ledger.Change{Actor: "request", Hold: time.Hour}, s.tick())
	if err != nil {
		s.t.Fatal(err)
	}
	r.Payment, r.Trail = p, []ledger.Entry{first}
	s.charges(r)
	s.advance(r, ledger.EventSettle, ledger.EventDeliver, ledger.EventDelivered)
	owed = s.record(id)
	next, entries, err := ledger.Advance(owed.Payment, owed.Trail[len(owed.Trail)-1].Hash, s.tick(), ledger.Change{
		Event: ledger.EventMadeGood, Actor: "request", ServedBy: r.Payment.ID,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	owed.Payment, owed.Trail = next, append(owed.Trail, entries...)
	a := s.asks(s.in, r, http.StatusOK, "")
	a.Repays, a.MadeGood = id, id
	return a
}

// record finds one again: they move when others are added.
func (s *story) record(id string) *ledger.Record {
	for i := range s.e.records {
		if s.e.records[i].Payment.ID == id {
			return &s.e.records[i]
		}
	}
	s.t.Fatal("there is no payment ", id)
	return nil
}

// What may be and what must not be where the upstream is asked before the money moves.
func TestJudgeOfFlows(t *testing.T) {
	for name, c := range map[string]struct {
		want string
		tell func(s *story)
	}{
		"authorization": {"", func(s *story) {
			s.flow = ledger.FlowAuthorization
			r := s.claims(s.in)
			s.charges(r)
			s.advance(r, ledger.EventDeliver, ledger.EventSettle, ledger.EventDelivered)
			s.answers(s.asks(s.in, r, http.StatusOK, ""))
		}},
		"the upstream refuses": {"", func(s *story) {
			s.flow = ledger.FlowAuthorization
			r := s.claims(s.in)
			s.advance(r, ledger.EventDeliver, ledger.EventUndelivered, ledger.EventVoid)
			s.refuses(r)
			s.buys(s.in)
		}},
		"the upstream refuses, and it is charged": {lost, func(s *story) {
			s.flow = ledger.FlowAuthorization
			r := s.claims(s.in)
			s.charges(r)
			s.advance(r, ledger.EventDeliver, ledger.EventSettle, ledger.EventUndelivered)
			s.refuses(r).Void = false
			s.buys(s.in)
		}},
		"deferred, refused, and charged": {lost, func(s *story) {
			r := s.lends()
			s.pays(r)
			for i := range s.e.forwards {
				s.e.forwards[i].status = http.StatusNotFound
			}
		}},
		"told that nothing was charged, and it was": {lost, func(s *story) {
			s.flow = ledger.FlowAuthorization
			r := s.claims(s.in)
			s.charges(r)
			s.advance(r, ledger.EventDeliver, ledger.EventSettle, ledger.EventUndelivered)
			s.asks(s.in, r, http.StatusBadGateway, "").Void = true
			s.buys(s.in)
		}},
		"served by authorization, and not charged": {free, func(s *story) {
			s.flow = ledger.FlowAuthorization
			r := s.claims(s.in)
			s.advance(r, ledger.EventDeliver, ledger.EventFail)
			s.answers(s.asks(s.in, r, http.StatusOK, ""))
		}},

		"its payment has served another thing": {"", func(s *story) {
			r := s.claims(s.in)
			s.charges(r)
			s.advance(r, ledger.EventSettle, ledger.EventDeliver, ledger.EventDelivered)
			s.asks(s.in, r, http.StatusPaymentRequired, string(x402.ReasonNonceUsed))
			s.in.outcome = lostAnswer
			s.answers(s.asks(s.wants(-1), r, http.StatusOK, ""))
		}},
		"its payment is said to have served another thing": {lost, func(s *story) {
			r := s.claims(s.in)
			s.charges(r)
			s.advance(r, ledger.EventSettle, ledger.EventDeliver, ledger.EventDelivered)
			s.asks(s.in, r, http.StatusPaymentRequired, string(x402.ReasonNonceUsed))
			s.in.outcome = lostAnswer
			s.forwards(s.asks(s.wants(-1), r, http.StatusServiceUnavailable, ""))
		}},

		"deferred":                    {"", func(s *story) { s.pays(s.lends()) }},
		"deferred, and never settled": {stuck, func(s *story) { s.lends() }},
		"deferred, and charged twice": {doubled, func(s *story) {
			r := s.lends()
			s.pays(r)
			s.charges(r)
		}},
		"deferred, and charged twice for one thing": {doubled, func(s *story) {
			s.pays(s.lends())
			s.pays(s.lends())
		}},
		"deferred, and charged after all": {lost, func(s *story) {
			r := s.lends()
			s.advance(r, ledger.EventFail)
			s.charges(r)
		}},
		"a loss": {"", func(s *story) { s.advance(s.lends(), ledger.EventFail) }},
		"a debtor that is refused": {"", func(s *story) {
			s.advance(s.lends(), ledger.EventFail)
			s.asks(s.in, &ledger.Record{Payment: ledger.Payment{}}, http.StatusPaymentRequired, string(paywall.ReasonOwed)).Nonce = common.Hash{77}
		}},
		"told that it owes, and it does not": {untrue, func(s *story) {
			s.pays(s.lends())
			s.asks(s.in, &ledger.Record{Payment: ledger.Payment{}}, http.StatusPaymentRequired, string(paywall.ReasonOwed))
		}},
		"a debtor that is lent more": {credit, func(s *story) {
			s.advance(s.lends(), ledger.EventFail)
			s.at = s.at.Add(time.Minute)
			s.advance(s.lends(), ledger.EventFail)
		}},
		"a debtor that pays up front for what is lent": {credit, func(s *story) {
			s.advance(s.lends(), ledger.EventFail)
			s.at = s.at.Add(time.Minute)
			r := s.claims(s.in)
			s.advance(r, ledger.EventVoid)
		}},
		"a debt that is made good": {"", func(s *story) {
			r := s.lends()
			s.advance(r, ledger.EventFail)
			s.repays(r)
			s.at = s.at.Add(time.Minute)
			s.in = s.wants(-1)
			s.pays(s.lends())
		}},
		"made good by nothing": {free, func(s *story) {
			r := s.lends()
			s.advance(r, ledger.EventFail)
			s.repays(r)
			s.e.records[0].Payment.ServedBy = s.e.records[0].Payment.ID
		}},
		"told that it is made good, and it is not": {untrue, func(s *story) {
			r := s.lends()
			s.advance(r, ledger.EventFail)
			s.repays(r).MadeGood = ""
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			c.tell(s)
			s.judged(c.want)
		})
	}
}

// What was to be lent, and was paid before it was served after all, was not lent.
func TestJudgeOfLoansThatWereNone(t *testing.T) {
	s := newStory(t)
	s.pays(s.lends())
	s.in = s.wants(-1)
	r := s.claims(s.in)
	s.charges(r)
	s.advance(r, ledger.EventSettle, ledger.EventDeliver, ledger.EventDelivered)
	s.answers(s.asks(s.in, r, http.StatusOK, ""))
	if j := s.judged(""); j.lent != 1 || !j.mostLent.Eq(uint256.NewInt(priceGet)) {
		t.Errorf("lent %d, at most %s", j.lent, &j.mostLent)
	}
}

// What is lost is counted, and what is made good is not lost.
func TestJudgeCountsLosses(t *testing.T) {
	s := newStory(t)
	good := s.lends()
	s.advance(good, ledger.EventFail)
	s.repays(good)
	s.in = s.wants(-1)
	s.at = s.at.Add(time.Minute)
	s.advance(s.lends(), ledger.EventFail)
	j := s.judged("")
	if j.lent != 2 || j.madeGood != 1 || j.unpaid != 1 || !j.loss.Eq(uint256.NewInt(priceGet)) || !j.mostLent.Eq(uint256.NewInt(priceGet)) {
		t.Errorf("lent %d, made good %d, unpaid %d: %s of at most %s", j.lent, j.madeGood, j.unpaid, &j.loss, &j.mostLent)
	}
}

// More than the bounds is found: of one payer, and of all together.
func TestJudgeOfBounds(t *testing.T) {
	for name, c := range map[string]struct {
		payers, each int
		ended        bool
		want         int
	}{
		"a payer's bound":      {1, 2, false, 0},
		"beyond it":            {1, 3, false, 1},
		"one after the other":  {1, 100, true, 0},
		"the total":            {5, 2, false, 0},
		"beyond the total":     {11, 1, false, 1},
		"far beyond the total": {20, 2, false, 30},
	} {
		j := newJudgement(new(evidence))
		at := beginning
		for i := range c.payers * c.each {
			p := &ledger.Payment{Amount: *uint256.NewInt(priceDeferred)}
			p.Payer = common.Address{1, byte(i % c.payers)}
			d := debt{payment: p, lent: at}
			at = at.Add(time.Second)
			if c.ended {
				d.end = at // when the next one is lent
			}
			j.debts = append(j.debts, d)
		}
		if j.judgeBounds(); len(j.violations) != c.want {
			t.Errorf("%s: %d violations, want %d: %v", name, len(j.violations), c.want, j.violations)
		}
	}
}
