package chain_test

import (
	"bytes"
	"context"
	"log/slog"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/holiman/uint256"
	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, devnet.LeakOptions()...) }

func startChain(t *testing.T, o devnet.Options) *devnet.Chain {
	t.Helper()
	c, err := devnet.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, c.Close()) })
	return c
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// clock is a clock that only moves when it is told to.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// syncBuffer is where loggers of many goroutines write.
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

type fixture struct {
	*chain.Client
	clock *clock
	log   *syncBuffer
}

func newClient(t *testing.T, cfg chain.Config) fixture {
	t.Helper()
	f := fixture{clock: &clock{at: time.Unix(1_700_000_000, 0)}, log: &syncBuffer{}}
	cfg.Logger = slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg.Now = f.clock.now
	if cfg.PollInterval == 0 {
		cfg.PollInterval = 10 * time.Millisecond
	}
	c, err := chain.New(cfg)
	check(t, err)
	t.Cleanup(func() { check(t, c.Close()) })
	f.Client = c
	return f
}

// transfer is a signed transaction of a payer that moves some wei.
func transfer(t *testing.T, payer int, nonce uint64, change func(*types.DynamicFeeTx)) *types.Transaction {
	t.Helper()
	to := common.HexToAddress("0xbeef")
	inner := &types.DynamicFeeTx{
		ChainID: big.NewInt(devnet.ChainID), Nonce: nonce, To: &to, Value: big.NewInt(1), Gas: 21_000,
		GasTipCap: big.NewInt(1e9), GasFeeCap: big.NewInt(1e11),
	}
	if change != nil {
		change(inner)
	}
	tx, err := types.SignNewTx(devnet.Payer(payer).Key, types.LatestSignerForChainID(inner.ChainID), inner)
	check(t, err)
	return tx
}

func raw(t *testing.T, tx *types.Transaction) []byte {
	t.Helper()
	b, err := tx.MarshalBinary()
	check(t, err)
	return b
}

func mint(t *testing.T, c *devnet.Chain, to common.Address, n uint64) {
	t.Helper()
	check(t, c.Mint(t.Context(), to, uint256.NewInt(n)))
}

func proxies(t *testing.T, c *devnet.Chain, n int) (all []*settlementtest.Proxy, urls []string) {
	t.Helper()
	for range n {
		p := settlementtest.NewProxy(t, c.URL())
		all, urls = append(all, p), append(urls, p.URL())
	}
	return all, urls
}

func ctxFor(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
