package chain_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
)

const depthLag = 5 // how many blocks the safe one is behind in these tests

// deep is a chain that makes blocks when it is told to, and a client behind a proxy that counts.
type deep struct {
	fixture
	t     *testing.T
	dev   *devnet.Chain
	proxy *settlementtest.Proxy
}

func newDeep(t *testing.T) *deep {
	t.Helper()
	d := &deep{t: t, dev: startChain(t, devnet.Options{Heartbeat: -1, SafeLag: depthLag})}
	all, urls := proxies(t, d.dev, 1)
	d.proxy, d.fixture = all[0], newClient(t, chain.Config{Endpoints: urls})
	d.dev.Stall()
	d.commit(depthLag)
	return d
}

func (d *deep) commit(n int) {
	d.t.Helper()
	for range n {
		check(d.t, d.dev.Commit())
	}
}

// mined sends transactions of n payers, and gives their receipts once one block has them.
func (d *deep) mined(n int) []*chain.Receipt {
	d.t.Helper()
	hashes := make([]common.Hash, n)
	for i := range hashes {
		tx := transfer(d.t, i, 0, nil)
		hashes[i] = tx.Hash()
		_, err := d.SendRaw(d.t.Context(), raw(d.t, tx))
		check(d.t, err)
	}
	d.commit(1)
	found, err := d.Receipts(d.t.Context(), slices.Concat(hashes, hashes[:1]))
	check(d.t, err)
	list := make([]*chain.Receipt, n)
	for i, h := range hashes {
		if list[i] = found[h]; list[i] == nil {
			d.t.Fatalf("transaction %d is not mined", i)
		}
	}
	return list
}

// result is what somebody waited for.
type result struct {
	receipt *chain.Receipt
	err     error
}

func (d *deep) await(ctx context.Context, r *chain.Receipt, f settlement.Finality) <-chan result {
	done := make(chan result, 1)
	go func() {
		got, err := d.AwaitFinal(ctx, r.Transaction, r.Block, f)
		done <- result{got, err}
	}()
	return done
}

func (d *deep) waits(done <-chan result) {
	d.t.Helper()
	select {
	case got := <-done:
		d.t.Fatalf("it did not wait: %+v", got)
	case <-time.After(150 * time.Millisecond):
	}
}

func (d *deep) got(done <-chan result) *chain.Receipt {
	d.t.Helper()
	select {
	case got := <-done:
		check(d.t, got.err)
		return got.receipt
	case <-time.After(time.Minute):
		d.t.Fatal("nothing came")
	}
	return nil
}

func TestAwaitFinal(t *testing.T) {
	d := newDeep(t)
	r := d.mined(1)[0]
	newest := d.await(t.Context(), r, settlement.Finality{})
	three := d.await(t.Context(), r, settlement.Finality{Confirmations: 3})
	safe := d.await(t.Context(), r, settlement.Finality{Safe: true})
	if got := d.got(newest); got.BlockHash != r.BlockHash {
		t.Errorf("got %+v", got)
	}
	d.commit(1)
	d.waits(three)
	d.commit(1)
	if got := d.got(three); got.BlockHash != r.BlockHash {
		t.Errorf("got %+v", got)
	}
	d.commit(depthLag - 3)
	d.waits(safe)
	if left := d.Remaining(r.Block, settlement.Finality{Safe: true}); left <= 0 || left > 10*time.Second {
		t.Errorf("one block is missing, and that is said to last %s", left)
	}
	d.commit(1)
	if got := d.got(safe); got.BlockHash != r.BlockHash {
		t.Errorf("got %+v", got)
	}
}

// A node that knows no safe block is asked for one that is deep enough.
func TestAwaitFinalWithoutSafeBlocks(t *testing.T) {
	d := newDeep(t)
	d.proxy.Refuse(func(method, params string) string {
		if method == "eth_getBlockByNumber" && params == `["safe",false]` {
			return "safe block not found"
		}
		return ""
	})
	r := d.mined(1)[0]
	safe := d.await(t.Context(), r, settlement.Finality{Safe: true})
	d.commit(127)
	d.waits(safe)
	d.commit(1) // the client's default is 128
	d.got(safe)
}

