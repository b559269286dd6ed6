package chain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/caddy-x402/caddy-x402/settlement"
)

// Where all endpoints are behind, asking again a moment later is better than refusing: the laggard is
// usually one block late.
const (
	lagPause = 100 * time.Millisecond
	lagTries = 30
)

// errBehind: the endpoint's head is below what was seen already.
var errBehind = errors.New("its head is behind")

// Ask puts all queries, in their order and in one batch, to the first endpoint that answers and is not
// behind. It returns that endpoint's head, read before the first answer. An error wraps
// settlement.ErrUnavailable and leaves all results alone; else each query's result or Err is set.
func (c *Client) Ask(ctx context.Context, queries ...*Query) (head uint64, err error) {
	for try := range lagTries {
		if head, err = c.askAll(ctx, queries); err == nil || !errors.Is(err, errBehind) {
			return head, err
		}
		if try+1 < lagTries && !pause(ctx, lagPause) {
			break
		}
	}
	return 0, err
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// askAll tries each endpoint once.
func (c *Client) askAll(ctx context.Context, queries []*Query) (uint64, error) {
	var problems []error
	order, _, err := c.order()
	if err != nil {
		return 0, err
	}
	for _, e := range order {
		if err := ctx.Err(); err != nil {
			problems = append(problems, err)
			break
		}
		head, err := c.askOne(ctx, e, queries)
		if err == nil {
			e.worked()
			return head, nil
		}
		problems = append(problems, fmt.Errorf("%s: %w", e.host, err))
		c.blame(ctx, e, err)
	}
	return 0, &unavailableError{problems}
}

// unavailableError tells of each endpoint why it gave no answer.
type unavailableError struct{ problems []error }

func (e *unavailableError) Error() string {
	texts := make([]string, len(e.problems))
	for i, p := range e.problems {
		texts[i] = p.Error()
	}
	return settlement.ErrUnavailable.Error() + ": " + strings.Join(texts, "; ")
}

func (e *unavailableError) Unwrap() []error {
	return append([]error{settlement.ErrUnavailable}, e.problems...)
}

// blame puts e aside, unless it was the caller who gave up.
func (c *Client) blame(ctx context.Context, e *endpoint, err error) {
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, errBehind):
		c.cfg.Blamed(int(e.place.Load()), true)
		e.lagged(c.cfg.Now())
	default:
		c.cfg.Blamed(int(e.place.Load()), false)
		d := e.failed(c.cfg.Now())
		if d == 0 {
			return
		}
		c.cfg.Logger.WarnContext(ctx, "RPC endpoint put aside", "host", e.host, "for", d, "error", err)
	}
}

// order lists the endpoints to try: the healthy ones as configured, then those put aside, since a bad
// chance is better than none.
func (c *Client) order() (order []*endpoint, healthy int, err error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return nil, 0, ErrClosed
	}
	now := c.cfg.Now()
	order = make([]*endpoint, 0, len(c.endpoints))
	var aside []*endpoint
	for _, e := range c.endpoints {
		if e.healthy(now, c.cfg.CallTimeout) {
			order = append(order, e)
		} else {
			aside = append(aside, e)
		}
	}
	return append(order, aside...), len(order), nil
}

// askOne asks e its head and the queries. Nothing is written to the results unless all is well.
func (c *Client) askOne(ctx context.Context, e *endpoint, queries []*Query) (uint64, error) {
	if err := c.checkID(ctx, e); err != nil {
		return 0, err
	}
	var number hexutil.Uint64
	all := append([]*Query{{method: "eth_blockNumber", decode: into(&number)}}, queries...)
	raws, errs, err := c.exchange(ctx, e, all)
	if err != nil {
		return 0, err
	}
	if errs[0] != nil {
		return 0, errs[0]
	}
	if err := all[0].decode(raws[0]); err != nil {
		return 0, fmt.Errorf("unreadable answer: %w", e.redact(err))
	}
	head := uint64(number)
	if floor, behind := c.floor.behind(head, c.cfg.Now()); behind {
		return 0, fmt.Errorf("%w: %d, %d was seen", errBehind, head, floor)
	}
	return head, settle(e, queries, raws[1:], errs[1:])
}

// settle hands the answers out, or finds that the endpoint failed one of the queries.
func settle(e *endpoint, queries []*Query, raws []json.RawMessage, errs []error) error {
	for i, q := range queries {
		if errs[i] == nil {
			errs[i] = q.decode(raws[i])
			if errs[i] != nil && !q.optional {
				return fmt.Errorf("unreadable answer to %s: %w", q.method, e.redact(errs[i]))
			}
		}
		if _, ran := errors.AsType[*RevertError](errs[i]); errs[i] != nil && !ran && !q.optional {
			return errs[i]
		}
	}
	for i, q := range queries {
		q.Err = errs[i]
	}
	return nil
}

// exchange does one batch. The error is the transport's; those of the queries stand beside the answers.
func (c *Client) exchange(ctx context.Context, e *endpoint, queries []*Query) ([]json.RawMessage, []error, error) {
	raws, errs := make([]json.RawMessage, len(queries)), make([]error, len(queries))
	elems := make([]rpc.BatchElem, len(queries))
	for i, q := range queries {
		elems[i] = rpc.BatchElem{Method: q.method, Args: q.args, Result: &raws[i]}
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	began := time.Now()
	err := e.rpc.BatchCallContext(ctx, elems)
	c.cfg.Asked(int(e.place.Load()), time.Since(began))
	if err != nil {
		return nil, nil, e.redact(err)
	}
	for i := range elems {
		if elems[i].Error != nil {
			errs[i] = e.judgeError(elems[i].Error)
		}
	}
	return raws, errs, nil
}

// checkID makes sure, once per endpoint, that it is on the configured chain.
func (c *Client) checkID(ctx context.Context, e *endpoint) error {
	if c.cfg.ChainID == 0 || e.rightID.Load() {
		return nil
	}
	check := c.startIDCheck(e)
	if check == nil {
		return ErrClosed
	}
	select {
	case <-check.done:
		return check.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// startIDCheck asks e for its chain id, unless somebody is asking already. It hangs on no caller's context.
func (c *Client) startIDCheck(e *endpoint) *idCheck {
	e.idMu.Lock()
	defer e.idMu.Unlock()
	if e.asking != nil {
		return e.asking
	}
	check := &idCheck{done: make(chan struct{})}
	if !c.run(func() {
		defer close(check.done)
		if check.err = c.verifyID(c.ctx, e, c.cfg.ChainID); check.err == nil {
			e.rightID.Store(true)
		}
		e.idMu.Lock()
		e.asking = nil
		e.idMu.Unlock()
	}) {
		return nil
	}
	e.asking = check
	return check
}

// patience is how long all endpoints may stay below the highest head seen before that is taken for the
// mistake: a chain that was wound back, or an endpoint that invented a block and would block the others for ever.
const patience = time.Minute

// floor is the block that an endpoint's head must have reached for its answers to count.
type floor struct {
	mu    sync.Mutex
	head  uint64
	since time.Time // when the first endpoint was found behind, since one was not
}

// saw raises the floor.
func (f *floor) saw(n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n >= f.head {
		f.head, f.since = n, time.Time{}
	}
}

// behind judges an endpoint's head n, and raises the floor to it.
func (f *floor) behind(n uint64, now time.Time) (head uint64, behind bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case n >= f.head:
		f.head, f.since = n, time.Time{}
	case f.since.IsZero():
		f.since = now
		return f.head, true
	case now.Sub(f.since) < patience:
		return f.head, true
	default:
		f.head, f.since = n, time.Time{}
	}
	return f.head, false
}
