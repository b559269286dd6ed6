package wallet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/multicall"
)

const (
	// dispatchTimeout bounds what happens between the queue and the journal.
	dispatchTimeout = 20 * time.Second
	// unfitFor is how long a wallet without gas leaves payments to others before it looks again.
	unfitFor = 2 * time.Second

	// batchBase is the gas of a batch without payments, and paymentGas at least what is given to each of them: USDC needs
	// 50,000. What is not used costs nothing.
	batchBase  = 60_000
	paymentGas = 100_000
)

// run is a lane at work, until Close.
func (s *Settler) run(l *lane) {
	for s.due(l) {
		if batch := s.queue.take(s.batchSize()); len(batch) > 0 {
			l.busy.Store(true)
			s.queue.poke() // what came meanwhile is not for this lane
			s.dispatch(l, batch)
			l.busy.Store(false)
			s.queue.poke()
		}
	}
}

// due waits until the lane is to take what waits: at once if none of its transactions is under way; else when a batch is
// full, or has lingered. False: the settler is closed.
func (s *Settler) due(l *lane) bool {
	var lingered <-chan time.Time
	for {
		waiting, changed := s.queue.look()
		set := s.set()
		flying := int(l.flying.Load())
		var rested <-chan time.Time
		switch {
		case waiting == 0:
			lingered = nil
		case flying >= set.InFlight:
		case s.unfit(l) && s.others(l, func(o *lane) bool { return !s.unfit(o) }):
			rested = time.After(unfitFor / 4)
		case flying == 0, waiting >= s.batchSize():
			return true
		case s.others(l, func(o *lane) bool { return o.flying.Load() == 0 && !o.busy.Load() && !s.unfit(o) }): // that one takes it
		case lingered == nil:
			lingered = time.After(set.Linger)
		}
		select {
		case <-s.ctx.Done():
			return false
		case <-changed:
		case <-rested:
		case <-lingered:
			return true
		}
	}
}

func (s *Settler) unfit(l *lane) bool { return s.now().UnixNano() < l.unfit.Load() }

func (s *Settler) others(l *lane, are func(*lane) bool) bool {
	for _, o := range s.lanes {
		if o != l && are(o) {
			return true
		}
	}
	return false
}

// gasOf is what a batch is given for each payment.
func (s *Settler) gasOf() uint64 {
	seen := s.gasPerPayment.Load()
	return max(paymentGas, min(seen+seen/2, s.set().GasLimit))
}

// batchSize is how many payments a transaction may carry now.
func (s *Settler) batchSize() int {
	if s.multicall.missing() {
		return 1
	}
	set := s.set()
	if set.BatchGas <= batchBase {
		return 1
	}
	return max(1, min(set.Batch, int((set.BatchGas-batchBase)/s.gasOf())))
}

// dispatch sends a transaction for what was taken from the queue. What can't travel now goes back there, or to its
// caller.
func (s *Settler) dispatch(l *lane, batch []*job) {
	ctx, cancel := context.WithTimeout(s.ctx, dispatchTimeout)
	defer cancel()
	taken := batch
	s.aloft.add(taken)
	defer func() { s.aloft.remove(taken) }() // but what was sent
	c, batch, err := s.load(ctx, l, batch)
	if len(batch) == 0 {
		return
	}
	var tx settlement.Transaction
	if err == nil {
		tx, err = s.record(ctx, l, c, batch)
	}
	switch {
	case err == nil:
	case errors.Is(err, errKnown):
		var rest []*job
		for _, j := range batch {
			if j.found != nil {
				j.end(nil, errKnown)
			} else {
				rest = append(rest, j)
			}
		}
		s.queue.back(rest)
		return
	case errors.Is(err, settlement.ErrNotClaimed) && len(batch) > 1: // one of them
		s.halve(batch)
		return
	case (errors.Is(err, errNoGas) || errors.Is(err, errSigner)) && s.others(l, func(o *lane) bool { return !s.unfit(o) }):
		l.unfit.Store(s.now().Add(unfitFor).UnixNano())
		s.queue.back(batch)
		return
	case len(batch) > 1 && s.fewerMay(err):
		s.halve(batch)
		return
	default:
		for _, j := range batch {
			j.end(nil, err)
		}
		return
	}
	taken = slices.DeleteFunc(slices.Clone(taken), func(j *job) bool { return slices.Contains(batch, j) })
	p, fresh := s.parcels.join(tx) // whoever left and came back may have found it in the journal, and carry it already
	l.flying.Add(1)
	s.queue.poke()                   // this lane may be full now: what waits is for another
	plain := !batch[0].verdict.alone // a stranger's code takes what it likes
	for _, j := range batch {
		j.end(p, nil)
	}
	s.crew.Go(func() {
		if fresh {
			s.carry(p, true)
		} else {
			<-p.landed
		}
		if plain {
			s.learn(p.receipt, len(batch))
		}
		s.aloft.remove(batch)
		l.flying.Add(-1)
		s.queue.poke()
	})
}

