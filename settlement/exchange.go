package settlement

import (
	"encoding/json"

	"github.com/caddy-x402/caddy-x402/x402"
)

// Exchange is what a payer was offered and what it answered: what a facilitator has to be handed so that it settles a
// payment (x402 specification, facilitator interface).
type Exchange struct {
	// Version of the protocol that the payer speaks: 1 or 2.
	Version int
	// Payload is the JSON of the payment header, byte for byte: facilitators compare its hash between calls, and a copy by
	// way of our types would lose what they don't know. It holds the signature, and the echo with which its payer comes back:
	// it is never logged and never stored.
	Payload json.RawMessage
	// Requirements are our own for this payment as the offer had them, in version 2. What the client says that it accepted
	// only selected them.
	Requirements x402.Requirements
	// Resource is what they are for; in version 1 it is a part of the requirements.
	Resource x402.ResourceInfo
}
