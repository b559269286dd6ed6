package chain

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/caddy-x402/caddy-x402/settlement"
)

// SendStatus says what an endpoint made of a transaction; the better the smaller.
type SendStatus int

// What endpoints say to a transaction.
const (
	Accepted     SendStatus = iota + 1
	Known                   // it has it already
	NonceTooLow             // a transaction with this nonce was mined: this one or another
	Outbid                  // another transaction with this nonce is known, and its fees are too low to replace that one
	Underpriced             // its fees are too low
	Insufficient            // the wallet can't pay the gas
	Refused                 // anything else
)

// String gives the word for logs.
func (s SendStatus) String() string {
	return [...]string{"not sent", "accepted", "known", "nonce too low", "outbid", "underpriced", "insufficient funds", "refused"}[s]
}

// Taken reports whether the transaction is where it can be mined.
func (s SendStatus) Taken() bool { return s == Accepted || s == Known }

// SendError is the answer of endpoints that did not take a transaction.
type SendError struct {
	Status SendStatus
	Err    error
}

// Error gives the best answer that was had.
func (e *SendError) Error() string { return "sending: " + e.Status.String() + ": " + e.Err.Error() }

// Unwrap gives the endpoint's error.
func (e *SendError) Unwrap() error { return e.Err }

// SendRaw broadcasts a signed transaction to all endpoints that are not put aside, and returns as soon as
// one has taken it. A *SendError is the best of the refusals. If none answered, the error wraps
// settlement.ErrUnavailable; the transaction may have arrived all the same.
func (c *Client) SendRaw(ctx context.Context, raw []byte) (SendStatus, error) {
	order, healthy, err := c.order()
	if err != nil {
		return 0, err
	}
	if healthy > 0 {
		order = order[:healthy]
	}
	results := make(chan error, len(order))
	// An endpoint that is slow shall have the transaction as well: broadcasts outlive the call, not the client.
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.CallTimeout)
	stop := context.AfterFunc(c.ctx, cancel)
	if !c.run(func() {
		defer cancel()
		defer stop()
		var wg sync.WaitGroup
		for _, e := range order {
			wg.Go(func() { results <- c.sendTo(sctx, e, raw) })
		}
		wg.Wait()
	}) {
		cancel()
		return 0, ErrClosed
	}
	return bestOf(ctx, results, len(order))
}

// bestOf waits for the first success, or for all n.
func bestOf(ctx context.Context, results <-chan error, n int) (SendStatus, error) {
	var best *SendError
	var problems []error
	for range n {
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%w: %w", settlement.ErrUnavailable, ctx.Err())
		case err := <-results:
			se, said := errors.AsType[*SendError](err)
			switch {
			case err == nil:
				return Accepted, nil
			case said && se.Status == Known:
				return Known, nil
			case said && (best == nil || se.Status < best.Status):
				best = se
			case !said:
				problems = append(problems, err)
			}
		}
	}
	if best != nil {
		return best.Status, best
	}
	return 0, &unavailableError{problems}
}

// sendTo gives the transaction to one endpoint.
func (c *Client) sendTo(ctx context.Context, e *endpoint, raw []byte) error {
	if err := c.checkID(ctx, e); err != nil {
		c.blame(ctx, e, err)
		return fmt.Errorf("%s: %w", e.host, err)
	}
	var hash common.Hash
	q := &Query{method: "eth_sendRawTransaction", args: []any{hexutil.Bytes(raw)}, decode: into(&hash)}
	start := time.Now()
	_, errs, err := c.exchange(ctx, e, []*Query{q})
	if err != nil {
		c.blame(ctx, e, err)
		return fmt.Errorf("%s: %w", e.host, err)
	}
	if errs[0] != nil {
		if refusal := sendError(errs[0]); refusal != nil {
			return refusal
		}
		c.blame(ctx, e, errs[0])
		return errs[0]
	}
	e.worked()
	c.cfg.Logger.DebugContext(ctx, "transaction accepted", "host", e.host, "after", time.Since(start))
	return nil
}

// sendMessages are what the nodes of this world say (geth, reth, erigon, nethermind, besu, anvil), in lower case.
var sendMessages = []struct {
	text   string
	status SendStatus
}{
	{"already known", Known},
	{"alreadyknown", Known},
	{"known transaction", Known},
	{"already imported", Known},
	{"already in mempool", Known},
	{"nonce too low", NonceTooLow},
	{"nonce is too low", NonceTooLow},
	{"nonce below", NonceTooLow},
	{"oldnonce", NonceTooLow},
	{"nonce_too_low", NonceTooLow},
	{"replacement", Outbid},
	{"underpriced", Underpriced},
	{"less than block base fee", Underpriced},
	{"feetoolow", Underpriced},
	{"fee too low", Underpriced},
	{"gas price too low", Underpriced},
	{"gas price below minimum", Underpriced},
	{"max fee per gas less", Underpriced},
	{"insufficient funds", Insufficient},
	{"insufficientfunds", Insufficient},
	{"insufficient balance", Insufficient},
}

// sendError classifies an endpoint's answer; nil if it is none (a limit, an outage).
func sendError(err error) *SendError {
	text := strings.ToLower(err.Error())
	for _, m := range sendMessages {
		if strings.Contains(text, m.text) {
			return &SendError{Status: m.status, Err: err}
		}
	}
	re, ok := errors.AsType[*RPCError](err)
	if !ok {
		if _, ok := errors.AsType[*RevertError](err); ok {
			return &SendError{Status: Refused, Err: err}
		}
		return nil
	}
	switch re.Code {
	case -32000, -32003, -32010, -32602: // the codes under which nodes refuse transactions
		return &SendError{Status: Refused, Err: err}
	}
	return nil
}
