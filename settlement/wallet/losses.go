package wallet

import (
	"context"
	"errors"
	"math/big"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
)

// compareEvery is how often the journal's nonce is compared with the chain's where no payment does it.
const compareEvery = 5 * time.Minute

// losses is what the wallet has noticed of transactions of its own that the journal does not know. Every mined
// transaction has a nonce, so each that is not recorded shows some time: either the chain's count is ahead of the journal's
// next nonce, or a recorded transaction is dead because another one was mined under its nonce.
type losses struct {
	// turn is held by the one survey that runs.
	turn lock

	mu    sync.Mutex
	signs signs
	dead  memory[common.Hash, struct{}] // noticed already
	// going is a survey that was not completed; again one that is to be repeated.
	going, again *stretch
	compared     time.Time
}

// signs are the reasons for a survey.
type signs struct {
	// behind is, by wallet, the first nonce that is used on the chain by what the journal does not know.
	behind map[common.Address]uint64
	// fresh: a wallet was used, and the journal knows nothing of it.
	fresh bool
}

func (g *signs) add(o signs) {
	for w, n := range o.behind {
		if had, ok := g.behind[w]; ok && had <= n {
			continue
		}
		if g.behind == nil {
			g.behind = make(map[common.Address]uint64)
		}
		g.behind[w] = n
	}
	g.fresh = g.fresh || o.fresh
}

func (g *signs) any() bool { return len(g.behind) > 0 || g.fresh }

// behind is the sign that a wallet's nonces from nonce on are used by what the journal does not know.
func behind(wallet common.Address, nonce uint64) signs {
	return signs{behind: map[common.Address]uint64{wallet: nonce}}
}

// stretch is a survey from block from, done up to next.
type stretch struct {
	from, next uint64
}

func (l *losses) note(g signs) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.signs.add(g)
}

// take gives what was noticed, and forgets it.
func (l *losses) take() signs {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.signs
	l.signs = signs{}
	return g
}

// repeat asks for a second look at what came after block from, when head is safe.
func (l *losses) repeat(from, head uint64) {
	if l.again != nil {
		from = min(from, l.again.from)
	}
	l.again = &stretch{from: from, next: head}
}

// noteDead notices transactions of ours under whose nonces others were mined.
func (s *Settler) noteDead(txs []settlement.Transaction, sv *survey) {
	alive := make(map[place]bool)
	mined := make(map[common.Hash]bool)
	for _, r := range sv.receipts {
		mined[r.Transaction] = true
	}
	for _, tx := range sv.open {
		alive[placeOf(&tx)] = true
	}
	for _, tx := range txs {
		if mined[tx.Hash] {
			alive[placeOf(&tx)] = true // one of several under this nonce
		}
	}
	for _, tx := range txs {
		if _, freed := s.freed.get(tx.Hash); freed || s.laneOf(tx.Wallet) == nil || alive[placeOf(&tx)] {
			continue
		}
		if _, known := s.losses.dead.get(tx.Hash); !known {
			s.losses.dead.put(tx.Hash, struct{}{})
			s.losses.note(behind(tx.Wallet, tx.Nonce))
		}
	}
}

// compare looks, now and then, whether the journal is behind the chain. advance is what to raise the journal's nonces to
// once what is missing was found.
func (s *Settler) compare(ctx context.Context, asked bool) (advance map[common.Address]uint64, err error) {
	l := &s.losses
	if !asked && s.now().Sub(l.compared) < compareEvery {
		return nil, nil
	}
	counts, balances := make([]uint64, len(s.lanes)), make([]big.Int, len(s.lanes))
	queries := make([]*chain.Query, 0, 2*len(s.lanes))
	for i, lane := range s.lanes {
		// The balance is asked for along with it: where nobody pays, nobody else looks.
		queries = append(queries, chain.CountQuery(lane.address, &counts[i]), chain.BalanceQuery(lane.address, &balances[i]))
	}
	// Before the journal: a nonce is recorded before its transaction can be mined.
	if _, err := s.chain.Ask(ctx, queries...); err != nil {
		return nil, err
	}
	advance = make(map[common.Address]uint64)
	var noticed signs
	for i, lane := range s.lanes {
		lane.saw(&balances[i], counts[i], s.now())
		nonce, known, err := s.journal.Nonce(ctx, s.network.ChainID, lane.address)
		switch {
		case err != nil:
			return nil, unavailable(err)
		case known && nonce < counts[i]:
			noticed.add(behind(lane.address, nonce))
			advance[lane.address] = counts[i]
		case !known && counts[i] > 0:
			noticed.add(signs{fresh: true})
			advance[lane.address] = counts[i]
		}
	}
	l.compared = s.now()
	l.note(noticed)
	return advance, nil
}

// since is the block from which on there may be what was lost; ok is false if there is no reason to look.
func (s *Settler) since(ctx context.Context, g signs, back time.Duration, head chain.Head) (from uint64, ok bool, err error) {
	from = head.Number
	earlier := func(n uint64, e error) {
		if e != nil {
			err = errors.Join(err, e)
			return
		}
		from, ok = min(from, n), true
	}
	for wallet, nonce := range g.behind {
		n, e := s.sinceNonce(ctx, wallet, nonce, head)
		if errors.Is(e, chain.ErrNoState) {
			s.log.WarnContext(ctx, "no endpoint keeps old states: what the ledger lost is looked for in the last blocks only",
				"lookback", s.set().Lookback, "error", e)
			g.fresh = true
		} else {
			earlier(n, e)
		}
	}
	if g.fresh {
		back = max(back, s.set().Lookback)
	}
	if back > 0 {
		earlier(s.sinceTime(ctx, back, head))
	}
	return from, ok, err
}

// sinceNonce is the block that holds a wallet's transaction number nonce.
func (s *Settler) sinceNonce(ctx context.Context, wallet common.Address, nonce uint64, head chain.Head) (uint64, error) {
	return firstBlock(head.Number, func(n uint64) (bool, error) {
		count, err := s.chain.CountAt(ctx, wallet, n)
		return count > nonce, err
	})
}

// sinceTime is the first block that is no older than back before the head.
func (s *Settler) sinceTime(ctx context.Context, back time.Duration, head chain.Head) (uint64, error) {
	seconds := uint64(back / time.Second)
	if seconds >= head.Time {
		return 0, nil
	}
	return firstBlock(head.Number, func(n uint64) (bool, error) {
		b, err := s.chain.Block(ctx, n)
		return b.Time >= head.Time-seconds, err
	})
}

// firstBlock is the first block for which is holds, where it holds for all later ones up to head. It begins at the
// head: what is searched is usually near, and old states are not kept everywhere.
func firstBlock(head uint64, is func(uint64) (bool, error)) (uint64, error) {
	yes, no := head, uint64(0) // it holds at yes; it does not hold below no
	for step := uint64(1); no < yes; step *= 2 {
		n := yes - min(step, yes)
		ok, err := is(n)
		if err != nil {
			return 0, err
		}
		if !ok {
			no = n + 1
			break
		}
		yes = n
	}
	for no < yes {
		n := no + (yes-no)/2
		ok, err := is(n)
		if err != nil {
			return 0, err
		}
		if ok {
			yes = n
		} else {
			no = n + 1
		}
	}
	return yes, nil
}
