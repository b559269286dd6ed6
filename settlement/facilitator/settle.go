package facilitator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/internal/faultpoint"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/proof"
	"github.com/caddy-x402/caddy-x402/x402"
)

var (
	errNoExchange = errors.New("facilitator: the payment's header is not at hand; its payer has to send it again")
	errNobody     = fmt.Errorf("%w: no facilitator can be asked now", settlement.ErrUnavailable)
	errGone       = errors.New("facilitator: the one that was handed the payment is not configured any more")
	errLie        = errors.New("facilitator: it says that it has settled, and the chain shows no such transfer")
)

// begin has the payment settled, or goes on with what was begun before, until it is on the chain or known not to be, or ctx ends.
func (s *Settler) begin(ctx context.Context, in settlement.Intent) settlement.Outcome {
	yield, err := s.turns.take(ctx, in.Payment)
	if err != nil {
		return settlement.Outcome{Err: err}
	}
	defer yield()
	h, err := s.history(ctx, in.Payment)
	if err != nil {
		return settlement.Outcome{Err: err}
	}
	if h.begun() {
		if out := s.goOn(ctx, in, &h); out.Status != settlement.Unknown || out.Err != nil {
			return out
		}
	}
	if err := s.approve(ctx, in); err != nil {
		switch x402.ReasonOf(err) {
		case "":
			return settlement.Outcome{Err: err}
		case x402.ReasonNonceUsed:
			return s.elsewhere(ctx, in, err, h.begun(), nil)
		}
		return proof.Failed(err, nil)
	}
	if in.Exchange == nil {
		return settlement.Outcome{Err: errNoExchange}
	}
	return s.handOver(ctx, in, &h)
}

// goOn looks at the chain for a payment that somebody has been handed. Unknown without Err: it may be handed over, again.
func (s *Settler) goOn(ctx context.Context, in settlement.Intent, h *history) settlement.Outcome {
	if len(h.own) > 0 {
		s.rebroadcast(ctx, h.own)
		out, _ := s.watch(ctx, in, h.own[len(h.own)-1].Hash)
		return out
	}
	return s.look(ctx, in)
}

// handOver hands the payment to one facilitator after another, until one of them has taken it.
//
// Which facilitator may be asked when another one had the payment already? For the payer's money it makes no difference: a
// token executes an EIP-3009 authorization at most once, so that of any number of facilitators one moves the money, at
// most, and all others pay the gas of a transaction that reverts. But these others would be right to complain, and some
// charge for each call. So a payment whose outcome at one facilitator is unknown stays with that one, which is asked again
// for the same, by the very same bytes; only where one was not reached, or has refused and the chain says
// that the authorization is unused, the next one is asked. Should the first one have lied about its refusal, the harm is its own.
func (s *Settler) handOver(ctx context.Context, in settlement.Intent, h *history) settlement.Outcome {
	remotes, trust := s.set()
	var problems []error
	var refusal reply
	asked := false
	for _, r := range remotes {
		if h.last != "" && r.id != h.last && !asked {
			continue // it stays with whom it was given
		}
		body, err := s.admit(ctx, in, r)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", r.host, err))
			continue
		}
		if r.id != h.last || asked {
			if err := s.hand(ctx, in, r); err != nil {
				return s.notHanded(ctx, in, err)
			}
		}
		asked = true
		out, next, rep := s.at(ctx, in, r, body, trust)
		if !next {
			return out
		}
		if rep.kind == refused {
			refusal = rep
		}
		problems = append(problems, fmt.Errorf("%s: %w", r.host, rep.err))
	}
	return s.nobody(ctx, in, refusal, trust, errors.Join(problems...))
}

// admit gives the body for r, if r may be asked now.
func (s *Settler) admit(ctx context.Context, in settlement.Intent, r *remote) ([]byte, error) {
	if err := r.supported.wait(ctx, firstAnswer); err != nil {
		return nil, err
	}
	if err := r.supported.fits(); err != nil {
		return nil, err
	}
	body, err := envelope(in, r.supported.speaks())
	if err != nil {
		return nil, err
	}
	if !r.breaker.admit(s.now(), r.set().Timeout) {
		return nil, errFailing
	}
	return body, nil
}

