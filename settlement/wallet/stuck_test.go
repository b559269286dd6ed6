package wallet_test

import (
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
	"github.com/caddy-x402/caddy-x402/settlement/wallet"
	"github.com/caddy-x402/caddy-x402/x402"
)

// feesOf are those of a recorded transaction.
func feesOf(t *testing.T, tx settlement.Transaction) (most, tip *big.Int) {
	t.Helper()
	var decoded types.Transaction
	if err := decoded.UnmarshalBinary(tx.Raw); err != nil {
		t.Fatal(err)
	}
	return decoded.GasFeeCap(), decoded.GasTipCap()
}

// stuck is a case whose transactions count as stuck after a second by the clock of the test, which it moves on by itself.
func stuck(t *testing.T, set wallet.Settings) (*settlementtest.Case, *clock) {
	t.Helper()
	clk := &clock{}
	set.StuckAfter = time.Minute
	return newCase(t, startChain(t), options{settings: set, now: clk.now}), clk
}

// wait moves both clocks on.
func wait(c *settlementtest.Case, clk *clock, d time.Duration) {
	c.Helper()
	clk.advance(d)
	c.Must(c.H.Chain.AdvanceTime(d))
}

// pretend lets the endpoint say that it knows all transactions, while the chain gets none.
func pretend(c *settlementtest.Case) {
	c.Proxy.FailOn("eth_sendRawTransaction", settlementtest.Fault{Message: "already known"})
}

// deliver gives a recorded transaction to the chain, past the settler's endpoint.
func deliver(t *testing.T, c *settlementtest.Case, tx settlement.Transaction) {
	t.Helper()
	client, err := ethclient.DialContext(t.Context(), c.H.Chain.URL())
	c.Must(err)
	defer client.Close()
	var decoded types.Transaction
	c.Must(decoded.UnmarshalBinary(tx.Raw))
	c.Must(client.SendTransaction(t.Context(), &decoded))
}

// A transaction that nobody mines is replaced: same nonce, same payments, both fees a tenth higher at least. And if then the
// original is mined after all, it is known for what it is.
func TestStuckTransactionIsReplaced(t *testing.T) {
	c, clk := stuck(t, wallet.Settings{})
	all := crowd(c, 3)
	pretend(c)
	run := settleAll(c, c.Settler, all[:1])
	first := sent(c, 1)[0]
	wait(c, clk, 50*time.Second)
	before := c.Proxy.Count("eth_sendRawTransaction")
	c.WaitFor("it is broadcast again", func() bool { return c.Proxy.Count("eth_sendRawTransaction") > before+1 })
	if n := len(c.Journal.All()); n != 1 {
		t.Fatalf("%d transactions before it was time", n)
	}
	wait(c, clk, 20*time.Second)
	c.WaitFor("it is replaced", func() bool { return len(c.Journal.All()) == 2 })
	second := c.Journal.All()[1]
	most1, tip1 := feesOf(t, first)
	most2, tip2 := feesOf(t, second)
	tenth := func(x *big.Int) *big.Int {
		return new(big.Int).Div(new(big.Int).Mul(x, big.NewInt(11)), big.NewInt(10))
	}
	if second.Nonce != first.Nonce || most2.Cmp(tenth(most1)) < 0 || tip2.Cmp(tenth(tip1)) < 0 || len(second.Payments) != 1 {
		t.Errorf("nonce %d with %s and %s, then %d with %s and %s", first.Nonce, most1, tip1, second.Nonce, most2, tip2)
	}
	deliver(t, c, first)
	run.wantSettled(all[:1])
	if run.outcomes[0].Transaction != first.Hash {
		t.Errorf("settled by %s, want the original %s", run.outcomes[0].Transaction, first.Hash)
	}
	c.Proxy.SetFault(nil)
	c.WantSettled(all[0], c.Resolve(all[0]))
	rest := settleAll(c, c.Settler, all[1:])
	rest.wantSettled(all[1:])
	c.WantReceived(3)
}

// A node that lags behind does not make a transaction look old: it is not replaced before its time.
func TestLaggingNodeDoesNotHurry(t *testing.T) {
	c, clk := stuck(t, wallet.Settings{})
	in := c.Claimed()
	pretend(c)
	run := settleAll(c, c.Settler, []settlement.Intent{in})
	first := sent(c, 1)[0]
	clk.advance(time.Hour) // by our clock it is old; the chain has no later block
	before := c.Proxy.Count("eth_sendRawTransaction")
	c.WaitFor("it is broadcast again", func() bool { return c.Proxy.Count("eth_sendRawTransaction") > before+2 })
	if n := len(c.Journal.All()); n != 1 {
		t.Errorf("%d transactions", n)
	}
	c.Proxy.SetFault(nil)
	run.wantSettled([]settlement.Intent{in})
	if run.outcomes[0].Transaction != first.Hash {
		t.Errorf("settled by %s, want %s", run.outcomes[0].Transaction, first.Hash)
	}
}

