// Package local is the Caddy module x402.signers.key: a wallet's private key in this process.
package local

import (
	"context"
	"crypto/ecdsa"
	"errors"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/caddymodule"
	"github.com/caddy-x402/caddy-x402/settlement/signer"
)

func init() {
	caddy.RegisterModule(new(Key))
}

// Key signs with a private key that Caddy is given.
type Key struct {
	// The private key in hex, as a placeholder such as `{env.GAS_WALLET_PRIVATE_KEY}` or `{file./run/secrets/gas}`. A literal key
	// is accepted for a test network on this machine only.
	Key string `json:"key"`

	key *ecdsa.PrivateKey
}

// CaddyModule implements caddy.Module.
func (*Key) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "x402.signers.key", New: func() caddy.Module { return new(Key) }}
}

// Provision implements caddy.Provisioner.
func (k *Key) Provision(caddy.Context) error {
	if k.Key == "" {
		return errors.New("key is missing; write `signer key {env.GAS_WALLET_PRIVATE_KEY}`")
	}
	return nil
}

// Join implements caddymodule.SignerModule.
func (k *Key) Join(c caddymodule.SignerContext) (string, error) {
	key, err := caddymodule.PrivateKey("the wallet's key", k.Key, c.Local)
	if err != nil {
		return "", err
	}
	k.key = key
	return "key " + crypto.PubkeyToAddress(key.PublicKey).Hex(), nil
}

// Open implements caddymodule.SignerModule.
func (k *Key) Open(context.Context) (caddymodule.Signer, error) {
	return signer.NewLocal(k.key)
}

// UnmarshalCaddyfile reads
//
//	key <key>
func (k *Key) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the module's name
	if !d.AllArgs(&k.Key) {
		return d.Errf("the signer key takes one key; write `signer key {env.GAS_WALLET_PRIVATE_KEY}`")
	}
	if d.NextBlock(d.Nesting()) {
		return d.Errf("the signer key has no settings, so no '%s'", d.Val())
	}
	return nil
}

// Interface guards.
var (
	_ caddy.Provisioner        = (*Key)(nil)
	_ caddyfile.Unmarshaler    = (*Key)(nil)
	_ caddymodule.SignerModule = (*Key)(nil)
)
