package chain_test

import (
	"testing"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
)

// The sizes of the code of many accounts come with one call, each in its place.
func TestCodeSizes(t *testing.T) {
	dev := startChain(t, devnet.Options{})
	c := newClient(t, chain.Config{Endpoints: []string{dev.URL()}})
	for _, n := range []int{1, 2, 33, 300} {
		accounts := make([]common.Address, n)
		want := make([]uint64, n)
		for i := range accounts {
			accounts[i] = common.BigToAddress(devnet.Payer(i % 5).Key.X)
			if at := [...]common.Address{devnet.Network().Asset.Address, devnet.MulticallAddress}; i%3 == 0 {
				accounts[i] = at[i%2]
				code, err := c.Code(t.Context(), accounts[i])
				check(t, err)
				want[i] = uint64(len(code))
			}
		}
		var sizes []uint64
		q := chain.CodeSizesQuery(accounts, &sizes)
		if _, err := c.Ask(t.Context(), q); err != nil || q.Err != nil {
			t.Fatal(err, q.Err)
		}
		for i := range want {
			if sizes[i] != want[i] || i%3 == 0 && sizes[i] == 0 {
				t.Fatalf("%d accounts: number %d has %d bytes of code, want %d", n, i, sizes[i], want[i])
			}
		}
	}
}