// Above the ceiling nothing is replaced; it waits.
func TestFeesStayBelowTheCeiling(t *testing.T) {
	c, clk := stuck(t, wallet.Settings{})
	in := c.Claimed()
	pretend(c)
	run := settleAll(c, c.Settler, []settlement.Intent{in})
	first := sent(c, 1)[0]
	most, _ := feesOf(t, first)
	c.Settler.(*wallet.Settler).Reconfigure(wallet.Settings{MaxFeePerGas: most, StuckAfter: time.Minute, Rebroadcast: 100 * time.Millisecond})
	wait(c, clk, 2*time.Minute)
	before := c.Proxy.Count("eth_sendRawTransaction")
	c.WaitFor("it is broadcast again", func() bool { return c.Proxy.Count("eth_sendRawTransaction") > before+2 })
	if n := len(c.Journal.All()); n != 1 {
		t.Errorf("%d transactions", n)
	}
	c.Proxy.SetFault(nil)
	run.wantSettled([]settlement.Intent{in})
}

// A transaction never reached the node, and meanwhile its payment has expired: a transfer to oneself frees the nonce, so that
// those behind it go through.
func TestNonceOfTheExpiredIsFreed(t *testing.T) {
	mined := make(chan wallet.Mined, 8)
	c, clk := stuck(t, wallet.Settings{Mined: func(m wallet.Mined) {
		mined <- m
		panic("what counts fails")
	}})
	in := c.Claimed()
	c.Proxy.FailOn("eth_sendRawTransaction", settlementtest.Fault{Message: "no"})
	run := settleAll(c, c.Settler, []settlement.Intent{in})
	sent(c, 1)
	wait(c, clk, 11*time.Minute)
	c.Commit(1)
	c.WaitFor("the nonce is freed", func() bool { return len(c.Journal.All()) == 2 })
	if tx := c.Journal.All()[1]; tx.Nonce != 0 || len(tx.Payments) != 0 {
		t.Errorf("nonce %d for %d payments", tx.Nonce, len(tx.Payments))
	}
	next := crowd(c, 1)
	after := settleAll(c, c.Settler, next)
	c.Proxy.SetFault(nil)
	after.wantSettled(next)
	run.wg.Wait()
	c.WantFailed(run.outcomes[0], x402.ReasonValidBefore)
	c.Commit(settlementtest.SafeLag)
	if out := c.Resolve(in); out.Status != settlement.Failed || !out.Final {
		t.Errorf("got %+v", out)
	}
	c.WantReceived(1)
	freed, paid := <-mined, <-mined
	if freed.Payments > 0 { // they come in any order
		freed, paid = paid, freed
	}
	if freed.Payments != 0 || !freed.OK || freed.Cost.Sign() <= 0 || paid.Payments != 1 {
		t.Errorf("counted were %+v and %+v", freed, paid)
	}
}

// What may be spent in an hour bounds what a mistake, or somebody who means harm, can cost.
func TestSpendLimit(t *testing.T) {
	clk := &clock{}
	c := newCase(t, startChain(t), options{now: clk.now, settings: wallet.Settings{SpendPerHour: big.NewInt(1)}})
	in := c.Claimed()
	out := c.Settle(in)
	if out.Status != settlement.Unknown || out.Err == nil || !strings.Contains(out.Err.Error(), "in the last hour") {
		t.Fatalf("got %+v", out)
	}
	c.WantRecorded(in, 0)
	w := c.Settler.(*wallet.Settler)
	w.Reconfigure(wallet.Settings{SpendPerHour: big.NewInt(1e18)})
	c.WantSettled(in, c.Settle(in))
	most, _ := feesOf(t, c.WantRecorded(in, 1)[0])
	one := new(big.Int).Mul(most, big.NewInt(200_000)) // what a payment can cost
	w.Reconfigure(wallet.Settings{SpendPerHour: one.Add(one, big.NewInt(1))})
	if err := w.Ready(c.Ctx()); err == nil {
		t.Error("ready although nothing may be spent")
	}
	if _, err := w.Check(c.Ctx(), c.Sign(c.Payer, nil)); !errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("Check says %v: a payment would be claimed that can't be settled", err)
	}
	clk.advance(time.Hour)
	c.Must(w.Ready(c.Ctx()))
}

// What may be spent bounds replacements as well.
func TestReplacementsAreBoundedByTheSpendLimit(t *testing.T) {
	c, clk := stuck(t, wallet.Settings{})
	in := c.Claimed()
	pretend(c)
	run := settleAll(c, c.Settler, []settlement.Intent{in})
	first := sent(c, 1)[0]
	most, _ := feesOf(t, first)
	limit := new(big.Int).Mul(most, big.NewInt(210_000)) // its own worst, and 5 percent
	c.Settler.(*wallet.Settler).Reconfigure(wallet.Settings{SpendPerHour: limit, StuckAfter: time.Minute, Rebroadcast: 100 * time.Millisecond})
	wait(c, clk, 2*time.Minute)
	before := c.Proxy.Count("eth_sendRawTransaction")
	c.WaitFor("it is broadcast again", func() bool { return c.Proxy.Count("eth_sendRawTransaction") > before+4 })
	if n := len(c.Journal.All()); n != 1 {
		t.Errorf("%d transactions", n)
	}
	c.Proxy.SetFault(nil)
	run.wantSettled([]settlement.Intent{in})
}
