package client

import (
	"fmt"

	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/x402"
)

// Limit allows to pay with one asset on one network.
type Limit struct {
	// Network names the chain and its asset. The EIP-712 domain in it serves where the offer brings none.
	Network x402.Network
	// Max is the most that one call may spend, in atomic units of the asset.
	Max uint256.Int
}

// Limits allows the same amount, a decimal such as "0.05", of each network's asset.
func Limits(amount string, networks ...x402.Network) ([]Limit, error) {
	limits := make([]Limit, 0, len(networks))
	for _, n := range networks {
		most, err := x402.ParseAmount(amount, n.Asset.Decimals)
		if err != nil {
			return nil, fmt.Errorf("limit on %s: %w", n.ID, err)
		}
		limits = append(limits, Limit{Network: n, Max: most})
	}
	return limits, nil
}

// Testnets are the known networks whose money is worth nothing.
func Testnets() []x402.Network {
	var out []x402.Network
	for _, n := range x402.Networks() {
		if n.Testnet {
			out = append(out, n)
		}
	}
	return out
}
