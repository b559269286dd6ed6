package wallet_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
	"github.com/caddy-x402/caddy-x402/settlement/wallet"
	"github.com/caddy-x402/caddy-x402/x402"
)

// checkAll checks all at once, and gives what was said of each.
func checkAll(c *settlementtest.Case, all []settlement.Intent) []error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, in := range all {
		wg.Go(func() { _, errs[i] = c.Settler.Check(c.Ctx(), in) })
	}
	wg.Wait()
	return errs
}

// signed are payments by payers of their own.
func signed(c *settlementtest.Case, n int) []settlement.Intent {
	all := make([]settlement.Intent, n)
	for i := range all {
		all[i] = c.Sign(c.H.Fresh(), nil)
	}
	return all
}

// A crowd's payments are simulated together, and each is judged by itself: one that would fail, one of a wrong signature, and one
// of an account that runs code among them.
func TestChecksTravelTogether(t *testing.T) {
	dev := startChain(t)
	c := newCase(t, dev, options{})
	code, err := dev.DeployHostileWallet(c.Ctx(), devnet.Refuse, 0)
	c.Must(err)
	delegate(t, c, code)
	c.Must(dev.SetMode(c.Ctx(), crypto.PubkeyToAddress(c.Payer.PublicKey), devnet.Refuse, 0))
	refused := c.Sign(c.Payer, nil)

	all := append(signed(c, 60), refused)
	used := c.Claim(c.Sign(c.H.Fresh(), nil))
	c.WantSettled(used, c.Settle(used))
	forged := all[0]
	forged.Signature = append([]byte(nil), forged.Signature...)
	forged.Signature[10] ^= 1
	all = append(all, used, forged)

	before := c.Proxy.Count("eth_call")
	c.Proxy.FailOn("eth_call", settlementtest.Fault{Delay: 100 * time.Millisecond})
	for i, err := range checkAll(c, all) {
		want := x402.Reason("")
		switch i {
		case 60, 62:
			want = x402.ReasonSignature
		case 61:
			want = x402.ReasonNonceUsed
		}
		if got := x402.ReasonOf(err); got != want || want == "" && err != nil {
			t.Errorf("payment %d: %v, want %q", i, err, want)
		}
	}
	if n := c.Proxy.Count("eth_call") - before; n > 30 {
		t.Errorf("%d calls for %d checks", n, len(all))
	}
}

// A node that refuses to simulate many at once is asked for each.
func TestChecksApartWhereNodeRefuses(t *testing.T) {
	c := newCase(t, startChain(t), options{})
	all := signed(c, 20)
	multicall := strings.ToLower(devnet.MulticallAddress.Hex())
	c.Proxy.Refuse(func(method, params string) string {
		if method == "eth_call" && strings.Contains(params, multicall) {
			return "the call is too large"
		}
		return ""
	})
	for i, err := range checkAll(c, all) {
		if err != nil {
			t.Errorf("payment %d: %v", i, err)
		}
	}
	c.Proxy.Refuse(nil)
	c.Proxy.FailAll(http.StatusBadGateway)
	for _, err := range checkAll(c, signed(c, 5)) {
		if err == nil || x402.ReasonOf(err) != "" {
			t.Errorf("no node answers: %v", err)
		}
	}
}

// Whether payers run code is asked anew for a batch that has waited; account by account where the node can't tell all at once.
func TestBatchThatWaited(t *testing.T) {
	c := newCase(t, startChain(t), options{settings: wallet.Settings{Batch: 120, Linger: 2 * patient}})
	c.Proxy.Refuse(func(method, params string) string {
		if method == "eth_call" && !strings.Contains(params, `"to"`) {
			return "to is missing"
		}
		return ""
	})
	all := crowd(c, 101)
	c.Stall()
	first := settleAll(c, c.Settler, all[:1])
	sent(c, 1)
	rest := settleAll(c, c.Settler, all[1:])
	if txs := sent(c, 2); len(txs[1].Payments) != 100 {
		t.Errorf("the batch carries %d payments", len(txs[1].Payments))
	}
	if n := c.Proxy.Count("eth_getCode"); n < 100 {
		t.Errorf("%d accounts were asked for", n)
	}
	c.H.Chain.Resume()
	first.wantSettled(all[:1])
	rest.wantSettled(all[1:])
	c.WantReceived(101)
}
