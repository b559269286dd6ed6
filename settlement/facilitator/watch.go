package facilitator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/proof"
	"github.com/caddy-x402/caddy-x402/x402"
)

// slowestPoll is how seldom the chain is looked at while a payment is under way, in intervals of Config.Poll.
const slowestPoll = 8

// errOpen: the chain shows nothing of the payment, and it may still be made.
var errOpen = errors.New("facilitator: the chain does not show the payment yet")

// look asks the chain once what became of a payment, by the token's logs. Without a trace of it the outcome is unknown, and
// its Err is nil as long as it may still be made.
func (s *Settler) look(ctx context.Context, in settlement.Intent) settlement.Outcome {
	head, err := s.chain.Head(ctx)
	if err != nil {
		return settlement.Outcome{Err: err}
	}
	t, err := proof.Search(ctx, s.chain, in, head.Number)
	switch {
	case err != nil:
		return settlement.Outcome{Err: err}
	case t.Receipt != nil:
		return proof.Settled(t.Receipt)
	case t.Spent:
		return proof.Failed(errSpent(), nil)
	case proof.Expired(in, head):
		return proof.Failed(errExpired(), nil)
	}
	return settlement.Outcome{}
}

func errSpent() error {
	return x402.Refuse(x402.ReasonNonceUsed, "the authorization was cancelled or used for something else")
}

func errExpired() error {
	return x402.Refuse(x402.ReasonValidBefore, "the authorization has expired unused")
}

// watch looks at the chain until it shows what became of a payment, or ctx ends. named is the transaction that a facilitator
// gave us, zero if none: its receipt is the shortest way. wrong is its receipt if that is of no use: it reverted, or
// is another payment's; then the watch ends.
func (s *Settler) watch(ctx context.Context, in settlement.Intent, named common.Hash) (out settlement.Outcome, wrong *chain.Receipt) {
	for pause := s.poll; ; pause = min(2*pause, slowestPoll*s.poll) {
		if named != (common.Hash{}) {
			r, err := s.chain.Receipt(ctx, named)
			switch {
			case err == nil && proof.Paid(in, r):
				return proof.Settled(r), nil
			case err == nil && r != nil:
				out = s.look(ctx, in)
				return out, r
			}
		}
		if out = s.look(ctx, in); out.Status != settlement.Unknown {
			return out, nil
		}
		if err := s.pause(ctx, pause, named); err != nil {
			out.Transaction = named
			out.Err = errors.Join(errOpen, out.Err, err)
			return out, nil
		}
	}
}

// pause waits, less if the named transaction is mined meanwhile.
func (s *Settler) pause(ctx context.Context, d time.Duration, named common.Hash) error {
	if named == (common.Hash{}) {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	waiting, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	if _, err := s.chain.AwaitReceipt(waiting, named); errors.Is(err, chain.ErrClosed) {
		return err
	}
	return ctx.Err()
}

// A used authorization has left a log. Where none is found, the endpoint's logs are behind its state: they are looked at
// again a few times.
const searchTries = 5

var errNoLog = fmt.Errorf("%w: the authorization is used, but the chain's logs don't say for what", settlement.ErrUnavailable)

// elsewhere judges a payment whose authorization is used, by whomever: it may have paid us. begun: somebody was handed it, so
// that it most probably has, and nothing but a log says otherwise. wrong is a transaction that was made in vain, if any.
func (s *Settler) elsewhere(ctx context.Context, in settlement.Intent, why error, begun bool, wrong *chain.Receipt) settlement.Outcome {
	for try := 1; ; try++ {
		out := s.look(ctx, in)
		switch {
		case out.Status == settlement.Settled, out.Status == settlement.Unknown && out.Err != nil:
			return out
		case out.Status == settlement.Failed, try == searchTries && !begun:
			return proof.Failed(why, wrong)
		case try == searchTries:
			return settlement.Outcome{Err: errNoLog}
		}
		if err := s.pause(ctx, s.poll, common.Hash{}); err != nil {
			return settlement.Outcome{Err: fmt.Errorf("%w: %w", errOpen, err)}
		}
	}
}
