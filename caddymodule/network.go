package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Network is one chain on which payments are accepted, and the asset that is paid there.
type Network struct {
	// The network's name, such as `base` or `base-sepolia`, or its CAIP-2 identifier, such as `eip155:8453`. Any other EVM
	// chain is configured by its CAIP-2 identifier and an `asset`.
	Network string `json:"network"`

	// The address that payments go to.
	PayTo string `json:"pay_to"`

	// The addresses of RPC endpoints, in the order in which they are asked; placeholders are replaced.
	RPC []string `json:"rpc"`

	// The asset, where it is not the network's USDC.
	Asset *Asset `json:"asset,omitempty"`

	// How much payers may owe here, where a handler has the flow `deferred`. Default: nothing.
	Credit *Credit `json:"credit,omitempty"`

	// How deep the transfers of payments must lie on the chain before they count, by rising amounts. Default: `latest` for all.
	Finality []*Finality `json:"finality,omitempty"`

	// Who moves the money.
	SettlerRaw json.RawMessage `json:"settler,omitempty" caddy:"namespace=x402.settlers inline_key=settler"`

	network x402.Network
	rpc     []string
	settler SettlerModule
	context SettlerContext
}

// Asset is an EIP-3009 token.
type Asset struct {
	// The token contract's address.
	Address string `json:"address"`
	// What people call it. Default: USDC.
	Symbol string `json:"symbol,omitempty"`
	// The name in the token's EIP-712 domain, such as `USD Coin`.
	Name string `json:"name"`
	// The version in the token's EIP-712 domain, such as `2`.
	Version string `json:"version"`
	// The number of decimals. Default: 6.
	Decimals *uint8 `json:"decimals,omitempty"`
}

// SettlerContext is what a settler module is given when it is provisioned.
type SettlerContext struct {
	Network x402.Network
	// RPC are the resolved addresses of endpoints. They may hold secrets.
	RPC []string
	// Local: the chain is a test network on this machine.
	Local   bool
	Journal settlement.Journal
	// Ledger names the ledger behind Journal.
	Ledger string
}

// SettlerModule is what a module in the namespace x402.settlers offers.
type SettlerModule interface {
	// Join gives the settler. It is called while provisioning: it opens nothing and asks nobody.
	Join(caddy.Context, SettlerContext) (settlement.Settler, error)
	// Start puts this configuration's settings in force, and asks the chain whether it is the configured one, unless that is known. A chain that does not answer is no error.
	Start(context.Context, SettlerContext) error
	// Leave undoes Join, if that was called.
	Leave() error
}

// networksOf are the networks of payees, in their order.
func networksOf(payees []*paywall.Payee) []x402.Network {
	var list []x402.Network
	for _, y := range payees {
		list = append(list, y.Network)
	}
	return list
}

// moduleName is what a module is called in its namespace; empty: it is none of Caddy's.
func moduleName(v any) string {
	m, ok := v.(caddy.Module)
	if !ok {
		return ""
	}
	return m.CaddyModule().ID.Name()
}

func (n *Network) name(i int) string {
	if n.Network == "" {
		return fmt.Sprintf("number %d", i+1)
	}
	return n.Network
}

func (n *Network) provision(ctx caddy.Context, a *App) (*paywall.Payee, error) {
	if err := n.resolveNetwork(); err != nil {
		return nil, err
	}
	payTo, err := address("pay_to", n.PayTo)
	if err != nil {
		return nil, err
	}
	for _, raw := range n.RPC {
		u, err := endpoint(raw)
		if err != nil {
			return nil, err
		}
		n.rpc = append(n.rpc, u)
	}
	if len(n.rpc) == 0 {
		return nil, errors.New("rpc is missing: the address of an endpoint of the chain, such as {env.BASE_RPC_URL}")
	}
	settler, err := n.provisionSettler(ctx, a)
	if err != nil {
		return nil, err
	}
	lending, err := n.Credit.provision(n.network.Asset)
	if err != nil {
		return nil, err
	}
	if _, ok := settler.(settlement.Balancer); !ok && n.Credit != nil {
		return nil, errors.New("credit has no meaning with this settler: nothing is lent by one that can't read what payers have; with " +
			"`wallet {env.GAS_WALLET_PRIVATE_KEY}` it has")
	}
	finality, err := demands(n.Finality, n.network.Asset.Decimals)
	if err != nil {
		return nil, err
	}
	return &paywall.Payee{Network: n.network, PayTo: payTo, Settler: settler, Lending: lending, Finality: finality}, nil
}

