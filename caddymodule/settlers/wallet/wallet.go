// Package wallet is the Caddy module x402.settlers.wallet: payments are settled by a gas wallet of the operator.
package wallet

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log/slog"
	"math/big"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/caddymodule"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/wallet"
	"github.com/caddy-x402/caddy-x402/x402"
)

func init() {
	caddy.RegisterModule(new(Wallet))
}

// Wallet settles payments with transactions of its own, and pays their gas. The money goes from the payer to `pay_to`
// directly: the wallet never has it.
type Wallet struct {
	// The wallet's private key in hex, as a placeholder such as `{env.GAS_WALLET_PRIVATE_KEY}` or `{file./run/secrets/gas}`. A
	// literal key is accepted for a test network on this machine only.
	Key string `json:"key"`

	// The most that a unit of gas may cost, in gwei, such as `0.5`. Above it payments wait. Default: 500.
	MaxFee string `json:"max_fee,omitempty"`

	// The balance in ether below which every settlement logs a warning. Default: 0.001.
	WarnBalance string `json:"warn_balance,omitempty"`

	// The balance in ether below which payments are refused with 503 instead of taken. Default: 0.0001.
	MinBalance string `json:"min_balance,omitempty"`

	key      *ecdsa.PrivateKey
	settings wallet.Settings
	log      *slog.Logger
	purse    *caddymodule.Lease[*purse]
}

// CaddyModule implements caddy.Module.
func (*Wallet) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "x402.settlers.wallet", New: func() caddy.Module { return new(Wallet) }}
}

const (
	gweiDecimals  = 9
	etherDecimals = 18
)

// Provision implements caddy.Provisioner.
func (w *Wallet) Provision(ctx caddy.Context) error {
	w.log = ctx.Slogger()
	for _, s := range []struct {
		name, value, standard string
		decimals              uint8
		into                  **big.Int
	}{
		{"max_fee", w.MaxFee, "500", gweiDecimals, &w.settings.MaxFeePerGas},
		{"warn_balance", w.WarnBalance, "0.001", etherDecimals, &w.settings.WarnBalance},
		{"min_balance", w.MinBalance, "0.0001", etherDecimals, &w.settings.HardBalance},
	} {
		if s.value == "" {
			s.value = s.standard
		}
		v, err := x402.ParseAmount(s.value, s.decimals)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		*s.into = v.ToBig()
	}
	return nil
}

// Join implements caddymodule.SettlerModule.
func (w *Wallet) Join(_ caddy.Context, c caddymodule.SettlerContext) (settlement.Settler, error) {
	key, err := caddymodule.PrivateKey("the gas wallet's key", w.Key, c.Local)
	if err != nil {
		return nil, err
	}
	w.key = key
	address := crypto.PubkeyToAddress(key.PublicKey)
	// What a reload may change is no part of the key; what makes it another wallet, another ledger's, or one that signatures
	// look different to, is.
	asset := c.Network.Asset
	id := fmt.Sprintf("x402 wallet %s on %d for %s (%q, %q) in %s", address, c.Network.ChainID, asset.Address, asset.Name, asset.Version, c.Ledger)
	w.purse, err = caddymodule.Acquire(id, func() (*purse, error) { return newPurse(w, c) })
	if err != nil {
		return nil, err
	}
	return w.purse.Value(), nil
}

// Start implements caddymodule.SettlerModule. What changes with a reload is put in force here, and not while provisioning:
// a configuration that never starts changes nothing.
func (w *Wallet) Start(ctx context.Context, c caddymodule.SettlerContext) error {
	p := w.purse.Value()
	if err := p.follow(liveConfig{owner: w, context: c, settings: w.settings}); err != nil {
		return err
	}
	err := p.verify(ctx)
	if errors.Is(err, settlement.ErrUnavailable) {
		w.log.Error("the chain does not answer; payments are refused until it does", slog.String("network", c.Network.ID), slog.Any("error", err))
		return nil
	}
	return err
}

// Leave implements caddymodule.SettlerModule.
func (w *Wallet) Leave() error {
	if w.purse == nil {
		return nil
	}
	return errors.Join(w.purse.Value().unfollow(w), w.purse.Release())
}

// UnmarshalCaddyfile reads
//
//	wallet <key> {
//		max_fee      <gwei>
//		warn_balance <ether>
//		min_balance  <ether>
//	}
func (w *Wallet) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the module's name
	if !d.Args(&w.Key) || d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var field *string
		switch d.Val() {
		case "max_fee":
			field = &w.MaxFee
		case "warn_balance":
			field = &w.WarnBalance
		case "min_balance":
			field = &w.MinBalance
		default:
			return d.Errf("unrecognized subdirective '%s' of wallet; it knows max_fee, warn_balance and min_balance", d.Val())
		}
		name := d.Val()
		if *field != "" {
			return d.Errf("%s is there twice in wallet", name)
		}
		if !d.Args(field) || d.NextArg() {
			return d.ArgErr()
		}
	}
	return nil
}

// Interface guards.
var (
	_ caddy.Provisioner         = (*Wallet)(nil)
	_ caddyfile.Unmarshaler     = (*Wallet)(nil)
	_ caddymodule.SettlerModule = (*Wallet)(nil)
)
