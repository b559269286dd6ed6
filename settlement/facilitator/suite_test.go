package facilitator_test

import (
	"context"
	"crypto/ecdsa"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/facilitator"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
	remote "github.com/caddy-x402/caddy-x402/test/facilitator"
	"github.com/caddy-x402/caddy-x402/x402"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, devnet.LeakOptions()...) }

// TestConformance: payments through an honest facilitator pass what of the suite of all settlers is not about a wallet's own
// transactions.
func TestConformance(t *testing.T) {
	settlementtest.RunForeign(t, newHarness(t, startChain(t)))
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
	var mu sync.Mutex
	servers := make(map[common.Address]*remote.Server)
	return &settlementtest.Harness{
		Chain: dev, Network: devnet.Network(),
		Account: func(i int) *ecdsa.PrivateKey { return devnet.Payer(i).Key },
		New: func(t testing.TB, s settlementtest.Setup) settlement.Settler {
			mu.Lock()
			defer mu.Unlock()
			at := crypto.PubkeyToAddress(s.Key.PublicKey)
			if servers[at] == nil { // settlers on one key have one facilitator
				servers[at] = remote.New(t, s.URL, s.Key)
			}
			return begin(t, s.URL, s.Journal, options{patience: 3 * time.Second}, servers[at])
		},
	}
}

type options struct {
	settings facilitator.Settings
	logger   *slog.Logger
	now      func() time.Time
	patience time.Duration
}

// settler is a Settler whose intents need not have an exchange: it makes the one that the payer would have had.
type settler struct{ *facilitator.Settler }

func (s settler) Settle(ctx context.Context, in settlement.Intent) settlement.Outcome {
	if in.Exchange == nil {
		in.Exchange = exchange(in)
	}
	return s.Settler.Settle(ctx, in)
}

// exchange is a payment header of version 2 for in, with a member that our types don't know.
func exchange(in settlement.Intent) *settlement.Exchange {
	r := x402.NewRequirements(in.Network, in.Authorization.To, &in.Authorization.Value, 2*time.Minute, x402.FlowUpfront, "")
	offer := x402.PaymentRequired{X402Version: 2, Resource: x402.ResourceInfo{URL: "https://api.example.com/weather"}}
	header, err := x402.EncodeHeader(offer.Pay(r, &in.Authorization, in.Signature))
	if err != nil {
		return nil
	}
	p, err := x402.DecodePayload(header)
	if err != nil {
		return &settlement.Exchange{Version: 2, Payload: []byte(`{}`), Requirements: r, Resource: offer.Resource}
	}
	raw := append([]byte(`{ "unknown" : [1, 2.50 ],`), p.Raw[1:]...)
	return &settlement.Exchange{Version: 2, Payload: raw, Requirements: r, Resource: offer.Resource}
}

// begin starts a settler with a chain client of its own on those facilitators; both end with t.
func begin(t testing.TB, rpc string, journal settlement.Journal, o options, servers ...*remote.Server) settler {
	t.Helper()
	for _, s := range servers {
		o.settings.Facilitators = append(o.settings.Facilitators, facilitator.Facilitator{URL: s.URL()})
	}
	return start(t, rpc, journal, o)
}

func start(t testing.TB, rpc string, journal settlement.Journal, o options) settler {
	t.Helper()
	c, err := chain.New(chain.Config{
		Endpoints: []string{rpc}, ChainID: devnet.ChainID, PollInterval: 10 * time.Millisecond, CallTimeout: time.Minute, Logger: o.logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	if o.patience == 0 {
		o.patience = 300 * time.Millisecond
	}
	s, err := facilitator.New(facilitator.Config{
		Network: devnet.Network(), Chain: c, Journal: journal, Settings: o.settings, Logger: o.logger, Now: o.now,
		Poll: 20 * time.Millisecond, Patience: o.patience,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return settler{s}
}

// shop is a chain with facilitators, and a case of the suite whose settler asks them in their order.
type shop struct {
	*settlementtest.Case
	dev     *devnet.Chain
	servers []*remote.Server
}

func open(t *testing.T, n int, o options) *shop {
	t.Helper()
	s := &shop{dev: startChain(t)}
	h := newHarness(t, s.dev)
	for i := range n {
		s.servers = append(s.servers, remote.New(t, s.dev.URL(), devnet.Developer(i).Key))
	}
	h.New = func(t testing.TB, set settlementtest.Setup) settlement.Settler {
		return begin(t, set.URL, set.Journal, o, s.servers...)
	}
	s.Case = settlementtest.NewCase(t, h)
	return s
}

// settled counts the requests to /settle of the i-th facilitator.
func (s *shop) settled(i int) int { return len(s.servers[i].Requests("/settle")) }

// asked says whether the i-th facilitator was asked to settle n times, and had a moment to answer.
func (s *shop) asked(i, n int) func() bool {
	var since time.Time
	return func() bool {
		if since.IsZero() && s.settled(i) >= n {
			since = time.Now()
		}
		return !since.IsZero() && time.Since(since) > 500*time.Millisecond
	}
}

// does makes a facilitator answer /settle with f, and everything else honestly.
func does(s *remote.Server, f func(*remote.Call) remote.Reply) {
	s.Behave(func(c *remote.Call) remote.Reply {
		if c.Path == "/settle" {
			return f(c)
		}
		return c.Honest()
	})
}

func status(code int) func(*remote.Call) remote.Reply {
	return func(*remote.Call) remote.Reply { return remote.Reply{Status: code, Body: http.StatusText(code)} }
}
