package doctor

import (
	"context"
	"fmt"
	"math/big"
)

func walletItems() []Item {
	return []Item{
		{
			ID: "settlement.mode", Title: "For each network it is decided who moves the money",
			Why: "A gas wallet must be fed and watched; a facilitator does that, and is somebody to depend on.",
			Do:  "Write `wallet {env.GAS_WALLET_PRIVATE_KEY}`, or `facilitator https://…`.",
			look: func(_ context.Context, s *Subject) Verdict {
				for i := range s.Networks {
					if s.Networks[i].Settler == "" {
						return bad("nobody moves the money on %s", s.Networks[i].ID)
					}
				}
				if len(s.Networks) == 0 {
					return bad("there is no network")
				}
				return good("%s", s.Networks[0].Settler)
			},
		},
		{
			ID: "wallet.apart", Title: "Gas wallet, refund wallet and pay_to are three different addresses",
			Why:  "A key that stands on a server should open as little as possible: no earnings, and for gas no refunds.",
			Do:   "Make a wallet for each purpose, used for nothing else.",
			look: lookApart,
		},
		{
			ID: "wallet.gas", Title: "The gas wallets have ether for a while, and not much more", Depth: Live,
			Why:  "Without gas nothing can be settled, and requests get 503; what is too much is a thief's.",
			Do:   "Send ether to the address that is named, and set `warn_balance` to what a day needs; watch the alerts X402GasLow and X402GasRunway.",
			look: lookGas,
		},
		{
			ID: "wallet.allowed", Title: "The asset's issuer has shut out none of your addresses", Depth: Live,
			Why:  "A blacklisted address can't be paid: every settlement fails, and what a shut out refund wallet has is frozen.",
			Do:   "Take another address for what is named; and ask the issuer, Circle for USDC, why.",
			look: lookAllowed,
		},
	}
}

func lookApart(_ context.Context, s *Subject) Verdict {
	for i, a := range s.Wallets {
		for _, b := range s.Wallets[:i] {
			if a.Address == b.Address && a.Role != b.Role {
				return bad("%s is %s and %s", a.Address, b.Role, a.Role)
			}
		}
	}
	return good("addresses: %d", len(s.Wallets))
}

// mostGas is what a wallet should not have beyond, where it is real money: ten ether.
var mostGas = new(big.Int).Mul(big.NewInt(10), big.NewInt(1e18))

func lookGas(ctx context.Context, s *Subject) Verdict {
	seen := map[string]bool{} // networks
	v := Verdict{}
	for _, w := range s.Wallets {
		n := s.network(w.Network)
		if w.Role != "gas" || n == nil {
			continue
		}
		wei, err := s.Live.Chains[n.ID].Ether(ctx, w.Address)
		switch {
		case err != nil:
			return bad("%s on %s: %v", w.Address, n.ID, err)
		case wei.Cmp(orDefault(n.WarnWei)) < 0:
			return bad("%s on %s has %s ether, less than warn_balance", w.Address, n.ID, ether(wei))
		case !n.Testnet && wei.Cmp(mostGas) > 0:
			v = warn("%s on %s has %s ether, more than a hot wallet should", w.Address, n.ID, ether(wei))
		}
		seen[n.ID] = true
	}
	if v.Status != "" {
		return v
	}
	for i := range s.Networks {
		if n := &s.Networks[i]; n.Plain && !seen[n.ID] {
			return warn("the addresses of the gas wallets of %s are not known here: their keys are kept elsewhere", n.ID)
		}
	}
	if len(seen) == 0 {
		return skip("facilitators pay the gas")
	}
	return good("networks whose wallets have enough: %d", len(seen))
}

// orDefault is the least that counts as enough: a thousandth of an ether, unless something else is said.
func orDefault(wei *big.Int) *big.Int {
	if wei == nil {
		return big.NewInt(1e15)
	}
	return wei
}

func ether(wei *big.Int) string {
	f, _ := new(big.Rat).SetFrac(wei, big.NewInt(1e18)).Float64()
	return fmt.Sprintf("%.6g", f)
}

func lookAllowed(ctx context.Context, s *Subject) Verdict {
	seen := 0
	for i := range s.Networks {
		n := &s.Networks[i]
		for _, w := range s.Wallets {
			if w.Network != "" && w.Network != n.ID {
				continue
			}
			out, err := s.Live.Chains[n.ID].Blacklisted(ctx, w.Address)
			switch {
			case err != nil:
				return bad("%s on %s: %v", w.Address, n.ID, err)
			case out:
				return bad("%s (%s) is blacklisted on %s", w.Address, w.Role, n.ID)
			}
			seen++
		}
	}
	return good("addresses: %d", seen)
}

func (s *Subject) network(id string) *Network {
	for i := range s.Networks {
		if s.Networks[i].ID == id {
			return &s.Networks[i]
		}
	}
	return nil
}
