package chain_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Verify tells which of the configured facts is not the chain's.
func TestVerify(t *testing.T) {
	dev := startChain(t, devnet.Options{})
	c := newClient(t, chain.Config{Endpoints: []string{dev.URL()}})
	cases := []struct {
		what, chain string
		change      func(*x402.Network)
	}{
		{"", "", func(*x402.Network) {}},
		{"chain id", "84532", func(n *x402.Network) { n.ChainID = 8453 }},
		{"token name", `"USDC"`, func(n *x402.Network) { n.Asset.Name = "USD Coin" }},
		{"token version", `"2"`, func(n *x402.Network) { n.Asset.Version = "1" }},
		{"token decimals", "6", func(n *x402.Network) { n.Asset.Decimals = 18 }},
		{"token", "no contract", func(n *x402.Network) { n.Asset.Address = common.HexToAddress("0xbeef") }},
		{"token name", "no such function", func(n *x402.Network) { n.Asset.Address = devnet.MulticallAddress }},
	}
	for _, tc := range cases {
		n := devnet.Network()
		tc.change(&n)
		err := c.Verify(t.Context(), n)
		m, ok := errors.AsType[*chain.MismatchError](err)
		switch {
		case tc.what == "":
			check(t, err)
		case !ok || m.What != tc.what || !strings.Contains(m.Chain, tc.chain):
			t.Errorf("%s: got %v", tc.what, err)
		}
	}
}

func TestVerifyUnreachable(t *testing.T) {
	dev := startChain(t, devnet.Options{})
	p, urls := proxies(t, dev, 2)
	c := newClient(t, chain.Config{Endpoints: urls})
	p[0].FailAll(500)
	check(t, c.Verify(t.Context(), devnet.Network())) // one is enough
	p[1].FailAll(500)
	if err := c.Verify(t.Context(), devnet.Network()); !errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

// A call that fails on chain is an answer, and tells the reason; an endpoint that fails is none.
func TestCallTellsRevertsFromOutages(t *testing.T) {
	dev := startChain(t, devnet.Options{})
	p, urls := proxies(t, dev, 1)
	c := newClient(t, chain.Config{Endpoints: urls})
	a := x402.Authorization{From: devnet.Payer(0).Address, Nonce: common.Hash{1}}
	a.ValidBefore.SetUint64(1)
	m := chain.Message{From: a.From, To: devnet.TokenAddress, Data: a.TransferCalldata(make([]byte, 65)), Gas: 200_000}
	_, err := c.Call(t.Context(), m)
	if re, ok := errors.AsType[*chain.RevertError](err); !ok || re.Reason != "FiatTokenV2: authorization is expired" {
		t.Errorf("got %v", err)
	}
	m.Gas = 22_000
	_, err = c.Call(t.Context(), m)
	if re, ok := errors.AsType[*chain.RevertError](err); !ok || !strings.Contains(re.Reason, "gas") {
		t.Errorf("with too little gas: got %v", err)
	}
	_, err = c.EstimateGas(t.Context(), m)
	if _, ok := errors.AsType[*chain.RevertError](err); !ok {
		t.Errorf("estimate: got %v", err)
	}
	p[0].Refuse(func(method, _ string) string {
		if method == "eth_call" {
			return "project rate limit exceeded"
		}
		return ""
	})
	_, err = c.Call(t.Context(), m)
	if _, ok := errors.AsType[*chain.RevertError](err); ok || !errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("outage: got %v", err)
	}
}

