package chain

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ethereum/go-ethereum/core/types"

	"github.com/caddy-x402/caddy-x402/settlement"
)

// firstSpan is how many blocks are asked for at once at first; endpoints that refuse get fewer.
const (
	firstSpan = 2000
	lastSpan  = 4
)

// spans remembers how many blocks the endpoints allow in one eth_getLogs.
type spans struct {
	mu   sync.Mutex
	size uint64
}

func (s *spans) get() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size == 0 {
		s.size = firstSpan
	}
	return s.size
}

func (s *spans) halve(from uint64) (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if from <= lastSpan {
		return false
	}
	s.size = max(from/2, lastSpan)
	return true
}

// Logs lists the logs of f, oldest first, in as many questions as the endpoints demand. Logs that a
// reorganisation took back are not among them. It fails rather than give a part: wraps settlement.ErrUnavailable.
func (c *Client) Logs(ctx context.Context, f Filter) ([]types.Log, error) {
	var all []types.Log
	for from := f.From; from <= f.To; {
		span := c.span.get()
		part := f
		part.From, part.To = from, min(f.To, from+span-1)
		var logs []types.Log
		q := logsQuery(part, &logs)
		head, err := c.Ask(ctx, q)
		if err != nil {
			return nil, err
		}
		if q.Err != nil {
			// Refusals for the number of blocks have no common code: fewer are tried whatever was said.
			if c.span.halve(min(span, part.To-part.From+1)) && ctx.Err() == nil {
				continue
			}
			return nil, fmt.Errorf("%w: reading logs: %w", settlement.ErrUnavailable, q.Err)
		}
		if head < part.To {
			return nil, fmt.Errorf("%w: reading logs: %w", settlement.ErrUnavailable, errBehind)
		}
		for _, l := range logs {
			if !l.Removed {
				all = append(all, l)
			}
		}
		from = part.To + 1
		if from == 0 {
			return nil, errors.New("chain: a block range without end")
		}
	}
	return all, nil
}
