package devnet

import (
	"context"
	"fmt"
	"time"
)

// Commit makes a block now, of all that waits and fits, whatever time it is.
func (c *Chain) Commit() error {
	p := &c.blocks
	p.mu.Lock()
	defer p.mu.Unlock()
	p.awaitPool()
	if err := p.commit(p.now()); err != nil {
		return fmt.Errorf("devnet: %w", err)
	}
	return nil
}

// AdvanceTime moves the chain's clock on by d (whole seconds) for good, by a block that is made now.
func (c *Chain) AdvanceTime(d time.Duration) error {
	p := &c.blocks
	p.mu.Lock()
	defer p.mu.Unlock()
	defer poke(p.wake)
	p.awaitPool()
	head := time.Unix(int64(p.eth.BlockChain().CurrentBlock().Time), 0)
	if err := p.commit(later(head, p.now()).Add(d)); err != nil {
		return fmt.Errorf("devnet: %w", err)
	}
	p.offset += d
	return nil
}

// Pending is how many transactions wait that the next block may have.
func (c *Chain) Pending() int {
	n, _ := c.eth.TxPool().Stats()
	return n
}

// Stall stops the making of blocks: transactions wait until Resume, or Commit.
func (c *Chain) Stall() { c.setStalled(true) }

// Resume ends what Stall began.
func (c *Chain) Resume() { c.setStalled(false) }

func (c *Chain) setStalled(stalled bool) {
	c.blocks.mu.Lock()
	defer c.blocks.mu.Unlock()
	c.blocks.stalled = stalled
	poke(c.blocks.wake)
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

// Reorganize replaces the last depth blocks by depth+1 empty ones. Their transactions wait again, for the
// next block or, on a stalled chain, for Commit or Resume; with drop they are forgotten.
func (c *Chain) Reorganize(depth uint64, drop bool) error {
	p := &c.blocks
	p.mu.Lock()
	defer p.mu.Unlock()
	defer poke(p.came)
	chain := p.eth.BlockChain()
	head := chain.CurrentBlock().Number.Uint64()
	if depth == 0 || depth >= head {
		return fmt.Errorf("devnet: %d blocks can't be undone, the head is block %d", depth, head)
	}
	parent := chain.GetHeaderByNumber(head - depth)
	for i := range depth + 1 {
		at := time.Unix(0, 0) // as early as can be, so that time does not run ahead
		if i == depth {
			at = p.now()
		}
		block, err := p.build(parent, at, true)
		if err != nil {
			return fmt.Errorf("devnet: %w", err)
		}
		if i == depth {
			err = p.setHead(block)
		}
		if err != nil {
			return fmt.Errorf("devnet: %w", err)
		}
		parent = block.Header()
	}
	p.last = time.Now()
	if drop {
		p.eth.TxPool().Clear()
	}
	return nil
}

// DropPending makes the chain forget the transactions that wait, as nodes do when they have too many.
func (c *Chain) DropPending() error {
	p := &c.blocks
	p.mu.Lock()
	defer p.mu.Unlock()
	p.eth.TxPool().Clear()
	p.asked = time.Time{}
	if err := p.eth.TxPool().Sync(); err != nil {
		return fmt.Errorf("devnet: waiting for the transaction pool: %w", err)
	}
	return nil
}
