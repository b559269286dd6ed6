package signer

import (
	"errors"
	"fmt"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

// ErrSignature says that an answer is no signature, or not the one that was asked for. Nothing was signed by it.
var ErrSignature = errors.New("signer: not a signature of the key")

// FromDER makes a service's answer into what a transaction wants: der is an ECDSA signature of digest as services give it,
// an ASN.1 sequence of r and s, with an s that may be high and without v. A high s is replaced by its counterpart, which
// is as good and which chains demand; v is the one with which the signature is by's. Errors wrap ErrSignature: so does a
// good signature of another key, or of other bytes.
func FromDER(der []byte, digest common.Hash, by common.Address) ([]byte, error) {
	r, s, err := parseDER(der)
	if err != nil {
		return nil, err
	}
	if s.IsOverHalfOrder() {
		s.Negate()
	}
	signature := make([]byte, crypto.SignatureLength)
	rBytes, sBytes := r.Bytes(), s.Bytes()
	copy(signature, rBytes[:])
	copy(signature[32:], sBytes[:])
	// A v of 2 or 3, for an r that was larger than the curve's order, is no part of Ethereum; nobody will ever see one.
	for v := range byte(2) {
		signature[crypto.RecoveryIDOffset] = v
		key, err := crypto.SigToPub(digest[:], signature)
		if err == nil && crypto.PubkeyToAddress(*key) == by {
			return signature, nil
		}
	}
	return nil, fmt.Errorf("%w: it is another key's, or of another digest", ErrSignature)
}

// Tags of DER.
const (
	tagInteger  = 0x02
	tagSequence = 0x30
)

// parseDER reads the only encoding that DER has for a signature with 0 < r, s < n.
func parseDER(der []byte) (r, s secp256k1.ModNScalar, err error) {
	body, rest, ok := element(der, tagSequence)
	if !ok || len(rest) != 0 {
		return r, s, fmt.Errorf("%w: %d bytes that are no DER sequence", ErrSignature, len(der))
	}
	if body, err = scalar(body, &r); err != nil {
		return r, s, fmt.Errorf("r: %w", err)
	}
	if body, err = scalar(body, &s); err != nil {
		return r, s, fmt.Errorf("s: %w", err)
	}
	if len(body) != 0 {
		return r, s, fmt.Errorf("%w: %d bytes behind s", ErrSignature, len(body))
	}
	return r, s, nil
}

// element takes an element of that tag off b. A signature is short, so its length is one byte, and another form of it is
// not DER.
func element(b []byte, tag byte) (content, rest []byte, ok bool) {
	if len(b) < 2 || b[0] != tag || b[1] >= 0x80 || int(b[1]) > len(b)-2 {
		return nil, nil, false
	}
	end := 2 + int(b[1])
	return b[2:end], b[end:], true
}

func scalar(b []byte, into *secp256k1.ModNScalar) (rest []byte, err error) {
	digits, rest, ok := element(b, tagInteger)
	if !ok || len(digits) == 0 {
		return nil, fmt.Errorf("%w: no DER integer", ErrSignature)
	}
	if digits[0] >= 0x80 {
		return nil, fmt.Errorf("%w: negative", ErrSignature)
	}
	if digits[0] == 0 && len(digits) > 1 {
		digits = digits[1:]
		if digits[0] < 0x80 {
			return nil, fmt.Errorf("%w: more zeros than needed", ErrSignature)
		}
	}
	if len(digits) > 32 || into.SetByteSlice(digits) || into.IsZero() {
		return nil, fmt.Errorf("%w: not in the range of the curve", ErrSignature)
	}
	return rest, nil
}