func (n *Network) provisionSettler(ctx caddy.Context, a *App) (settlement.Settler, error) {
	if n.SettlerRaw == nil {
		return nil, errors.New("nobody moves the money: write `wallet {env.GAS_WALLET_PRIVATE_KEY}`, or `facilitator https://…`")
	}
	mod, err := ctx.LoadModule(n, "SettlerRaw")
	if err != nil {
		return nil, fmt.Errorf("loading the settler: %w", err)
	}
	m, ok := mod.(SettlerModule)
	if !ok {
		return nil, fmt.Errorf("the settler is a %T, which is no caddymodule.SettlerModule", mod)
	}
	n.settler = m
	n.context = SettlerContext{
		Network: n.network, RPC: n.rpc, Local: n.local(),
		Journal: &journal{slot: a.engine.value, app: a}, Ledger: a.storeID,
	}
	return m.Join(ctx, n.context)
}

func (n *Network) resolveNetwork() error {
	known, ok := x402.LookupNetwork(n.Network)
	switch {
	case ok:
		n.network = known
	case n.Network == "":
		return errors.New("network is missing: its name, such as base, or its CAIP-2 identifier, such as eip155:8453")
	case n.Asset == nil:
		return fmt.Errorf("%q is not a network that is known here; write its CAIP-2 identifier, such as eip155:8453, and an asset", n.Network)
	default:
		id, err := x402.ParseCAIP2(n.Network)
		if err != nil {
			return fmt.Errorf("%q is not a network: %w", n.Network, err)
		}
		n.network = x402.Network{ID: x402.CAIP2(id), V1Name: x402.V1Name(id), ChainID: id}
	}
	if n.Asset == nil {
		return nil
	}
	at, err := address("asset", n.Asset.Address)
	if err != nil {
		return err
	}
	if n.Asset.Name == "" || n.Asset.Version == "" {
		return errors.New("asset: name and version of its EIP-712 domain are missing; the token's contract tells them")
	}
	n.network.Asset = x402.Asset{Address: at, Symbol: n.Asset.Symbol, Name: n.Asset.Name, Version: n.Asset.Version, Decimals: 6}
	if n.Asset.Symbol == "" {
		n.network.Asset.Symbol = "USDC"
	}
	if n.Asset.Decimals != nil {
		n.network.Asset.Decimals = *n.Asset.Decimals
	}
	return nil
}

// address reads an address. One in mixed case must have the checksum of EIP-55: a typing error would send the money away.
func address(what, s string) (common.Address, error) {
	configured := s
	s, err := resolve(what, configured)
	if err != nil {
		return common.Address{}, err
	}
	if !common.IsHexAddress(s) || !strings.HasPrefix(s, "0x") {
		return common.Address{}, fmt.Errorf("%s is not an address; it must be 0x and 40 hexadecimal digits", mistaken(what, configured))
	}
	a := common.HexToAddress(s)
	digits := s[2:]
	if mixed := digits != strings.ToLower(digits) && digits != strings.ToUpper(digits); mixed && a.Hex() != s {
		return common.Address{}, fmt.Errorf("%s %s has a wrong checksum (EIP-55), so a digit is probably wrong; check it, or write it in lower case", what, s)
	}
	if a == (common.Address{}) {
		return a, fmt.Errorf("%s is the zero address", what)
	}
	return a, nil
}

// mistaken names what is not an address. It may be a private key that was put into the wrong place: what came from a
// placeholder, and what is longer than an address, is not shown.
func mistaken(what, configured string) string {
	switch {
	case isPlaceholder(configured):
		return what + " " + placeholderName(configured)
	case len(configured) > 2+2*common.AddressLength:
		return what
	}
	return fmt.Sprintf("%s %q", what, configured)
}

// endpoint resolves the address of an RPC endpoint. It may hold a key, so errors don't show it.
func endpoint(raw string) (string, error) {
	s, err := resolve("rpc", raw)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", errors.New("rpc: an endpoint must be an address that begins with https:// (or http://)")
	}
	return s, nil
}

// local reports whether the chain is a test network whose endpoints are all on this machine.
func (n *Network) local() bool {
	if !n.network.Testnet {
		return false
	}
	for _, s := range n.rpc {
		u, err := url.Parse(s)
		if err != nil {
			return false
		}
		ip := net.ParseIP(u.Hostname())
		if u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return false
		}
	}
	return len(n.rpc) > 0
}

func (n *Network) start(ctx context.Context) error { return n.settler.Start(ctx, n.context) }

func (n *Network) cleanup() error {
	if n == nil || n.settler == nil {
		return nil
	}
	return n.settler.Leave()
}
