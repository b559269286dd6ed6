package wallet

import (
	"context"
	"errors"
	"fmt"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/proof"
	"github.com/caddy-x402/caddy-x402/x402"
)

// maxTries bounds how often one call puts a payment into the queue. More than one follow where a batch that it was in
// failed as a whole, and is halved until the culprit is alone; or where the wallet was used elsewhere, and its nonce went to a
// stranger's transaction.
const maxTries = 12

var (
	errNotMined  = errors.New("wallet: the transaction is not mined yet")
	errOvertaken = errors.New("wallet: the wallet's nonces are used elsewhere")
	errVanished  = errors.New("wallet: a mined transaction is gone from the chain")
	// errDropped: the payment failed when the batch was simulated.
	errDropped = errors.New("wallet: the payment would fail in the batch")
)

// land makes the transfer, or goes on with the one that was made before, until it is on the chain or known not to be, or ctx ends.
func (s *Settler) land(ctx context.Context, in settlement.Intent) settlement.Outcome {
	back, err := s.turns.take(ctx, in.Payment)
	if err != nil {
		return unknown(err, nil)
	}
	defer back()
	txs, err := s.recorded(ctx, in.Payment)
	if err != nil {
		return unknown(err, nil)
	}
	return s.settle(ctx, in, txs)
}

func (s *Settler) settle(ctx context.Context, in settlement.Intent, txs []settlement.Transaction) settlement.Outcome {
	t := s.transfer(in)
	most := 0
	for range maxTries {
		if len(txs) > 0 {
			out, dead := s.follow(ctx, in, txs)
			if !dead {
				return out
			}
			if n := len(txs[len(txs)-1].Payments); n > 1 {
				most = n / 2
			}
		}
		v, err := s.approve(ctx, in, t, most > 0)
		if x402.ReasonOf(err) != "" {
			return s.refused(ctx, in, err)
		}
		if err != nil {
			return unknown(err, txs)
		}
		j := &job{ctx: ctx, in: in, t: t, verdict: v, txs: txs, most: most, done: make(chan dispatched, 1)}
		p, err := s.submit(j)
		switch {
		case errors.Is(err, errKnown):
			txs = j.found
			continue
		case errors.Is(err, errDropped):
			most = 1
			continue
		case errors.Is(err, errBehind):
			most = 1
			s.aloft.wait(ctx, j)
			if ctx.Err() != nil {
				return unknown(err, txs)
			}
			continue
		case errors.Is(err, settlement.ErrNotClaimed):
			return s.notClaimed(ctx, in, err)
		case err != nil:
			return unknown(err, txs)
		}
		txs = append(txs, p.first)
		if out, ok := s.arrive(ctx, in, p, txs); ok {
			return out
		}
	}
	return unknown(errOvertaken, txs)
}

// submit lets j wait for a lane, and for the transaction that carries it.
func (s *Settler) submit(j *job) (*parcel, error) {
	if err := s.queue.put(j); err != nil {
		return nil, err
	}
	s.start.Do(func() {
		for _, l := range s.lanes {
			s.crew.Go(func() { s.run(l) })
		}
	})
	began := s.now()
	select {
	case d := <-j.done:
		if d.err == nil {
			s.travels(j, d.parcel, s.now().Sub(began))
		}
		return d.parcel, d.err
	case <-j.ctx.Done(): // a lane may be at it
	}
	select {
	case d := <-j.done:
		return d.parcel, d.err
	default:
		return nil, unavailable(j.ctx.Err())
	}
}

// approve gives what a simulation of the transfer found; an *x402.Error if it would fail. What Check has found counts once, and
// not anew.
func (s *Settler) approve(ctx context.Context, in settlement.Intent, t transfer, anew bool) (verdict, error) {
	v, ok := s.recent.get(t.key)
	s.recent.drop(t.key)
	if ok && !anew {
		if age := s.now().Sub(v.at); age >= 0 && age < maxVerdictAge {
			return v, nil
		}
	}
	return s.simulate(ctx, in, t)
}