// Where the node knows no safe block, one far enough below the head is.
func TestSafe(t *testing.T) {
	dev := startChain(t, devnet.Options{SafeLag: 2, Heartbeat: -1})
	p, urls := proxies(t, dev, 1)
	c := newClient(t, chain.Config{Endpoints: urls, SafeDepth: 5})
	for range 9 {
		check(t, dev.Commit())
	}
	head, err := c.Head(t.Context())
	check(t, err)
	safe, err := c.Safe(t.Context())
	check(t, err)
	if safe.Number != head.Number-2 {
		t.Errorf("safe is %d at head %d, want the node's own", safe.Number, head.Number)
	}
	p[0].Refuse(func(method, params string) string {
		if strings.Contains(params, "safe") {
			return "unknown block"
		}
		return ""
	})
	knew := safe
	for range 9 { // a node that knew one has not forgotten what safe means
		check(t, dev.Commit())
	}
	head, err = c.Head(t.Context())
	check(t, err)
	if safe, err = c.Safe(t.Context()); err != nil || safe.Hash != knew.Hash {
		t.Errorf("safe is %d at head %d (%v), want %d", safe.Number, head.Number, err, knew.Number)
	}
	if _, safe, err = c.Ends(t.Context()); err != nil || safe.Hash != knew.Hash {
		t.Errorf("at the other end safe is %d (%v), want %d", safe.Number, err, knew.Number)
	}
	never := newClient(t, chain.Config{Endpoints: urls, SafeDepth: 5})
	if safe, err = never.Safe(t.Context()); err != nil || safe.Number != head.Number-5 || safe.Hash == (common.Hash{}) {
		t.Errorf("safe is %d at head %d (%v), want 5 below", safe.Number, head.Number, err)
	}
}

// A transaction goes to all endpoints, and each kind of answer is told apart.
func TestSendRaw(t *testing.T) {
	dev := startChain(t, devnet.Options{})
	dev.Stall()
	p, urls := proxies(t, dev, 2)
	c := newClient(t, chain.Config{Endpoints: urls})
	first := transfer(t, 0, 0, nil)
	send := func(tx *types.Transaction, want chain.SendStatus) error {
		t.Helper()
		got, err := c.SendRaw(t.Context(), raw(t, tx))
		if got != want || (err == nil) != want.Taken() {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
		return err
	}
	if got, err := c.SendRaw(t.Context(), raw(t, first)); err != nil || !got.Taken() {
		t.Fatalf("got %s, %v", got, err)
	}
	send(first, chain.Known)
	send(transfer(t, 0, 0, func(tx *types.DynamicFeeTx) { tx.Gas++ }), chain.Outbid)
	send(transfer(t, 2000, 0, nil), chain.Insufficient)
	send(transfer(t, 0, 1, func(tx *types.DynamicFeeTx) { tx.Gas = 20_000 }), chain.Refused)
	check(t, dev.Commit())
	send(first, chain.NonceTooLow)
	if a, b := p[0].Count("eth_sendRawTransaction"), p[1].Count("eth_sendRawTransaction"); a < 6 || a != b {
		t.Errorf("the endpoints got %d and %d transactions, want all to go to both", a, b)
	}
	p[0].FailAll(500)
	if got, err := c.SendRaw(t.Context(), raw(t, transfer(t, 0, 1, nil))); err != nil || got != chain.Accepted {
		t.Errorf("one endpoint is down: got %s, %v", got, err)
	}
	p[1].FailOn("eth_sendRawTransaction", settlementtest.Fault{DropAnswer: true})
	third := transfer(t, 0, 2, nil)
	if _, err := c.SendRaw(t.Context(), raw(t, third)); !errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("the answer was lost: got %v, want ErrUnavailable", err)
	}
	check(t, dev.Commit())
	if r, err := c.Receipt(t.Context(), third.Hash()); err != nil || r == nil || !r.OK {
		t.Errorf("the node had the transaction all the same: %v, %v", r, err)
	}
}

