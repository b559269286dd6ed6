package devnet

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/eth"
	"github.com/ethereum/go-ethereum/miner"
)

const (
	// gatherTime is how long the first transaction waits for others, so that what is sent together
	// shares a block.
	gatherTime = 5 * time.Millisecond
	// demandGap is the least time between two blocks on demand, for the same reason.
	demandGap = 50 * time.Millisecond
	// retryGap is the pause after a block that could not be made.
	retryGap = 200 * time.Millisecond
	// poolTries and poolGap bound the wait for the pool to make executable what it accepted: a moment, but on a busy machine.
	poolTries, poolGap = 10_000, time.Millisecond
)

// feeRecipient gets the priority fees.
var feeRecipient = common.HexToAddress("0x4200000000000000000000000000000000000011")

// producer makes the blocks of a chain.
type producer struct {
	options Options
	eth     *eth.Ethereum
	// came: a transaction came; wake: the rules changed; done: no more blocks.
	came, wake, done chan struct{}
	ended            sync.WaitGroup
	turnstile        turnstile

	mu sync.Mutex // guards what follows, and the making of blocks
	// stalled: no blocks but by Commit and its like.
	stalled bool
	// offset of the chain's clock against the wall: what AdvanceTime added up.
	offset time.Duration
	// last is when the last block was made, and asked when the first of the waiting transactions came;
	// zero when none came since the last block.
	last, asked time.Time
}

// start begins to make blocks.
func (p *producer) start(c *Chain) {
	p.options, p.eth = c.options, c.eth
	p.came, p.wake, p.done = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{})
	p.last = time.Now()
	p.ended.Go(p.listen)
	p.ended.Go(p.run)
}

// stop ends the making of blocks and waits until the last one is made.
func (p *producer) stop() {
	close(p.done)
	p.ended.Wait()
}

// listen tells run of transactions. It never waits for run, which may be waiting for the pool, which waits
// until everybody has heard of its transactions.
func (p *producer) listen() {
	transactions := make(chan core.NewTxsEvent, 16)
	subscription := p.eth.TxPool().SubscribeTransactions(transactions, true)
	defer subscription.Unsubscribe()
	for {
		select {
		case <-p.done:
			return
		case <-transactions:
			poke(p.came)
		}
	}
}

// run makes the blocks when they are due.
func (p *producer) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-p.came:
			p.ask()
		case <-p.wake:
		case <-timer.C:
			if err := p.commitIfDue(); err != nil {
				p.options.Logger.Error("devnet: no block made", slog.Any("error", err))
				timer.Reset(retryGap)
				continue
			}
		}
		timer.Reset(p.wait())
	}
}

// poke leaves a message for whoever reads c, unless there is one already.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// ask notes that a transaction waits, if it still does.
func (p *producer) ask() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if waiting, _ := p.eth.TxPool().Stats(); waiting > 0 && p.asked.IsZero() {
		p.asked = time.Now()
	}
}

// wait is how long it takes until the next block is due.
func (p *producer) wait() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	due, ok := p.due()
	if !ok {
		return time.Hour // until poked
	}
	return max(0, time.Until(due))
}

// due says when the next block is to be made, on the wall's clock; false: not until something happens.
func (p *producer) due() (time.Time, bool) {
	if p.stalled {
		return time.Time{}, false
	}
	head := time.Unix(int64(p.eth.BlockChain().CurrentBlock().Time), 0).Add(-p.offset)
	// No block whose time would be too far ahead.
	earliest := head.Add(time.Second - p.options.MaxLead)
	var due time.Time
	switch {
	case p.options.BlockTime > 0:
		due = p.last.Add(p.options.BlockTime)
	case !p.asked.IsZero():
		due = later(p.asked.Add(gatherTime), p.last.Add(demandGap))
	case p.options.Heartbeat > 0:
		due = head.Add(p.options.Heartbeat)
	default:
		return time.Time{}, false
	}
	return later(due, earliest), true
}

