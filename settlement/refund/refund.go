// Package refund makes the authorizations by which payments go back. A refund is an EIP-3009 authorization of the refund wallet, as a
// payment is one of its payer, so that it can be sent, and sent again, by whoever settles payments, and is executed once.
package refund

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Signer signs for the refund wallet. It may be a service far away.
type Signer interface {
	// Address is the wallet's.
	Address() common.Address
	// Sign gives the signature of a digest: r, s and v in 65 bytes, s low and v 0 or 1.
	Sign(ctx context.Context, digest common.Hash) ([]byte, error)
}

// domain tells these nonces from all that anybody else derives from the same.
const domain = "caddy-x402 refund v1"

// Nonce is that of the authorization which pays a payment back, whoever signs it and whenever. It depends on the payment's own
// authorization alone, which is one of its kind for ever: so no crash, no copy of a ledger and no second instance can make a wallet pay
// the same payment back twice. No two payments have the same.
func Nonce(of x402.AuthorizationID) common.Hash {
	b := binary.BigEndian.AppendUint64([]byte(domain), of.ChainID)
	b = append(append(append(b, of.Asset[:]...), of.Payer[:]...), of.Nonce[:]...)
	return crypto.Keccak256Hash(b)
}

// Sign signs a, which pays from the signer's wallet in the asset of n, for in: it is then as a payer's. A signature that is not the
// wallet's is an error: no service is trusted blindly.
func Sign(ctx context.Context, s Signer, in *settlement.Intent) error {
	a := &in.Authorization
	digest := a.Digest(in.Network.Domain().Separator())
	sig, err := s.Sign(ctx, digest)
	if err != nil {
		return fmt.Errorf("refund: signing: %w", err)
	}
	if len(sig) == x402.SignatureLength && sig[x402.SignatureLength-1] < 27 {
		sig[x402.SignatureLength-1] += 27 // as tokens want it
	}
	who, err := x402.Recover(digest, sig)
	if err != nil || who != a.From || s.Address() != a.From {
		return fmt.Errorf("refund: the signature is not that of the wallet %s", a.From)
	}
	in.Signature, in.Proven = sig, true
	return nil
}

// Exchange is what a facilitator is told of a signed refund: as if the refund wallet had paid for something of the payer's.
func Exchange(in *settlement.Intent, within time.Duration) (*settlement.Exchange, error) {
	a := &in.Authorization
	r := x402.NewRequirements(in.Network, a.To, &a.Value, within, "", "")
	resource := x402.ResourceInfo{URL: "urn:x402:refund", Description: "Refund of a payment that was not delivered"}
	payload, err := json.Marshal(x402.PayloadV2{
		X402Version: 2, Resource: &resource, Accepted: r,
		Payload: x402.ExactPayload{Signature: in.Signature, Authorization: *a},
	})
	if err != nil {
		return nil, fmt.Errorf("refund: writing the payload: %w", err)
	}
	return &settlement.Exchange{Version: 2, Payload: payload, Requirements: r, Resource: resource}, nil
}
