package chain

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
)

// usualBlock is the time between two blocks where it is not known yet.
const usualBlock = 2 * time.Second

// depths serves all who wait for transactions to lie deeper, with one goroutine that lives while anybody waits.
type depths struct {
	mu      sync.Mutex
	waiting map[*depthWaiter]struct{}
	running bool
	// head and safe were seen last, and perBlock is the time between two blocks.
	head, safe uint64
	perBlock   time.Duration
}

// depthWaiter waits for one transaction.
type depthWaiter struct {
	transaction common.Hash
	block       uint64 // where it was seen last; guarded by depths.mu
	finality    settlement.Finality
	done        chan *Receipt // buffered: nobody waits for who has left
}

// AwaitFinal waits until a transaction, which was mined in block, lies as deep as f demands, and gives its receipt as it then is;
// nil if it is on the chain no more. That is noticed when it would be deep enough, at the latest. All who wait share one question for
// the head, and one for each receipt that is due. The error is ctx's, or ErrClosed.
func (c *Client) AwaitFinal(ctx context.Context, transaction common.Hash, block uint64, f settlement.Finality) (*Receipt, error) {
	w := &depthWaiter{transaction: transaction, block: block, finality: f, done: make(chan *Receipt, 1)}
	if !c.awaitDepth(w) {
		return nil, ErrClosed
	}
	defer c.leaveDepths(w)
	select {
	case r := <-w.done:
		return r, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.ctx.Done():
		return nil, ErrClosed
	}
}

// Remaining is how long it takes, about, until a transaction in block lies as deep as f demands, by what AwaitFinal saw last.
func (c *Client) Remaining(block uint64, f settlement.Finality) time.Duration {
	d := &c.depths
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.head == 0 || f.Safe && d.safe == 0 {
		return usualBlock
	}
	return BlocksLast(max(f.Lacks(block, d.head, d.safe), 1), d.perBlock)
}

// BlocksLast is how long n blocks take, at perBlock each; 0: that is not known.
func BlocksLast(n uint64, perBlock time.Duration) time.Duration {
	if perBlock <= 0 {
		perBlock = usualBlock
	}
	const most = 24 * time.Hour
	if n > uint64(most/perBlock) {
		return most
	}
	return time.Duration(n) * perBlock
}

// PerBlock is the time between two blocks of those from older to newer; 0 if it can't be told.
func PerBlock(older, newer Head) time.Duration {
	if newer.Number <= older.Number || newer.Time <= older.Time || older.Number == 0 || newer.Time-older.Time > 1<<32 {
		return 0
	}
	return time.Duration(newer.Time-older.Time) * time.Second / time.Duration(newer.Number-older.Number)
}

func (c *Client) awaitDepth(w *depthWaiter) bool {
	d := &c.depths
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.running {
		if !c.run(c.watchDepth) {
			return false
		}
		d.running = true
	}
	if d.waiting == nil {
		d.waiting = make(map[*depthWaiter]struct{})
	}
	d.waiting[w] = struct{}{}
	return true
}

func (c *Client) leaveDepths(w *depthWaiter) {
	c.depths.mu.Lock()
	defer c.depths.mu.Unlock()
	delete(c.depths.waiting, w)
}

// watchDepth looks at the head, again and again, until nobody waits any more.
func (c *Client) watchDepth() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var first, last Head
	for {
		select {
		case <-c.ctx.Done():
			c.depths.end(true)
			return
		case <-timer.C:
		}
		if c.depths.end(false) {
			return
		}
		interval := slowestPoll
		if head, err := c.lookDepth(last); err == nil {
			if last = head; first.Number == 0 {
				first = head
			}
			interval = c.depths.pace(PerBlock(first, last), c.cfg.PollInterval)
		}
		timer.Reset(interval)
	}
}

// end ends the watch if nobody waits, or in any case.
func (d *depths) end(anyway bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waiting) > 0 && !anyway {
		return false
	}
	d.running = false
	return true
}

// pace is a quarter of the time between blocks, within limits. Who waits for a safe block has time.
func (d *depths) pace(perBlock, least time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.perBlock = perBlock
	for w := range d.waiting {
		if !w.finality.Safe {
			return max(least, min(perBlock/4, slowestPoll))
		}
	}
	return max(least, min(perBlock, slowestPoll))
}

