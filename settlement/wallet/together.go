package wallet

import (
	"context"
	"slices"
	"sync"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/multicall"
)

const (
	// rounds is how many shared simulations are under way at once.
	rounds = 4
	// roundSize is how many transfers share one: its gas stays well below what nodes give a call.
	roundSize = 100
)

// candidates are transfers that wait to be simulated. One that comes alone is simulated at once; those that come while
// simulations are under way share the next one, so that a crowd costs a node few calls.
type candidates struct {
	mu      sync.Mutex
	waiting []*candidate
	rounds  int
}

type candidate struct {
	in   settlement.Intent
	t    transfer
	done chan struct{}
	// verdict and err are what was found; neither: it is to be simulated alone, since it would fail, or since nobody could tell.
	verdict *verdict
	err     error
}

// put lets c wait for a round; first: the caller is to begin one.
func (cs *candidates) put(c *candidate) (first bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.waiting = append(cs.waiting, c)
	if cs.rounds >= rounds {
		return false
	}
	cs.rounds++
	return true
}

// take gives those of the next round; none: there is no next round.
func (cs *candidates) take() []*candidate {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	n := min(len(cs.waiting), roundSize)
	got := cs.waiting[:n:n]
	cs.waiting = cs.waiting[n:]
	if n == 0 {
		cs.waiting = nil
		cs.rounds--
	}
	return got
}

// simulateShared simulates a transfer together with those that come at the same time.
func (s *Settler) simulateShared(ctx context.Context, in settlement.Intent, t transfer) (verdict, error) {
	if s.multicall.missing() {
		return s.simulateAlone(ctx, in, t)
	}
	if there, err := s.multicall.exists(ctx, s.chain); err != nil || !there {
		return s.simulateAlone(ctx, in, t)
	}
	c := &candidate{in: in, t: t, done: make(chan struct{})}
	if s.candidates.put(c) {
		s.crew.Go(func() {
			for round := s.candidates.take(); len(round) > 0; round = s.candidates.take() {
				s.simulateRound(round)
			}
		})
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return verdict{}, unavailable(ctx.Err())
	}
	switch {
	case c.err != nil:
		return verdict{}, c.err
	case c.verdict != nil:
		return *c.verdict, nil
	}
	return s.simulateAlone(ctx, in, t)
}

// simulateRound runs the transfers of a round as a batch would make them, and looks for payers that run code. A transfer that
// succeeds in it may owe that to one before it; the batch that it will travel in is simulated as well.
func (s *Settler) simulateRound(round []*candidate) {
	defer func() {
		for _, c := range round {
			close(c.done)
		}
	}()
	ctx, cancel := context.WithTimeout(s.ctx, checkTimeout)
	defer cancel()
	if c := round[0]; len(round) == 1 {
		v, err := s.simulateAlone(ctx, c.in, c.t)
		c.verdict, c.err = &v, err
		return
	}
	at, gas := s.now(), s.set().GasLimit
	calls, payers := make([]multicall.Call, len(round)), make([]common.Address, len(round))
	for i, c := range round {
		calls[i] = multicall.Call{Target: s.network.Asset.Address, AllowFailure: true, Data: c.t.data}
		payers[i] = c.in.Authorization.From
	}
	var ret []byte
	var sizes []uint64
	call := chain.TryCallQuery(chain.Message{
		From: s.lanes[0].address, To: multicall.Address, Data: multicall.Calldata(calls), Gas: batchBase + uint64(len(round))*s.gasOf(),
	}, &ret)
	codes := chain.CodeSizesQuery(payers, &sizes)
	head, err := s.chain.Ask(ctx, call, codes)
	if err != nil || call.Err != nil || codes.Err != nil {
		return
	}
	results, err := multicall.ParseResults(ret, len(round))
	if err != nil {
		return
	}
	for i, c := range round {
		if results[i].Success && sizes[i] == 0 {
			_, alone := s.isolated.get(payers[i])
			c.verdict = &verdict{head: head, gas: gas, alone: alone, at: at}
		}
	}
}

// codesAtOnce is how many accounts one request asks for, where the node can't tell of all of them in one call: hosted nodes refuse
// more than 100.
const codesAtOnce = 90

// codeSizes gives the size of the code of each account.
func (s *Settler) codeSizes(ctx context.Context, accounts []common.Address) (sizes []uint64, err error) {
	if len(accounts) == 0 {
		return nil, nil
	}
	all := chain.CodeSizesQuery(accounts, &sizes)
	if _, err := s.chain.Ask(ctx, all); err != nil {
		return nil, err
	}
	if all.Err == nil {
		return sizes, nil
	}
	sizes = make([]uint64, 0, len(accounts))
	for part := range slices.Chunk(accounts, codesAtOnce) {
		codes, queries := make([][]byte, len(part)), make([]*chain.Query, len(part))
		for i, a := range part {
			queries[i] = chain.CodeQuery(a, &codes[i])
		}
		if _, err := s.chain.Ask(ctx, queries...); err != nil {
			return nil, err
		}
		for _, code := range codes {
			sizes = append(sizes, uint64(len(code)))
		}
	}
	return sizes, nil
}
