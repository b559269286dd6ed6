package client

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/caddy-x402/caddy-x402/x402"
)

const redacted = "REDACTED"

// Secret is a text that must not be printed by accident: a payment header, which anybody may use who reads
// it, or an access token. Convert it with string(s) where it is meant to be read.
type Secret string

// Format prints that there is something, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) {
	if s != "" {
		_, _ = io.WriteString(f, redacted)
	}
}

// MarshalText is what encoders of JSON and the like get to see.
func (s Secret) MarshalText() ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	return []byte(redacted), nil
}

// LogValue is what logs get to see.
func (s Secret) LogValue() slog.Value {
	if s == "" {
		return slog.StringValue("")
	}
	return slog.StringValue(redacted)
}

// Payment is a signed payment header. Whoever holds it can send it, so keep it like a key until it was used.
type Payment struct {
	// Header is its name: x402.HeaderSignature or, for version 1, x402.HeaderPaymentV1.
	Header string
	Value  Secret
}

// check refuses what is no payment header, so that nothing else is sent under its name.
func (p *Payment) check() (*x402.Payload, error) {
	payload, err := x402.DecodePayload(string(p.Value))
	if err != nil {
		return nil, fail(CodeRequest, err, "the payment to resume is no payment header")
	}
	if want := headerOf(payload.Version); p.Header != want {
		return nil, fail(CodeRequest, nil, "a payment of version %d goes into the header %s, not %q", payload.Version, want, p.Header)
	}
	return payload, nil
}

// headerOf is the name of the payment header of a protocol version.
func headerOf(version int) string {
	if version == 1 {
		return x402.HeaderPaymentV1
	}
	return x402.HeaderSignature
}
