// Package crash kills the process between every two steps of a payment.
package crash

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

const cent = 10_000 // atomic units

// flow is an order of the steps of a payment.
type flow struct {
	site string // empty: the default, which is upfront
	app  string
	// steps are the marks that a payment passes, in their order. The process dies right after each.
	steps []string
	// asksFirst: the upstream is asked before the money moves.
	asksFirst bool
}

var flows = map[string]flow{
	"upfront": {steps: []string{"claimed", "signed", "recorded", "broadcast", "settled", "delivering", "answered", "delivered"}},
	"authorization": {
		site: `
	x402 $0.01 {
		flow authorization
	}
	x402_service
	reverse_proxy {upstream}
`,
		steps:     []string{"claimed", "delivering", "served", "signed", "recorded", "broadcast", "settled", "answered", "delivered"},
		asksFirst: true,
	},
	"deferred": {
		site: `
	x402 $0.01 {
		flow deferred
	}
	x402_service
	reverse_proxy {upstream}
`,
		app:       "credit $0.50 $5\n ",
		steps:     []string{"claimed", "answered", "delivered", "owed", "signed", "recorded", "broadcast"},
		asksFirst: true,
	},
}

// What the client does after the crash.
var clients = map[string]func(*scene) rig.Answer{
	"sends the same again": func(s *scene) rig.Answer { return s.send(s.header) },
	"signs anew":           func(s *scene) rig.Answer { return s.send(s.buyer.Sign(s.offer, 0)) },
	"does not come back":   func(*scene) rig.Answer { return rig.Answer{} },
}

// scene is one payment, one crash, and what follows.
type scene struct {
	t        *testing.T
	chain    *devnet.Chain
	upstream *rig.Upstream
	buyer    *rig.Buyer
	dir      string
	addr     string // of its Caddy
	method   string
	url      string
	offer    x402.PaymentRequired
	header   string
	paysLast bool // the flow is deferred
}

func newChain(t *testing.T) *devnet.Chain {
	t.Helper()
	chain, err := devnet.Start(t.Context(), devnet.Options{Payers: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = chain.Close() })
	return chain
}

func newScene(t *testing.T, chain *devnet.Chain, method, path string) *scene {
	t.Helper()
	addr := rig.FreeAddr(t)
	return &scene{
		t: t, chain: chain, upstream: rig.NewUpstream(t, nil), buyer: rig.NewBuyer(t, 1), dir: t.TempDir(),
		addr: addr, method: method, url: "http://" + addr + path,
	}
}

// start runs the scene's Caddy, as o says, until it is killed; step is where it kills itself, or "".
func (s *scene) start(o rig.Options, step string) *rig.Process {
	s.t.Helper()
	o.RPC = s.chain.URL()
	p := rig.NewProcess(s.t, s.dir, "caddy", s.addr, rig.Caddyfile(o, s.dir, s.addr, s.upstream.Addr()))
	if err := p.StartUntil(step); err != nil {
		s.t.Fatal(err)
	}
	return p
}

// dies pays in the i-th way that is offered, of which the process dies.
func (s *scene) dies(o rig.Options, step string, i int) {
	s.t.Helper()
	doomed := s.start(o, step)
	s.offer = s.buyer.Offer(s.url)
	s.header = s.buyer.Sign(s.offer, i)
	first := s.send(s.header)
	if first.Err == nil && !s.paysLast {
		s.t.Fatalf("the process survived: %d %s", first.Status, first.Body)
	}
	select {
	case <-doomed.Ended():
	case <-time.After(rig.Patience):
		s.t.Fatalf("the process has outlived what it did after its answer: %d %s", first.Status, first.Body)
	}
}

// Wherever the process is killed, and whatever the client does then: each payment is delivered once, or nothing was charged,
// or it is held for refund where everybody can see it; and the ledger and the chain agree.
func TestKilledBetweenEveryTwoSteps(t *testing.T) {
	for name, f := range flows {
		for _, step := range f.steps {
			for behaviour, act := range clients {
				for _, method := range []string{http.MethodGet, http.MethodPost} {
					t.Run(name+"/"+step+"/"+behaviour+"/"+method, func(t *testing.T) {
						t.Parallel()
						s := play(t, f, step, method, act)
						// Whoever sends the same again has the upstream do nothing twice.
						if calls := s.upstream.Calls(); f.asksFirst && method == http.MethodPost && behaviour == "sends the same again" && calls > 1 {
							t.Errorf("the upstream was asked %d times", calls)
						}
					})
				}
			}
		}
	}
}

