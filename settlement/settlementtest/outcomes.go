package settlementtest

import (
	"errors"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

func settles(c *Case) {
	in := c.Claimed()
	c.WantReceived(0)
	out := c.Settle(in)
	c.WantSettled(in, out)
	c.WantReceived(1)
	if txs := c.WantRecorded(in, 1); txs[0].Hash != out.Transaction {
		c.Errorf("recorded %s, settled by %s", txs[0].Hash, out.Transaction)
	}
	again := c.Resolve(in)
	c.WantSettled(in, again)
	if again.Final || again.Transaction != out.Transaction || again.Block != out.Block || again.BlockHash != out.BlockHash {
		c.Errorf("Resolve says %+v, Settle %+v; the block is not safe yet", again, out)
	}
	c.Commit(SafeLag)
	if out = c.Resolve(in); !out.Final {
		c.Errorf("the block is safe: %+v", out)
	}
}

func settlesTwice(c *Case) {
	in := c.Claimed()
	first := c.Settle(in)
	c.WantSettled(in, first)
	second := c.Start().Settle(c.Ctx(), in)
	c.WantSettled(in, second)
	if first.Transaction != second.Transaction {
		c.Errorf("settled by %s and by %s", first.Transaction, second.Transaction)
	}
	c.WantRecorded(in, 1)
	c.WantReceived(1)
}

func refusesUsed(c *Case) {
	in := c.Claimed()
	out := c.Settle(in)
	c.WantSettled(in, out)
	_, err := c.Settler.Check(c.Ctx(), in)
	wantReason(c, err, x402.ReasonNonceUsed)
	// As another payment, claimed after the transfer, it must not be credited a second time.
	in.Payment, in.ClaimBlock = "pay_again", out.Block
	c.WantFailed(c.Settle(in), x402.ReasonNonceUsed)
	c.WantRecorded(in, 0)
	if out := c.Resolve(in); out.Status == settlement.Settled {
		c.Errorf("credited twice: %+v", out)
	}
	c.WantReceived(1)
}

func oneTransaction(c *Case) {
	in := c.Claimed()
	settlers := []settlement.Settler{c.Settler, c.Start()}
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			if out := settlers[i%2].Settle(c.Ctx(), in); out.Status != settlement.Settled {
				c.Errorf("got %+v", out)
			}
		})
	}
	wg.Wait()
	c.WantRecorded(in, 1)
	c.WantReceived(1)
}

func sharedCheck(c *Case) {
	in := c.Sign(c.Payer, nil)
	if _, err := c.Settler.Check(c.Ctx(), in); err != nil {
		c.Fatal(err)
	}
	before := c.Proxy.Count("eth_call")
	c.Proxy.FailOn("eth_call", Fault{Delay: 300 * time.Millisecond})
	forged := in
	forged.Signature = append([]byte(nil), in.Signature...)
	forged.Signature[10] ^= 1
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if i%10 == 0 { // the same authorization with another signature gets a judgement of its own
				if _, err := c.Settler.Check(c.Ctx(), forged); x402.ReasonOf(err) != x402.ReasonSignature {
					c.Errorf("forged: %v", err)
				}
				return
			}
			if _, err := c.Settler.Check(c.Ctx(), in); err != nil {
				c.Error(err)
			}
		})
	}
	wg.Wait()
	if n := c.Proxy.Count("eth_call") - before; n > 15 {
		c.Errorf("%d calls for 50 checks", n)
	}
}

func frontRun(c *Case) {
	in := c.Claimed()
	hash := c.FrontRun(in)
	time.Sleep(time.Second) // until the check is too old to send by
	out := c.Settle(in)
	c.WantSettled(in, out)
	if out.Transaction != hash {
		c.Errorf("settled by %s, want the stranger's %s", out.Transaction, hash)
	}
	c.WantReceived(1)
	c.WantSettled(in, c.Resolve(in))
	if again := c.Settle(in); again.Transaction != hash {
		c.Errorf("the second time %+v", again)
	}
	c.WantReceived(1)
}

