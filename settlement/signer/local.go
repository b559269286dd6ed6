package signer

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

// Local signs with a private key of secp256k1 in this process. However it is printed, logged or marshaled, it shows its
// address and never its key.
type Local struct {
	key     *ecdsa.PrivateKey
	address common.Address
}

// NewLocal makes a signer of key, which it keeps and does not copy.
func NewLocal(key *ecdsa.PrivateKey) (Local, error) {
	if key == nil || key.Curve != crypto.S256() {
		return Local{}, errors.New("signer: no private key of secp256k1")
	}
	return Local{key: key, address: crypto.PubkeyToAddress(key.PublicKey)}, nil
}

// Address is the key's account.
func (l Local) Address() common.Address { return l.address }

// Sign signs a digest. It takes microseconds and asks nobody.
func (l Local) Sign(_ context.Context, digest common.Hash) ([]byte, error) {
	if l.key == nil {
		return nil, errors.New("signer: no private key")
	}
	return crypto.Sign(digest[:], l.key)
}

// String names the account.
func (l Local) String() string { return "local key of " + l.address.Hex() }

// GoString is String.
func (l Local) GoString() string { return l.String() }

// Format is String, whatever the verb: some would walk into the key.
func (l Local) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, l.String()) }

// LogValue is String.
func (l Local) LogValue() slog.Value { return slog.StringValue(l.String()) }

// MarshalJSON is String.
func (l Local) MarshalJSON() ([]byte, error) { return json.Marshal(l.String()) }
