package settlementtest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

var errCrash = errors.New("the process died")

func unreachable(c *Case) {
	in := c.Claimed()
	c.Proxy.FailAll(unreachableStatus)
	if _, err := c.Settler.Check(c.Ctx(), in); !errors.Is(err, settlement.ErrUnavailable) || x402.ReasonOf(err) != "" {
		c.Errorf("Check: %v, want ErrUnavailable", err)
	}
	if out := c.Settle(in); out.Status != settlement.Unknown || !errors.Is(out.Err, settlement.ErrUnavailable) {
		c.Errorf("Settle: %+v, want unknown and ErrUnavailable", out)
	}
	if out := c.Resolve(in); out.Status != settlement.Unknown || out.Err == nil {
		c.Errorf("Resolve: %+v, want unknown with an error", out)
	}
	c.WantRecorded(in, 0)
	c.WantReceived(0)
	c.Proxy.SetFault(nil)
	c.WantSettled(in, c.Settle(in))
	c.WantReceived(1)
}

// The node acts, and the answer does not come: neither a second transfer nor a wrong "failed" may follow.
func lostAnswers(c *Case) {
	in := c.Claimed()
	c.Proxy.FailOn("eth_sendRawTransaction", Fault{DropAnswer: true})
	c.WantSettled(in, c.Settle(in))
	c.WantRecorded(in, 1)
	c.WantReceived(1)
}

func stalls(c *Case) {
	in := c.Claimed()
	c.Stall()
	out := c.SettleUntil(in, "it waits for a block", func() bool { return c.Pooled() > 0 })
	txs := c.WantRecorded(in, 1)
	if out.Status != settlement.Unknown || out.Transaction != txs[0].Hash || out.Err == nil {
		c.Fatalf("got %+v, want unknown with transaction %s", out, txs[0].Hash)
	}
	if out = c.Resolve(in); out.Status != settlement.Unknown || out.Err != nil || out.Transaction != txs[0].Hash {
		c.Errorf("got %+v, want: not yet", out)
	}
	c.H.Chain.Resume()
	c.Commit(1)
	out = c.Resolve(in)
	c.WantSettled(in, out)
	c.WantRecorded(in, 1)
	c.WantReceived(1)
}

// crash leaves a recorded transaction that nobody ever saw.
func crash(c *Case) settlement.Intent {
	in := c.Claimed()
	c.Journal.Crash(errCrash)
	if out := c.Settle(in); out.Status != settlement.Unknown {
		c.Fatalf("got %+v, want unknown", out)
	}
	c.Journal.Crash(nil)
	c.WantRecorded(in, 1)
	if n := c.Proxy.Count("eth_sendRawTransaction"); n != 0 {
		c.Fatalf("%d transactions were broadcast although the record failed", n)
	}
	c.Settler = c.Start()
	return in
}

func crashResolve(c *Case) {
	in := crash(c)
	out := c.ResolveUntil(in, settlement.Settled)
	if txs := c.WantRecorded(in, 1); txs[0].Hash != out.Transaction {
		c.Errorf("settled by %s, recorded was %s", out.Transaction, txs[0].Hash)
	}
	c.WantReceived(1)
}

func crashSettle(c *Case) {
	in := crash(c)
	c.WantSettled(in, c.Settle(in))
	c.WantRecorded(in, 1)
	c.WantReceived(1)
}

// A recorded transaction whose authorization has expired moves no money, but it must go out: all later ones of
// the wallet wait behind its nonce.
func expiresRecorded(c *Case) {
	in := crash(c)
	c.Must(c.H.Chain.AdvanceTime(time.Hour))
	c.Commit(SafeLag)
	c.Stall()
	out := c.Resolve(in)
	if out.Final {
		c.Errorf("final while its transaction blocks the wallet: %+v", out)
	}
	c.H.Chain.Resume()
	c.WaitFor("the nonce is free", func() bool { return c.Nonce() == 1 })
	out = c.Resolve(in)
	c.WantFailed(out, x402.ReasonValidBefore)
	if !out.Final {
		c.Errorf("got %+v, want it final", out)
	}
	c.WantReceived(0)
	next := c.Claimed()
	c.WantSettled(next, c.Settle(next))
	c.WantReceived(1)
}

