package token

import (
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Issuer makes tokens.
type Issuer struct {
	Keyring *Keyring
	// Issuer is the iss of every token: the public URL of the paywall.
	Issuer string
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Issue signs a token of the given kind that is valid for ttl from c.IssuedAt on, or from now if that is nil. Issuer,
// audience and times are set here, whatever c says of them. With an Ed25519, RSA or HS256 key, the same claims
// issued at the same time give the same bytes, so that a lost token can be made again.
func (i *Issuer) Issue(kind Kind, c Claims, ttl time.Duration) (string, error) {
	switch {
	case kind.Type() == "":
		return "", errors.New("issuing a token: no such kind")
	case i.Issuer == "":
		return "", errors.New("issuing a token: no issuer URL")
	case ttl < time.Second:
		return "", fmt.Errorf("issuing a token: %v is too short a life", ttl)
	}
	now := time.Now
	if i.Now != nil {
		now = i.Now
	}
	at := now()
	key := i.Keyring.SigningKey(at)
	if c.IssuedAt != nil {
		at = c.IssuedAt.Time
	}
	if key.sign == nil {
		return "", fmt.Errorf("issuing a token: %w", errNoSigningKey)
	}
	c.Issuer = i.Issuer
	c.Audience = jwt.ClaimStrings{kind.audience(i.Issuer)}
	c.IssuedAt, c.NotBefore = jwt.NewNumericDate(at), jwt.NewNumericDate(at)
	c.ExpiresAt = jwt.NewNumericDate(at.Add(ttl))
	c.ClientID = ""
	if kind == Access {
		c.ClientID = c.Subject
	}
	if len(c.X402.Resource) > maxResource {
		c.X402.Resource = ""
	}
	if err := c.check(); err != nil {
		return "", fmt.Errorf("issuing a token: %w", err)
	}
	return sign(key, kind, &c)
}

func sign(key Key, kind Kind, c *Claims) (string, error) {
	t := jwt.Token{
		Method: key.method,
		Header: map[string]any{"alg": key.Algorithm(), "kid": key.id, "typ": kind.Type()},
		Claims: c,
	}
	s, err := t.SignedString(key.sign)
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	if len(s) > MaxSize {
		return "", fmt.Errorf("issuing a token: it has %d bytes, more than %d", len(s), MaxSize)
	}
	return s, nil
}
