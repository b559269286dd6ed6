package x402_test

import (
	"bytes"
	"crypto/ecdsa"
	"math/big"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/math"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/signer/core/apitypes"
	"github.com/holiman/uint256"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/x402"
)

// The example payment of the protocol's specification recovers to the payer that it names.
func TestRecoverSpecificationExample(t *testing.T) {
	a := x402.Authorization{
		From:        common.HexToAddress("0x857b06519E91e3A54538791bDbb0E22373e36b66"),
		To:          common.HexToAddress("0x209693Bc6afc0C5328bA36FaF03C514EF312287C"),
		Value:       *uint256.NewInt(10000),
		ValidAfter:  *uint256.NewInt(1740672089),
		ValidBefore: *uint256.NewInt(1740672154),
		Nonce:       common.HexToHash("0xf3746613c2d920b5fdabc0856f2aeb2d4f88ee6037b8cc5d04a71a4462f13480"),
	}
	sig := common.FromHex("0x2d6a7588d6acca505cbf0d9a4a227e0c52c6c34008c8e8986a1283259764173608a2ce6496642e377d6da8dbbf5836e9bd15092f9ecab05ded3d6293af148b571c")
	got, err := x402.Recover(a.Digest(separator), sig)
	if err != nil || got != a.From {
		t.Errorf("recovered %s, %v; want %s", got, err, a.From)
	}
}

// typedDigest is the digest as go-ethereum's general implementation computes it.
func typedDigest(t *rapid.T, d x402.Domain, a x402.Authorization) common.Hash {
	chainID := math.HexOrDecimal256(*new(big.Int).SetUint64(d.ChainID))
	digest, _, err := apitypes.TypedDataAndHash(apitypes.TypedData{
		Types: apitypes.Types{
			"EIP712Domain": {
				{Name: "name", Type: "string"},
				{Name: "version", Type: "string"},
				{Name: "chainId", Type: "uint256"},
				{Name: "verifyingContract", Type: "address"},
			},
			"TransferWithAuthorization": {
				{Name: "from", Type: "address"},
				{Name: "to", Type: "address"},
				{Name: "value", Type: "uint256"},
				{Name: "validAfter", Type: "uint256"},
				{Name: "validBefore", Type: "uint256"},
				{Name: "nonce", Type: "bytes32"},
			},
		},
		PrimaryType: "TransferWithAuthorization",
		Domain: apitypes.TypedDataDomain{
			Name: d.Name, Version: d.Version, ChainId: &chainID, VerifyingContract: d.Contract.Hex(),
		},
		Message: apitypes.TypedDataMessage{
			"from": a.From.Hex(), "to": a.To.Hex(), "value": a.Value.Dec(), "validAfter": a.ValidAfter.Dec(),
			"validBefore": a.ValidBefore.Dec(), "nonce": a.Nonce.Hex(),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return common.BytesToHash(digest)
}

func drawAuthorization(t *rapid.T) (a x402.Authorization) {
	draw := func(dst []byte, name string) {
		copy(dst, rapid.SliceOfN(rapid.Byte(), len(dst), len(dst)).Draw(t, name))
	}
	number := func(dst *uint256.Int, name string) {
		dst.SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 32).Draw(t, name))
	}
	draw(a.From[:], "from")
	draw(a.To[:], "to")
	draw(a.Nonce[:], "nonce")
	number(&a.Value, "value")
	number(&a.ValidAfter, "validAfter")
	number(&a.ValidBefore, "validBefore")
	return a
}

func TestDigestAgreesWithApitypes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := x402.Domain{
			Name:     rapid.StringN(1, -1, -1).Draw(t, "name"), // apitypes takes empty for absent
			Version:  rapid.StringN(1, -1, -1).Draw(t, "version"),
			ChainID:  rapid.Uint64().Draw(t, "chain"),
			Contract: common.BytesToAddress(rapid.SliceOfN(rapid.Byte(), 20, 20).Draw(t, "contract")),
		}
		a := drawAuthorization(t)
		if got, want := a.Digest(d.Separator()), typedDigest(t, d, a); got != want {
			t.Fatalf("digest %s, apitypes %s", got, want)
		}
	})
}