// Two hundred who wait cost no more questions for the head than one, and one batch of receipts per block.
func TestAwaitReceiptShared(t *testing.T) {
	dev := startChain(t, devnet.Options{Heartbeat: -1})
	dev.Stall()
	p, urls := proxies(t, dev, 1)
	c := newClient(t, chain.Config{Endpoints: urls, PollInterval: 20 * time.Millisecond})
	const n = 200
	var wg sync.WaitGroup
	for i := range n {
		tx := transfer(t, i, 0, nil)
		if _, err := c.SendRaw(t.Context(), raw(t, tx)); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			r, err := c.AwaitReceipt(ctxFor(t, 2*time.Minute), common.Hash{9}, tx.Hash())
			if err != nil || r.Transaction != tx.Hash() || !r.OK {
				t.Errorf("payment %d: %v, %v", i, r, err)
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	before := p[0].Requests()
	start := time.Now()
	time.Sleep(300 * time.Millisecond)
	if polls := p[0].Requests() - before; polls > int(time.Since(start)/(20*time.Millisecond))+2 {
		t.Errorf("%d requests while nothing happened", polls)
	}
	receipts := p[0].Count("eth_getTransactionReceipt")
	dev.Resume()
	check(t, dev.Commit())
	wg.Wait()
	if asked := p[0].Count("eth_getTransactionReceipt") - receipts; asked > 5*(n+1) {
		t.Errorf("%d receipts were asked for, for %d transactions", asked, n)
	}
	idle := p[0].Requests()
	time.Sleep(200 * time.Millisecond)
	if more := p[0].Requests() - idle; more > 2 {
		t.Errorf("%d requests although nobody waits", more)
	}
}

func TestAwaitReceiptGivesUpWithContext(t *testing.T) {
	dev := startChain(t, devnet.Options{})
	p, urls := proxies(t, dev, 1)
	c := newClient(t, chain.Config{Endpoints: urls})
	p[0].FailAll(500)
	ctx := ctxFor(t, 100*time.Millisecond)
	if _, err := c.AwaitReceipt(ctx, common.Hash{1}); !errors.Is(err, ctx.Err()) || err == nil {
		t.Errorf("got %v", err)
	}
}

// Endpoints that allow few blocks per question are asked more often, and nothing is missed.
func TestLogsInParts(t *testing.T) {
	dev := startChain(t, devnet.Options{Heartbeat: -1})
	p, urls := proxies(t, dev, 1)
	c := newClient(t, chain.Config{Endpoints: urls})
	to := devnet.Payer(0).Address
	start, err := c.Head(t.Context())
	check(t, err)
	for range 4 {
		mint(t, dev, to, 5)
		for range 3 {
			check(t, dev.Commit())
		}
	}
	head, err := c.Head(t.Context())
	check(t, err)
	refused := 0
	var mu sync.Mutex
	p[0].Refuse(func(method, _ string) string {
		mu.Lock()
		defer mu.Unlock()
		if method == "eth_getLogs" && refused < 2 {
			refused++
			return "block range too large"
		}
		return ""
	})
	f := chain.Filter{
		Address: devnet.TokenAddress, From: start.Number + 1, To: head.Number,
		Topics: [][]common.Hash{{x402.TopicTransfer}, nil, {common.BytesToHash(to[:])}},
	}
	logs, err := c.Logs(t.Context(), f)
	check(t, err)
	if len(logs) != 4 {
		t.Errorf("%d logs, want 4", len(logs))
	}
	if n := p[0].Count("eth_getLogs"); n < 5 {
		t.Errorf("%d questions, want the range in parts", n)
	}
	p[0].Refuse(func(method, _ string) string {
		if method == "eth_getLogs" {
			return "no logs today"
		}
		return ""
	})
	if logs, err = c.Logs(t.Context(), f); !errors.Is(err, settlement.ErrUnavailable) || logs != nil {
		t.Errorf("got %d logs, %v; want an error, never a part", len(logs), err)
	}
}

func TestCounts(t *testing.T) {
	dev := startChain(t, devnet.Options{})
	dev.Stall()
	c := newClient(t, chain.Config{Endpoints: []string{dev.URL()}})
	if _, err := c.SendRaw(t.Context(), raw(t, transfer(t, 0, 0, nil))); err != nil {
		t.Fatal(err)
	}
	mined, pending, err := c.TransactionCount(t.Context(), devnet.Payer(0).Address)
	if err != nil || mined != 0 || pending != 1 {
		t.Errorf("got %d, %d, %v", mined, pending, err)
	}
	var fees chain.Fees
	_, err = c.Ask(t.Context(), fees.Queries()...)
	check(t, err)
	maxFee, tip, err := fees.Result()
	check(t, err)
	if tip.Sign() <= 0 || maxFee.Cmp(tip) <= 0 {
		t.Errorf("fees: %s, %s", maxFee, tip)
	}
}
