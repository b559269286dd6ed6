package bed

import (
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/interop/anvil"
)

// startAnvil starts the anvil that npm brought into the folder dir, with some money for each buyer; it ends with the test.
func startAnvil(t testing.TB, dir string, blockTime time.Duration) Chain {
	t.Helper()
	balances := make(map[common.Address]*uint256.Int, buyers)
	for i := range buyers {
		balances[devnet.Payer(i).Address] = devnet.USDC(1000)
	}
	chain, err := anvil.Start(t.Context(), anvil.Options{Dir: dir, BlockTime: blockTime, Balances: balances})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = chain.Close() })
	return chain
}
