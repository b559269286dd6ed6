package proof

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
)

// errUnconfirmed: the transfer is on the chain, and not yet as deep as it has to be.
var errUnconfirmed = errors.New("proof: the transfer is mined, and not confirmed yet")

// againPause is how long a transfer that was taken back is left alone: an endpoint may only have lost it for a moment.
const againPause = 250 * time.Millisecond

// Confirm settles a payment by settle, and waits until its transfer lies as deep as in demands, or ctx ends. A transfer that a
// reorganization takes back is settled anew, by settle, which may be called any number of times.
func Confirm(
	ctx context.Context, c *chain.Client, in settlement.Intent, settle func() settlement.Outcome,
) settlement.Outcome {
	for {
		out := settle()
		if out.Status != settlement.Settled || in.Finality.Newest() {
			return out
		}
		r, err := c.AwaitFinal(ctx, out.Transaction, out.Block, in.Finality)
		switch {
		case err != nil:
			out = unconfirmed(out, c.Remaining(out.Block, in.Finality))
			out.Err = fmt.Errorf("%w: %s demanded: %w", errUnconfirmed, in.Finality, err)
			return out
		case Paid(in, r):
			return Settled(r)
		}
		t := time.NewTimer(againPause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			out.Block, out.Status = 0, settlement.Unknown
			out.Err = fmt.Errorf("%w: %w", ErrReorganized, ctx.Err())
			return out
		}
	}
}

// Confirmed is out, unknown as long as its transfer does not lie as deep as in demands. head and safe are the chain's newest block and
// the newest safe one; the transfer was seen no earlier.
func Confirmed(in settlement.Intent, out settlement.Outcome, head, safe chain.Head) settlement.Outcome {
	if out.Status != settlement.Settled || in.Finality.Newest() {
		return out
	}
	if out.BlockHash == (common.Hash{}) { // somebody was believed, and did not say where
		return unconfirmed(out, chain.BlocksLast(1, chain.PerBlock(safe, head)))
	}
	lacks := in.Finality.Lacks(out.Block, head.Number, safe.Number)
	if lacks == 0 {
		return out
	}
	return unconfirmed(out, chain.BlocksLast(lacks, chain.PerBlock(safe, head)))
}

func unconfirmed(out settlement.Outcome, wait time.Duration) settlement.Outcome {
	out.Status, out.Final, out.Wait = settlement.Unknown, false, wait
	return out
}
