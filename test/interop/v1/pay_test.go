//go:build interop_v1

package v1

import (
	"testing"

	"github.com/caddy-x402/caddy-x402/test/interop/bed"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

const network = "base-sepolia"

// An unmodified x402-fetch pays for what it asks, each time with an authorization of its own.
func TestStockClientPays(t *testing.T) {
	bed.Install(t, ".")
	for _, kind := range bed.Chains(".") {
		t.Run(kind.Name, func(t *testing.T) {
			bed.Open(t, kind.Start(t), rig.Options{Upstream: bed.Echo}).Sells(t, ".", network)
		})
	}
}
