package caddymodule

import (
	"context"
	"encoding/json"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/ethereum/go-ethereum/common"
)

// Signer makes the signatures of one account. One that is an io.Closer is closed when it is not used any more.
type Signer interface {
	// Address is the account.
	Address() common.Address
	// Sign signs a digest: 65 bytes, r ‖ s ‖ v, with v 0 or 1 and a low s. After an error there is no signature.
	Sign(ctx context.Context, digest common.Hash) (signature []byte, err error)
}

// SignerContext is what a signer module is given when it is provisioned.
type SignerContext struct {
	// Local: the chain is a test network on this machine, so that a key may stand in the configuration.
	Local bool
}

// SignerModule is what a module in the namespace x402.signers offers.
type SignerModule interface {
	// Join checks the settings and names the key: the same name is the same key, whatever its settings are. It is called
	// while provisioning: it opens nothing and asks nobody.
	Join(SignerContext) (name string, err error)
	// Open gives the signer, after Join, and may ask a service for it. An error that wraps settlement.ErrUnavailable may go
	// away by itself, so that Open may be called again; any other stays until somebody changes something.
	Open(context.Context) (Signer, error)
}

// ParseSigner reads `signer <module> [<args...>] { ... }`, for modules that need signers, into what goes into a field with
// `caddy:"namespace=x402.signers inline_key=signer"`. d stands on the word before the module's name.
func ParseSigner(d *caddyfile.Dispenser) (json.RawMessage, error) {
	return parseModule(d, "x402.signers.", "signer")
}

// ParseAddress reads an address, or what a placeholder stands for, with its checksum (EIP-55) if it has one.
func ParseAddress(what, value string) (common.Address, error) { return address(what, value) }
