package management

import (
	"context"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
	"github.com/caddy-x402/caddy-x402/x402"
)

// The words of X-Network.
const (
	Mainnet = "mainnet"
	Testnet = "testnet"
)

// Shop is what an API looks after: the ledger of a configuration, and what only those can say who work on it. It is good for one request.
type Shop struct {
	Store ledger.Store
	// Networks are those of the configuration.
	Networks []x402.Network
	// Plans are what is sold.
	Plans []Plan
	// Settings are what may be shown of the configuration.
	Settings Settings

	// Revoke takes back the token of a payment's plan, which ends at the given time.
	Revoke func(ctx context.Context, payment string, until time.Time) error
	// Update changes a payment as the store's does, and tells of it whoever listens; nil: nobody does.
	Update func(ctx context.Context, id string, version uint64, changes ...ledger.Change) (ledger.Payment, error)
	// PlanRefunds says what would go back now, of the newest limit that are pending.
	PlanRefunds func(ctx context.Context, limit int) (RefundPlan, error)
	// Wallets are those of the operator.
	Wallets func(ctx context.Context) ([]Wallet, error)
	// Webhooks tell the operator's own systems what happens; nil: there are none.
	Webhooks *webhooks.Service
	// TokenKeys look after the keys that sign tokens; nil: nobody does.
	TokenKeys TokenKeys
	// Forgets is after how long closed payments may be gone from the ledger; 0: never.
	Forgets time.Duration
	// Events are what happens to payments; nil: nobody can say.
	Events webhooks.Outbox
}

// Lock is the only network that the configuration serves, Mainnet or Testnet; empty if it serves both, or none.
func (s *Shop) Lock() string {
	lock := ""
	for i := range s.Networks {
		switch n := network(s.Networks[i].Testnet); lock {
		case "", n:
			lock = n
		default:
			return ""
		}
	}
	return lock
}

func network(testnet bool) string {
	if testnet {
		return Testnet
	}
	return Mainnet
}

// networkOf is the X-Network of a chain. One that nobody knows counts as a mainnet, as its money may be real.
func (s *Shop) networkOf(chainID uint64) string {
	for _, networks := range [...][]x402.Network{s.Networks, knownNetworks} {
		for i := range networks {
			if networks[i].ChainID == chainID {
				return network(networks[i].Testnet)
			}
		}
	}
	return Mainnet
}

var knownNetworks = x402.Networks()

// asset finds what is known of a token; nil: nothing.
func (s *Shop) asset(chainID uint64, address common.Address) *x402.Asset {
	for _, networks := range [...][]x402.Network{s.Networks, knownNetworks} {
		for i := range networks {
			if n := &networks[i]; n.ChainID == chainID && n.Asset.Address == address {
				return &n.Asset
			}
		}
	}
	return nil
}
