package wallet_test

import (
	"bytes"
	"errors"
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
	"github.com/caddy-x402/caddy-x402/settlement/wallet"
)

func newCase(t *testing.T, dev *devnet.Chain, o options) *settlementtest.Case {
	t.Helper()
	h := newHarness(t, dev)
	h.New = func(t testing.TB, s settlementtest.Setup) settlement.Settler { return start(t, s, o) }
	return settlementtest.NewCase(t, h)
}

// clock is a clock that can be moved on.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// own is a transaction that the wallet's owner makes by hand, past the journal.
func own(c *settlementtest.Case, nonce uint64) common.Hash {
	c.Helper()
	to := common.HexToAddress("0xbeef")
	return c.Send(c.Wallet, nil, func(tx *types.DynamicFeeTx) { tx.To, tx.Nonce, tx.Gas = &to, nonce, 21_000 })
}

// The wallet was used by hand: the journal's nonce is behind the chain's.
func TestJournalBehindChain(t *testing.T) {
	c := newCase(t, startChain(t), options{})
	first := c.Claimed()
	c.WantSettled(first, c.Settle(first))
	c.Mined(own(c, 1))
	c.Mined(own(c, 2))
	next := c.Claimed()
	c.Settler = c.Start() // knows nothing of the past
	c.WantSettled(next, c.Settle(next))
	if txs := c.WantRecorded(next, 1); txs[0].Nonce != 3 {
		t.Errorf("nonce %d, want 3", txs[0].Nonce)
	}
	c.WantReceived(2)
}

// The nonce of a recorded transaction went to another transaction of the wallet. It is dead, and only then
// a second one is made.
func TestDeadTransactionIsReplaced(t *testing.T) {
	c := newCase(t, startChain(t), options{})
	in := c.Claimed()
	c.Journal.Crash(errors.New("died"))
	if out := c.Settle(in); out.Status != settlement.Unknown {
		t.Fatalf("got %+v", out)
	}
	c.Journal.Crash(nil)
	c.Stall()
	own(c, 0)
	if out := c.Settler.Settle(c.CtxFor(time.Second), in); out.Status != settlement.Unknown {
		t.Fatalf("got %+v", out)
	}
	c.WantRecorded(in, 1) // both can still be mined: no second one
	c.Commit(1)
	if out := c.Resolve(in); out.Status != settlement.Unknown || out.Final {
		t.Errorf("Resolve: got %+v, want unknown: the authorization can still be used", out)
	}
	c.WantRecorded(in, 1)
	c.H.Chain.Resume()
	out := c.Settle(in)
	c.WantSettled(in, out)
	if txs := c.WantRecorded(in, 2); txs[1].Nonce != 1 || txs[1].Hash != out.Transaction {
		t.Errorf("got %+v", txs[1])
	}
	c.WantReceived(1)
}

// A reorganisation takes the block back: the transaction is broadcast again, with an alert, and nobody
// is told that the payment failed.
func TestVanishedReceipt(t *testing.T) {
	var log syncBuffer
	clk := &clock{}
	c := newCase(t, startChain(t), options{now: clk.now, logger: slog.New(slog.NewTextHandler(&log, nil))})
	in := c.Claimed()
	out := c.Settle(in)
	c.WantSettled(in, out)
	c.Proxy.Freeze(in.ClaimBlock)
	// The endpoint alone says so, and it may merely lag: no judgement at first.
	if out := c.Resolve(in); out.Status != settlement.Unknown || !errors.Is(out.Err, settlement.ErrUnavailable) {
		t.Errorf("got %+v, want unknown", out)
	}
	clk.advance(2 * time.Minute)
	sent := c.Proxy.Count("eth_sendRawTransaction")
	if out := c.Resolve(in); out.Status != settlement.Unknown || out.Err == nil || out.Final {
		t.Errorf("got %+v, want unknown with an error", out)
	}
	if c.Proxy.Count("eth_sendRawTransaction") != sent+1 {
		t.Error("the transaction was not broadcast again")
	}
	if !strings.Contains(log.String(), "gone from the chain") {
		t.Errorf("no alert in the log: %s", log.String())
	}
	c.Proxy.Thaw()
	again := c.Resolve(in)
	c.WantSettled(in, again)
	if again.Transaction != out.Transaction {
		t.Errorf("got %+v", again)
	}
}

