// Package kms signs with a key that AWS KMS keeps: of the key spec ECC_SECG_P256K1, for SIGN_VERIFY. The key never leaves
// the service, and whoever may use it is said there.
package kms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/settlement/signer"
)

// Signer signs with one key. It is safe for concurrent use.
type Signer struct {
	key     string // as configured: policies may demand the alias
	arn     string // of the key that was found
	address common.Address
	timeout time.Duration
	client  *awskms.Client
	http    *limitedClient
}

// Open asks the service for the public key, and whether it would sign. Errors wrap ErrConfig, or else
// settlement.ErrUnavailable: then it may be tried again.
func Open(ctx context.Context, c Config) (*Signer, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	client, limited, err := connect(ctx, c)
	if err != nil {
		return nil, err
	}
	s := &Signer{key: c.Key, timeout: c.Timeout, client: client, http: limited}
	err = s.identify(ctx, c.Address)
	if err == nil {
		err = s.rehearse(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// newKey is how to make a key that serves.
const newKey = "make one with `aws kms create-key --key-spec ECC_SECG_P256K1 --key-usage SIGN_VERIFY`"

// identify finds out whose account the key is.
func (s *Signer) identify(ctx context.Context, want common.Address) error {
	const doing = "asking for the public key of"
	out, err := s.client.GetPublicKey(ctx, &awskms.GetPublicKeyInput{KeyId: aws.String(s.key)})
	if err != nil {
		return s.explain(ctx, doing, err)
	}
	if out.KeySpec == "" || len(out.PublicKey) == 0 {
		return s.explain(ctx, doing, errors.New("the answer holds no key"))
	}
	if out.KeySpec != types.KeySpecEccSecgP256k1 || out.KeyUsage != types.KeyUsageTypeSignVerify {
		return fmt.Errorf("%w: %s is a key %s for %s, and a wallet needs ECC_SECG_P256K1 for SIGN_VERIFY; %s",
			ErrConfig, s.key, printable(string(out.KeySpec)), printable(string(out.KeyUsage)), newKey)
	}
	address, err := signer.AddressOf(out.PublicKey)
	if err != nil {
		return s.explain(ctx, doing, err)
	}
	if want != (common.Address{}) && address != want {
		return fmt.Errorf("%w: the account of %s is %s, and should be %s", ErrConfig, s.key, address, want)
	}
	s.arn, s.address = aws.ToString(out.KeyId), address
	return nil
}

// rehearse asks whether a signature would be given: reading the public key and signing are two permissions, and a payer
// should not be the first to learn that one is missing.
func (s *Signer) rehearse(ctx context.Context) error {
	in := s.request(crypto.Keccak256Hash([]byte("caddy-x402: a signature that nobody needs")))
	in.DryRun = aws.Bool(true)
	_, err := s.client.Sign(ctx, in)
	if _, ok := errors.AsType[*types.DryRunOperationException](err); ok || err == nil {
		return nil
	}
	return s.explain(ctx, "asking for a signature of", err)
}

func (s *Signer) request(digest common.Hash) *awskms.SignInput {
	return &awskms.SignInput{
		KeyId: aws.String(s.key), Message: digest[:], MessageType: types.MessageTypeDigest,
		SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256,
	}
}

// Address is the key's account.
func (s *Signer) Address() common.Address { return s.address }

// Sign has digest signed: 65 bytes, r ‖ s ‖ v. An error means that there is no signature, so that nothing can have come
// of it: it wraps ErrConfig, or else settlement.ErrUnavailable.
func (s *Signer) Sign(ctx context.Context, digest common.Hash) ([]byte, error) {
	const doing = "signing with"
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	out, err := s.client.Sign(ctx, s.request(digest))
	if err != nil {
		return nil, s.explain(ctx, doing, err)
	}
	signature, err := signer.FromDER(out.Signature, digest, s.address)
	if err == nil {
		return signature, nil
	}
	if now := aws.ToString(out.KeyId); now != "" && now != s.arn {
		return nil, fmt.Errorf("%w: %s was %s and is now %s, which is another account; reload the configuration if that is meant",
			ErrConfig, s.key, s.arn, printable(now))
	}
	return nil, s.explain(ctx, doing, err)
}

// Close lets go of the connections. The signer must not be used after it.
func (s *Signer) Close() error {
	s.http.CloseIdleConnections()
	return nil
}

// String names the key and its account.
func (s *Signer) String() string { return "AWS KMS key " + s.key + " of " + s.address.Hex() }

// Format is String, whatever the verb: some would walk into the credentials.
func (s *Signer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue is String.
func (s *Signer) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON is String.
func (s *Signer) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }
