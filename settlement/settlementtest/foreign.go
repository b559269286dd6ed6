package settlementtest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// RunForeign runs what of the suite holds for a settler whose transactions somebody else makes, as facilitators do. Its
// journal holds notes (settlement.NewNote), one before a payment is handed over for the first time, and no transactions: so
// what the suite demands of nonces, of broadcasting again what was recorded, and of the wallet's gas is left out, and what a
// payment was settled by is not compared with the journal. Everything else is the same, above all that nothing is
// settled without proof and nothing failed that may still be paid.
func RunForeign(t *testing.T, h *Harness) {
	cases := []struct {
		name string
		run  func(*Case)
	}{
		{"settles", settlesForeign},
		{"settles again as it did before", settlesTwice},
		{"refuses a used authorization", refusesUsed},
		{"one transfer for many calls", oneTransfer},
		{"checks share a simulation", sharedCheck},
		{"paid by another hand after the claim", frontRun},
		{"paid by another hand while ours waits", frontRunInPool},
		{"paid by another hand before the claim", frontRunBefore},
		{"cancelled", cancelled},
		{"expired", expires},
		{"not yet valid", notYetValid},
		{"payer without money", withoutMoney},
		{"payer spends the money meanwhile", moneyGone},
		{"payer's money goes while ours waits", moneyGoneForeign},
		{"wrong signature", wrongSignature},
		{"contract wallet", contractWallet},
		{"token is paused", paused},
		{"chain unreachable before handing over", unreachableForeign},
		{"answers get lost", lostAnswers},
		{"chain stalls after the broadcast", stallsForeign},
		{"crash before handing over, then Resolve", crashResolveForeign},
		{"crash before handing over, then Settle", crashSettle},
		{"no longer claimed", notClaimed},
		{"two settlers", twoForeign},
		{"two hundred at once", manyForeign},
		{"enough confirmations", confirms},
		{"a safe block", confirmsSafe},
		{"different demands at once", confirmsApart},
		{"not confirmed in time", confirmsLater},
		{"taken back before it is confirmed", reorganized},
		{"taken back, and can't be made again", reorganizedAndSpent},
		{"many looked at together", reviews},
		{"payers of one nonce", payersOfNonce},
		{"ready", readyForeign},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) { tc.run(NewCase(t, h)) })
	}
}

// wantNote demands that the journal holds one note for the payment and nothing else.
func (c *Case) wantNote(in settlement.Intent) {
	c.Helper()
	tx := c.WantRecorded(in, 1)[0]
	if _, note := tx.Note(); !note || tx.Hash != crypto.Keccak256Hash(tx.Raw) {
		c.Errorf("the journal has %+v, want a note", tx)
	}
}

func settlesForeign(c *Case) {
	in := c.Claimed()
	c.WantReceived(0)
	out := c.Settle(in)
	c.WantSettled(in, out)
	c.WantReceived(1)
	c.wantNote(in)
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

// Two processes that settle the same payment may both hand it over; it is paid once, and both see it.
func oneTransfer(c *Case) {
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
	c.WantReceived(1)
	if n := len(c.Journal.All()); n < 1 || n > len(settlers) {
		c.Errorf("%d notes", n)
	}
}

func moneyGoneForeign(c *Case) {
	in := c.Claimed()
	c.Stall()
	result := make(chan settlement.Outcome, 1)
	go func() { result <- c.Settle(in) }()
	c.WaitFor("it is broadcast", func() bool { return c.Proxy.Count("eth_sendRawTransaction") > 0 })
	c.Send(c.Payer, spendCall(c.balance(crypto.PubkeyToAddress(c.Payer.PublicKey))), nil)
	c.WaitFor("both are known", func() bool { return c.Pooled() >= 2 })
	c.Commit(1)
	out := <-result
	c.WantFailed(out, x402.ReasonInsufficientBalance)
	if out.Transaction == (common.Hash{}) || out.Block == 0 {
		c.Errorf("got %+v, want the transaction that reverted", out)
	}
	c.H.Chain.Resume()
	c.WantFailed(c.Settle(in), x402.ReasonInsufficientBalance)
	c.wantNote(in)
	// What failed is not over: the payer gets money again, and a stranger executes the authorization.
	c.Must(c.H.Chain.Mint(c.Ctx(), in.Authorization.From, uint256.NewInt(Price)))
	hash := c.FrontRun(in)
	out = c.Resolve(in)
	c.WantSettled(in, out)
	if out.Transaction != hash {
		c.Errorf("settled by %s, want %s", out.Transaction, hash)
	}
	c.WantReceived(1)
}

// Nothing is handed over that could not be followed. (A check stands for a moment; what is handed over within it is found
// when the chain answers again.)
func unreachableForeign(c *Case) {
	in := c.Claimed()
	time.Sleep(time.Second) // until the check is too old
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

func stallsForeign(c *Case) {
	in := c.Claimed()
	c.Stall()
	out := c.SettleUntil(in, "it waits for a block", func() bool { return c.Pooled() > 0 })
	if out.Status != settlement.Unknown || out.Err == nil {
		c.Fatalf("got %+v, want unknown", out)
	}
	c.wantNote(in)
	if out = c.Resolve(in); out.Status != settlement.Unknown || out.Err != nil {
		c.Errorf("got %+v, want: not yet", out)
	}
	c.H.Chain.Resume()
	c.WaitFor("its block", func() bool { return c.Pooled() == 0 })
	out = c.Resolve(in)
	c.WantSettled(in, out)
	c.wantNote(in)
	c.WantReceived(1)
}

// What was noted and never handed over stays unknown, until it can't be executed any more.
func crashResolveForeign(c *Case) {
	in := crash(c)
	if out := c.Resolve(in); out.Status != settlement.Unknown || out.Err != nil {
		c.Errorf("got %+v, want: not yet", out)
	}
	c.Must(c.H.Chain.AdvanceTime(time.Hour))
	out := c.Resolve(in)
	c.WantFailed(out, x402.ReasonValidBefore)
	if out.Final {
		c.Error("final before a safe block is late enough")
	}
	c.Commit(SafeLag)
	if out = c.Resolve(in); out.Status != settlement.Failed || !out.Final {
		c.Errorf("got %+v, want it final", out)
	}
	c.WantReceived(0)
}

func twoForeign(c *Case) { c.settleForeign([]settlement.Settler{c.Settler, c.Start()}, 40) }

func manyForeign(c *Case) { c.settleForeign([]settlement.Settler{c.Settler}, 200) }

// settleForeign settles n payments of n payers at once.
func (c *Case) settleForeign(settlers []settlement.Settler, n int) {
	intents, outcomes := make([]settlement.Intent, n), make([]settlement.Outcome, n)
	for i := range intents {
		intents[i] = c.Sign(c.H.Fresh(), nil)
	}
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
	used := make(map[common.Hash]bool, n)
	for i, out := range outcomes {
		c.WantSettled(intents[i], out)
		if used[out.Transaction] {
			c.Errorf("transaction %s settled two payments", out.Transaction)
		}
		used[out.Transaction] = true
		c.wantNote(intents[i])
	}
	c.WantReceived(uint64(n))
}

func readyForeign(c *Case) {
	c.Must(c.Settler.Ready(c.Ctx()))
	c.Proxy.FailAll(unreachableStatus)
	if err := c.Settler.Ready(c.Ctx()); err == nil {
		c.Error("ready without a chain")
	}
	c.Proxy.SetFault(nil)
	c.Must(c.Settler.Ready(c.Ctx()))
}
