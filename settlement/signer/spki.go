package signer

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

// ErrPublicKey says that bytes are no public key of secp256k1.
var ErrPublicKey = errors.New("signer: not a public key of secp256k1")

// spkiPrefix is what DER has before the point in the SubjectPublicKeyInfo of a key of secp256k1 (RFC 5480): it has but one
// encoding. crypto/x509 does not know the curve.
var spkiPrefix = []byte{
	0x30, 0x56, // SEQUENCE
	0x30, 0x10, // SEQUENCE: the algorithm
	0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, // id-ecPublicKey, 1.2.840.10045.2.1
	0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a, // secp256k1, 1.3.132.0.10
	0x03, 0x42, 0x00, // BIT STRING of whole bytes: the point, uncompressed
}

// uncompressed is what a point in full begins with (SEC 1).
const uncompressed = 0x04

// AddressOf is the account of a public key in the form of X.509 (SubjectPublicKeyInfo, DER), with the point uncompressed, as
// services give it. Errors wrap ErrPublicKey.
func AddressOf(spki []byte) (common.Address, error) {
	point, ok := bytes.CutPrefix(spki, spkiPrefix)
	if !ok {
		return common.Address{}, fmt.Errorf("%w: %d bytes of something else", ErrPublicKey, len(spki))
	}
	if len(point) != secp256k1.PubKeyBytesLenUncompressed || point[0] != uncompressed {
		return common.Address{}, fmt.Errorf("%w: the point is not uncompressed", ErrPublicKey)
	}
	if _, err := secp256k1.ParsePubKey(point); err != nil {
		return common.Address{}, fmt.Errorf("%w: the point is not on the curve", ErrPublicKey)
	}
	return common.BytesToAddress(crypto.Keccak256(point[1:])[12:]), nil
}
