package chain

import "time"

const (
	// slowestPoll is how seldom the head is asked for at most while somebody waits.
	slowestPoll = 2 * time.Second
	// firstPoll is how soon it is asked for after somebody came, where blocks come at no known time; each further time it takes
	// twice as long, up to eagerPoll.
	firstPoll = 10 * time.Millisecond
	eagerPoll = 100 * time.Millisecond
	// regular is the least time between blocks that is worth to be foretold.
	regular = 500 * time.Millisecond
)

// pacer says when to ask for the head again: often when a block is due, seldom before. It learns from the blocks that it sees
// come, by our own clock: a block's timestamp says when it was begun, not when a node shows it.
type pacer struct {
	// base is how often the head is asked for on a chain of which nothing is known.
	base time.Duration
	last Head
	// seen is when last was first seen; exact: it came between two looks, and was not there before.
	seen  time.Time
	exact bool
	// block is the time between blocks; 0: not known.
	block time.Duration
	// eager is the distance to the next look of those that follow somebody's coming.
	eager time.Duration
	// slow is the distance while nobody answers; 0: somebody does.
	slow time.Duration
}

// begin forgets when the last block was seen: nobody looked since.
func (p *pacer) begin() { p.exact, p.slow = false, 0 }

// came notes that somebody waits who did not before.
func (p *pacer) came() { p.eager = firstPoll }

// failed notes that the head could not be read.
func (p *pacer) failed() { p.slow = min(2*max(p.slow, p.base), slowestPoll) }

// saw notes the head that was found at now, and reports whether it is another one than before.
func (p *pacer) saw(head Head, now time.Time) (other bool) {
	p.slow = 0
	if head.Hash == p.last.Hash {
		return false
	}
	if p.exact && head.Number > p.last.Number {
		p.block = now.Sub(p.seen) / time.Duration(head.Number-p.last.Number)
	}
	p.exact = p.last.Number > 0 && head.Number > p.last.Number
	p.last, p.seen = head, now
	return true
}

// next is how long to wait before the head is asked for again.
func (p *pacer) next(now time.Time) time.Duration {
	if p.slow > 0 {
		return p.slow
	}
	if p.block < regular {
		wait := min(max(p.eager, firstPoll), eagerPoll, p.base)
		p.eager = 2 * wait
		return wait
	}
	// An eighth of the time between blocks; a fortieth of it around the time when one is due.
	wait := max(p.base, min(p.block/8, slowestPoll))
	if !p.exact {
		return wait
	}
	step := min(max(p.block/40, firstPoll), eagerPoll)
	due := p.seen.Add(p.block - step).Sub(now)
	switch {
	case due > 0:
		return min(wait, max(due, step))
	case due > -6*step:
		return min(wait, step)
	}
	return wait
}
