package x402_test

import (
	"testing"

	"github.com/caddy-x402/caddy-x402/x402"
)

// A domain that is wrong by one letter makes every signature wrong, so the separators are pinned: each is
// what DOMAIN_SEPARATOR() of the token gives on its chain.
func TestSeparatorsOfKnownNetworks(t *testing.T) {
	want := map[string]string{
		"eip155:8453":  "0x02fa7265e7c5d81118673727957699e4d68f74cd74b7db77da710fe8a2c7834f",
		"eip155:84532": "0x71f17a3b2ff373b803d70a5a07c046c1a2bc8e89c09ef722fcb047abe94c9818",
		"eip155:137":   "0xcaa2ce1a5703ccbe253a34eb3166df60a705c561b44b192061e28f2a985be2ca",
		"eip155:42161": "0x08d11903f8419e68b1b8721bcbe2e9fc68569122a77ef18c216f10b3b5112c78",
		"eip155:1":     "0x06c37168a7db5138defc7866392bb87a741f9b3d104deb5094588ce041cae335",
		"eip155:43114": "0xbbea200329a938bc3438984a49cb0732e66d66d7bd59c127abacc1710e77f7b3",
		"eip155:143":   "0xfe22123edc0dd4aeb912eb7948c5f0e531592c2053b3067612f427db342c93c6",
	}
	networks := x402.Networks()
	if len(networks) != len(want) {
		t.Errorf("%d networks are known, %d are pinned here", len(networks), len(want))
	}
	for _, n := range networks {
		if got := n.Domain().Separator().Hex(); got != want[n.ID] {
			t.Errorf("%s (%s): separator %s, want %s", n.ID, n.V1Name, got, want[n.ID])
		}
	}
}

func TestLookupNetwork(t *testing.T) {
	tests := []struct {
		name    string
		chainID uint64 // 0: not known
		testnet bool
	}{
		{name: "base", chainID: 8453},
		{name: "eip155:8453", chainID: 8453},
		{name: "base-sepolia", chainID: 84532, testnet: true},
		{name: "eip155:84532", chainID: 84532, testnet: true},
		{name: "eip155:42161", chainID: 42161},
		{name: "monad", chainID: 143},
		{name: ""}, // Arbitrum has no version 1 name, and must not be found by that
		{name: "Base"},
		{name: "8453"},
		{name: "eip155:08453"},
		{name: "sepolia"}, // a name of version 1, but its asset is not known here
	}
	for _, tt := range tests {
		n, ok := x402.LookupNetwork(tt.name)
		if ok != (tt.chainID != 0) || n.ChainID != tt.chainID || n.Testnet != tt.testnet {
			t.Errorf("LookupNetwork(%q) = chain %d, testnet %t, %t; want %d, %t", tt.name, n.ChainID, n.Testnet, ok, tt.chainID, tt.testnet)
		}
	}
}

func TestNetworksIsACopy(t *testing.T) {
	x402.Networks()[0].Asset.Name = "mine"
	if n, _ := x402.LookupNetwork("base"); n.Asset.Name != "USD Coin" {
		t.Errorf("a caller changed the table: %q", n.Asset.Name)
	}
}

func TestParseCAIP2(t *testing.T) {
	for _, id := range []string{"eip155:1", "eip155:8453", "eip155:18446744073709551615"} {
		chainID, err := x402.ParseCAIP2(id)
		if err != nil || x402.CAIP2(chainID) != id {
			t.Errorf("ParseCAIP2(%q) = %d, %v", id, chainID, err)
		}
	}
	for _, id := range []string{
		"", "base", "8453", "eip155:", "eip155:0", "eip155:01", "eip155:+1", "eip155:-1", "eip155:0x1",
		"eip155:1 ", "EIP155:1", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", "eip155:18446744073709551616",
	} {
		if chainID, err := x402.ParseCAIP2(id); err == nil {
			t.Errorf("ParseCAIP2(%q) = %d, want an error", id, chainID)
		}
	}
}

func TestV1Name(t *testing.T) {
	for chainID, want := range map[uint64]string{8453: "base", 84532: "base-sepolia", 43113: "avalanche-fuji", 42161: "", 0: ""} {
		if got := x402.V1Name(chainID); got != want {
			t.Errorf("V1Name(%d) = %q, want %q", chainID, got, want)
		}
	}
}