// A digest must not remember the one before: the memory for it is used again.
func TestDigestIsPure(t *testing.T) {
	a := authorization()
	want := a.Digest(separator)
	other := authorization()
	other.Value.SetAllOne()
	other.Nonce = common.Hash(bytes.Repeat([]byte{0xff}, 32))
	other.Digest(base.Domain().Separator())
	if got := a.Digest(separator); got != want {
		t.Errorf("digest %s, before %s", got, want)
	}
}

func TestSignRecover(t *testing.T) {
	a := authorization()
	digest := a.Digest(separator)
	sig := sign(t, a, payerKey)
	if len(sig) != x402.SignatureLength || (sig[64] != 27 && sig[64] != 28) {
		t.Fatalf("signature %x: want 65 bytes with v 27 or 28", sig)
	}
	for _, v := range []byte{sig[64], sig[64] - 27} {
		got, err := x402.Recover(digest, append(bytes.Clone(sig[:64]), v))
		if err != nil || got != payer {
			t.Errorf("v %d: recovered %s, %v; want %s", v, got, err, payer)
		}
	}
	if got, err := x402.Recover(a.Digest(base.Domain().Separator()), sig); err == nil && got == payer {
		t.Error("a signature for one network is good on another")
	}
}

func TestSignRefusesNoKey(t *testing.T) {
	for _, key := range []*ecdsa.PrivateKey{nil, {}} {
		if sig, err := x402.Sign(common.Hash{1}, key); err == nil {
			t.Errorf("signed without a key: %x", sig)
		}
	}
}

// twin is the other signature of the same key and digest, with s in the upper half of the order.
func twin(sig []byte) []byte {
	out := bytes.Clone(sig)
	s := new(big.Int).SetBytes(sig[32:64])
	new(big.Int).Sub(crypto.S256().Params().N, s).FillBytes(out[32:64])
	out[64] = 27 + 28 - sig[64]
	return out
}

func TestRecoverRefuses(t *testing.T) {
	a := authorization()
	digest := a.Digest(separator)
	good := sign(t, a, payerKey)
	change := func(at int, with ...byte) []byte {
		sig := bytes.Clone(good)
		copy(sig[at:], with)
		return sig
	}
	zero, high := make([]byte, 32), bytes.Repeat([]byte{0xff}, 32)
	order := crypto.S256().Params().N.Bytes()
	half := common.FromHex("0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0")
	tests := []struct {
		name string
		sig  []byte
		want x402.Reason
	}{
		{"nothing", nil, x402.ReasonSignatureFormat},
		{"64 bytes", good[:64], x402.ReasonSignatureFormat},
		{"66 bytes", append(bytes.Clone(good), 0), x402.ReasonSignatureFormat},
		{"v 2", change(64, 2), x402.ReasonSignatureFormat},
		{"v 26", change(64, 26), x402.ReasonSignatureFormat},
		{"v 29", change(64, 29), x402.ReasonSignatureFormat},
		{"v 255", change(64, 255), x402.ReasonSignatureFormat},
		{"r zero", change(0, zero...), x402.ReasonSignature},
		{"s zero", change(32, zero...), x402.ReasonSignature},
		{"r at the order", change(0, order...), x402.ReasonSignature},
		{"r above the field", change(0, high...), x402.ReasonSignature},
		{"s above the order", change(32, high...), x402.ReasonSignature},
		{"the twin with high s", twin(good), x402.ReasonSignature},
		{"s just above half", change(32, new(big.Int).Add(new(big.Int).SetBytes(half), big.NewInt(1)).Bytes()...), x402.ReasonSignature},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := x402.Recover(digest, tt.sig)
			if x402.ReasonOf(err) != tt.want || got != (common.Address{}) {
				t.Errorf("recovered %s, %v; want %s", got, err, tt.want)
			}
		})
	}
	if _, err := x402.Recover(digest, change(32, half...)); err != nil {
		t.Errorf("s at half the order is allowed: %v", err)
	}
}
