package token

import (
	"errors"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// MaxSize bounds a token in bytes. Longer ones are neither issued nor looked at.
	MaxSize = 4 << 10
	// Leeway is how far the clocks of two instances may differ.
	Leeway = 5 * time.Second
	// AssertionAudience is the aud of every assertion: whatever stands behind the paywall.
	AssertionAudience = "x402-upstream"

	// A longer resource URL is left out of the token rather than cut: half a URL names something else.
	maxResource = 1 << 10
)

// Kind says what a token is for.
type Kind uint8

const (
	// Access is the plan token of a buyer; the gate takes it instead of a payment (RFC 9068).
	Access Kind = iota + 1
	// Assertion tells the upstream who paid for this request; the gate never takes it.
	Assertion
)

// Type is the kind's typ header (RFC 8725 section 3.11), or "" for no kind.
func (k Kind) Type() string {
	switch k {
	case Access:
		return "at+jwt"
	case Assertion:
		return "x402-assertion+jwt"
	default:
		return ""
	}
}

// String is the kind's name.
func (k Kind) String() string {
	switch k {
	case Access:
		return "access"
	case Assertion:
		return "assertion"
	default:
		return "unknown"
	}
}

// audience is the aud that issuer gives to tokens of kind k: access tokens come back to the issuer itself.
func (k Kind) audience(issuer string) string {
	if k == Access {
		return issuer
	}
	return AssertionAudience
}

// Claims is what a token says. Subject is the payer's address and ID the payment's id; both are required.
type Claims struct {
	jwt.RegisteredClaims
	// ClientID is the payer again, where RFC 9068 wants it; Issue sets it on access tokens.
	ClientID string `json:"client_id,omitempty"`
	// X402 is what was paid, and for what.
	X402 Purchase `json:"x402"`
}

// Purchase is the x402 claim.
type Purchase struct {
	// Plan names the plan that was bought; empty for a single request.
	Plan string `json:"plan,omitempty"`
	// Route names the paid route that the token is bound to; empty where a plan says it.
	Route string `json:"route,omitempty"`
	// Network is the CAIP-2 identifier of the chain, such as "eip155:8453".
	Network string `json:"network"`
	// Asset is the token contract's address.
	Asset string `json:"asset"`
	// Amount is what was paid, in atomic units of the asset, decimal.
	Amount string `json:"amount"`
	// Transaction is the hash of the settling transaction; empty while it is not settled.
	Transaction string `json:"transaction,omitempty"`
	// Resource is the URL that was paid for.
	Resource string `json:"resource,omitempty"`
}

// check says what every token must say, whoever made it.
func (c *Claims) check() error {
	switch {
	case c.Subject == "":
		return errors.New("no subject")
	case c.ID == "":
		return errors.New("no id")
	case c.IssuedAt == nil:
		return errors.New("no time of issue")
	case c.NotBefore == nil:
		return errors.New("no start of validity")
	case c.ExpiresAt == nil:
		return errors.New("no expiry")
	}
	return nil
}
