// Package wallet is the Caddy module x402.settlers.wallet: payments are settled by a gas wallet of the operator.
package wallet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/caddymodule"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/signer"
	"github.com/caddy-x402/caddy-x402/settlement/wallet"
	"github.com/caddy-x402/caddy-x402/x402"
)

func init() {
	caddy.RegisterModule(new(Wallet))
}

// Wallet settles payments with transactions of its own, and pays their gas. The money goes from the payer to `pay_to`
// directly: the wallet never has it. Payments that wait at the same time travel in one transaction.
type Wallet struct {
	// The private keys of the wallets in hex, as placeholders such as `{env.GAS_WALLET_PRIVATE_KEY}` or
	// `{file./run/secrets/gas}`. One is enough: several share the work, and one whose ether is used up leaves it to the others. A
	// literal key is accepted for a test network on this machine only.
	Keys []string `json:"keys,omitempty"`

	// More wallets, whose keys are kept elsewhere.
	SignersRaw []json.RawMessage `json:"signers,omitempty" caddy:"namespace=x402.signers inline_key=signer"`

	// The most that a unit of gas may cost, in gwei, such as `0.5`. Above it payments wait. Default: 500.
	MaxFee string `json:"max_fee,omitempty"`

	// The balance in ether below which every settlement logs a warning. Default: 0.001.
	WarnBalance string `json:"warn_balance,omitempty"`

	// The balance in ether below which payments are refused with 503 instead of taken. Default: 0.0001.
	MinBalance string `json:"min_balance,omitempty"`

	// The most that may be spent on gas in an hour, in ether, by this instance: so much can a mistake, or somebody who means
	// harm, cost. Above it payments are refused with 503. Default: 0.1.
	MaxSpend string `json:"max_spend,omitempty"`

	// How many payments a transaction carries at most. Default: 100.
	Batch int `json:"batch,omitempty"`

	// How many transactions of a wallet may be under way at once, 16 at most. Default: 12.
	InFlight int `json:"in_flight,omitempty"`

	// How many payments may wait for a transaction. Whoever comes then gets 503 before anything is charged. Default: 4096.
	Queue int `json:"queue,omitempty"`

	// How old a transaction must be, by the time of the chain's newest block, to be sent again with higher fees. Default: 20s.
	StuckAfter caddy.Duration `json:"stuck_after,omitempty"`

	keys     []wallet.Signer
	signers  []caddymodule.SignerModule
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
	if err := w.loadSigners(ctx); err != nil {
		return err
	}
	for _, s := range []struct {
		name, value, standard string
		decimals              uint8
		into                  **big.Int
	}{
		{"max_fee", w.MaxFee, "500", gweiDecimals, &w.settings.MaxFeePerGas},
		{"warn_balance", w.WarnBalance, "0.001", etherDecimals, &w.settings.WarnBalance},
		{"min_balance", w.MinBalance, "0.0001", etherDecimals, &w.settings.HardBalance},
		{"max_spend", w.MaxSpend, "0.1", etherDecimals, &w.settings.SpendPerHour},
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
	for _, n := range []struct {
		name  string
		value int
		most  int
	}{{"batch", w.Batch, mostBatch}, {"in_flight", w.InFlight, mostInFlight}, {"queue", w.Queue, mostQueue}} {
		if n.value < 0 || n.value > n.most {
			return fmt.Errorf("%s is %d; write a number from 1 to %d", n.name, n.value, n.most)
		}
	}
	if w.StuckAfter != 0 && time.Duration(w.StuckAfter) < leastStuck {
		return fmt.Errorf("stuck_after is %s; a transaction must have the time to be mined, at least %s", time.Duration(w.StuckAfter), leastStuck)
	}
	w.settings.Batch, w.settings.InFlight, w.settings.Queue = w.Batch, w.InFlight, w.Queue
	w.settings.StuckAfter = time.Duration(w.StuckAfter)
	return nil
}

// What may be asked for. A transaction of 140 payments is at the gas that a chain takes; nodes keep some 16 of an account, and
// drop what waits behind them.
const (
	mostBatch    = 140
	mostInFlight = 16
	mostQueue    = 1_000_000
	leastStuck   = 5 * time.Second
)

// Join implements caddymodule.SettlerModule.
func (w *Wallet) Join(_ caddy.Context, c caddymodule.SettlerContext) (settlement.Settler, error) {
	names, err := w.joinSigners(c)
	if err != nil {
		return nil, err
	}
	if len(w.Keys)+len(names) == 0 {
		return nil, errors.New("wallet has no key; write a placeholder such as {env.GAS_WALLET_PRIVATE_KEY}, or `signer`")
	}
	var addresses []string
	w.keys = nil
	for i, text := range w.Keys {
		what := "the gas wallet's key"
		if i > 0 {
			what = fmt.Sprintf("the key of gas wallet %d", i+1)
		}
		key, err := caddymodule.PrivateKey(what, text, c.Local)
		if err != nil {
			return nil, err
		}
		address := crypto.PubkeyToAddress(key.PublicKey).Hex()
		if slices.Contains(addresses, address) {
			return nil, fmt.Errorf("%s is there twice: it is that of %s", what, address)
		}
		local, err := signer.NewLocal(key)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		w.keys, addresses = append(w.keys, local), append(addresses, address)
	}
	w.settings.Mined = func(m wallet.Mined) {
		caddymodule.ObserveTransaction(c.Network.ID, m.Payments, m.OK, m.GasUsed, m.Cost)
	}
	w.settings.Queued = func(d time.Duration) { caddymodule.ObserveQueue(c.Network.ID, d) }
	w.settings.Replaced = func() { caddymodule.ObserveReplacement(c.Network.ID) }
	// What a reload may change is no part of the key; what makes it another wallet, another ledger's, or one that signatures
	// look different to, is.
	asset := c.Network.Asset
	addresses = append(addresses, names...)
	slices.Sort(addresses)
	id := fmt.Sprintf("x402 wallet %s on %d for %s (%q, %q) in %s", strings.Join(addresses, " "), c.Network.ChainID, asset.Address, asset.Name, asset.Version, c.Ledger)
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
//	wallet [<key>...] {
//		signer       <module> [<args...>] { ... }
//		max_fee      <gwei>
//		warn_balance <ether>
//		min_balance  <ether>
//		max_spend    <ether per hour>
//		batch        <payments>
//		in_flight    <transactions>
//		queue        <payments>
//		stuck_after  <duration>
//	}
func (w *Wallet) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the module's name
	w.Keys = d.RemainingArgs()
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		if name == "signer" {
			raw, err := caddymodule.ParseSigner(d)
			if err != nil {
				return err
			}
			w.SignersRaw = append(w.SignersRaw, raw)
			continue
		}
		if seen[name] {
			return d.Errf("%s is there twice in wallet", name)
		}
		seen[name] = true
		if !slices.Contains(options, name) {
			return d.Errf("unrecognized subdirective '%s' of wallet; it knows %s", name, strings.Join(options, ", "))
		}
		var value string
		if !d.Args(&value) || d.NextArg() {
			return d.ArgErr()
		}
		if err := w.set(d, name, value); err != nil {
			return err
		}
	}
	if len(w.Keys)+len(w.SignersRaw) == 0 {
		return d.Err("wallet has no key; write a placeholder such as {env.GAS_WALLET_PRIVATE_KEY} after it, or `signer` into it")
	}
	return nil
}

