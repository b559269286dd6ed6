package client

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddy-x402/caddy-x402/x402"
)

// Code says in a stable way why a call did not bring a paid answer.
type Code string

// Codes before anything was signed: no money can move.
const (
	// CodeRequest: the request itself can't be sent, or not twice.
	CodeRequest Code = "bad_request"
	// CodeTransport: no answer came to the request without a payment, or the payment never left this machine.
	CodeTransport Code = "transport"
	// CodeRedirected: the offer comes from another host than the one that was asked.
	CodeRedirected Code = "redirected"
	// CodeOffer: the 402 holds no offer that can be read.
	CodeOffer Code = "offer_unreadable"
	// CodeNoOffer: no way to pay that is offered is spoken here.
	CodeNoOffer Code = "no_acceptable_offer"
	// CodeNetwork: no network that is offered is among the limits.
	CodeNetwork Code = "network_not_allowed"
	// CodeAsset: the network is allowed, the asset is not.
	CodeAsset Code = "asset_not_allowed"
	// CodeOverCap: what is asked for is more than the limit.
	CodeOverCap Code = "over_cap"
	// CodeDeclined: a hook of the caller said no.
	CodeDeclined Code = "declined"
)

// Codes after a payment was sent.
const (
	// CodeRefused: the server did not take the payment; Error.Reason says why.
	CodeRefused Code = "payment_refused"
	// CodeUnknown: whether the payment was taken is not known. Send the same payment again (Client.Resume);
	// never sign another one.
	CodeUnknown Code = "outcome_unknown"
	// CodeAnswerLost: the payment was used, but its answer did not arrive and is not given again.
	CodeAnswerLost Code = "answer_lost"
)

// Error is why a call failed: Code for programs, Detail for people. Texts of the server in it are cleaned
// of what could disturb a terminal.
type Error struct {
	Code   Code
	Detail string
	// Reason is the server's, with CodeRefused and CodeAnswerLost.
	Reason x402.Reason
	// PaymentID and StatusURL are the server's names for the payment, where it told them.
	PaymentID, StatusURL string
	// RetryAfter is how long the server asked to wait, with CodeUnknown; 0 if it did not.
	RetryAfter time.Duration
	Err        error
}

// Error gives the code and the detail.
func (e *Error) Error() string {
	s := fmt.Sprintf("x402 client: %s: %s", e.Code, e.Detail)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf gives the code of the *Error in err's chain, or "".
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

func fail(code Code, cause error, detail string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(detail, args...), Err: cause}
}