// notHanded is the outcome of a payment that could not be noted.
func (s *Settler) notHanded(ctx context.Context, in settlement.Intent, err error) settlement.Outcome {
	if !errors.Is(err, settlement.ErrNotClaimed) {
		return settlement.Outcome{Err: unavailable(err)}
	}
	// The ledger does not want it settled any more; maybe because somebody has found it settled.
	out := s.look(ctx, in)
	if out.Status == settlement.Unknown && out.Err == nil {
		return settlement.Outcome{Status: settlement.Failed, Reason: x402.ReasonTransactionFailed, Err: err}
	}
	return out
}

// nobody is the outcome of a payment that no facilitator took, and to which the chain has no objection.
func (s *Settler) nobody(ctx context.Context, in settlement.Intent, refusal reply, trust bool, problem error) settlement.Outcome {
	switch {
	case problem == nil:
		return settlement.Outcome{Err: errGone}
	case refusal.kind != refused:
		return settlement.Outcome{Err: fmt.Errorf("%w: %w", errNobody, problem)}
	case trust:
		e := x402.Refuse(refusal.reason, "the facilitator refuses the payment")
		if e.Reason == "" {
			e.Reason = x402.ReasonTransactionFailed
		}
		e.Err = problem
		return proof.Failed(e, nil)
	}
	// It may all the same be on its way: whoever lies about a settlement has settled a moment ago.
	short, cancel := context.WithTimeout(ctx, s.patient)
	defer cancel()
	out, _ := s.watch(short, in, common.Hash{})
	if out.Status == settlement.Unknown {
		out.Err = errors.Join(problem, out.Err)
	}
	return out
}

// at has the payment settled by r. next: r has not done it, and is not at it.
func (s *Settler) at(
	ctx context.Context, in settlement.Intent, r *remote, body []byte, trust bool,
) (out settlement.Outcome, next bool, rep reply) {
	if r.set().Verify {
		if rep = s.post(ctx, in, r, "/verify", body); rep.kind == lost && ctx.Err() == nil {
			rep.kind = refused // it was asked for an opinion, and nothing else
		}
		if rep.kind != accepted {
			return s.judge(ctx, in, r, rep, nil)
		}
	}
	rep, seen := s.settleAt(ctx, in, r, body)
	if seen.Status != settlement.Unknown {
		return seen, false, rep
	}
	if again := rep.kind == pending && rep.reason == reasonPending || rep.kind == lost && trust; again {
		return s.again(ctx, in, r, body, trust, rep)
	}
	return s.conclude(ctx, in, r, body, trust, rep)
}

// again is for a facilitator that does not know what became of its transaction, or whose answer was lost and which we trust.
// The chain is looked at first; then comes one identical request, and no more.
func (s *Settler) again(
	ctx context.Context, in settlement.Intent, r *remote, body []byte, trust bool, rep reply,
) (settlement.Outcome, bool, reply) {
	short, cancel := context.WithTimeout(ctx, s.patient)
	out, wrong := s.watch(short, in, rep.transaction)
	cancel()
	switch {
	case out.Status != settlement.Unknown:
		return out, false, rep
	case wrong != nil:
		return s.judge(ctx, in, r, rep, wrong)
	case ctx.Err() != nil:
		return out, false, rep
	}
	second, seen := s.settleAt(ctx, in, r, body)
	if seen.Status != settlement.Unknown {
		return seen, false, second
	}
	if second.kind == unsent || second.kind == lost || second.kind == pending && second.transaction == (common.Hash{}) {
		second.kind, second.transaction = pending, rep.transaction // what it said first still holds
	}
	return s.conclude(ctx, in, r, body, trust, second)
}

