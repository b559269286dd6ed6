package wallet_test

import (
	"crypto/ecdsa"
	"log/slog"
	"math/big"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
	"github.com/caddy-x402/caddy-x402/settlement/signer"
	"github.com/caddy-x402/caddy-x402/settlement/wallet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, devnet.LeakOptions()...) }

// TestConformance: the wallet passes the suite of all settlers.
func TestConformance(t *testing.T) {
	settlementtest.Run(t, newHarness(t, startChain(t)))
}

func startChain(t *testing.T) *devnet.Chain {
	t.Helper()
	c, err := devnet.Start(t.Context(), devnet.Options{Heartbeat: -1, SafeLag: settlementtest.SafeLag})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func newHarness(t *testing.T, dev *devnet.Chain) *settlementtest.Harness {
	t.Helper()
	return &settlementtest.Harness{
		Chain: dev, Network: devnet.Network(),
		Account: func(i int) *ecdsa.PrivateKey { return devnet.Payer(i).Key },
		New: func(t testing.TB, s settlementtest.Setup) settlement.Settler {
			return start(t, s, options{})
		},
	}
}

type options struct {
	settings wallet.Settings
	logger   *slog.Logger
	now      func() time.Time
	more     []*ecdsa.PrivateKey // wallets beside the case's
}

// start starts a wallet with a chain client of its own; both end with t.
func start(t testing.TB, s settlementtest.Setup, o options) *wallet.Settler {
	t.Helper()
	c, err := chain.New(chain.Config{
		Endpoints: []string{s.URL}, ChainID: devnet.ChainID, PollInterval: 10 * time.Millisecond,
		CallTimeout: time.Minute, Logger: o.logger, Now: o.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	if o.settings.HardBalance == nil {
		o.settings.HardBalance = big.NewInt(1e15)
	}
	if o.settings.Rebroadcast == 0 {
		o.settings.Rebroadcast = 300 * time.Millisecond
	}
	signers := []wallet.Signer{local(t, s.Key)}
	for _, key := range o.more {
		signers = append(signers, local(t, key))
	}
	w, err := wallet.New(wallet.Config{
		Network: devnet.Network(), Signers: signers, Chain: c, Journal: s.Journal, Settings: o.settings, Logger: o.logger, Now: o.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func local(t testing.TB, key *ecdsa.PrivateKey) wallet.Signer {
	t.Helper()
	s, err := signer.NewLocal(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