func play(t *testing.T, f flow, step, method string, act func(*scene) rig.Answer) *scene {
	s := newScene(t, newChain(t), method, "/thing")
	s.paysLast = f.app != ""
	o := rig.Options{Site: f.site, App: f.app + "settle_timeout 20s\n hold_ttl 2s\n min_age 6s\n interval 200ms"}
	s.dies(o, step, 0)

	alive := s.start(o, "")
	answer := s.insist(act)
	s.settle()
	alive.Kill()
	s.judge(step, answer)
	return s
}

func (s *scene) send(header string) rig.Answer {
	return s.buyer.Do(s.t.Context(), s.method, s.url, "", x402.HeaderSignature, header)
}

// insist does what a client does that is told to wait.
func (s *scene) insist(act func(*scene) rig.Answer) rig.Answer {
	for deadline := time.Now().Add(rig.Patience); time.Now().Before(deadline); time.Sleep(250 * time.Millisecond) {
		if a := act(s); a.Status != http.StatusServiceUnavailable {
			return a
		}
	}
	s.t.Fatal("the client was put off for ever")
	return rig.Answer{}
}

// settle waits until nothing is left to be done: no payment is under way, and what was paid was served or is held.
func (s *scene) settle() {
	for deadline := time.Now().Add(rig.Patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		waiting := 0
		for _, p := range s.payments() {
			begun := p.Settlement == ledger.Claimed && p.Delivery == ledger.Delivering && s.method == http.MethodPost
			if begun || p.State() == ledger.StateOwed || p.Settlement == ledger.Settling || p.Settlement == ledger.Settled && p.Unserved() {
				waiting++
			}
		}
		if waiting == 0 {
			return
		}
	}
	s.t.Errorf("payments are still under way: %+v", s.payments())
}

// judge compares what the client got, what the ledger says and what the chain says.
func (s *scene) judge(step string, answer rig.Answer) {
	t := s.t
	served, held, charged := 0, 0, 0
	for _, p := range s.payments() {
		if p.Settlement == ledger.Settled {
			charged++
			if !s.onChain(p.Transaction) {
				t.Errorf("payment %s: its transaction %s is not on chain", p.ID, p.Transaction)
			}
		}
		switch {
		case p.Delivery == ledger.Delivered && p.Refund != ledger.NotRefunded:
			t.Errorf("payment %s is both delivered and to be refunded", p.ID)
		case p.Delivery == ledger.Delivered:
			served++
		case p.State() == ledger.StateRefundPending:
			held++
		case p.Settlement == ledger.Settled:
			t.Errorf("payment %s was charged, and is neither served nor held for refund: %s", p.ID, p.State())
		}
	}
	paid, err := s.chain.TokenBalance(context.WithoutCancel(t.Context()), rig.PayTo)
	if err != nil {
		t.Fatal(err)
	}
	if int(paid.Uint64()) != charged*cent {
		t.Errorf("the chain says that %s was paid, the ledger that %d payments were", paid, charged)
	}
	if charged != served+held {
		t.Errorf("%d charged, %d served, %d held", charged, served, held)
	}
	s.judgeAnswer(step, answer, served, charged)
}

// judgeAnswer: a GET that is asked for again is served, and charged once.
func (s *scene) judgeAnswer(step string, answer rig.Answer, served, charged int) {
	t := s.t
	if answer.Status == http.StatusOK && served == 0 {
		t.Error("the client was served without a payment")
	}
	if answer.Status == 0 || step == "delivered" { // the first answer was on its way: only the client knows
		return
	}
	if s.paysLast && step != "claimed" && step != "answered" { // so it was here: what is owed was delivered
		return
	}
	if s.method == http.MethodGet && (answer.Status != http.StatusOK || charged != 1) {
		t.Errorf("the client got %d %s, and was charged %d times", answer.Status, answer.Body, charged)
	}
}