// A transaction that a reorganization takes back is missed at the next look; one that is mined again has to lie deep anew.
func TestAwaitFinalAfterReorganization(t *testing.T) {
	t.Run("gone", func(t *testing.T) {
		d := newDeep(t)
		done := d.await(t.Context(), d.mined(1)[0], settlement.Finality{Confirmations: 50})
		d.waits(done) // it has seen the head
		check(t, d.dev.Reorganize(1, true))
		if got := d.got(done); got != nil {
			t.Errorf("got %+v, want: it is gone", got)
		}
	})
	t.Run("moved", func(t *testing.T) {
		d := newDeep(t)
		r := d.mined(1)[0]
		done := d.await(t.Context(), r, settlement.Finality{Confirmations: 4})
		d.waits(done)
		d.proxy.FailAll(503) // nobody sees it between the blocks
		check(t, d.dev.Reorganize(1, false))
		d.commit(1)
		d.proxy.SetFault(nil)
		d.clock.advance(time.Hour) // the endpoint is asked again
		d.waits(done)
		d.commit(2)
		d.waits(done)
		d.commit(1)
		if got := d.got(done); got == nil || got.BlockHash == r.BlockHash || got.Block <= r.Block {
			t.Errorf("got %+v, it was in %+v", got, r)
		}
	})
}

// Thousands who wait for the same blocks cost no more than one.
func TestAwaitFinalIsShared(t *testing.T) {
	d := newDeep(t)
	receipts := d.mined(20)
	before := d.proxy.Count("eth_getTransactionReceipt")
	var all []<-chan result
	for i := range 4000 {
		all = append(all, d.await(t.Context(), receipts[i%len(receipts)], settlement.Finality{Confirmations: 4}))
	}
	for range 3 {
		d.waits(all[0])
		d.commit(1)
	}
	for i, done := range all {
		if got := d.got(done); got == nil || got.BlockHash != receipts[i%len(receipts)].BlockHash {
			t.Fatalf("got %+v", got)
		}
	}
	// Who begins to wait after the others were told is told in another look.
	if n := d.proxy.Count("eth_getTransactionReceipt") - before; n > 4*len(receipts) {
		t.Errorf("%d receipts were asked for, of %d transactions", n, len(receipts))
	}
}

func TestAwaitFinalEnds(t *testing.T) {
	d := newDeep(t)
	r := d.mined(1)[0]
	ctx, cancel := context.WithCancel(t.Context())
	left := d.await(ctx, r, settlement.Finality{Confirmations: 3})
	stays := d.await(t.Context(), r, settlement.Finality{Confirmations: 3})
	d.waits(left)
	cancel()
	if got := <-left; !errors.Is(got.err, context.Canceled) {
		t.Errorf("got %+v", got)
	}
	d.waits(stays)
	var wg sync.WaitGroup
	wg.Go(func() { check(t, d.Close()) })
	if got := <-stays; !errors.Is(got.err, chain.ErrClosed) {
		t.Errorf("got %+v", got)
	}
	wg.Wait()
	if _, err := d.AwaitFinal(t.Context(), r.Transaction, r.Block, settlement.Finality{}); !errors.Is(err, chain.ErrClosed) {
		t.Errorf("a closed client says %v", err)
	}
}

func TestHashes(t *testing.T) {
	d := newDeep(t)
	head, safe, err := d.Ends(t.Context())
	check(t, err)
	if head.Number-safe.Number != depthLag || head.Parent == (common.Hash{}) {
		t.Errorf("head %+v, safe %+v", head, safe)
	}
	got, err := d.Hashes(t.Context(), []uint64{head.Number, head.Number - 1, head.Number + 1})
	check(t, err)
	if len(got) != 2 || got[head.Number] != head.Hash || got[head.Number-1] != head.Parent {
		t.Errorf("got %v, the head is %+v", got, head)
	}
	d.proxy.FailAll(503)
	if _, err := d.Hashes(t.Context(), []uint64{1}); !errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("without an endpoint: %v", err)
	}
}

func TestBlocksLast(t *testing.T) {
	at := func(number, seconds uint64) chain.Head { return chain.Head{Number: number, Time: seconds} }
	for _, c := range []struct {
		older, newer chain.Head
		n            uint64
		want         time.Duration
	}{
		{at(10, 100), at(20, 220), 3, 36 * time.Second},
		{at(10, 100), at(10, 100), 3, 6 * time.Second}, // nothing is known
		{at(20, 100), at(10, 220), 3, 6 * time.Second},
		{at(0, 0), at(10, 220), 3, 6 * time.Second},
		{at(10, 220), at(20, 100), 3, 6 * time.Second},
		{at(10, 100), at(20, ^uint64(0)), 3, 6 * time.Second},
		{at(10, 100), at(20, 220), ^uint64(0), 24 * time.Hour},
	} {
		if got := chain.BlocksLast(c.n, chain.PerBlock(c.older, c.newer)); got != c.want {
			t.Errorf("%+v to %+v: %d blocks last %s, want %s", c.older, c.newer, c.n, got, c.want)
		}
	}
}
