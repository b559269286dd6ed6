// Package rig is what tests that cross rooms stand on: a local chain, an upstream that counts, and a real Caddy with the
// paywall in front of it.
package rig

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard" // the Caddy that users have
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	_ "github.com/caddy-x402/caddy-x402" // the modules under test
	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/service"
)

// PayTo is the seller's address. It has nothing at the beginning.
var PayTo = common.HexToAddress("0x209693Bc6afc0C5328bA36FaF03C514EF312287C")

// Rig is a chain, an upstream and a Caddy.
type Rig struct {
	T        testing.TB
	Chain    *devnet.Chain
	Upstream *Upstream
	// Dir holds the ledger and Caddy's storage.
	Dir string
	// Addr is where Caddy listens, host and port.
	Addr string
}

// Options of a Rig.
type Options struct {
	// Chain is one that there is already, and that others use; default: one of its own.
	Chain *devnet.Chain
	// BlockTime is the chain's; 0: a block as soon as a transaction waits.
	BlockTime time.Duration
	// SafeLag is how many blocks the chain's "safe" block is behind its head; 0: none.
	SafeLag uint64
	// Site is what stands in the site's block; default: one price of $0.01 for everything, and reverse_proxy.
	// {upstream} is replaced by the upstream's address, {rig_port} by the port that Caddy listens on.
	Site string
	// App is added to the global option x402.
	App string
	// Store is what stands after `store`; default: sqlite in the rig's folder.
	Store string
	// Global is added to the global options.
	Global string
	// RPC replaces the chain's endpoint.
	RPC string
	// Refund is what is said of refunds; default: `refunds off`.
	Refund string
	// Settler is who settles; default: a gas wallet of a development account.
	Settler string
	// Upstream answers paid requests; default: Echo.
	Upstream http.HandlerFunc
}

// DefaultSite is what a seller writes first.
const DefaultSite = `
	x402 $0.01
	x402_service
	reverse_proxy {upstream}
`

// New starts everything; it ends with the test.
func New(t testing.TB, o Options) *Rig {
	t.Helper()
	if o.Chain == nil {
		chain, err := devnet.Start(t.Context(), devnet.Options{BlockTime: o.BlockTime, SafeLag: o.SafeLag})
		if err != nil {
			t.Fatal("starting the chain:", err)
		}
		t.Cleanup(func() { _ = chain.Close() })
		o.Chain = chain
	}
	r := &Rig{T: t, Chain: o.Chain, Dir: t.TempDir(), Upstream: NewUpstream(t, o.Upstream), Addr: FreeAddr(t)}
	r.Load(o)
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error("stopping Caddy:", err)
		}
		if left := leftovers(); left != "" {
			t.Error("goroutines of ours outlived Caddy:\n" + left)
		}
	})
	return r
}

// Load makes Caddy load the configuration of o; a test that reloads calls it again.
func (r *Rig) Load(o Options) {
	r.T.Helper()
	if err := r.TryLoad(o); err != nil {
		r.T.Fatal(err)
	}
}

// TryLoad is Load for configurations that may be refused.
func (r *Rig) TryLoad(o Options) error {
	return LoadText(r.Caddyfile(o))
}

// LoadText makes Caddy load a Caddyfile.
func LoadText(text string) error {
	config, err := Adapt(text)
	if err != nil {
		return err
	}
	return reload(config)
}

// Adapt turns a Caddyfile into JSON.
func Adapt(text string) ([]byte, error) {
	adapter := caddyconfig.GetAdapter("caddyfile")
	config, _, err := adapter.Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return nil, fmt.Errorf("adapting: %w", err)
	}
	return config, nil
}

// Caddyfile is the whole configuration of o.
func (r *Rig) Caddyfile(o Options) string {
	if o.RPC == "" {
		o.RPC = r.Chain.URL()
	}
	return Caddyfile(o, r.Dir, r.Addr, r.Upstream.Addr())
}

// Caddyfile is the configuration of o for a Caddy that keeps its files in dir and listens on addr.
func Caddyfile(o Options, dir, addr, upstream string) string {
	site := o.Site
	if site == "" {
		site = DefaultSite
	}
	if o.Store == "" {
		o.Store = "sqlite " + filepath.Join(dir, "ledger.db")
	}
	if o.Settler == "" {
		o.Settler = fmt.Sprintf("wallet 0x%x", GasKey())
	}
	if o.Refund == "" {
		o.Refund = "refunds off"
	}
	_, port, _ := net.SplitHostPort(addr)
	return strings.NewReplacer("{upstream}", upstream, "{rig_port}", port).Replace(fmt.Sprintf(`{
	admin off
	persist_config off
	auto_https off
	default_bind 127.0.0.1
	grace_period 10s
	storage file_system %s
	log default {
		level {$RIG_LOG_LEVEL}
		output stderr
	}
	%s
	x402 {
		network base-sepolia
		pay_to %s
		rpc %s
		%s
		%s
		store %s
		%s
	}
}
http://%s {
%s
}
`, filepath.Join(dir, "storage"), o.Global, PayTo, o.RPC, o.Settler, o.Refund, o.Store, o.App, addr, site))
}

func init() {
	if os.Getenv("RIG_LOG_LEVEL") == "" {
		_ = os.Setenv("RIG_LOG_LEVEL", "ERROR")
	}
}

// GasKey is the key of the gas wallet, a well-known development account.
func GasKey() []byte { return crypto.FromECDSA(devnet.Developer(0).Key) }

// URL is the address of a path behind the paywall.
func (r *Rig) URL(path string) string { return "http://" + r.Addr + path }

// Balance is how much of the token an account has, in atomic units.
func (r *Rig) Balance(of common.Address) *uint256.Int {
	r.T.Helper()
	b, err := r.Chain.TokenBalance(context.WithoutCancel(r.T.Context()), of)
	if err != nil {
		r.T.Fatal("reading a balance:", err)
	}
	return b
}

// Earned is how much the seller has received, in atomic units.
func (r *Rig) Earned() uint64 { return r.Balance(PayTo).Uint64() }

// FreeAddr is a loopback address that nobody listens on.
func FreeAddr(t testing.TB) string {
	t.Helper()
	port, err := service.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
