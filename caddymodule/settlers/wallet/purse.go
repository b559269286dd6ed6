package wallet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/caddy-x402/caddy-x402/caddymodule"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/wallet"
	"github.com/caddy-x402/caddy-x402/x402"
)

// purse is the pooled part of a wallet: one per wallet, chain, asset and ledger, over all reloads. It lets nothing be paid
// before its chain was found to be the configured one.
type purse struct {
	*wallet.Settler
	chain *chain.Client

	mu       sync.Mutex
	live     []liveConfig // oldest first
	network  x402.Network
	rpc      []string
	verified bool
	asked    time.Time // when the chain was asked last, in vain
}

// liveConfig is what one started configuration says.
type liveConfig struct {
	owner    *Wallet
	context  caddymodule.SettlerContext
	settings wallet.Settings
}

func newPurse(w *Wallet, c caddymodule.SettlerContext) (*purse, error) {
	client, err := chain.New(chain.Config{Endpoints: c.RPC, ChainID: c.Network.ChainID, Logger: w.log})
	if err != nil {
		return nil, fmt.Errorf("rpc: %w", err)
	}
	s, err := wallet.New(wallet.Config{
		Network: c.Network, Key: w.key, Chain: client, Journal: c.Journal, Settings: w.settings, Logger: w.log,
	})
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return &purse{Settler: s, chain: client, network: c.Network, rpc: slices.Clone(c.RPC)}, nil
}

// follow puts the settings of a starting configuration in force.
func (p *purse) follow(l liveConfig) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live = append(p.live, l)
	return p.configure()
}

// unfollow goes back to the settings of the configuration before, if owner's were in force: another app's start may have
// failed after ours.
func (p *purse) unfollow(owner *Wallet) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live = slices.DeleteFunc(p.live, func(l liveConfig) bool { return l.owner == owner })
	return p.configure()
}

// configure follows the newest configuration. Other endpoints, or another idea of the token, have to be verified again.
func (p *purse) configure() error {
	if len(p.live) == 0 {
		return nil
	}
	l := p.live[len(p.live)-1]
	p.Reconfigure(l.settings)
	if slices.Equal(p.rpc, l.context.RPC) && p.network == l.context.Network {
		return nil
	}
	if err := p.chain.Reconfigure(l.context.RPC); err != nil {
		return fmt.Errorf("rpc: %w", err)
	}
	p.rpc, p.network, p.verified, p.asked = slices.Clone(l.context.RPC), l.context.Network, false, time.Time{}
	return nil
}

// askAgain is how long a chain that did not answer is left alone.
const askAgain = time.Second

// verify asks the chain whether it is the configured one, unless that is known.
func (p *purse) verify(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.verified {
		return nil
	}
	if time.Since(p.asked) < askAgain {
		return fmt.Errorf("%w: it did not answer a moment ago", settlement.ErrUnavailable)
	}
	err := p.chain.Verify(ctx, p.network)
	p.verified, p.asked = err == nil, time.Now()
	return err
}

// verifyTimeout bounds what a request spends on the question whether the chain is the right one.
const verifyTimeout = 10 * time.Second

// verifyDetached is verify for requests: clients that hang up at once must not keep everybody from ever being told.
func (p *purse) verifyDetached(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), verifyTimeout)
	defer cancel()
	return p.verify(ctx)
}

// Check implements settlement.Settler. A chain that is not the configured one is as good as none.
func (p *purse) Check(ctx context.Context, in settlement.Intent) (uint64, error) {
	if err := p.verifyDetached(ctx); err != nil {
		return 0, unverified(err)
	}
	return p.Settler.Check(ctx, in)
}

// Ready implements settlement.Settler.
func (p *purse) Ready(ctx context.Context) error {
	if err := p.verifyDetached(ctx); err != nil {
		return unverified(err)
	}
	return p.Settler.Ready(ctx)
}

func unverified(err error) error {
	if errors.Is(err, settlement.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", settlement.ErrUnavailable, err)
}

// Destruct waits for what is under way, and closes the chain after the wallet.
func (p *purse) Destruct() error { return errors.Join(p.Settler.Close(), p.chain.Close()) }