// fewerMay reports whether a smaller batch may cost little enough.
func (s *Settler) fewerMay(err error) bool {
	return errors.Is(err, errTooDear) || errors.Is(err, errSpent) && s.solvent() == nil
}

// halve puts a batch back in two parts, none of which grows again.
func (s *Settler) halve(batch []*job) { s.putBack(batch, len(batch)/2) }

// putBack puts jobs back into the queue that travel with no more than most from now on.
func (s *Settler) putBack(jobs []*job, most int) {
	for _, j := range jobs {
		j.most = max(1, most)
	}
	s.queue.back(jobs)
}

// load makes one call of a batch, and simulates it. Payments that would fail in it are taken out: they are judged alone. A
// batch that fails as a whole is halved.
func (s *Settler) load(ctx context.Context, l *lane, batch []*job) (call, []*job, error) {
	if len(batch) > 1 {
		if there, err := s.multicall.exists(ctx, s.chain); err != nil {
			return call{}, batch, err
		} else if !there {
			s.log.WarnContext(ctx, "there is no Multicall3 on this chain: each payment gets a transaction of its own",
				"address", multicall.Address, "network", s.network.ID)
			s.queue.back(batch[1:])
			batch = batch[:1]
		}
	}
	if len(batch) > 1 {
		var err error
		if batch, _, err = s.plain(ctx, batch, func(i int) bool {
			age := s.now().Sub(batch[i].verdict.at)
			return age < 0 || age >= freshness
		}); err != nil {
			return call{}, batch, err
		}
	}
	for len(batch) > 1 {
		results, err := s.rehearse(ctx, l, batch)
		_, reverted := errors.AsType[*chain.RevertError](err)
		if err == nil || reverted {
			rest, some, err := s.plain(ctx, batch, func(i int) bool { return reverted || !results[i].Success })
			if err != nil {
				return call{}, rest, err
			}
			if some { // they may be why the others failed
				batch = rest
				continue
			}
		}
		if reverted {
			half := len(batch) / 2
			s.putBack(batch[half:], half)
			batch = batch[:half]
			for _, j := range batch {
				j.most = half
			}
			continue
		}
		if err != nil {
			return call{}, batch, err
		}
		kept := batch[:0:0]
		for i, j := range batch {
			if results[i].Success {
				kept = append(kept, j)
			} else {
				j.end(nil, errDropped)
			}
		}
		if len(kept) > 1 {
			return s.together(kept), kept, nil
		}
		batch = kept
	}
	if len(batch) == 0 {
		return call{}, nil, nil
	}
	return s.apart(ctx, l, batch)
}

// plain takes out of a batch who runs code by now, among those that are suspect: such a payment is simulated anew, and travels alone.
func (s *Settler) plain(ctx context.Context, batch []*job, suspect func(i int) bool) (rest []*job, some bool, err error) {
	var payers []common.Address
	var at []int
	for i, j := range batch {
		if suspect(i) {
			payers, at = append(payers, j.in.Authorization.From), append(at, i)
		}
	}
	sizes, err := s.codeSizes(ctx, payers)
	if err != nil {
		return batch, false, err
	}
	coded := make([]bool, len(batch))
	for k, size := range sizes {
		coded[at[k]] = size > 0
	}
	for i, j := range batch {
		if coded[i] {
			j.end(nil, errDropped)
		} else {
			rest = append(rest, j)
		}
	}
	return rest, len(rest) < len(batch), nil
}

// together is the call that makes the transfers of a batch, each whether or not the others fail.
func (s *Settler) together(batch []*job) call {
	calls := make([]multicall.Call, len(batch))
	for i, j := range batch {
		calls[i] = multicall.Call{Target: s.network.Asset.Address, AllowFailure: true, Data: j.t.data}
	}
	return call{to: multicall.Address, data: multicall.Calldata(calls), gas: batchBase + uint64(len(batch))*s.gasOf()}
}

// apart is the call that makes one transfer. A simulation of some time ago does not count.
func (s *Settler) apart(ctx context.Context, l *lane, batch []*job) (call, []*job, error) {
	j := batch[0]
	if age := s.now().Sub(j.verdict.at); age < 0 || age >= freshness {
		var err error
		j.verdict, err = s.simulate(ctx, j.in, j.t)
		switch {
		case errors.Is(err, settlement.ErrUnavailable):
			return call{}, batch, err
		case err != nil: // its caller finds out why
			j.end(nil, fmt.Errorf("%w: %w", errDropped, err))
			return call{}, nil, err
		}
	}
	if err := s.affords(ctx, l, j); errors.Is(err, errBehind) {
		j.end(nil, err)
		return call{}, nil, err
	} else if err != nil {
		return call{}, batch, err
	}
	return call{to: s.network.Asset.Address, data: j.t.data, gas: j.verdict.gas}, batch, nil
}
