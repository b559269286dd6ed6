package chain

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// walk looks at a chain as the watch does, and tells how late each block was noticed and how many looks there were.
func walk(t *testing.T, p *pacer, length time.Duration, head func(since time.Duration) uint64) (late []time.Duration, looks int) {
	t.Helper()
	start := time.Unix(1_700_000_000, 0)
	now, last := start, uint64(0)
	p.begin()
	p.came()
	came := make(map[uint64]time.Duration)
	for at := time.Duration(0); at < length; at += time.Millisecond {
		if n := head(at); came[n] == 0 {
			came[n] = at
		}
	}
	for now.Sub(start) < length {
		n := head(now.Sub(start))
		var h common.Hash
		binary.BigEndian.PutUint64(h[:], n)
		looks++
		if p.saw(Head{Number: n, Hash: h}, now) && last > 0 {
			late = append(late, now.Sub(start)-came[n])
		}
		last = n
		step := p.next(now)
		if step <= 0 {
			t.Fatalf("the next look is %s away", step)
		}
		now = now.Add(step)
	}
	return late, looks
}

// Where blocks come regularly, they are noticed almost when they come, with few looks.
func TestPaceRegular(t *testing.T) {
	for _, block := range []time.Duration{time.Second, 2 * time.Second, 12 * time.Second} {
		t.Run(block.String(), func(t *testing.T) {
			p := &pacer{base: 250 * time.Millisecond}
			const blocks = 40
			late, looks := walk(t, p, blocks*block, func(since time.Duration) uint64 {
				jitter := time.Duration(int64(since/block)%3) * 7 * time.Millisecond
				return 100 + uint64((since+700*time.Millisecond-jitter)/block)
			})
			for i, l := range late[5:] {
				if most := min(block/40, eagerPoll) + 20*time.Millisecond; l > most {
					t.Errorf("block %d was noticed %s late, more than %s", i, l, most)
				}
			}
			if most := blocks * 16; looks > most {
				t.Errorf("%d looks for %d blocks", looks, blocks)
			}
		})
	}
}

// Where blocks come at any time, whoever comes is looked after at once, and nobody asks without end.
func TestPaceAtOnce(t *testing.T) {
	p := &pacer{base: 250 * time.Millisecond}
	late, looks := walk(t, p, 10*time.Second, func(since time.Duration) uint64 {
		if since < 15*time.Millisecond {
			return 100
		}
		return 101
	})
	if len(late) != 1 || late[0] > 20*time.Millisecond {
		t.Errorf("the block was noticed %v late", late)
	}
	if looks > 110 {
		t.Errorf("%d looks in ten seconds", looks)
	}
}

// A chain that stands still, or misses a block, is asked seldom again; so is one that does not answer.
func TestPaceStill(t *testing.T) {
	p := &pacer{base: 250 * time.Millisecond}
	_, looks := walk(t, p, 60*time.Second, func(since time.Duration) uint64 {
		return 100 + min(uint64(since/(2*time.Second)), 5)
	})
	if looks > 60*4+60 {
		t.Errorf("%d looks in a minute", looks)
	}
	p.failed()
	p.failed()
	if got := p.next(time.Now()); got != time.Second {
		t.Errorf("after two failures the next look is %s away", got)
	}
	for range 10 {
		p.failed()
	}
	if got := p.next(time.Now()); got != slowestPoll {
		t.Errorf("after many failures the next look is %s away", got)
	}
}
