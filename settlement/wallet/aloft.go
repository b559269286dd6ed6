package wallet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/multicall"
)

// errBehind: the payer has the money for this payment, or for those of its payments that are not mined yet, but not for all.
var errBehind = fmt.Errorf("%w: the payer's money is needed for payments of it that are under way", settlement.ErrUnavailable)

// aloftLimit bounds how many payments that are under way a simulation begins with.
const aloftLimit = 200

// aloft are the payments that a lane is at, or that are sent and not mined, by payer. The newest block knows nothing of them: by it
// alone, who has the money for one payment could have one sent by each lane and each transaction, and all but one would fail at
// our cost.
type aloft struct {
	mu sync.Mutex
	m  map[common.Address][]flown
}

type flown struct {
	job *job
	// gone is closed when it is not under way any more.
	gone chan struct{}
}

func (a *aloft) add(jobs []*job) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.m == nil {
		a.m = make(map[common.Address][]flown)
	}
	for _, j := range jobs {
		from := j.in.Authorization.From
		a.m[from] = append(a.m[from], flown{j, make(chan struct{})})
	}
}

func (a *aloft) remove(jobs []*job) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, j := range jobs {
		from := j.in.Authorization.From
		i := slices.IndexFunc(a.m[from], func(f flown) bool { return f.job == j })
		if i < 0 {
			continue
		}
		close(a.m[from][i].gone)
		if a.m[from] = slices.Delete(a.m[from], i, i+1); len(a.m[from]) == 0 {
			delete(a.m, from)
		}
	}
}

// before are what the payers of a batch have had under way since before it. What came later is not among them: it waits for this batch, and
// two that waited for each other would never be sent.
func (a *aloft) before(batch []*job) (others []*job) {
	a.mu.Lock()
	defer a.mu.Unlock()
	mine := make(map[string]bool, len(batch))
	for _, j := range batch {
		mine[j.in.Payment] = true
	}
	seen := make(map[common.Address]bool, len(batch))
	for _, j := range batch {
		from := j.in.Authorization.From
		if seen[from] {
			continue
		}
		seen[from] = true
		for _, f := range a.m[from] {
			if mine[f.job.in.Payment] || len(others) == aloftLimit {
				break
			}
			others = append(others, f.job)
		}
	}
	return others
}

// wait waits until one of the payments that j's payer has under way is not any more.
func (a *aloft) wait(ctx context.Context, j *job) {
	a.mu.Lock()
	var gone chan struct{}
	for _, f := range a.m[j.in.Authorization.From] {
		if f.job.in.Payment != j.in.Payment {
			gone = f.gone
			break
		}
	}
	a.mu.Unlock()
	if gone == nil {
		return
	}
	select {
	case <-gone:
	case <-ctx.Done():
	}
}

// rehearse runs the transfers of a batch, from the wallet, after those that its payers have under way, on the newest block. Those
// may be mined by then: they fail, and change nothing.
func (s *Settler) rehearse(ctx context.Context, l *lane, batch []*job) ([]multicall.Result, error) {
	others := s.aloft.before(batch)
	c := s.together(slices.Concat(others, batch))
	var ret []byte
	q := chain.CallQuery(chain.Message{From: l.address, To: c.to, Data: c.data, Gas: c.gas}, &ret)
	if _, err := s.chain.Ask(ctx, q); err != nil {
		return nil, err
	}
	if q.Err != nil {
		return nil, q.Err
	}
	results, err := multicall.ParseResults(ret, len(others)+len(batch))
	if err != nil {
		return nil, fmt.Errorf("%w: Multicall3: %w", settlement.ErrUnavailable, err)
	}
	return results[len(others):], nil
}

// affords is errBehind if the transfer of j would fail after those that its payer has under way.
func (s *Settler) affords(ctx context.Context, l *lane, j *job) error {
	if len(s.aloft.before([]*job{j})) == 0 {
		return nil
	}
	if there, err := s.multicall.exists(ctx, s.chain); err != nil || !there {
		return err
	}
	results, err := s.rehearse(ctx, l, []*job{j})
	if _, reverted := errors.AsType[*chain.RevertError](err); reverted || err == nil && results[0].Success {
		return nil
	}
	if err != nil {
		return err
	}
	return errBehind
}