func (p *producer) commitIfDue() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if due, ok := p.due(); !ok || time.Now().Before(due) {
		return nil
	}
	return p.commit(p.now())
}

// now is the chain's clock: the wall's, and what AdvanceTime added.
func (p *producer) now() time.Time { return time.Now().Add(p.offset) }

// commit makes a block of all that waits and fits, with the time at or, if the head is not earlier, the
// next second. The caller holds mu.
func (p *producer) commit(at time.Time) error {
	// The pool follows the chain on a goroutine of its own; wait until it has caught up.
	if err := p.eth.TxPool().Sync(); err != nil {
		return fmt.Errorf("waiting for the transaction pool: %w", err)
	}
	block, err := p.build(p.eth.BlockChain().CurrentBlock(), at, false)
	if err != nil {
		return err
	}
	if err := p.setHead(block); err != nil {
		return err
	}
	p.last = time.Now()
	// What was offered to this block and not taken (its fee is too low) waits for the next heartbeat or
	// transaction; what did not fit wants a block of its own.
	waiting, _ := p.eth.TxPool().Stats()
	p.asked = time.Time{}
	if waiting > 0 && len(block.Transactions()) > 0 {
		p.asked = p.last
	}
	return nil
}

// awaitPool waits, for a bounded time, until the pool has made executable what it accepted and what can go. It does so
// on a goroutine of its own, and the Sync of commit meanwhile would put it off until the block after the next: blocks that
// come by themselves may, blocks that somebody asks for may not.
func (p *producer) awaitPool() {
	for range poolTries {
		if !p.promoting() {
			return
		}
		time.Sleep(poolGap)
	}
}

// promoting says whether a transaction is queued behind others though its nonce is the next.
func (p *producer) promoting() bool {
	pool := p.eth.TxPool()
	if _, queued := pool.Stats(); queued == 0 {
		return false
	}
	_, queued := pool.Content()
	for from, transactions := range queued {
		if transactions[0].Nonce() == pool.PoolNonce(from) {
			return true
		}
	}
	return false
}

// build makes a block on parent and executes it, without making it the head. Empty blocks are those of a
// reorganization; a mark makes them differ from any empty block that they stand for.
func (p *producer) build(parent *types.Header, at time.Time, empty bool) (*types.Block, error) {
	var mark []byte
	if empty {
		mark = []byte("reorganized")
	}
	block, _, err := p.eth.Miner().BuildTestingPayload(&miner.BuildPayloadArgs{
		Parent:       parent.Hash(),
		Timestamp:    max(parent.Time+1, uint64(at.Unix())),
		FeeRecipient: feeRecipient,
		Random:       crypto.Keccak256Hash(parent.Hash().Bytes()),
		BeaconRoot:   new(common.Hash),
	}, nil, empty, mark)
	if err != nil {
		return nil, fmt.Errorf("building a block: %w", err)
	}
	if _, err := p.eth.BlockChain().InsertBlockWithoutSetHead(context.Background(), block, false); err != nil {
		return nil, fmt.Errorf("executing a block: %w", err)
	}
	return block, nil
}

// setHead makes block the head, and "safe" and "finalized" follow it.
func (p *producer) setHead(block *types.Block) error {
	p.turnstile.door.Lock()
	defer p.turnstile.door.Unlock()
	chain := p.eth.BlockChain()
	if _, err := chain.SetCanonical(block); err != nil {
		return fmt.Errorf("setting the head: %w", err)
	}
	number := block.NumberU64()
	chain.SetSafe(chain.GetHeaderByNumber(number - min(number, p.options.SafeLag)))
	chain.SetFinalized(chain.GetHeaderByNumber(number - min(number, p.options.FinalizedLag)))
	if err := p.eth.TxPool().Sync(); err != nil {
		return fmt.Errorf("waiting for the transaction pool: %w", err)
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