func frontRunInPool(c *Case) {
	in := c.Claimed()
	c.Stall()
	result := make(chan settlement.Outcome, 1)
	go func() { result <- c.Settle(in) }()
	c.WaitFor("ours is broadcast", func() bool { return c.Proxy.Count("eth_sendRawTransaction") > 0 })
	hash := c.Send(c.H.Fresh(), in.Authorization.TransferCalldata(in.Signature), nil)
	c.WaitFor("both are known", func() bool { return c.Pooled() >= 2 })
	c.Commit(1)
	out := <-result
	c.WantSettled(in, out)
	if out.Transaction != hash {
		c.Errorf("settled by %s, want the stranger's %s: ours must have reverted", out.Transaction, hash)
	}
	c.WantReceived(1)
	c.Commit(SafeLag)
	if again := c.Resolve(in); again.Transaction != hash || !again.Final {
		c.Errorf("Resolve says %+v", again)
	}
}

func frontRunBefore(c *Case) {
	in := c.Sign(c.Payer, nil)
	c.FrontRun(in)
	_, err := c.Settler.Check(c.Ctx(), in)
	wantReason(c, err, x402.ReasonNonceUsed)
}

func cancelled(c *Case) {
	in := c.Claimed()
	c.Mined(c.Send(c.H.Fresh(), c.cancelCall(in), nil))
	time.Sleep(time.Second)
	c.WantFailed(c.Settle(in), x402.ReasonNonceUsed)
	c.WantRecorded(in, 0)
	out := c.Resolve(in)
	c.WantFailed(out, x402.ReasonNonceUsed)
	if out.Final {
		c.Error("final before the block of the cancellation is safe")
	}
	c.Commit(SafeLag)
	if out = c.Resolve(in); out.Status != settlement.Failed || !out.Final {
		c.Errorf("got %+v, want it final", out)
	}
	c.WantReceived(0)
}

func expires(c *Case) {
	in := c.Claimed()
	if out := c.Resolve(in); out.Status != settlement.Unknown || out.Err != nil || out.Transaction != (common.Hash{}) {
		c.Errorf("nothing happened yet, but: %+v", out)
	}
	c.Must(c.H.Chain.AdvanceTime(time.Hour))
	time.Sleep(time.Second)
	_, err := c.Settler.Check(c.Ctx(), in)
	wantReason(c, err, x402.ReasonValidBefore)
	c.WantFailed(c.Settle(in), x402.ReasonValidBefore)
	if out := c.Resolve(in); out.Final {
		c.Errorf("final before a safe block is late enough: %+v", out)
	}
	c.Commit(SafeLag)
	out := c.Resolve(in)
	c.WantFailed(out, x402.ReasonValidBefore)
	if !out.Final {
		c.Errorf("got %+v, want it final", out)
	}
	c.WantRecorded(in, 0)
}

func notYetValid(c *Case) {
	now, err := c.H.Chain.Now(c.Context())
	c.Must(err)
	in := c.Sign(c.Payer, func(a *x402.Authorization) { a.ValidAfter.SetUint64(uint64(now.Unix()) + 300) })
	_, err = c.Settler.Check(c.Ctx(), in)
	wantReason(c, err, x402.ReasonValidAfter)
}

func withoutMoney(c *Case) {
	poor, err := crypto.GenerateKey()
	c.Must(err)
	_, err = c.Settler.Check(c.Ctx(), c.Sign(poor, nil))
	wantReason(c, err, x402.ReasonInsufficientBalance)
	greedy := c.Sign(c.Payer, func(a *x402.Authorization) { a.Value.SetAllOne() })
	_, err = c.Settler.Check(c.Ctx(), greedy)
	wantReason(c, err, x402.ReasonInsufficientBalance)
	for _, end := range []uint64{math.MaxUint64} { // an end beyond all clocks is no error
		_, err = c.Settler.Check(c.Ctx(), c.Sign(c.Payer, func(a *x402.Authorization) { a.ValidBefore.SetUint64(end) }))
		c.Must(err)
	}
}

