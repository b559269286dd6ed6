package client

import (
	"net/url"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/x402"
)

// Report is what happened in one call, as far as it got. It holds no signature but that in Payment, and
// prints neither that nor the token.
type Report struct {
	// Status is that of the last answer, 0 if there was none.
	Status int
	// Attempts are the requests that were sent, the one without a payment first.
	Attempts []Attempt
	// Method and URL are those of the last request: redirects before the offer may have changed the caller's. A
	// payment is good for them alone.
	Method string
	URL    *url.URL

	// Version is the protocol version of the offer or the payment; 0 if nothing was asked for.
	Version int
	// Offer is the 402's header; nil in version 1.
	Offer *x402.PaymentRequired
	// OfferV1 is the 402's body; nil in version 2.
	OfferV1 *x402.RequiredV1
	// Requirements is the way to pay that was chosen. For version 1 it is what its successor would say.
	Requirements *x402.Requirements
	// Network and Amount (atomic units of Network.Asset) are those of Requirements.
	Network x402.Network
	Amount  uint256.Int

	// Payer is the account of the key.
	Payer common.Address
	// Authorization is what was signed, or would be (Client.Quote).
	Authorization *x402.Authorization
	// Payment is the header that was sent; nil until it is signed.
	Payment *Payment

	// Settlement is the server's receipt, success or failure; nil if it sent none.
	Settlement *x402.SettlementResponse
	// PaymentID and StatusURL are the server's names for the payment.
	PaymentID, StatusURL string
	// PaymentStatus is what the server says about a payment whose answer is an error, such as "refund_pending".
	PaymentStatus string
	// AccessToken is that of a plan, if one was bought: "Authorization: Bearer …" from then on.
	AccessToken Secret
}

// Paid reports whether the server's receipt says that the payment was taken.
func (r *Report) Paid() bool { return r.Settlement != nil && r.Settlement.Success }

// Attempt is one request and its answer.
type Attempt struct {
	// Paid: it carried the payment.
	Paid bool
	// Status is the answer's, 0 if none came; Err then says why.
	Status int
	Err    error
}

// Retry tells a hook that the same payment will be sent again.
type Retry struct {
	// Number counts the retries from 1.
	Number int
	// Wait is the pause before it.
	Wait time.Duration
	// Status and Err are those of the attempt before.
	Status int
	Err    error
}