// lookDepth looks whose transaction is deep enough by now. last is the head of the look before: if the new one does not follow it,
// blocks may have been taken back, and all transactions are looked at.
func (c *Client) lookDepth(last Head) (head Head, err error) {
	d := &c.depths
	safely := false
	d.mu.Lock()
	for w := range d.waiting {
		safely = safely || w.finality.Safe
	}
	d.mu.Unlock()
	var safe uint64
	if safely {
		var h Head
		head, h, err = c.Ends(c.ctx)
		safe = h.Number
	} else {
		head, err = c.Head(c.ctx)
	}
	if err != nil {
		return last, err
	}
	torn := last.Number > 0 && head.Hash != last.Hash && head.Parent != last.Hash

	d.mu.Lock()
	d.head, d.safe = head.Number, max(safe, d.safe)
	var due []*depthWaiter
	for w := range d.waiting {
		if torn || w.finality.Lacks(w.block, head.Number, safe) == 0 {
			due = append(due, w)
		}
	}
	d.mu.Unlock()
	if len(due) == 0 {
		return head, nil
	}
	hashes := make([]common.Hash, len(due))
	for i, w := range due {
		hashes[i] = w.transaction
	}
	receipts, err := c.Receipts(c.ctx, hashes)
	if err != nil {
		return last, err // the next look has to notice what this one has
	}
	d.answer(due, receipts, head.Number, safe)
	return head, nil
}

// answer tells who is done.
func (d *depths) answer(due []*depthWaiter, receipts map[common.Hash]*Receipt, head, safe uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range due {
		r := receipts[w.transaction]
		if _, waits := d.waiting[w]; !waits {
			continue
		}
		if r != nil && w.finality.Lacks(r.Block, head, safe) > 0 {
			w.block = r.Block // it is in another block now
			continue
		}
		delete(d.waiting, w)
		w.done <- r
	}
}

// Ends are the newest block and the newest safe one, asked for together; see Safe.
func (c *Client) Ends(ctx context.Context) (head, safe Head, err error) {
	q := SafeQuery(&safe)
	if _, err = c.Ask(ctx, HeadQuery(&head), q); err != nil {
		return head, safe, err
	}
	c.floor.saw(head.Number)
	err = c.safe(ctx, q.Err, head.Number, &safe)
	return head, safe, err
}

// Receipts are those of the transactions that are mined, each asked for once.
func (c *Client) Receipts(ctx context.Context, hashes []common.Hash) (map[common.Hash]*Receipt, error) {
	found := make(map[common.Hash]*Receipt)
	var list []common.Hash
	for _, h := range hashes {
		if _, twice := found[h]; !twice {
			found[h] = nil
			list = append(list, h)
		}
	}
	for len(list) > 0 {
		part := list[:min(len(list), receiptBatch)]
		list = list[len(part):]
		receipts := make([]*Receipt, len(part))
		queries := make([]*Query, len(part))
		for i, h := range part {
			queries[i] = ReceiptQuery(h, &receipts[i])
		}
		if _, err := c.Ask(ctx, queries...); err != nil {
			return nil, fmt.Errorf("reading receipts: %w", err)
		}
		for i, r := range receipts {
			if r != nil {
				found[part[i]] = r
				c.floor.saw(r.Block)
			}
		}
	}
	return found, nil
}

// Hashes are those of the blocks of these numbers; zero where the chain has no such block.
func (c *Client) Hashes(ctx context.Context, numbers []uint64) (map[uint64]common.Hash, error) {
	found := make(map[uint64]common.Hash)
	for len(numbers) > 0 {
		part := numbers[:min(len(numbers), receiptBatch)]
		numbers = numbers[len(part):]
		heads := make([]Head, len(part))
		queries := make([]*Query, len(part))
		for i, n := range part {
			queries[i] = blockQuery(n, &heads[i])
		}
		if _, err := c.Ask(ctx, queries...); err != nil {
			return nil, fmt.Errorf("reading blocks: %w", err)
		}
		for i, n := range part {
			if heads[i].Number == n {
				found[n] = heads[i].Hash
			}
		}
	}
	return found, nil
}