// refused is the outcome of a transfer that would fail; nothing was sent for it. An authorization that was
// used since the claim may have paid us by another's hand.
func (s *Settler) refused(ctx context.Context, in settlement.Intent, why error) settlement.Outcome {
	if x402.ReasonOf(why) != x402.ReasonNonceUsed {
		return proof.Failed(why, nil)
	}
	return s.elsewhere(ctx, in, nil, why)
}

// notClaimed is the outcome where the ledger no longer wants the payment settled. It may be because
// somebody found it settled.
func (s *Settler) notClaimed(ctx context.Context, in settlement.Intent, err error) settlement.Outcome {
	out, _, _ := s.resolve(ctx, in)
	if out.Status == settlement.Unknown && out.Err == nil {
		return settlement.Outcome{Status: settlement.Failed, Reason: x402.ReasonTransactionFailed, Err: err}
	}
	return out
}

// follow goes on with transactions that were made before. dead: none of them can be mined any more, and none of those
// that were says why this payment was not made.
func (s *Settler) follow(ctx context.Context, in settlement.Intent, txs []settlement.Transaction) (out settlement.Outcome, dead bool) {
	for {
		sv, err := s.survey(ctx, txs)
		open := sv.open
		switch {
		case err != nil && ctx.Err() != nil:
			return unknown(err, txs), false
		case err != nil:
			open = txs // nobody answers now, and somebody may later
		case len(sv.receipts) > 0 && in.Again:
			for _, r := range sv.receipts {
				if proof.Paid(in, r) {
					return proof.Settled(r), false
				}
			}
			if len(open) == 0 {
				return settlement.Outcome{}, true
			}
		case len(sv.receipts) > 0:
			if out, ok := s.judge(ctx, in, sv.receipts, txs); ok {
				return out, false
			}
			return settlement.Outcome{}, true
		case len(open) == 0:
			return settlement.Outcome{}, true
		}
		if out, ok := s.arrive(ctx, in, s.adopt(open), txs); ok {
			return out, false
		}
	}
}

// arrive waits for p, or for ctx to end. ok is false where the payment needs another look: p was lost to another
// transaction with its nonce, or did not pay it.
func (s *Settler) arrive(
	ctx context.Context, in settlement.Intent, p *parcel, txs []settlement.Transaction,
) (out settlement.Outcome, ok bool) {
	select {
	case <-p.landed:
	case <-ctx.Done():
		return unknown(fmt.Errorf("%w: %w", errNotMined, ctx.Err()), txs), true
	}
	switch {
	case p.receipt != nil:
		return s.judge(ctx, in, []*chain.Receipt{p.receipt}, append(txs, p.all()...))
	case p.err != nil:
		return unknown(p.err, txs), true
	}
	return settlement.Outcome{}, false
}

// judge says what the receipts of our transactions mean for the payment; ok is false where they mean nothing: it was in a
// batch and is not paid, for a reason of its own or since a neighbour took all gas.
func (s *Settler) judge(
	ctx context.Context, in settlement.Intent, receipts []*chain.Receipt, txs []settlement.Transaction,
) (out settlement.Outcome, ok bool) {
	for _, r := range receipts {
		if proof.Paid(in, r) {
			return proof.Settled(r), true
		}
	}
	last := lone(receipts, txs)
	if last == nil {
		return settlement.Outcome{}, false
	}
	if out = s.elsewhere(ctx, in, last, nil); out.Status != settlement.Settled { // who was overtaken by a stranger is no culprit
		s.isolated.put(in.Authorization.From, struct{}{})
		if out.Reason == x402.ReasonTransactionFailed || out.Reason == x402.ReasonSignature { // neither time nor money explains it
			s.burned.put(in.Authorization.From, s.now())
		}
	}
	return out, true
}

// lone is the last receipt of a transaction that carried this payment alone: nothing else can have made it fail.
func lone(receipts []*chain.Receipt, txs []settlement.Transaction) (last *chain.Receipt) {
	several := make(map[common.Hash]bool)
	for _, tx := range txs {
		several[tx.Hash] = len(tx.Payments) > 1
	}
	for _, r := range receipts {
		if !several[r.Transaction] {
			last = r
		}
	}
	return last
}