// conclude makes an outcome of a reply to /settle.
func (s *Settler) conclude(
	ctx context.Context, in settlement.Intent, r *remote, body []byte, trust bool, rep reply,
) (out settlement.Outcome, next bool, _ reply) {
	if rep.kind == unsent || rep.kind == refused {
		return s.judge(ctx, in, r, rep, nil)
	}
	if rep.kind == accepted && trust {
		s.under.drop(in.Payment)
		return settlement.Outcome{Status: settlement.Settled, Transaction: rep.transaction}, false, rep
	}
	out, wrong := s.watch(ctx, in, rep.transaction)
	if out.Status != settlement.Unknown {
		return out, false, rep
	}
	if wrong == nil {
		if trust {
			s.under.put(in.Payment, underWay{remote: r.id, body: body, intent: in, asked: s.now()})
		}
		out.Err = errors.Join(rep.err, out.Err)
		return out, false, rep
	}
	if wrong.OK && rep.kind == accepted {
		s.breakerFailed(ctx, r, errLie)
		s.log.ErrorContext(ctx, "a facilitator says that it has settled a payment by a transaction that does not pay it",
			"facilitator", r.host, "payment", in.Payment, "transaction", rep.transaction)
	}
	rep.err = errors.Join(errLie, rep.err)
	return s.judge(ctx, in, r, rep, wrong)
}

// judge asks the chain what a payment is worth that a facilitator has not settled, by its own word or by that of the
// transaction it named. next: the chain has no objection, so the next one may be asked.
func (s *Settler) judge(
	ctx context.Context, in settlement.Intent, r *remote, rep reply, wrong *chain.Receipt,
) (out settlement.Outcome, next bool, _ reply) {
	if rep.kind == unsent {
		return settlement.Outcome{}, true, rep
	}
	_, err := proof.Simulate(ctx, s.chain, in)
	switch x402.ReasonOf(err) {
	case x402.ReasonNonceUsed:
		return s.elsewhere(ctx, in, err, true, wrong), false, rep
	case "":
	default:
		return proof.Failed(err, wrong), false, rep
	}
	if err != nil {
		return settlement.Outcome{Transaction: rep.transaction, Err: err}, false, rep
	}
	s.log.WarnContext(ctx, "a facilitator does not settle a payment that the chain would settle",
		"facilitator", r.host, "payment", in.Payment, "error", rep.err)
	rep.kind = refused
	return settlement.Outcome{}, true, rep
}

// settleAt asks r to settle, and looks at the chain besides, less and less often, when that takes long: the transfer may be
// made long before the answer comes.
func (s *Settler) settleAt(ctx context.Context, in settlement.Intent, r *remote, body []byte) (rep reply, seen settlement.Outcome) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	replies := make(chan reply, 1)
	s.wg.Go(func() { replies <- s.post(ctx, in, r, "/settle", body) })
	for pause := s.patient; ; pause *= 2 {
		t := time.NewTimer(pause)
		select {
		case rep = <-replies:
			t.Stop()
			return rep, settlement.Outcome{}
		case <-t.C:
			if out := s.look(ctx, in); out.Status == settlement.Settled {
				return reply{kind: lost}, out
			}
		}
	}
}

// post does one request for a payment, and tells the breaker how it went.
func (s *Settler) post(ctx context.Context, in settlement.Intent, r *remote, path string, body []byte) reply {
	asking, cancel := context.WithTimeout(ctx, r.set().Timeout)
	defer cancel()
	a, err := r.do(asking, http.MethodPost, path, body, maxAnswer)
	faultpoint.Reached("handed")
	var rep reply
	switch {
	case errors.Is(err, errNotSent):
		rep = reply{kind: unsent, err: err}
	case errors.Is(err, errRedirect):
		rep = reply{kind: refused, err: err}
	case err != nil:
		rep = reply{kind: lost, err: err}
	default:
		g := reading{
			clean:   func(text string) string { return r.clean(text, secretsOf(in)...) },
			network: in.Network, payer: in.Authorization.From, verdict: "isValid",
		}
		if path == "/settle" {
			g.verdict, g.transactional = "success", true
		}
		rep = g.read(a)
	}
	switch {
	case rep.spoke:
		r.breaker.worked()
	case ctx.Err() == nil: // else it was we who hung up
		s.breakerFailed(ctx, r, rep.err)
	}
	return rep
}

func (s *Settler) breakerFailed(ctx context.Context, r *remote, err error) {
	if d := r.breaker.failed(s.now()); d > 0 {
		s.log.WarnContext(ctx, "a facilitator fails; it is left alone for a while", "facilitator", r.host, "for", d, "error", err)
	}
}

// secretsOf are what of a payment must not get into logs by a facilitator's repeating it.
func secretsOf(in settlement.Intent) []string {
	return []string{common.Bytes2Hex(in.Signature), common.Bytes2Hex(in.Authorization.Nonce[:])}
}
