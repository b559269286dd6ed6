package chain

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// receiptBatch is how many receipts one request asks for; hosted nodes refuse more than 100.
const receiptBatch = 100

// watcher serves all who wait for receipts with one goroutine, which lives while anybody waits.
type watcher struct {
	mu      sync.Mutex
	waiting map[*waiter]struct{}
	running bool
	// fresh: somebody came since the last look, so that one is due although the head is the same.
	fresh bool
	// came wakes the watch for whoever came.
	came chan struct{}
	// pace is the watch's own.
	pace pacer
}

type waiter struct {
	hashes  []common.Hash
	receipt chan *Receipt // buffered: the watcher never waits
}

// AwaitReceipt waits until one of the transactions is mined, or ctx ends. All who wait share one question for the
// head, and one batch of receipts per new block.
func (c *Client) AwaitReceipt(ctx context.Context, hashes ...common.Hash) (*Receipt, error) {
	w := &waiter{hashes: hashes, receipt: make(chan *Receipt, 1)}
	if !c.enlist(w) {
		return nil, ErrClosed
	}
	defer c.dismiss(w)
	select {
	case r := <-w.receipt:
		return r, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.ctx.Done():
		return nil, ErrClosed
	}
}

func (c *Client) enlist(w *waiter) bool {
	c.watcher.mu.Lock()
	defer c.watcher.mu.Unlock()
	if !c.watcher.running {
		if !c.run(c.watch) {
			return false
		}
		c.watcher.running = true
	}
	c.watcher.waiting[w] = struct{}{}
	c.watcher.fresh = true
	select {
	case c.watcher.came <- struct{}{}:
	default:
	}
	return true
}

func (c *Client) dismiss(w *waiter) {
	c.watcher.mu.Lock()
	defer c.watcher.mu.Unlock()
	delete(c.watcher.waiting, w)
}

// watch polls the head until nobody waits any more.
func (c *Client) watch() {
	pace := &c.watcher.pace
	pace.begin()
	timer := time.NewTimer(0)
	defer timer.Stop()
	look := time.Now() // when the timer rings
	due := false
	for {
		select {
		case <-c.ctx.Done():
			c.retire(true)
			return
		case <-c.watcher.came:
			pace.came()
			now := time.Now()
			if sooner := now.Add(pace.next(now)); sooner.Before(look) { // never later: many may come
				look = sooner
				timer.Reset(time.Until(look))
			}
			continue
		case <-timer.C:
		}
		hashes, fresh := c.wanted()
		due = due || fresh
		if hashes == nil && c.retire(false) {
			return
		}
		head, err := c.Head(c.ctx)
		if err != nil {
			pace.failed()
		} else {
			due = pace.saw(head, time.Now()) || due
		}
		if due && err == nil {
			due = c.deliver(hashes) != nil
		}
		now := time.Now()
		look = now.Add(pace.next(now))
		timer.Reset(time.Until(look))
	}
}

// retire ends the watch if nobody waits, or in any case.
func (c *Client) retire(anyway bool) bool {
	c.watcher.mu.Lock()
	defer c.watcher.mu.Unlock()
	if len(c.watcher.waiting) > 0 && !anyway {
		return false
	}
	c.watcher.running = false
	return true
}

// wanted lists the hashes that anybody waits for, each once.
func (c *Client) wanted() (hashes []common.Hash, fresh bool) {
	c.watcher.mu.Lock()
	defer c.watcher.mu.Unlock()
	seen := make(map[common.Hash]struct{}, len(c.watcher.waiting))
	for w := range c.watcher.waiting {
		for _, h := range w.hashes {
			if _, ok := seen[h]; !ok {
				seen[h] = struct{}{}
				hashes = append(hashes, h)
			}
		}
	}
	fresh, c.watcher.fresh = c.watcher.fresh, false
	return hashes, fresh
}

// deliver asks for the receipts and hands out those that are there.
func (c *Client) deliver(hashes []common.Hash) error {
	found := make(map[common.Hash]*Receipt)
	for len(hashes) > 0 {
		part := hashes[:min(len(hashes), receiptBatch)]
		hashes = hashes[len(part):]
		receipts := make([]*Receipt, len(part))
		queries := make([]*Query, len(part))
		for i, h := range part {
			queries[i] = ReceiptQuery(h, &receipts[i])
		}
		if _, err := c.Ask(c.ctx, queries...); err != nil {
			return fmt.Errorf("reading receipts: %w", err)
		}
		for i, r := range receipts {
			if r != nil {
				found[part[i]] = r
				c.floor.saw(r.Block)
			}
		}
	}
	c.watcher.mu.Lock()
	defer c.watcher.mu.Unlock()
	for w := range c.watcher.waiting {
		for _, h := range w.hashes {
			if r := found[h]; r != nil {
				w.receipt <- r
				delete(c.watcher.waiting, w)
				break
			}
		}
	}
	return nil
}