func moneyGone(c *Case) {
	in := c.Claimed()
	c.SpendAll()
	time.Sleep(time.Second)
	c.WantFailed(c.Settle(in), x402.ReasonInsufficientBalance)
	c.WantRecorded(in, 0)
	if out := c.Resolve(in); out.Final {
		c.Errorf("final although anybody can still execute it: %+v", out)
	}
}

// What failed is not over: the payer gets money again, and a stranger executes the authorization.
func moneyGoneInPool(c *Case) {
	in := c.Claimed()
	c.Stall()
	result := make(chan settlement.Outcome, 1)
	go func() { result <- c.Settle(in) }()
	c.WaitFor("ours is broadcast", func() bool { return c.Proxy.Count("eth_sendRawTransaction") > 0 })
	c.Send(c.Payer, spendCall(c.balance(crypto.PubkeyToAddress(c.Payer.PublicKey))), nil)
	c.WaitFor("both are known", func() bool { return c.Pooled() >= 2 })
	c.Commit(1)
	out := <-result
	c.WantFailed(out, x402.ReasonInsufficientBalance)
	if txs := c.WantRecorded(in, 1); out.Transaction != txs[0].Hash || out.Block == 0 {
		c.Errorf("got %+v, want our transaction that reverted", out)
	}
	c.WantFailed(c.Settle(in), x402.ReasonInsufficientBalance)
	c.WantRecorded(in, 1)
	c.H.Chain.Resume()
	out = c.Resolve(in)
	c.WantFailed(out, x402.ReasonInsufficientBalance)
	if out.Final {
		c.Errorf("final although anybody can still execute it: %+v", out)
	}
	c.Must(c.H.Chain.Mint(c.Ctx(), in.Authorization.From, uint256.NewInt(Price)))
	hash := c.FrontRun(in)
	out = c.Resolve(in)
	c.WantSettled(in, out)
	if out.Transaction != hash {
		c.Errorf("settled by %s, want %s", out.Transaction, hash)
	}
	c.WantReceived(1)
}

// Of a payment that waits until it comes through, a transaction that has reverted is no end: another one is sent when there is money.
func revertedAgain(c *Case) {
	in := c.Claimed()
	in.Again = true
	c.Stall()
	result := make(chan settlement.Outcome, 1)
	go func() { result <- c.Settle(in) }()
	c.WaitFor("ours is broadcast", func() bool { return c.Proxy.Count("eth_sendRawTransaction") > 0 })
	c.Send(c.Payer, spendCall(c.balance(crypto.PubkeyToAddress(c.Payer.PublicKey))), nil)
	c.WaitFor("both are known", func() bool { return c.Pooled() >= 2 })
	c.Commit(1)
	c.WantFailed(<-result, x402.ReasonInsufficientBalance)
	c.H.Chain.Resume()
	c.WantFailed(c.Settle(in), x402.ReasonInsufficientBalance)
	c.WantRecorded(in, 1) // nothing is sent in vain
	c.Must(c.H.Chain.Mint(c.Ctx(), in.Authorization.From, uint256.NewInt(Price)))
	out := c.Settle(in)
	c.WantSettled(in, out)
	if txs := c.WantRecorded(in, 2); out.Transaction != txs[1].Hash {
		c.Errorf("settled by %s, want %s", out.Transaction, txs[1].Hash)
	}
	c.WantSettled(in, c.Settle(in))
	c.WantRecorded(in, 2)
	c.WantReceived(1)
}

