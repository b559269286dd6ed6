package settlementtest

import (
	"errors"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
)

// deep demands confirmations of a payment, and safely a safe block.
func deep(in settlement.Intent, confirmations uint64) settlement.Intent {
	in.Finality = settlement.Finality{Confirmations: confirmations}
	return in
}

func safely(in settlement.Intent) settlement.Intent {
	in.Finality = settlement.Finality{Safe: true}
	return in
}

// begin settles in the background.
func (c *Case) begin(in settlement.Intent) <-chan settlement.Outcome {
	done := make(chan settlement.Outcome, 1)
	go func() { done <- c.Settle(in) }()
	return done
}

// mined waits until the payment's transfer is on the chain, however deep.
func (c *Case) mined(in settlement.Intent) settlement.Outcome {
	c.Helper()
	return c.ResolveUntil(deep(in, 1), settlement.Settled)
}

// wantWaiting demands that a settlement is not over, and that Resolve knows why and for how long.
func (c *Case) wantWaiting(in settlement.Intent, done <-chan settlement.Outcome) {
	c.Helper()
	select {
	case out := <-done:
		c.Fatalf("it did not wait for %s: %+v", in.Finality, out)
	case <-time.After(150 * time.Millisecond):
	}
	out := c.Resolve(in)
	if out.Status != settlement.Unknown || out.Err != nil || out.Wait <= 0 || out.Block == 0 || out.Transaction == (common.Hash{}) || out.Final {
		c.Errorf("Resolve says %+v, want: not yet, and for how long", out)
	}
}

// A payment is settled when its transfer has so many confirmations, and not before.
func confirms(c *Case) {
	in := deep(c.Claimed(), 3)
	done := c.begin(in)
	at := c.mined(in)
	c.wantWaiting(in, done)
	c.Commit(1)
	c.wantWaiting(in, done)
	c.Commit(1)
	out := <-done
	c.WantSettled(in, out)
	if out.Block != at.Block || out.BlockHash != at.BlockHash || out.Transaction != at.Transaction || out.Wait != 0 {
		c.Errorf("got %+v, it was mined in %+v", out, at)
	}
	c.WantSettled(in, c.Resolve(in))
	c.WantSettled(in, c.Settle(in))
	c.WantReceived(1)
}

func confirmsSafe(c *Case) {
	in := safely(c.Claimed())
	done := c.begin(in)
	c.mined(in)
	c.Commit(SafeLag - 1)
	c.wantWaiting(in, done)
	c.Commit(1)
	c.WantSettled(in, <-done)
	if out := c.Resolve(in); !out.Final {
		c.Errorf("its block is safe: %+v", out)
	}
	c.WantReceived(1)
}

// Who does not demand it does not wait for those who do, though they came together.
func confirmsApart(c *Case) {
	const n = 12
	intents := make([]settlement.Intent, n)
	for i := range intents {
		intents[i] = c.Claim(c.Sign(c.H.Fresh(), nil))
		if i%3 == 1 {
			intents[i] = deep(intents[i], 4)
		}
		if i%3 == 2 {
			intents[i] = safely(intents[i])
		}
	}
	outcomes := make([]settlement.Outcome, n)
	var cheap, dear sync.WaitGroup
	c.Stall()
	for i, in := range intents {
		which := &dear
		if i%3 == 0 {
			which = &cheap
		}
		which.Go(func() { outcomes[i] = c.Settle(in) })
	}
	c.WaitFor("all wait for a block", func() bool { return c.Pooled() > 0 })
	c.H.Chain.Resume()
	cheap.Wait() // no block comes but for transactions: who waited for more would wait for ever
	for i, in := range intents {
		if i%3 == 0 {
			c.WantSettled(in, outcomes[i])
		} else {
			c.mined(in)
		}
	}
	// The lane is free for others meanwhile.
	next := c.Claim(c.Sign(c.H.Fresh(), nil))
	c.WantSettled(next, c.Settle(next))
	c.Commit(4)
	dear.Wait()
	for i, in := range intents {
		c.WantSettled(in, outcomes[i])
	}
	c.WantReceived(n + 1)
}

