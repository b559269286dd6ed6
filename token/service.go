package token

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// serviceType is the typ of tokens by which the paywall proves to the seller's own services who is asking. Nothing of ours takes one.
const serviceType = "x402-service+jwt"

// Service signs a token that says who is asking: issuer and subject are the paywall's, audience the service's. It is good for ttl
// from at on, and its jti is random.
func (i *Issuer) Service(audience string, ttl time.Duration, at time.Time) (string, error) {
	if i.Issuer == "" || audience == "" || ttl < time.Second {
		return "", errors.New("issuing a service token: an issuer, an audience and a life of a second are needed")
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return "", fmt.Errorf("issuing a service token: %w", err)
	}
	key := i.Keyring.SigningKey(at)
	if key.sign == nil {
		return "", fmt.Errorf("issuing a service token: %w", errNoSigningKey)
	}
	t := jwt.Token{
		Method: key.method,
		Header: map[string]any{"alg": key.Algorithm(), "kid": key.id, "typ": serviceType},
		Claims: jwt.RegisteredClaims{
			Issuer: i.Issuer, Subject: i.Issuer, Audience: jwt.ClaimStrings{audience},
			ID: base64.RawURLEncoding.EncodeToString(id[:]), IssuedAt: jwt.NewNumericDate(at), NotBefore: jwt.NewNumericDate(at),
			ExpiresAt: jwt.NewNumericDate(at.Add(ttl)),
		},
	}
	s, err := t.SignedString(key.sign)
	if err != nil {
		return "", fmt.Errorf("signing a service token: %w", err)
	}
	return s, nil
}
