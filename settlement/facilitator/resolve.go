package facilitator

import (
	"context"
	"sync"
	"time"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/proof"
)

// resolve is Resolve for whoever takes any block. head and safe are the chain's newest block and its newest safe one, before
// anything else was asked.
func (s *Settler) resolve(ctx context.Context, in settlement.Intent) (out settlement.Outcome, head, safe chain.Head) {
	h, err := s.history(ctx, in.Payment)
	if err != nil {
		return settlement.Outcome{Err: err}, head, safe
	}
	// Asked first: what was safe then is judged by logs that are no older.
	if safe, err = s.chain.Safe(ctx); err != nil {
		return settlement.Outcome{Err: err}, head, safe
	}
	if head, err = s.chain.Head(ctx); err != nil {
		return settlement.Outcome{Err: err}, head, safe
	}
	t, err := proof.Search(ctx, s.chain, in, head.Number)
	if err != nil {
		return settlement.Outcome{Err: err}, head, safe
	}
	out = s.found(in, t, head, safe, h.begun())
	if out.Status != settlement.Unknown {
		s.under.drop(in.Payment)
		return out, head, safe
	}
	s.rebroadcast(ctx, h.own)
	if len(h.own) > 0 {
		out.Transaction = h.own[len(h.own)-1].Hash
		return out, head, safe
	}
	return s.askAgain(ctx, in, out), head, safe
}

// found judges by what the chain shows.
func (s *Settler) found(in settlement.Intent, t proof.Trace, head, safe chain.Head, begun bool) settlement.Outcome {
	switch {
	case t.Receipt != nil:
		return proof.FinalBy(proof.Settled(t.Receipt), safe)
	case t.Spent:
		out := proof.Failed(errSpent(), nil)
		out.Final = t.Block <= safe.Number
		return out
	case proof.Expired(in, safe):
		out := proof.Failed(errExpired(), nil)
		out.Final = true
		return out
	case begun && proof.Expired(in, head):
		// Its payer shall not wait for a safe block to sign anew; should the chain think otherwise, the money goes back.
		return proof.Failed(errExpired(), nil)
	}
	return settlement.Outcome{}
}

// askAgainAfter is how long a trusted facilitator is not asked again about the same payment.
const askAgainAfter = 10 * time.Second

// askAgain asks a trusted facilitator, with the very same request, what became of a payment whose answer was lost: it makes
// no second transfer, for the token executes an authorization once. It can be asked as long as we have the payload, which is
// kept in memory only.
func (s *Settler) askAgain(ctx context.Context, in settlement.Intent, out settlement.Outcome) settlement.Outcome {
	remotes, trust := s.set()
	u, ok := s.under.get(in.Payment)
	if !trust || !ok || s.now().Sub(u.asked) < askAgainAfter {
		return out
	}
	u.asked = s.now()
	s.under.put(in.Payment, u)
	for _, r := range remotes {
		if r.id != u.remote || !r.breaker.admit(s.now(), r.set().Timeout) {
			continue
		}
		if rep := s.post(ctx, u.intent, r, "/settle", u.body); rep.kind == accepted {
			s.under.drop(in.Payment)
			return settlement.Outcome{Status: settlement.Settled, Transaction: rep.transaction}
		}
	}
	return out
}

// underWay is a payment whose outcome at a trusted facilitator is unknown.
type underWay struct {
	remote string // its id
	body   []byte
	intent settlement.Intent
	asked  time.Time
}

// mostUnderWay bounds how many are remembered; what is forgotten is found on the chain.
const mostUnderWay = 4096

type memory struct {
	mu sync.Mutex
	m  map[string]underWay
}

func (m *memory) put(payment string, u underWay) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.m == nil {
		m.m = make(map[string]underWay)
	}
	for old := range m.m {
		if len(m.m) < mostUnderWay {
			break
		}
		delete(m.m, old)
	}
	m.m[payment] = u
}

func (m *memory) get(payment string) (underWay, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, ok := m.m[payment]
	return u, ok
}

func (m *memory) drop(payment string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.m, payment)
}