func notClaimed(c *Case) {
	in := c.Claimed()
	c.Journal.Refuse(in.Payment)
	if out := c.Settle(in); out.Status != settlement.Failed || out.Reason == "" {
		c.Errorf("got %+v, want failed", out)
	}
	c.WantRecorded(in, 0)
	if n := c.Proxy.Count("eth_sendRawTransaction"); n != 0 {
		c.Errorf("%d transactions were broadcast", n)
	}
}

// Two processes share a wallet: no nonce is used twice, none is left out.
func twoSettlers(c *Case) {
	settlers := []settlement.Settler{c.Settler, c.Start()}
	c.settleMany(settlers, 40)
}

func twoHundred(c *Case) { c.settleMany([]settlement.Settler{c.Settler}, 200) }

// settleMany settles n payments of n payers at once.
func (c *Case) settleMany(settlers []settlement.Settler, n int) {
	intents := make([]settlement.Intent, n)
	for i := range intents {
		intents[i] = c.Sign(c.H.Fresh(), nil)
	}
	outcomes := make([]settlement.Outcome, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			s, in := settlers[i%len(settlers)], &intents[i]
			ctx, cancel := context.WithTimeout(c.Context(), 6*patience) // a busy machine takes its time
			defer cancel()
			head, err := s.Check(ctx, *in)
			if err != nil {
				c.Error(err)
				return
			}
			in.ClaimBlock, in.Payment = head, "pay_"+in.Authorization.Nonce.Hex()
			outcomes[i] = s.Settle(ctx, *in)
		})
	}
	wg.Wait()
	for i, out := range outcomes {
		c.WantSettled(intents[i], out)
		if txs, err := c.Journal.Transactions(c.Context(), intents[i].Payment); err != nil || len(txs) != 1 || txs[0].Hash != out.Transaction {
			c.Errorf("settled by %s, recorded are %d transactions, %v", out.Transaction, len(txs), err)
		}
	}
	c.WantReceived(uint64(n))
	c.wantNoGap()
}

func ready(c *Case) {
	c.Must(c.Settler.Ready(c.Ctx()))
	c.Proxy.FailAll(unreachableStatus)
	if err := c.Settler.Ready(c.Ctx()); err == nil {
		c.Error("ready without a chain")
	}
	c.Proxy.SetFault(nil)
	c.Must(c.Settler.Ready(c.Ctx()))
	broke, err := crypto.GenerateKey()
	c.Must(err)
	s := c.H.New(c.TB, Setup{URL: c.Proxy.URL(), Key: broke, Journal: c.Journal})
	if err := s.Ready(c.Ctx()); !errors.Is(err, settlement.ErrUnavailable) {
		c.Errorf("ready without gas: %v", err)
	}
	in := c.Claimed()
	if out := s.Settle(c.Ctx(), in); out.Status != settlement.Unknown || !errors.Is(out.Err, settlement.ErrUnavailable) {
		c.Errorf("without gas: %+v, want unknown and ErrUnavailable", out)
	}
	c.WantRecorded(in, 0)
}

// balance is what an account has of the token.
func (c *Case) balance(a common.Address) uint64 {
	c.Helper()
	n, err := c.H.Chain.TokenBalance(c.Context(), a)
	c.Must(err)
	return n.Uint64()
}

// SpendAll lets the payer send all its money away.
func (c *Case) SpendAll() {
	c.Helper()
	c.Mined(c.Send(c.Payer, spendCall(c.balance(crypto.PubkeyToAddress(c.Payer.PublicKey))), nil))
}

// Pooled is how many transactions wait for a block.
func (c *Case) Pooled() uint64 {
	c.Helper()
	client, err := rpc.DialContext(c.Context(), c.H.Chain.URL())
	c.Must(err)
	defer client.Close()
	var status struct {
		Pending hexutil.Uint64 `json:"pending"`
	}
	c.Must(client.CallContext(c.Context(), &status, "txpool_status"))
	return uint64(status.Pending)
}
