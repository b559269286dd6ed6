package wallet_test

import (
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
	"github.com/caddy-x402/caddy-x402/settlement/wallet"
	"github.com/caddy-x402/caddy-x402/x402"
)

// ofOne are n payments of the case's payer, claimed.
func ofOne(c *settlementtest.Case, n int) []settlement.Intent {
	c.Helper()
	all := make([]settlement.Intent, n)
	for i := range all {
		all[i] = c.Claim(c.Sign(c.Payer, nil))
	}
	return all
}

func carried(txs []settlement.Transaction) (n int) {
	for _, tx := range txs {
		n += len(tx.Payments)
	}
	return n
}

// settleDown waits until nothing has been simulated for a second.
func settleDown(c *settlementtest.Case) {
	c.Helper()
	seen, since := -1, time.Now()
	c.WaitFor("nothing is simulated", func() bool {
		if n := c.Proxy.Count("eth_call"); n != seen {
			seen, since = n, time.Now()
		}
		return time.Since(since) > time.Second
	})
}

// Who has the money for one payment and signs many makes us send one, over all transactions and wallets: the others wait for it,
// and fail without a transaction.
func TestMoneyForOne(t *testing.T) {
	for _, lanes := range []int{1, 3} {
		dev := startChain(t)
		o := options{settings: wallet.Settings{Batch: 4, Linger: 50 * time.Millisecond}}
		for i := range lanes - 1 {
			o.more = append(o.more, devnet.Payer(100+i).Key)
		}
		c := newCase(t, dev, o)
		all := ofOne(c, 10)
		c.SpendAll()
		c.Must(dev.Mint(c.Ctx(), crypto.PubkeyToAddress(c.Payer.PublicKey), uint256.NewInt(settlementtest.Price)))
		c.Stall()
		run := settleAll(c, c.Settler, all)
		sent(c, 1)
		settleDown(c) // for those that should wait: who is simulated before the block, and looks for others after it, is sent too
		c.H.Chain.Resume()
		run.wg.Wait()
		settled := 0
		for i, out := range run.outcomes {
			switch {
			case out.Status == settlement.Settled:
				settled++
			case out.Status != settlement.Failed || out.Reason != x402.ReasonInsufficientBalance:
				t.Errorf("payment %d: %+v", i, out)
			}
		}
		if n := carried(c.Journal.All()); settled != 1 || n != 1 {
			t.Errorf("%d lanes: %d were settled, %d payments were sent", lanes, settled, n)
		}
		c.WantReceived(1)
	}
}

// Who has the money for all of them waits for no block.
func TestMoneyForAll(t *testing.T) {
	c := newCase(t, startChain(t), options{settings: wallet.Settings{Batch: 4, Linger: 50 * time.Millisecond}})
	all := ofOne(c, 9)
	c.Stall()
	run := settleAll(c, c.Settler, all)
	c.WaitFor("all are sent", func() bool { return carried(c.Journal.All()) == len(all) })
	c.H.Chain.Resume()
	run.wantSettled(all)
	c.WantReceived(9)
}
