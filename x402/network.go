package x402

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ethereum/go-ethereum/common"
)

// Network is an EVM chain with the asset that is paid on it.
type Network struct {
	// ID is the CAIP-2 identifier, such as "eip155:8453".
	ID string
	// V1Name is the network's name in x402 version 1, such as "base"; empty where it has none.
	V1Name  string
	ChainID uint64
	// Testnet networks may be configured with literal keys on the local chain; mainnets never.
	Testnet bool
	Asset   Asset
}

// Asset is an EIP-3009 token. Name and Version are those of its EIP-712 domain, which differ from
// chain to chain and must be right for any signature to be.
type Asset struct {
	Address  common.Address
	Symbol   string
	Name     string
	Version  string
	Decimals uint8
}

// Domain is the EIP-712 domain under which authorizations of n's asset are signed.
func (n Network) Domain() Domain {
	return Domain{Name: n.Asset.Name, Version: n.Asset.Version, ChainID: n.ChainID, Contract: n.Asset.Address}
}

// networks are the chains whose USDC and its domain are known here. Every other EVM chain is
// configured with its own address and domain: a guess would make each signature wrong.
var networks = [...]Network{
	usdc(8453, "USD Coin", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"),
	testnet(usdc(84532, "USDC", "0x036CbD53842c5426634e7929541eC2318f3dCF7e")),
	usdc(137, "USD Coin", "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359"),
	usdc(42161, "USD Coin", "0xaf88d065e77c8cC2239327C5EDb3A432268e5831"),
	usdc(1, "USD Coin", "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"),
	usdc(43114, "USD Coin", "0xB97EF9Ef8734C71904D8002F8b6Bc66Dd9c48a6E"),
	usdc(143, "USDC", "0x754704Bc059F8C67012fEd69BC8A327a5aafb603"),
}

func usdc(chainID uint64, name, address string) Network {
	return Network{
		ID:      CAIP2(chainID),
		V1Name:  V1Name(chainID),
		ChainID: chainID,
		Asset: Asset{
			Address: common.HexToAddress(address), Symbol: "USDC", Name: name, Version: "2", Decimals: 6,
		},
	}
}

func testnet(n Network) Network {
	n.Testnet = true
	return n
}

// v1Chains are the network names that clients of version 1 know.
var v1Chains = [...]struct {
	name    string
	chainID uint64
}{
	{"base", 8453},
	{"base-sepolia", 84532},
	{"ethereum", 1},
	{"sepolia", 11155111},
	{"polygon", 137},
	{"polygon-amoy", 80002},
	{"avalanche", 43114},
	{"avalanche-fuji", 43113},
	{"monad", 143},
	{"sei", 1329},
	{"sei-testnet", 1328},
	{"iotex", 4689},
	{"abstract", 2741},
	{"abstract-testnet", 11124},
	{"peaq", 3338},
	{"story", 1514},
	{"educhain", 41923},
	{"skale-base-sepolia", 324705682},
	{"megaeth", 4326},
	{"stable", 988},
	{"stable-testnet", 2201},
}

// V1Name is the name that version 1 has for a chain, or "" where its clients know none.
func V1Name(chainID uint64) string {
	for _, c := range v1Chains {
		if c.chainID == chainID {
			return c.name
		}
	}
	return ""
}

// v1ChainID is the inverse of V1Name.
func v1ChainID(name string) (uint64, bool) {
	for _, c := range v1Chains {
		if c.name == name {
			return c.chainID, true
		}
	}
	return 0, false
}

// CAIP2 is the identifier of an EVM chain, such as "eip155:8453".
func CAIP2(chainID uint64) string { return evmNamespace + strconv.FormatUint(chainID, 10) }

const evmNamespace = "eip155:"

// ParseCAIP2 gives the chain id in the identifier of an EVM chain. The error says what to write.
func ParseCAIP2(id string) (uint64, error) {
	ref, ok := strings.CutPrefix(id, evmNamespace)
	if !ok {
		return 0, fmt.Errorf("network %q: not an EVM chain; write eip155: and its chain id, such as eip155:8453", id)
	}
	chainID, err := strconv.ParseUint(ref, 10, 64)
	if err != nil || chainID == 0 || CAIP2(chainID) != id {
		return 0, fmt.Errorf("network %q: no chain id after eip155:; write a plain number above 0, such as eip155:8453", id)
	}
	return chainID, nil
}

// LookupNetwork finds a known network by its CAIP-2 identifier or its version 1 name.
func LookupNetwork(nameOrID string) (Network, bool) {
	if nameOrID == "" {
		return Network{}, false
	}
	for _, n := range networks {
		if n.ID == nameOrID || n.V1Name == nameOrID {
			return n, true
		}
	}
	return Network{}, false
}

// Networks lists the known networks; the slice is the caller's.
func Networks() []Network { return append([]Network(nil), networks[:]...) }