// options are the subdirectives of the Caddyfile.
var options = []string{"signer", "max_fee", "warn_balance", "min_balance", "max_spend", "batch", "in_flight", "queue", "stuck_after"}

// set takes one of options.
func (w *Wallet) set(d *caddyfile.Dispenser, name, value string) error {
	texts := map[string]*string{
		"max_fee": &w.MaxFee, "warn_balance": &w.WarnBalance, "min_balance": &w.MinBalance, "max_spend": &w.MaxSpend,
	}
	numbers := map[string]*int{"batch": &w.Batch, "in_flight": &w.InFlight, "queue": &w.Queue}
	switch {
	case texts[name] != nil:
		*texts[name] = value
	case name == "stuck_after":
		after, err := caddy.ParseDuration(value)
		if err != nil || after <= 0 {
			return d.Errf("stuck_after %s: write a duration such as 20s", value)
		}
		w.StuckAfter = caddy.Duration(after)
	default:
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			return d.Errf("%s %s: write a whole number from 1", name, value)
		}
		*numbers[name] = n
	}
	return nil
}

// Interface guards.
var (
	_ caddy.Provisioner         = (*Wallet)(nil)
	_ caddyfile.Unmarshaler     = (*Wallet)(nil)
	_ caddymodule.SettlerModule = (*Wallet)(nil)
)
