package x402

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

// Domain is the EIP-712 domain of a token.
type Domain struct {
	Name, Version string
	ChainID       uint64
	Contract      common.Address
}

var (
	domainTypeHash = crypto.Keccak256Hash([]byte(
		"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"))
	transferTypeHash = crypto.Keccak256Hash([]byte("TransferWithAuthorization(address from,address to," +
		"uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"))
)

// Separator is the domain's hash, what the token gives as DOMAIN_SEPARATOR(). Compute it once per network.
func (d Domain) Separator() common.Hash {
	var chainID [32]byte
	binary.BigEndian.PutUint64(chainID[24:], d.ChainID)
	return crypto.Keccak256Hash(
		domainTypeHash[:],
		crypto.Keccak256([]byte(d.Name)),
		crypto.Keccak256([]byte(d.Version)),
		chainID[:],
		common.LeftPadBytes(d.Contract[:], 32),
	)
}

// hasher keeps what a digest needs away from the garbage collector: this runs for every paid request.
type hasher struct {
	state crypto.KeccakState
	buf   [7 * 32]byte
	out   common.Hash
}

var hashers = sync.Pool{New: func() any { return &hasher{state: crypto.NewKeccakState()} }}

// sum hashes the first n bytes of the buffer into out.
func (h *hasher) sum(n int) {
	h.state.Reset()
	_, _ = h.state.Write(h.buf[:n]) // a hash never fails
	_, _ = h.state.Read(h.out[:])
}

// Digest is the hash that the payer signs (EIP-712), under the domain with that separator.
func (a *Authorization) Digest(separator common.Hash) common.Hash {
	h := hashers.Get().(*hasher)
	defer hashers.Put(h)

	b := h.buf[:]
	clear(b)
	copy(b[0:], transferTypeHash[:])
	a.putWords(b[32:])
	h.sum(len(b))

	b[0], b[1] = 0x19, 0x01
	copy(b[2:], separator[:])
	copy(b[34:], h.out[:])
	h.sum(66)
	return h.out
}

// putWords writes the six fields, each as a 32 byte word: the same in the digest and in calldata. dst must be zero.
func (a *Authorization) putWords(dst []byte) {
	copy(dst[12:], a.From[:])
	copy(dst[32+12:], a.To[:])
	a.Value.PutUint256(dst[2*32:])
	a.ValidAfter.PutUint256(dst[3*32:])
	a.ValidBefore.PutUint256(dst[4*32:])
	copy(dst[5*32:], a.Nonce[:])
}

// SignatureLength is that of an ECDSA signature: r, s and v.
const SignatureLength = 65

// halfOrder is half the order of secp256k1: the tokens refuse a higher s, since each signature has a twin there.
var halfOrder = common.FromHex("0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0")

// Recover gives the account that made the signature, by the rules of the tokens' own ECRecover: 65 bytes
// r, s, v; s not above half the order; v 27 or 28. 0 and 1 are taken for 27 and 28, which is what
// Authorization.TransferCalldata makes of them.
//
// The error is an *Error with ReasonSignatureFormat or ReasonSignature. For an account with code neither
// result nor error decides: its contract does.
func Recover(digest common.Hash, sig []byte) (common.Address, error) {
	if len(sig) != SignatureLength {
		return common.Address{}, Refuse(ReasonSignatureFormat, "the signature has %d bytes; an account signs with 65", len(sig))
	}
	v := normalV(sig[64])
	if v != 27 && v != 28 {
		return common.Address{}, Refuse(ReasonSignatureFormat, "the signature's v is %d; it must be 27 or 28", sig[64])
	}
	var zero [32]byte
	r, s := sig[:32], sig[32:64]
	if bytes.Equal(r, zero[:]) || bytes.Equal(s, zero[:]) {
		return common.Address{}, Refuse(ReasonSignature, "the signature is zero")
	}
	if bytes.Compare(s, halfOrder) > 0 {
		return common.Address{}, Refuse(ReasonSignature, "the signature's s is in the upper half of the order; the token refuses it")
	}
	var canonical [SignatureLength]byte
	copy(canonical[:], sig)
	canonical[64] = v - 27
	pub, err := crypto.Ecrecover(digest[:], canonical[:])
	if err != nil {
		return common.Address{}, &Error{Reason: ReasonSignature, Detail: "no account made this signature", Err: err}
	}
	return addressOf(pub), nil
}

// addressOf is the account of an uncompressed public key.
func addressOf(pub []byte) common.Address {
	h := hashers.Get().(*hasher)
	defer hashers.Put(h)
	h.sum(copy(h.buf[:], pub[1:]))
	return common.Address(h.out[12:])
}

// normalV takes 0 and 1 for 27 and 28.
func normalV(v byte) byte {
	if v < 2 {
		return v + 27
	}
	return v
}

// Sign signs a digest: 65 bytes r, s, v with v 27 or 28, as tokens and Recover take it.
func Sign(digest common.Hash, key *ecdsa.PrivateKey) ([]byte, error) {
	if key == nil || key.Curve == nil {
		return nil, errors.New("x402: signing: no key")
	}
	sig, err := crypto.Sign(digest[:], key)
	if err != nil {
		return nil, fmt.Errorf("x402: signing: %w", err)
	}
	sig[64] += 27
	return sig, nil
}