// Above the ceiling nothing is recorded; a new ceiling is in force at once.
func TestFeeCeiling(t *testing.T) {
	dev := startChain(t)
	c := newCase(t, dev, options{settings: wallet.Settings{MaxFeePerGas: big.NewInt(10)}})
	in := c.Claimed()
	if out := c.Settle(in); out.Status != settlement.Unknown || !errors.Is(out.Err, settlement.ErrUnavailable) {
		t.Errorf("got %+v, want unknown", out)
	}
	c.WantRecorded(in, 0)
	c.Settler.(*wallet.Settler).Reconfigure(wallet.Settings{})
	c.WantSettled(in, c.Settle(in))
}

// Below the hard floor nothing is sent; below the warning everything works, and the log says so.
func TestGasFloors(t *testing.T) {
	var log syncBuffer
	ether := func(n int64) *big.Int { return new(big.Int).Mul(big.NewInt(n), big.NewInt(1e18)) }
	c := newCase(t, startChain(t), options{
		settings: wallet.Settings{WarnBalance: ether(1000), HardBalance: ether(1000)},
		logger:   slog.New(slog.NewTextHandler(&log, nil)),
	})
	in := c.Claimed()
	w := c.Settler.(*wallet.Settler)
	if err := w.Ready(c.Ctx()); !errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("ready below the floor: %v", err)
	}
	if out := c.Settle(in); out.Status != settlement.Unknown || !errors.Is(out.Err, settlement.ErrUnavailable) {
		t.Errorf("got %+v, want unknown", out)
	}
	c.WantRecorded(in, 0)
	w.Reconfigure(wallet.Settings{WarnBalance: ether(1000)})
	c.Must(w.Ready(c.Ctx()))
	c.WantSettled(in, c.Settle(in))
	if !strings.Contains(log.String(), "needs money") {
		t.Errorf("no warning: %s", log.String())
	}
	if b := w.Balances()[0]; b.Wei == nil || b.Wei.Cmp(ether(101)) > 0 || b.At.IsZero() {
		t.Errorf("balance %s at %s", b.Wei, b.At)
	}
	if w.Addresses()[0] != crypto.PubkeyToAddress(c.Wallet.PublicKey) {
		t.Error("another address")
	}
}

// Close lets a settlement end, and afterwards nothing begins.
func TestCloseWaits(t *testing.T) {
	c := newCase(t, startChain(t), options{})
	in := c.Claimed()
	c.Stall()
	result := make(chan settlement.Outcome, 1)
	go func() { result <- c.Settle(in) }()
	c.WaitFor("it is broadcast", func() bool { return c.Proxy.Count("eth_sendRawTransaction") > 0 })
	closed := make(chan error, 1)
	w := c.Settler.(*wallet.Settler)
	go func() { closed <- w.Close() }()
	select {
	case <-closed:
		t.Fatal("closed while a settlement was under way")
	case <-time.After(200 * time.Millisecond):
	}
	c.H.Chain.Resume()
	c.WantSettled(in, <-result)
	c.Must(<-closed)
	_, err := w.Check(c.Ctx(), in)
	out, res := w.Settle(c.Ctx(), in), w.Resolve(c.Ctx(), in)
	for _, err := range []error{err, out.Err, res.Err, w.Ready(c.Ctx())} {
		if !errors.Is(err, settlement.ErrUnavailable) {
			t.Errorf("after Close: %v", err)
		}
	}
}

// What is for another network never gets a signature.
func TestForeignIntent(t *testing.T) {
	c := newCase(t, startChain(t), options{})
	in := c.Claimed()
	in.Network.ChainID = 8453
	if _, err := c.Settler.Check(c.Ctx(), in); err == nil {
		t.Error("checked")
	}
	if out := c.Settle(in); out.Status != settlement.Unknown || out.Err == nil {
		t.Errorf("got %+v", out)
	}
	c.WantRecorded(in, 0)
}
