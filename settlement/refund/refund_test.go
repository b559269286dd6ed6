package refund_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/refund"
	"github.com/caddy-x402/caddy-x402/settlement/signer"
	"github.com/caddy-x402/caddy-x402/x402"
)

// The nonce never changes: a release that derived another one would pay again what was paid before it.
func TestNonceStays(t *testing.T) {
	id := x402.AuthorizationID{ChainID: 8453, Asset: common.Address{1}, Payer: common.Address{2}, Nonce: common.Hash{3}}
	const want = "0xe1141e5ac43fc98d4f7fb2d04935bc60cd7611e5cfbfae978c78b1cea1e5e78c"
	if got := refund.Nonce(id).Hex(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Two payments that differ in anything have two nonces.
func TestNoncesDiffer(t *testing.T) {
	draw := func(t *rapid.T, name string) x402.AuthorizationID {
		id := x402.AuthorizationID{ChainID: rapid.Uint64Range(1, 3).Draw(t, name)}
		id.Asset[19] = rapid.Byte().Draw(t, name)
		id.Payer[0] = rapid.Byte().Draw(t, name)
		id.Nonce[31] = rapid.Byte().Draw(t, name)
		return id
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := draw(t, "a"), draw(t, "b")
		if (refund.Nonce(a) == refund.Nonce(b)) != (a == b) {
			t.Fatalf("%v and %v", a, b)
		}
	})
}

// liar signs with another key than that of its address.
type liar struct {
	refund.Signer
	other refund.Signer
	err   error
}

func (l liar) Sign(ctx context.Context, digest common.Hash) ([]byte, error) {
	if l.err != nil {
		return nil, l.err
	}
	return l.other.Sign(ctx, digest)
}

func TestSign(t *testing.T) {
	wallet, other := newSigner(t), newSigner(t)
	network, _ := x402.LookupNetwork("base-sepolia")
	in := settlement.Intent{Network: network}
	in.Authorization = x402.Authorization{From: wallet.Address(), To: common.Address{5}, Value: *uint256.NewInt(10_000), Nonce: common.Hash{6}}
	in.Authorization.ValidBefore.SetUint64(1_900_000_000)
	for name, s := range map[string]refund.Signer{
		"another wallet":      other,
		"a lie":               liar{Signer: wallet, other: other},
		"a service is down":   liar{Signer: wallet, err: errors.New("down")},
		"a wallet by its say": liar{Signer: other, other: wallet},
	} {
		if err := refund.Sign(t.Context(), s, &in); err == nil || in.Signature != nil || in.Proven {
			t.Errorf("%s: %v, %x", name, err, in.Signature)
		}
	}
	if err := refund.Sign(t.Context(), wallet, &in); err != nil || !in.Proven {
		t.Fatal(err)
	}
	who, err := x402.Recover(in.Authorization.Digest(network.Domain().Separator()), in.Signature)
	if err != nil || who != wallet.Address() || in.Signature[64] < 27 {
		t.Errorf("signed by %s, %v, v %d", who, err, in.Signature[64])
	}
	e, err := refund.Exchange(&in, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	var p x402.PayloadV2
	if err := json.Unmarshal(e.Payload, &p); err != nil {
		t.Fatal(err)
	}
	if e.Requirements.PayTo != in.Authorization.To.Hex() || e.Requirements.Amount != "10000" || p.Payload.Authorization != in.Authorization ||
		!bytes.Equal(p.Payload.Signature, in.Signature) || p.Accepted.PayTo != e.Requirements.PayTo {
		t.Errorf("%+v, %s", e.Requirements, e.Payload)
	}
}

func newSigner(t *testing.T) refund.Signer {
	key, err := crypto.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := signer.NewLocal(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
