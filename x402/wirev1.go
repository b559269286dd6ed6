package x402

import "encoding/json"

// RequiredV1 is the body of a 402 for clients of version 1.
type RequiredV1 struct {
	X402Version int              `json:"x402Version"`
	Error       string           `json:"error"`
	Accepts     []RequirementsV1 `json:"accepts"`
}

// RequirementsV1 is one way to pay, version 1. Its clients throw the whole body away over a string that
// is missing or null, so all strings are always there; what is optional is absent or an object.
type RequirementsV1 struct {
	Scheme            string          `json:"scheme"`
	Network           string          `json:"network"` // a name, such as "base"
	MaxAmountRequired string          `json:"maxAmountRequired"`
	Resource          string          `json:"resource"` // absolute URL
	Description       string          `json:"description"`
	MimeType          string          `json:"mimeType"`
	PayTo             string          `json:"payTo"`
	MaxTimeoutSeconds int             `json:"maxTimeoutSeconds"`
	Asset             string          `json:"asset"`
	OutputSchema      json.RawMessage `json:"outputSchema,omitempty"`
	Extra             *ExtraV1        `json:"extra,omitempty"`
}

// ExtraV1 is the asset's EIP-712 domain.
type ExtraV1 struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// PayloadV1 is what a client sends in HeaderPaymentV1.
type PayloadV1 struct {
	X402Version int          `json:"x402Version"`
	Scheme      string       `json:"scheme"`
	Network     string       `json:"network"`
	Payload     ExactPayload `json:"payload"`
}

// Pay is the answer to the offer r.
func (r *RequirementsV1) Pay(a *Authorization, sig []byte) PayloadV1 {
	return PayloadV1{
		X402Version: 1,
		Scheme:      r.Scheme,
		Network:     r.Network,
		Payload:     ExactPayload{Signature: sig, Authorization: *a},
	}
}