func wrongSignature(c *Case) {
	other := c.H.Fresh()
	in := c.Sign(c.Payer, nil)
	sig, err := x402.Sign(in.Authorization.Digest(c.H.Network.Domain().Separator()), other)
	c.Must(err)
	for name, tc := range map[string]struct {
		sig  []byte
		want x402.Reason
	}{
		"another's":    {sig, x402.ReasonSignature},
		"zero":         {make([]byte, 65), x402.ReasonSignature},
		"a contract's": {make([]byte, 130), x402.ReasonUndeployedWallet},
		"empty":        {nil, x402.ReasonSignature},
	} {
		in.Signature = tc.sig
		_, err := c.Settler.Check(c.Ctx(), in)
		if got := x402.ReasonOf(err); got != tc.want && (name != "empty" || got == "") {
			c.Errorf("%s: got %v, want %s", name, err, tc.want)
		}
	}
	in.Payment = "pay_wrong"
	if out := c.Settle(in); out.Status != settlement.Failed {
		c.Errorf("got %+v", out)
	}
	c.WantRecorded(in, 0)
}

func contractWallet(c *Case) {
	wallet, err := c.H.Chain.DeployWallet(c.Ctx(), crypto.PubkeyToAddress(c.Payer.PublicKey))
	c.Must(err)
	c.Must(c.H.Chain.Mint(c.Ctx(), wallet, uint256.NewInt(Price)))
	in := c.Claim(c.Sign(c.Payer, func(a *x402.Authorization) { a.From = wallet }))
	forged := in
	forged.Signature = append([]byte(nil), in.Signature...)
	forged.Signature[10] ^= 1
	_, err = c.Settler.Check(c.Ctx(), forged)
	wantReason(c, err, x402.ReasonSignature)
	c.WantSettled(in, c.Settle(in))
	c.WantReceived(1)
	_, err = c.Settler.Check(c.Ctx(), in)
	wantReason(c, err, x402.ReasonNonceUsed)
}

func paused(c *Case) {
	in := c.Claimed()
	c.Must(c.H.Chain.Pause(c.Ctx()))
	unpause := sync.OnceFunc(func() { c.Must(c.H.Chain.Unpause(c.CtxFor(patience))) })
	defer unpause()
	_, err := c.Settler.Check(c.Ctx(), in)
	wantReason(c, err, x402.ReasonSimulationFailed)
	if e, ok := errors.AsType[*x402.Error](err); !ok || !strings.Contains(e.Detail, "paused") {
		c.Errorf("%v does not say why", err)
	}
	time.Sleep(time.Second)
	c.WantFailed(c.Settle(in), x402.ReasonSimulationFailed)
	c.WantRecorded(in, 0)
	unpause()
	c.WantSettled(in, c.Settle(in))
}

func wantReason(c *Case, err error, want x402.Reason) {
	c.Helper()
	if got := x402.ReasonOf(err); got != want {
		c.Fatalf("got %v, want %s", err, want)
	}
}

// Who has made a payment is found by its nonce alone, though strangers have used the same for nothing, as often as they like.
func payersOfNonce(c *Case) {
	tracer, ok := c.Settler.(settlement.Tracer)
	if !ok {
		c.Fatalf("%T finds no payers", c.Settler)
	}
	in := c.Claimed()
	c.WantSettled(in, c.Settle(in))
	stranger, last := c.H.Fresh(), common.Hash{}
	for range 40 {
		key, err := crypto.GenerateKey()
		c.Must(err)
		spam := c.Sign(key, func(a *x402.Authorization) {
			a.Nonce = in.Authorization.Nonce
			a.Value.Clear()
		})
		last = c.Send(stranger, spam.Authorization.TransferCalldata(spam.Signature), nil)
	}
	if r := c.Mined(last); r.Status != 1 {
		c.Error("the nonce can't be used for nothing")
	}
	in.Authorization.From = common.Address{}
	who, err := tracer.Payers(c.Ctx(), in)
	if err != nil || len(who) != 1 || who[0] != crypto.PubkeyToAddress(c.Payer.PublicKey) {
		c.Errorf("got %v, %v, want the payer", who, err)
	}
}
