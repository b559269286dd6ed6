package wallet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/caddymodule"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/wallet"
	"github.com/caddy-x402/caddy-x402/x402"
)

// purse is the pooled part of a wallet: one per wallet, chain, asset and ledger, over all reloads. It lets nothing be paid
// before its chain was found to be the configured one.
type purse struct {
	chain *chain.Client
	// config is what the settler is made of, once there are signers.
	config wallet.Config
	open   func(context.Context) ([]wallet.Signer, error)

	settler atomic.Pointer[wallet.Settler] // nil until its signers are open; it is found without mu, which is held while the chain is asked

	mu       sync.Mutex
	closers  []io.Closer
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
	client, err := c.NewChain(w.log)
	if err != nil {
		return nil, err
	}
	p := &purse{
		chain: client, open: w.open, network: c.Network, rpc: slices.Clone(c.RPC),
		config: wallet.Config{Network: c.Network, Chain: client, Journal: c.Journal, Settings: w.settings, Logger: w.log},
	}
	if len(w.signers) == 0 { // nobody has to be asked
		if err := p.make(context.Background()); err != nil {
			return nil, errors.Join(err, client.Close())
		}
	}
	return p, nil
}

// make opens the signers and makes the settler of them. The caller holds mu, or is alone.
func (p *purse) make(ctx context.Context) error {
	signers, err := p.open(ctx)
	if err != nil {
		return err
	}
	var closers []io.Closer
	for _, s := range signers {
		if c, ok := s.(io.Closer); ok {
			closers = append(closers, c)
		}
	}
	p.config.Signers = signers
	settler, err := wallet.New(p.config)
	if err != nil {
		for _, c := range closers {
			err = errors.Join(err, c.Close())
		}
		return err
	}
	p.closers = closers
	p.settler.Store(settler)
	return nil
}

// made is the settler, if its signers are open.
func (p *purse) made() *wallet.Settler { return p.settler.Load() }

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
	p.config.Settings = l.settings
	if s := p.made(); s != nil {
		s.Reconfigure(l.settings)
	}
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

// verify opens the signers, and asks the chain whether it is the configured one, unless that is done.
func (p *purse) verify(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.verified {
		return nil
	}
	if time.Since(p.asked) < askAgain {
		return fmt.Errorf("%w: it did not answer a moment ago", settlement.ErrUnavailable)
	}
	var err error
	if p.made() == nil {
		err = p.make(ctx)
	}
	if err == nil {
		err = p.chain.Verify(ctx, p.network)
	}
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
	return p.made().Check(ctx, in)
}

// Settle implements settlement.Settler.
func (p *purse) Settle(ctx context.Context, in settlement.Intent) settlement.Outcome {
	s, err := p.opened(ctx)
	if err != nil {
		return settlement.Outcome{Err: err}
	}
	return s.Settle(ctx, in)
}

// Resolve implements settlement.Settler.
func (p *purse) Resolve(ctx context.Context, in settlement.Intent) settlement.Outcome {
	s, err := p.opened(ctx)
	if err != nil {
		return settlement.Outcome{Err: err}
	}
	return s.Resolve(ctx, in)
}

// Review implements settlement.Reviewer.
func (p *purse) Review(ctx context.Context, list []settlement.Standing) ([]*settlement.Outcome, error) {
	s, err := p.opened(ctx)
	if err != nil {
		return nil, err
	}
	return s.Review(ctx, list)
}

// Payers implements settlement.Tracer.
func (p *purse) Payers(ctx context.Context, in settlement.Intent) ([]common.Address, error) {
	s, err := p.opened(ctx)
	if err != nil {
		return nil, err
	}
	return s.Payers(ctx, in)
}

var _ settlement.Tracer = (*purse)(nil)

// Survey implements settlement.Surveyor.
func (p *purse) Survey(ctx context.Context, q settlement.Survey) (settlement.Surveyed, error) {
	s, err := p.opened(ctx)
	if err != nil {
		return settlement.Surveyed{}, err
	}
	return s.Survey(ctx, q)
}

// TokenBalance implements settlement.Balancer. A chain that is not the configured one tells nothing.
func (p *purse) TokenBalance(ctx context.Context, owner common.Address) (uint256.Int, error) {
	if err := p.verifyDetached(ctx); err != nil {
		return uint256.Int{}, unverified(err)
	}
	return p.made().TokenBalance(ctx, owner)
}

var _ settlement.Balancer = (*purse)(nil)

// opened is the settler; where its signers are not open, that is tried first.
func (p *purse) opened(ctx context.Context) (*wallet.Settler, error) {
	if s := p.made(); s != nil {
		return s, nil
	}
	if err := p.verifyDetached(ctx); err != nil && p.made() == nil {
		return nil, unverified(err)
	}
	return p.made(), nil
}

// Ready implements settlement.Settler.
func (p *purse) Ready(ctx context.Context) error {
	if err := p.verifyDetached(ctx); err != nil {
		return unverified(err)
	}
	return p.made().Ready(ctx)
}

func unverified(err error) error {
	if errors.Is(err, settlement.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", settlement.ErrUnavailable, err)
}

// WalletStats implements caddymodule.WalletTeller.
func (p *purse) WalletStats() caddymodule.WalletStats {
	out, s := caddymodule.WalletStats{Network: p.config.Network.ID}, p.made() // no reload makes that another one
	if s == nil {
		return out
	}
	now := s.Stats()
	out.Queued, out.Queue = now.Queued, now.Queue
	out.Warn, out.Min, out.MaxFee, out.Fee = now.WarnBalance, now.HardBalance, now.MaxFeePerGas, now.FeePerGas
	for i := range now.Lanes {
		l := &now.Lanes[i]
		out.Wallets = append(out.Wallets, caddymodule.WalletStat{
			Address: l.Wallet, Wei: l.Wei, SeenAt: l.At, Mined: l.Mined, InFlight: l.InFlight, Oldest: l.Oldest,
		})
	}
	return out
}

var _ caddymodule.WalletTeller = (*purse)(nil)

// Destruct waits for what is under way, and closes signers and chain after the wallet.
func (p *purse) Destruct() error {
	var errs []error
	if s := p.made(); s != nil {
		errs = append(errs, s.Close())
	}
	for _, c := range p.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, p.chain.Close())...)
}

// Wallets implements settlement.Owner.
func (p *purse) Wallets() []common.Address {
	if s := p.made(); s != nil {
		return s.Wallets()
	}
	return nil
}
