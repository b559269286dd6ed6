package bed

import (
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/devnet"
)

// Chain is where payments are made.
type Chain interface {
	// URL is where it speaks JSON-RPC over HTTP.
	URL() string
}

// buyers is how many of devnet's payers have money on every chain.
const buyers = 3

// Kind is a chain that can be started.
type Kind struct {
	Name  string
	Start func(testing.TB) Chain
}

// Chains are ours and the anvil that is installed in the folder dir, each with blocks at once and by the clock.
func Chains(dir string) []Kind {
	ours := func(o devnet.Options) func(testing.TB) Chain {
		return func(t testing.TB) Chain { return Devnet(t, o) }
	}
	theirs := func(blockTime time.Duration) func(testing.TB) Chain {
		return func(t testing.TB) Chain { return startAnvil(t, dir, blockTime) }
	}
	return []Kind{
		{"devnet with blocks at once", ours(devnet.Options{})},
		{"devnet with a block every 2 s", ours(devnet.Options{BlockTime: 2 * time.Second})},
		{"anvil with blocks at once", theirs(0)},
		{"anvil with a block every 2 s", theirs(2 * time.Second)},
	}
}

// Devnet starts our own chain; it ends with the test.
func Devnet(t testing.TB, o devnet.Options) *devnet.Chain {
	t.Helper()
	chain, err := devnet.Start(t.Context(), o)
	if err != nil {
		t.Fatal("starting the chain:", err)
	}
	t.Cleanup(func() { _ = chain.Close() })
	return chain
}
