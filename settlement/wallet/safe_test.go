package wallet_test

import (
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
	"github.com/caddy-x402/caddy-x402/settlement/wallet"
)

// Whether a batch is safe is asked once for all of its payments; whether it is mined, for each of them until it is safe.
func TestABatchIsFoundSafeOnce(t *testing.T) {
	c := newCase(t, startChain(t), options{settings: wallet.Settings{Batch: 30, Linger: 200 * time.Millisecond}})
	all := crowd(c, 31)
	c.Stall()
	first := settleAll(c, c.Settler, all[:1])
	sent(c, 1)
	rest := settleAll(c, c.Settler, all[1:])
	if txs := sent(c, 2); len(txs) != 2 || len(txs[1].Payments) != 30 {
		t.Fatalf("%d transactions: not one, and one for all others", len(txs))
	}
	c.H.Chain.Resume()
	first.wantSettled(all[:1])
	rest.wantSettled(all[1:])

	look := func(final bool) (asked int) {
		t.Helper()
		before := c.Proxy.Count("eth_getTransactionReceipt")
		for _, in := range all[1:] {
			out := c.Resolve(in)
			c.WantSettled(in, out)
			if out.Final != final {
				t.Errorf("the payment %s is final: %t, want %t", in.Payment, out.Final, final)
			}
		}
		return c.Proxy.Count("eth_getTransactionReceipt") - before
	}
	if asked := look(false); asked < 30 {
		t.Errorf("before it was safe, its receipt was asked for %d times", asked)
	}
	c.Commit(settlementtest.SafeLag)
	if asked := look(true); asked != 1 {
		t.Errorf("when it was safe, its receipt was asked for %d times", asked)
	}
	if out := c.Resolve(c.Claim(c.Sign(c.H.Fresh(), nil))); out.Final {
		t.Errorf("a payment that was never sent: %+v", out)
	}
}
