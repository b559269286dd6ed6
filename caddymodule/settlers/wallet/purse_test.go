package wallet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum/crypto"
	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/caddymodule"
	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
	"github.com/caddy-x402/caddy-x402/x402"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, devnet.LeakOptions()...) }

// chains are a local chain with two endpoints that count.
func chains(t *testing.T) (first, second *settlementtest.Proxy) {
	t.Helper()
	c, err := devnet.Start(t.Context(), devnet.Options{Heartbeat: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return settlementtest.NewProxy(t, c.URL()), settlementtest.NewProxy(t, c.URL())
}

// in is what an app hands to a settler.
func in(t *testing.T, rpc ...*settlementtest.Proxy) caddymodule.SettlerContext {
	c := caddymodule.SettlerContext{Network: devnet.Network(), Local: true, Journal: settlementtest.NewJournal(), Ledger: t.Name()}
	for _, p := range rpc {
		c.RPC = append(c.RPC, p.URL())
	}
	return c
}

// provisioned is a wallet that was provisioned and has joined.
func provisioned(t *testing.T, w *Wallet, c caddymodule.SettlerContext) *Wallet {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	if len(w.Keys)+len(w.SignersRaw) == 0 {
		w.Keys = []string{fmt.Sprintf("%x", crypto.FromECDSA(devnet.Developer(0).Key))}
	}
	if err := w.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	w.log = slog.New(slog.DiscardHandler)
	if _, err := w.Join(ctx, c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { left(t, w) })
	return w
}

func started(t *testing.T, w *Wallet, c caddymodule.SettlerContext) *Wallet {
	t.Helper()
	provisioned(t, w, c)
	if err := w.Start(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return w
}

func left(t *testing.T, w *Wallet) {
	t.Helper()
	if err := w.Leave(); err != nil {
		t.Error(err)
	}
}

// asked is how often the chain was asked about its token since the last call.
func asked(proxies ...*settlementtest.Proxy) func() int {
	before := 0
	return func() int {
		n := -before
		for _, p := range proxies {
			n += p.Count("eth_getCode")
		}
		before += n
		return n
	}
}

// A purse is shared by all configurations of its wallet, and asked about its chain once.
func TestPurseIsShared(t *testing.T) {
	first, second := chains(t)
	news := asked(first, second)
	c := in(t, first)
	a := started(t, new(Wallet), c)
	b := started(t, &Wallet{MaxFee: "2"}, c)
	if a.purse.Value() != b.purse.Value() || news() != 1 {
		t.Error("a reload made another purse, or asked again")
	}
	for name, other := range map[string]func(*caddymodule.SettlerContext){
		"another ledger":                  func(c *caddymodule.SettlerContext) { c.Ledger += " other" },
		"another token":                   func(c *caddymodule.SettlerContext) { c.Network.Asset.Address = devnet.MulticallAddress },
		"another name of the token":       func(c *caddymodule.SettlerContext) { c.Network.Asset.Name = "USD Coin" },
		"another version of the token":    func(c *caddymodule.SettlerContext) { c.Network.Asset.Version = "1" },
		"another chain of the same token": func(c *caddymodule.SettlerContext) { c.Network.ChainID++ },
	} {
		d := c
		other(&d)
		if w := provisioned(t, new(Wallet), d); w.purse.Value() == a.purse.Value() {
			t.Errorf("%s has the same purse", name)
		}
	}
	k := provisioned(t, &Wallet{Keys: []string{fmt.Sprintf("%x", crypto.FromECDSA(devnet.Developer(1).Key))}}, c)
	if k.purse.Value() == a.purse.Value() {
		t.Error("another key has the same purse")
	}
}

// Endpoints and settings are those of the newest configuration that was started, in whatever order configurations come and
// go; one that was only provisioned changes nothing.
func TestPurseFollowsTheNewest(t *testing.T) {
	first, second := chains(t)
	a := started(t, new(Wallet), in(t, first))
	p := a.purse.Value()
	follows := func(when string, proxies ...*settlementtest.Proxy) {
		t.Helper()
		if want := in(t, proxies...).RPC; !slices.Equal(p.rpc, want) {
			t.Errorf("%s: the endpoints are %s, want %s", when, p.rpc, want)
		}
		before := proxies[0].Requests()
		if err := p.Ready(t.Context()); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if proxies[0].Requests() == before {
			t.Errorf("%s: another endpoint was asked", when)
		}
	}
	b := provisioned(t, new(Wallet), in(t, second))
	follows("with another one provisioned", first)
	if err := b.Start(t.Context(), in(t, second)); err != nil {
		t.Fatal(err)
	}
	follows("with another one started", second)
	c := started(t, new(Wallet), in(t, first, second))
	follows("with a third", first, second)
	left(t, b)
	follows("without the second", first, second)
	left(t, c)
	follows("with the first again", first)
	left(t, provisioned(t, new(Wallet), in(t, second)))
	follows("after one that never started", first)
}

// Settings of a configuration that goes are gone with it.
func TestPurseSettings(t *testing.T) {
	first, _ := chains(t)
	a := started(t, new(Wallet), in(t, first))
	p := a.purse.Value()
	b := started(t, &Wallet{MinBalance: "1000000"}, in(t, first))
	if err := p.Ready(t.Context()); !errors.Is(err, settlement.ErrUnavailable) || !strings.Contains(err.Error(), "the floor is") {
		t.Errorf("below its floor the wallet is ready: %v", err)
	}
	left(t, b)
	if err := p.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

// A reload that is refused for what it says of the chain leaves the running configuration verified and at work.
func TestPurseAfterARefusedReload(t *testing.T) {
	first, second := chains(t)
	a := started(t, new(Wallet), in(t, first))
	wrong := in(t, second)
	wrong.Network.Asset.Decimals = 18
	b := provisioned(t, new(Wallet), wrong)
	if b.purse.Value() != a.purse.Value() {
		t.Fatal("another purse")
	}
	err := b.Start(t.Context(), wrong)
	if m, ok := errors.AsType[*chain.MismatchError](err); !ok || m.What != "token decimals" || m.Configured != "18" || m.Chain != "6" {
		t.Errorf("%v", err)
	}
	left(t, b)
	if err := a.purse.Value().Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

// A chain that does not answer is no reason not to start, but nothing is paid before it was found to be the right one. It
// is not asked for every request.
func TestPurseWaitsForItsChain(t *testing.T) {
	first, _ := chains(t)
	first.FailAll(http.StatusBadGateway)
	a := started(t, new(Wallet), in(t, first))
	p := a.purse.Value()
	for range 20 {
		if _, err := p.Check(t.Context(), settlement.Intent{}); !errors.Is(err, settlement.ErrUnavailable) {
			t.Fatalf("a chain that nobody has seen takes payments: %v", err)
		}
	}
	if n := first.Requests(); n > 3 {
		t.Errorf("a chain that is down was asked %d times", n)
	}
	first.SetFault(nil)
	p.mu.Lock()
	p.asked = time.Time{}
	p.mu.Unlock()
	if err := p.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

// A chain that turns out to be another later is as good as none.
func TestPurseOfAnotherChain(t *testing.T) {
	first, _ := chains(t)
	first.FailAll(http.StatusBadGateway)
	wrong := in(t, first)
	wrong.Network.Asset.Version = "1"
	a := started(t, new(Wallet), wrong)
	first.SetFault(nil)
	p := a.purse.Value()
	p.mu.Lock()
	p.asked = time.Time{}
	p.mu.Unlock()
	err := p.Ready(t.Context())
	if _, ok := errors.AsType[*chain.MismatchError](err); !ok || !errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if _, err := p.Check(t.Context(), settlement.Intent{Network: x402.Network{}}); !errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

// Whoever waits for a chain that hangs may leave.
func TestPurseHangingChain(t *testing.T) {
	first, _ := chains(t)
	first.SetFault(func([]string) settlementtest.Fault { return settlementtest.Fault{Delay: time.Minute} })
	c := in(t, first)
	w := provisioned(t, new(Wallet), c)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if err := w.Start(ctx, c); err != nil {
		t.Errorf("a chain that hangs refuses the configuration: %v", err)
	}
	if took := time.Since(begun); took > 30*time.Second {
		t.Errorf("starting took %s", took)
	}
}

// Who looks at the wallets does not wait for a chain, or for signers, that are being asked.
func TestPurseIsSeenWhileItsChainIsAsked(t *testing.T) {
	first, _ := chains(t)
	p := provisioned(t, new(Wallet), in(t, first)).purse.Value()
	p.mu.Lock() // as who asks it does
	defer p.mu.Unlock()
	seen := make(chan caddymodule.WalletStats, 1)
	go func() { seen <- p.WalletStats() }()
	select {
	case s := <-seen:
		if s.Network != devnet.Network().ID || len(s.Wallets) != 1 {
			t.Errorf("%+v", s)
		}
	case <-time.After(30 * time.Second):
		t.Error("metrics wait for a chain that is asked")
	}
}

// The wallet's amounts are exact, and have defaults.
func TestWalletAmounts(t *testing.T) {
	first, _ := chains(t)
	w := provisioned(t, &Wallet{MaxFee: "0.5"}, in(t, first))
	gwei, ether := big.NewInt(1e9), big.NewInt(1e18)
	for name, pair := range map[string][2]*big.Int{
		"max_fee":      {w.settings.MaxFeePerGas, new(big.Int).Div(gwei, big.NewInt(2))},
		"warn_balance": {w.settings.WarnBalance, new(big.Int).Div(ether, big.NewInt(1000))},
		"min_balance":  {w.settings.HardBalance, new(big.Int).Div(ether, big.NewInt(10000))},
	} {
		if pair[0].Cmp(pair[1]) != 0 {
			t.Errorf("%s is %s, want %s", name, pair[0], pair[1])
		}
	}
}