// A settlement whose transfer is mined and not confirmed in time is unknown, and goes on when it is asked for again.
func confirmsLater(c *Case) {
	in := deep(c.Claimed(), 3)
	var out settlement.Outcome
	c.WaitFor("its transfer is mined in time", func() bool {
		out = c.Settler.Settle(c.CtxFor(700*time.Millisecond), in)
		return out.Block > 0
	})
	if out.Status != settlement.Unknown || out.Err == nil || out.Wait <= 0 || out.Block == 0 {
		c.Fatalf("got %+v, want: not yet", out)
	}
	c.Settler = c.Start() // in another process
	done := c.begin(in)
	c.wantWaiting(in, done)
	c.Commit(2)
	c.WantSettled(in, <-done)
	c.WantRecorded(in, 1)
	c.WantReceived(1)
}

// A transfer that a reorganization takes back before it is confirmed does not count, and is made again.
func reorganized(c *Case) { c.reorganized(false) }

// The same, where the node has forgotten the transaction as well.
func reorganizedAndForgotten(c *Case) { c.reorganized(true) }

func (c *Case) reorganized(forget bool) {
	in := deep(c.Claimed(), 3)
	done := c.begin(in)
	first := c.mined(in)
	c.Commit(1)
	c.wantWaiting(in, done)
	c.Stall()
	c.Must(c.H.Chain.Reorganize(2, forget))
	c.WantReceived(0)
	select {
	case out := <-done:
		c.Fatalf("it is gone from the chain: %+v", out)
	case <-time.After(300 * time.Millisecond):
	}
	if out := c.Resolve(in); out.Status != settlement.Unknown || out.Wait != 0 {
		c.Errorf("Resolve says %+v, want: nothing is known", out)
	}
	c.H.Chain.Resume()
	second := c.mined(in)
	c.wantWaiting(in, done)
	c.Commit(2)
	out := <-done
	c.WantSettled(in, out)
	if out.BlockHash == first.BlockHash || out.BlockHash != second.BlockHash {
		c.Errorf("settled in block %s; it was mined in %s, and again in %s", out.BlockHash, first.BlockHash, second.BlockHash)
	}
	c.WantReceived(1)
}

// One that can't be made again fails.
func reorganizedAndSpent(c *Case) {
	in := deep(c.Claimed(), 3)
	done := c.begin(in)
	c.mined(in)
	c.Stall()
	c.Must(c.H.Chain.Reorganize(1, true))
	c.Proxy.FailOn("eth_sendRawTransaction", Fault{Message: "not now"})
	c.Mined(c.sendNow(c.cancelCall(in)))
	c.Proxy.SetFault(nil)
	c.H.Chain.Resume()
	c.Commit(3)
	if out := <-done; out.Status != settlement.Failed || out.Reason == "" {
		c.Errorf("got %+v, want failed", out)
	}
	c.WantReceived(0)
}

// sendNow sends a transaction of the payer's, which is mined at once, whatever the chain was told.
func (c *Case) sendNow(data []byte) common.Hash {
	c.Helper()
	hash := c.Send(c.Payer, data, nil)
	c.WaitFor("it is known", func() bool { return c.Pooled() > 0 })
	c.Commit(1)
	return hash
}

// Payments that were settled are looked at together, until their blocks are safe.
func reviews(c *Case) {
	const n = 5
	r, ok := c.Settler.(settlement.Reviewer)
	if !ok {
		c.Fatalf("%T can't review", c.Settler)
	}
	list := make([]settlement.Standing, n)
	for i := range list {
		in := c.Claim(c.Sign(c.H.Fresh(), nil))
		out := c.Settle(in)
		c.WantSettled(in, out)
		list[i] = settlement.Standing{Intent: in, Transaction: out.Transaction, Block: out.Block, BlockHash: out.BlockHash}
	}
	list[1].BlockHash[0] ^= 1 // it was in a block that was replaced
	list[2].Transaction[0] ^= 1
	list[2].BlockHash[0] ^= 1 // nobody knows its transaction
	look := func() (final int) {
		outs, err := r.Review(c.Ctx(), list)
		c.Must(err)
		for i, out := range outs {
			if (out == nil) != (i == 2) {
				c.Fatalf("payment %d: %+v", i, out)
			}
			if out != nil {
				c.WantSettled(list[i].Intent, *out)
				if out.Final {
					final++
				}
			}
		}
		return final
	}
	if look() == n-1 {
		c.Error("the last block is not safe yet")
	}
	c.Commit(SafeLag)
	c.WaitFor("all are safe", func() bool { return look() == n-1 })
	c.Proxy.FailAll(unreachableStatus)
	c.WaitFor("it has to ask again", func() bool {
		_, err := r.Review(c.Ctx(), list)
		if err != nil && !errors.Is(err, settlement.ErrUnavailable) {
			c.Fatal(err)
		}
		return err != nil
	})
}
