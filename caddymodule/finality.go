package caddymodule

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Finality is how deep the transfer of a payment must lie on the chain before the payment counts, and is served.
type Finality struct {
	// `latest`: the newest block has it. A number: so many blocks are on the chain since then, its own among them, so that `1` is
	// as good as `latest`. `safe`: the node calls its block safe, which on rollups takes minutes.
	Block string `json:"block"`
	// The payments that this is demanded of: those of more than this, such as `1.00`. Default: all.
	Above string `json:"above,omitempty"`
}

// mostConfirmations bounds what may be demanded: more is not safer than `safe`.
const mostConfirmations = 1000

const finalityUsage = "write `finality latest`, `finality 3 above $1.00` or `finality safe above $100`"

// parseFinality reads one line of them. What it can tell without the network it refuses here, where file and line are known.
func parseFinality(d *caddyfile.Dispenser, n *Network) error {
	args := d.RemainingArgs()
	f := new(Finality)
	switch {
	case len(args) == 1:
	case len(args) == 3 && args[1] == "above":
		f.Above = args[2]
	default:
		return d.Err(finalityUsage)
	}
	f.Block = args[0]
	n.Finality = append(n.Finality, f)
	if _, err := demands(n.Finality, anyDecimals); err != nil {
		return d.Errf("%v", err)
	}
	return nil
}

// anyDecimals are more than an asset has: they serve to compare amounts while it is not known which asset it is.
const anyDecimals = 36

// demanded reads Block.
func (f *Finality) demanded() (settlement.Finality, error) {
	switch f.Block {
	case "latest":
		return settlement.Finality{}, nil
	case "safe":
		return settlement.Finality{Safe: true}, nil
	}
	n, err := strconv.ParseUint(f.Block, 10, 64)
	if err != nil || n < 1 || n > mostConfirmations || strconv.FormatUint(n, 10) != f.Block {
		return settlement.Finality{}, fmt.Errorf("finality %q is neither latest nor safe nor a number of blocks from 1 to %d; %s", f.Block, mostConfirmations, finalityUsage)
	}
	return settlement.Finality{Confirmations: n}, nil
}

// demands reads what payments must have, in an asset of that many decimals. It must rise with the price: anything else is a mistake.
func demands(list []*Finality, decimals uint8) (settlement.Demands, error) {
	var ds settlement.Demands
	var before *Finality
	for _, f := range list {
		if f == nil {
			return nil, errors.New("finality: one of them is null")
		}
		demanded, err := f.demanded()
		if err != nil {
			return nil, err
		}
		var above uint256.Int
		if f.Above != "" {
			if above, err = x402.ParseAmount(f.Above, decimals); err != nil {
				return nil, fmt.Errorf("finality %s above: %w", f.Block, err)
			}
		}
		if before != nil {
			last := ds[len(ds)-1]
			switch {
			case above.Eq(&last.Above):
				return nil, fmt.Errorf("%s and %s are about the same payments; write one of them", before, f)
			case above.Lt(&last.Above):
				return nil, fmt.Errorf("%s stands after %s; write the lower amount first", f, before)
			case !last.Finality.Less(demanded):
				return nil, fmt.Errorf("%s demands no more of dearer payments than %s does; leave it out, or write more", f, before)
			}
		}
		ds, before = append(ds, settlement.Demand{Above: above, Finality: demanded}), f
	}
	return ds, nil
}

// String is the line as a Caddyfile has it.
func (f *Finality) String() string {
	if f.Above == "" {
		return fmt.Sprintf("`finality %s`", f.Block)
	}
	return fmt.Sprintf("`finality %s above %s`", f.Block, f.Above)
}

// blockTimes are how long chains take for a block, and until a block is safe, roughly.
var blockTimes = map[uint64]struct{ block, safe time.Duration }{
	1:     {12 * time.Second, 10 * time.Minute},
	8453:  {2 * time.Second, 2 * time.Minute},
	84532: {2 * time.Second, 2 * time.Minute},
	42161: {250 * time.Millisecond, 10 * time.Minute},
	137:   {2 * time.Second, 0},
	43114: {2 * time.Second, 0},
	143:   {400 * time.Millisecond, 0},
}

// lasts is how long it takes, roughly, until a payment on the chain is as final as demanded; 0 where that is not known.
func lasts(chainID uint64, f settlement.Finality) time.Duration {
	t := blockTimes[chainID]
	if f.Safe {
		return t.safe
	}
	return time.Duration(max(f.Confirmations, 1)) * t.block
}

// warnOfFinality tells of demands that requests can't wait for.
func (a *App) warnOfFinality() {
	for i, n := range a.Networks {
		for j, d := range a.payees[i].Finality {
			if takes := lasts(n.network.ChainID, d.Finality); takes > time.Duration(a.SettleTimeout) && !n.local() {
				a.slog.Warn("payments take longer to be as final as demanded than requests wait; these are answered 503 with Retry-After, and "+
					"served when they come again with the same payment header", slog.String("network", n.network.ID),
					slog.String("finality", n.Finality[j].String()), slog.Duration("takes_about", takes),
					slog.Duration("settle_timeout", time.Duration(a.SettleTimeout)))
			}
		}
	}
}

// checkFinality refuses prices whose answers would be held back longer than anybody waits for them.
func (h *Handler) checkFinality(p *Price, prices []paywall.Price) error {
	if p.Flow != x402.FlowAuthorization {
		return nil
	}
	for _, price := range prices {
		f := price.Payee.Finality.Of(&price.Amount)
		at := lasts(price.Payee.Network.ChainID, f)
		if at > time.Duration(h.app.SettleTimeout) && !h.app.local(price.Payee) {
			return fmt.Errorf("flow authorization holds the answer for %s back until its payment is final, which with %s takes about %s on %s; that is "+
				"longer than settle_timeout (%s), so it would be thrown away: sell it with flow upfront, or demand less finality",
				p.Amount, f, at, price.Payee.Network.ID, time.Duration(h.app.SettleTimeout))
		}
	}
	return nil
}

// local reports whether the payee's chain is a test network on this machine, whose blocks come as they like.
func (a *App) local(y *paywall.Payee) bool {
	for i, n := range a.Networks {
		if a.payees[i] == y {
			return n.local()
		}
	}
	return false
}
