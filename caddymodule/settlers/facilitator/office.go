package facilitator

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
	"github.com/caddy-x402/caddy-x402/settlement/facilitator"
	"github.com/caddy-x402/caddy-x402/x402"
)

// office is the pooled part of the settler: one per chain, asset and ledger, over all reloads. It lets nothing be paid before
// its chain was found to be the configured one.
type office struct {
	*facilitator.Settler
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
	owner    *Facilitator
	context  caddymodule.SettlerContext
	settings facilitator.Settings
}

func newOffice(f *Facilitator, c caddymodule.SettlerContext) (*office, error) {
	client, err := c.NewChain(f.log)
	if err != nil {
		return nil, err
	}
	s, err := facilitator.New(facilitator.Config{
		Network: c.Network, Chain: client, Journal: c.Journal, Settings: f.settings, Logger: f.log,
	})
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return &office{Settler: s, chain: client, network: c.Network, rpc: slices.Clone(c.RPC)}, nil
}

// follow puts the settings of a starting configuration in force.
func (o *office) follow(l liveConfig) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.live = append(o.live, l)
	return o.configure()
}

// unfollow goes back to the settings of the configuration before, if owner's were in force: another app's start may have
// failed after ours.
func (o *office) unfollow(owner *Facilitator) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.live = slices.DeleteFunc(o.live, func(l liveConfig) bool { return l.owner == owner })
	return o.configure()
}

// configure follows the newest configuration. Other endpoints, or another idea of the token, have to be verified again.
func (o *office) configure() error {
	if len(o.live) == 0 {
		return nil
	}
	l := o.live[len(o.live)-1]
	if err := o.Reconfigure(l.settings); err != nil {
		return err
	}
	if slices.Equal(o.rpc, l.context.RPC) && o.network == l.context.Network {
		return nil
	}
	if err := o.chain.Reconfigure(l.context.RPC); err != nil {
		return fmt.Errorf("rpc: %w", err)
	}
	o.rpc, o.network, o.verified, o.asked = slices.Clone(l.context.RPC), l.context.Network, false, time.Time{}
	return nil
}

const (
	// askAgain is how long a chain that did not answer is left alone.
	askAgain = time.Second
	// verifyTimeout bounds what a request spends on the question whether the chain is the right one.
	verifyTimeout = 10 * time.Second
)

// verify asks the chain whether it is the configured one, unless that is known.
func (o *office) verify(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.verified {
		return nil
	}
	if time.Since(o.asked) < askAgain {
		return fmt.Errorf("%w: it did not answer a moment ago", settlement.ErrUnavailable)
	}
	err := o.chain.Verify(ctx, o.network)
	o.verified, o.asked = err == nil, time.Now()
	return err
}

// right answers nil if the chain is the configured one; another one is as good as none. It hangs on no client: those
// that hang up at once must not keep everybody from ever being told.
func (o *office) right(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), verifyTimeout)
	defer cancel()
	err := o.verify(ctx)
	if err == nil || errors.Is(err, settlement.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", settlement.ErrUnavailable, err)
}

// Check implements settlement.Settler.
func (o *office) Check(ctx context.Context, in settlement.Intent) (uint64, error) {
	if err := o.right(ctx); err != nil {
		return 0, err
	}
	return o.Settler.Check(ctx, in)
}

// Ready implements settlement.Settler.
func (o *office) Ready(ctx context.Context) error {
	if err := o.right(ctx); err != nil {
		return err
	}
	return o.Settler.Ready(ctx)
}

// Destruct waits for what is under way, and closes the chain after the settler.
func (o *office) Destruct() error { return errors.Join(o.Settler.Close(), o.chain.Close()) }
