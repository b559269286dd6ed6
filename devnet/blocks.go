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
)

// feeRecipient gets the priority fees.
var feeRecipient = common.HexToAddress("0x4200000000000000000000000000000000000011")

// producer makes the blocks of a chain.
type producer struct {
	options Options
	eth     *eth.Ethereum
	wake    chan struct{}
	done    chan struct{}
	ended   sync.WaitGroup

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
	p.wake, p.done = make(chan struct{}, 1), make(chan struct{})
	p.last = time.Now()
	transactions := make(chan core.NewTxsEvent, 64)
	subscription := p.eth.TxPool().SubscribeTransactions(transactions, true)
	p.ended.Go(func() {
		defer subscription.Unsubscribe()
		p.run(transactions)
	})
}

// stop ends the making of blocks and waits until the last one is made.
func (p *producer) stop() {
	close(p.done)
	p.ended.Wait()
}

func (p *producer) run(transactions <-chan core.NewTxsEvent) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-transactions:
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

// poke makes run look again when the next block is due.
func (p *producer) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// ask notes that a transaction waits.
func (p *producer) ask() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked.IsZero() {
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
	_, err := p.commit(p.now())
	return err
}

// now is the chain's clock: the wall's, and what AdvanceTime added.
func (p *producer) now() time.Time { return time.Now().Add(p.offset) }

// commit makes a block of all that waits and fits, with the time at or, if the head is not earlier, the
// next second. The caller holds mu.
func (p *producer) commit(at time.Time) (*types.Block, error) {
	// The pool follows the chain on a goroutine of its own; wait until it has caught up.
	if err := p.eth.TxPool().Sync(); err != nil {
		return nil, fmt.Errorf("waiting for the transaction pool: %w", err)
	}
	chain := p.eth.BlockChain()
	head := chain.CurrentBlock()
	seconds := max(head.Time+1, uint64(at.Unix()))
	block, _, err := p.eth.Miner().BuildTestingPayload(&miner.BuildPayloadArgs{
		Parent:       head.Hash(),
		Timestamp:    seconds,
		FeeRecipient: feeRecipient,
		Random:       crypto.Keccak256Hash(head.Hash().Bytes()),
		BeaconRoot:   new(common.Hash),
	}, nil, false, nil)
	if err != nil {
		return nil, fmt.Errorf("building a block: %w", err)
	}
	if _, err := chain.InsertBlockWithoutSetHead(context.Background(), block, false); err != nil {
		return nil, fmt.Errorf("executing a block: %w", err)
	}
	if err := p.setHead(block); err != nil {
		return nil, err
	}
	p.last = time.Now()
	// What still waits although it was offered to this block (a fee too low) waits for the next
	// heartbeat or transaction; what did not fit wants a block of its own.
	waiting, _ := p.eth.TxPool().Stats()
	p.asked = time.Time{}
	if waiting > 0 && len(block.Transactions()) > 0 {
		p.asked = p.last
	}
	return block, nil
}

// setHead makes block the head, and "safe" and "finalized" follow it.
func (p *producer) setHead(block *types.Block) error {
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

// Commit makes a block now, of all that waits and fits, whatever time it is.
func (c *Chain) Commit() error {
	p := &c.blocks
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.commit(p.now()); err != nil {
		return fmt.Errorf("devnet: %w", err)
	}
	return nil
}

// AdvanceTime moves the chain's clock on by d (whole seconds) for good, by a block that is made now.
func (c *Chain) AdvanceTime(d time.Duration) error {
	p := &c.blocks
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.poke()
	head := time.Unix(int64(p.eth.BlockChain().CurrentBlock().Time), 0)
	if _, err := p.commit(later(head, p.now()).Add(d)); err != nil {
		return fmt.Errorf("devnet: %w", err)
	}
	p.offset += d
	return nil
}

// Stall stops the making of blocks: transactions wait until Resume, or Commit.
func (c *Chain) Stall() { c.setStalled(true) }

// Resume ends what Stall began.
func (c *Chain) Resume() { c.setStalled(false) }

func (c *Chain) setStalled(stalled bool) {
	c.blocks.mu.Lock()
	defer c.blocks.mu.Unlock()
	c.blocks.stalled = stalled
	c.blocks.poke()
}

// Now is the time to sign authorizations with: that of the head, or that of the wall (and what AdvanceTime
// added to it), whichever is later. The error is ctx's.
func (c *Chain) Now(ctx context.Context) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, err
	}
	p := &c.blocks
	p.mu.Lock()
	defer p.mu.Unlock()
	return later(time.Unix(int64(p.eth.BlockChain().CurrentBlock().Time), 0), p.now()), nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
