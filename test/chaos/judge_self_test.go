package chaos

import (
	"bytes"
	"math/big"
	"net/http"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// story makes evidence of one client that bought one thing, step by step, so that a test can tell it wrong.
type story struct {
	t     *testing.T
	e     *evidence
	at    time.Time
	payer *payer
	in    *intent
	flow  string // of what is claimed
}

var beginning = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func newStory(t *testing.T) *story {
	p := &payer{account: devnet.Payer(0)}
	s := &story{t: t, e: &evidence{payers: []*payer{p}}, at: beginning, payer: p, flow: ledger.FlowUpfront}
	s.in = s.wants(-1)
	return s
}

func (s *story) wants(pass int) *intent {
	in := &intent{id: intentID(0, len(s.payer.intents)), path: "/get/x", pass: pass, method: http.MethodGet, outcome: served}
	s.payer.intents = append(s.payer.intents, in)
	return in
}

// claims claims a payment, for the intent or for its pass.
func (s *story) claims(in *intent) *ledger.Record {
	n := byte(len(s.e.records) + 1)
	id, err := ledger.NewID(bytes.NewReader(bytes.Repeat([]byte{n}, 16)), s.payer.account.Address)
	if err != nil {
		s.t.Fatal(err)
	}
	p := ledger.Payment{
		ID: id, PayTo: rig.PayTo, Amount: *uint256.NewInt(priceGet), Flow: s.flow,
		AuthorizationID: x402.AuthorizationID{
			ChainID: devnet.ChainID, Asset: devnet.TokenAddress, Payer: s.payer.account.Address, Nonce: common.Hash{n},
		},
		Binding: ledger.Binding{Route: "/get/*", Method: in.method, Host: host, URI: in.path},
	}
	if s.flow != ledger.FlowUpfront {
		p.Binding.Route = "/" + s.flow + "/*"
	}
	if in.pass >= 0 {
		p.Binding.Route, p.Binding.Plan = passPath(in.pass)+"*", "day"
	}
	p, first, err := ledger.Create(p, ledger.Change{Actor: "request", Hold: time.Hour}, s.tick())
	if err != nil {
		s.t.Fatal(err)
	}
	s.e.records = append(s.e.records, ledger.Record{Payment: p, Trail: []ledger.Entry{first}})
	in.authorizations = append(in.authorizations, &authorization{nonce: p.Nonce})
	return &s.e.records[len(s.e.records)-1]
}

func (s *story) tick() time.Time { s.at = s.at.Add(time.Second); return s.at }

func (s *story) advance(r *ledger.Record, events ...ledger.Event) {
	for _, ev := range events {
		c := ledger.Change{
			Event: ev, Actor: "request", Fence: r.Payment.Hold.Fence, Hold: time.Hour, Reason: "told",
			Transaction: common.Hash{9, r.Payment.Nonce[0]}, Block: 7,
		}
		p, entries, err := ledger.Advance(r.Payment, r.Trail[len(r.Trail)-1].Hash, s.tick(), c)
		if err != nil {
			s.t.Fatal(err)
		}
		r.Payment, r.Trail = p, append(r.Trail, entries...)
	}
}

// charges makes the transfer on chain.
func (s *story) charges(r *ledger.Record) {
	s.e.chain.transfers = append(s.e.chain.transfers, transfer{
		from: r.Payment.Payer, to: rig.PayTo, nonce: r.Payment.Nonce, amount: big.NewInt(priceGet), tx: common.Hash{9, r.Payment.Nonce[0]}, block: 7,
	})
	s.wallet(1, 1, 0)
}

// wallet lets the gas wallet send more: as the ledger has it, as the chain has it, and what waits there.
func (s *story) wallet(ledgers, sent, pending uint64) {
	a := gasWallet(0).Address
	if s.e.wallets == nil {
		s.e.wallets, s.e.chain.wallets = []ledger.Wallet{{ChainID: devnet.ChainID, Address: a}}, make(map[common.Address]used)
	}
	s.e.wallets[0].NextNonce += ledgers
	u := s.e.chain.wallets[a]
	s.e.chain.wallets[a] = used{u.sent + sent, u.pending + pending}
}

// asks is a request of the client with the payment, and its answer.
func (s *story) asks(in *intent, r *ledger.Record, status int, code string) *attempt {
	a := &attempt{Intent: in.id, Nonce: r.Payment.Nonce, Payment: r.Payment.ID, Status: status, Code: code, Start: s.tick(), End: s.tick()}
	s.payer.attempts = append(s.payer.attempts, a)
	return a
}

// answers lets the upstream answer the request, and the client hear it.
func (s *story) answers(a *attempt) {
	a.Serial, a.Said = s.forwards(a), a.Intent
}

func (s *story) forwards(a *attempt) int {
	serial := len(s.e.forwards) + 1
	s.e.forwards = append(s.e.forwards, forward{
		serial: serial, payment: a.Payment, intent: a.Intent, method: http.MethodGet, at: s.at, status: http.StatusOK,
	})
	return serial
}

// buys is the whole of it, as it should be.
func (s *story) buys(in *intent) (*ledger.Record, *attempt) {
	r := s.claims(in)
	s.charges(r)
	s.advance(r, ledger.EventSettle, ledger.EventDeliver, ledger.EventDelivered)
	a := s.asks(in, r, http.StatusOK, "")
	s.answers(a)
	return r, a
}

// breaks lets the connection of the client break while the payment was delivered.
func (s *story) breaks(a *attempt, r *ledger.Record) {
	*a = attempt{
		Intent: a.Intent, Nonce: a.Nonce, Error: "connection reset by peer",
		Start: r.Payment.DeliveredAt.Add(-3 * time.Second), End: r.Payment.DeliveredAt.Add(3 * time.Second),
	}
}

// The judge lets pass what may be, and finds what must not be: each story is told as it would look.
func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		want string
		tell func(s *story)
	}{
		"served": {"", func(s *story) { s.buys(s.in) }},
		"void": {"", func(s *story) {
			s.buys(s.in)
			s.advance(s.claims(s.in), ledger.EventVoid)
		}},
		"refundable": {"", func(s *story) {
			r := s.claims(s.in)
			s.charges(r)
			s.advance(r, ledger.EventSettle, ledger.EventUndelivered)
			s.asks(s.in, r, http.StatusPaymentRequired, string(paywall.ReasonRefund))
			s.paysBack(r)
			s.buys(s.in)
		}},
		"answer lost on the way": {"", func(s *story) {
			r, a := s.buys(s.in)
			s.breaks(a, r)
			s.in.outcome = lostAnswer
		}},
		"a second answer after one was lost on the way": {"", func(s *story) {
			r, a := s.buys(s.in)
			s.breaks(a, r)
			s.buys(s.in)
		}},
		"a pass": {"", func(s *story) {
			in := s.wants(3)
			_, a := s.buys(in)
			again := *a
			s.payer.attempts = append(s.payer.attempts, &again)
			s.answers(&again)
		}},

		"charged, unknown to the ledger": {discord, func(s *story) {
			s.buys(s.in)
			s.e.chain.transfers = append(s.e.chain.transfers, transfer{from: s.payer.account.Address, nonce: common.Hash{99}, amount: new(big.Int)})
		}},
		"charged by nobody": {discord, func(s *story) { s.buys(s.in); s.e.chain.strangers = []string{"1"} }},
		"charged, and void": {lost, func(s *story) {
			s.buys(s.in)
			r := s.claims(s.in)
			s.advance(r, ledger.EventVoid)
			s.charges(r)
		}},
		"charged twice by one payment":   {doubled, func(s *story) { r, _ := s.buys(s.in); s.charges(r) }},
		"settled, unknown to the chain":  {discord, func(s *story) { s.buys(s.in); s.e.chain.transfers = nil }},
		"another amount":                 {discord, func(s *story) { s.buys(s.in); s.e.chain.transfers[0].amount = big.NewInt(1) }},
		"another transaction":            {discord, func(s *story) { s.buys(s.in); s.e.chain.transfers[0].tx = common.Hash{} }},
		"a gap in the wallet's nonces":   {discord, func(s *story) { s.buys(s.in); s.wallet(1, 0, 0) }},
		"a transaction that never mines": {discord, func(s *story) { s.buys(s.in); s.wallet(0, 0, 1) }},
		"settled, and nothing else": {lost, func(s *story) {
			s.buys(s.in)
			r := s.claims(s.in)
			s.charges(r)
			s.advance(r, ledger.EventSettle)
		}},
		"never settled": {stuck, func(s *story) { s.buys(s.in); s.claims(s.in) }},
		"delivered to nobody": {lost, func(s *story) {
			_, a := s.buys(s.in)
			*a = attempt{Intent: s.in.id, Nonce: a.Nonce, Status: http.StatusServiceUnavailable, Start: a.Start, End: a.End}
		}},
		"told that it was used, and nothing broke": {lost, func(s *story) {
			r := s.claims(s.in)
			s.advance(r, ledger.EventVoid)
			s.asks(s.in, r, http.StatusPaymentRequired, string(x402.ReasonNonceUsed))
			s.in.outcome = lostAnswer
		}},
		"two answers for one payment": {doubled, func(s *story) {
			r, _ := s.buys(s.in)
			s.answers(s.asks(s.in, r, http.StatusOK, ""))
		}},
		"two payments for one thing": {doubled, func(s *story) { s.buys(s.in); s.buys(s.in) }},
		"two passes":                 {doubled, func(s *story) { s.buys(s.wants(3)); s.buys(s.wants(3)) }},
		"served and refundable": {doubled, func(s *story) {
			r := s.claims(s.in)
			s.charges(r)
			s.advance(r, ledger.EventSettle, ledger.EventUndelivered)
			s.answers(s.asks(s.in, r, http.StatusOK, ""))
		}},
		"served for nothing": {free, func(s *story) {
			s.buys(s.in)
			r := s.claims(s.in)
			s.advance(r, ledger.EventFail)
			s.answers(s.asks(s.in, r, http.StatusOK, ""))
		}},
		"served without a payment": {free, func(s *story) {
			_, a := s.buys(s.in)
			s.payer.attempts = append(s.payer.attempts, &attempt{Intent: s.in.id, Status: http.StatusOK, Serial: a.Serial + 1, Said: s.in.id})
		}},
		"another's answer":         {untrue, func(s *story) { _, a := s.buys(s.in); a.Said = "p01-001" }},
		"a trail that was changed": {audit, func(s *story) { r, _ := s.buys(s.in); r.Trail[1].Actor = "somebody else" }},
		"a trail that lacks an end": {audit, func(s *story) {
			r, _ := s.buys(s.in)
			r.Trail = r.Trail[:len(r.Trail)-1]
		}},
		"told to pay again after being charged": {untrue, func(s *story) {
			r := s.claims(s.in)
			s.charges(r)
			s.advance(r, ledger.EventSettle)
			s.asks(s.in, r, http.StatusPaymentRequired, "invalid_transaction_state")
			s.advance(r, ledger.EventUndelivered)
		}},
		"told that it is held, and it is not": {untrue, func(s *story) {
			r, a := s.buys(s.in)
			b := s.asks(s.in, r, http.StatusBadGateway, "")
			b.Held, b.Payment = true, a.Payment
		}},
		"told that it was answered, and it is held": {untrue, func(s *story) {
			s.buys(s.in)
			r := s.claims(s.in)
			s.charges(r)
			s.advance(r, ledger.EventSettle, ledger.EventUndelivered)
			s.asks(s.in, r, http.StatusConflict, codeNotStored)
		}},
		"a pass that opens nothing": {untrue, func(s *story) {
			s.buys(s.in)
			s.payer.attempts = append(s.payer.attempts, &attempt{Intent: s.in.id, Status: http.StatusPaymentRequired, Token: true})
		}},
		"told that it had left": {untrue, func(s *story) {
			r, _ := s.buys(s.in)
			s.asks(s.in, r, statusGone, "")
		}},
		"never served": {stuck, func(s *story) { s.buys(s.in); s.wants(-1).outcome = unfinished }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			c.tell(s)
			s.judged(c.want)
		})
	}
}

// judged lets the judge look for one kind of violation, or none.
func (s *story) judged(want string) *judgement {
	s.t.Helper()
	j := judge(s.e)
	found := map[string]string{}
	for _, v := range j.violations {
		found[v.kind] = v.text
	}
	if _, ok := found[want]; want != "" && !ok || want == "" && len(found) > 0 {
		s.t.Errorf("the judge found %v, want %q", found, want)
	}
	return j
}
