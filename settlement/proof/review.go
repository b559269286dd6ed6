package proof

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
)

// lookAge is how long what was seen of the chain serves for more payments.
const lookAge = 2 * time.Second

// Reviews looks at many payments at once. A block that is still the one that a payment was settled in still holds the payment, so
// that one question for each block tells of all in it; where a block was replaced, one receipt for each transaction does.
type Reviews struct {
	// Now is the clock by which a look is too old; time.Now if nil.
	Now func() time.Time

	mu   sync.Mutex
	last *look
}

// look is what was seen of the chain. Whatever it holds was asked for after safe.
type look struct {
	at         time.Time
	head, safe chain.Head

	mu     sync.Mutex
	hashes map[uint64]common.Hash // of blocks; zero where there is none
}

// Review implements settlement.Reviewer for what the chain c shows.
func (r *Reviews) Review(ctx context.Context, c *chain.Client, list []settlement.Standing) ([]*settlement.Outcome, error) {
	outs := make([]*settlement.Outcome, len(list))
	if len(list) == 0 {
		return outs, nil
	}
	l, err := r.look(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := l.learn(ctx, c, list); err != nil {
		return nil, err
	}
	var hashes []common.Hash
	for i := range list {
		st := &list[i]
		if st.BlockHash != (common.Hash{}) && l.hash(st.Block) == st.BlockHash {
			outs[i] = l.judge(st, settlement.Outcome{
				Status: settlement.Settled, Transaction: st.Transaction, Block: st.Block, BlockHash: st.BlockHash,
			})
			continue
		}
		hashes = append(hashes, st.Transactions()...)
	}
	if len(hashes) == 0 {
		return outs, nil
	}
	receipts, err := c.Receipts(ctx, hashes)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if outs[i] != nil {
			continue
		}
		for _, h := range list[i].Transactions() {
			if r := receipts[h]; Paid(list[i].Intent, r) {
				outs[i] = l.judge(&list[i], Settled(r))
				break
			}
		}
	}
	return outs, nil
}

// look is the last one, or a new one if that is too old.
func (r *Reviews) look(ctx context.Context, c *chain.Client) (*look, error) {
	now := time.Now
	if r.Now != nil {
		now = r.Now
	}
	r.mu.Lock()
	l := r.last
	r.mu.Unlock()
	if l != nil {
		if age := now().Sub(l.at); age >= 0 && age < lookAge {
			return l, nil
		}
	}
	l = &look{at: now(), hashes: make(map[uint64]common.Hash)}
	var err error
	if l.head, l.safe, err = c.Ends(ctx); err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.last = l
	r.mu.Unlock()
	return l, nil
}

// learn asks for the blocks that the payments were settled in.
func (l *look) learn(ctx context.Context, c *chain.Client, list []settlement.Standing) error {
	var numbers []uint64
	l.mu.Lock()
	for i := range list {
		if _, known := l.hashes[list[i].Block]; !known && list[i].BlockHash != (common.Hash{}) {
			numbers = append(numbers, list[i].Block)
		}
	}
	l.mu.Unlock()
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	found, err := c.Hashes(ctx, numbers)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range numbers {
		l.hashes[n] = found[n]
	}
	return nil
}

func (l *look) hash(number uint64) common.Hash {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hashes[number]
}

func (l *look) judge(st *settlement.Standing, out settlement.Outcome) *settlement.Outcome {
	out = Confirmed(st.Intent, FinalBy(out, l.safe), l.head, l.safe)
	return &out
}
