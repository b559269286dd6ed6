package client

import (
	"context"
	"crypto/ecdsa"
	"net/http"
	"time"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/x402"
)

// Defaults of a Client.
const (
	DefaultMaxBody      = 10 << 20
	DefaultMaxValidity  = 15 * time.Minute
	DefaultMaxRetries   = 30
	DefaultMaxRetryTime = 2 * time.Minute
)

// Client pays for what it asks for. Its fields must not change while it is in use; it is then safe for
// concurrent use, and so must its hooks be. A call shows its progress through the hooks, in the goroutine of the
// caller.
type Client struct {
	// HTTP sends the requests; nil stands for one without a timeout (the context of the request bounds a
	// call, and answers may stream for long). Without a CheckRedirect of its own,
	// redirects are followed on the same host only. Whatever it says, requests that carry a payment don't
	// follow any.
	HTTP *http.Client
	// Key signs. It is an account's own; contract wallets can't be used.
	Key *ecdsa.PrivateKey
	// Limits are the assets that may be spent, each with the most that one call may spend of it. All others are
	// refused; none is allowed by default.
	Limits []Limit
	// Plan is the plan to buy; empty takes the first way to pay that the limits allow.
	Plan string

	// MaxBody is how many bytes of a request's body are kept, so that it can be sent again, where the request has
	// no GetBody. Default: DefaultMaxBody.
	MaxBody int64
	// MaxValidity caps how long an authorization is good for, whatever the server asks for. Default:
	// DefaultMaxValidity.
	MaxValidity time.Duration
	// MaxRetries and MaxRetryTime bound how often and how long the same payment is sent again while its outcome is
	// not known. Defaults: DefaultMaxRetries, DefaultMaxRetryTime; a negative MaxRetries means none.
	MaxRetries   int
	MaxRetryTime time.Duration

	// OnOffer is called when a way to pay was chosen, before anything is signed. An error ends the call with
	// CodeDeclined.
	OnOffer func(*Report) error
	// OnSigned is called before a new payment is sent for the first time: the moment to keep it for Resume. An error
	// ends the call with CodeDeclined, and the payment is never sent.
	OnSigned func(*Report) error
	// OnRetry is called before each pause.
	OnRetry func(*Report, Retry)

	// Now is the clock; nil stands for time.Now.
	Now func() time.Time

	wait func(context.Context, time.Duration) error // for tests
}

// Do sends the request and pays for it if it has to. The caller closes the response's body. A response comes without an
// error, whatever its status: Report.Paid tells whether it was paid for, and an upstream's own failure after a
// payment is a response. The report is never nil. The error is an *Error.
//
// A redirect as answer to the paid request is returned as it is: what it points to is another request.
func (c *Client) Do(req *http.Request) (*http.Response, *Report, error) {
	x := c.newExchange(req)
	if c.Key == nil {
		return nil, x.report, fail(CodeRequest, nil, "the client has no key to pay with")
	}
	resp, err := x.quote()
	if err != nil || resp != nil {
		return resp, x.report, err
	}
	if err := x.sign(); err != nil {
		return nil, x.report, err
	}
	resp, err = x.pay()
	return resp, x.report, err
}

// Quote asks what Do would pay, and signs nothing: the report has the offer, the choice and the authorization (from
// nobody, if there is no key). A response is returned if nothing was asked for.
func (c *Client) Quote(req *http.Request) (*http.Response, *Report, error) {
	x := c.newExchange(req)
	resp, err := x.quote()
	return resp, x.report, err
}

// Resume sends the request with a payment that was signed before, after CodeUnknown or a crash. It needs no key
// and signs nothing. The request must be the one that the payment was made for: same method, same URL. Results are those
// of Do.
func (c *Client) Resume(req *http.Request, p Payment) (*http.Response, *Report, error) {
	x := c.newExchange(req)
	payload, err := p.check()
	if err != nil {
		return nil, x.report, err
	}
	if err := x.prepare(); err != nil {
		return nil, x.report, err
	}
	r := x.report
	r.Version, r.Payment, r.Authorization = payload.Version, &p, &payload.Authorization
	r.Payer, r.Amount, r.Requirements = payload.Authorization.From, payload.Authorization.Value, payload.Accepted
	r.Network = x402.Network{ID: payload.Network}
	if n, ok := x402.LookupNetwork(payload.Network); ok {
		r.Network = n
	}
	x.uncertain = true
	resp, err := x.pay()
	return resp, r, err
}

// quote asks without a payment. It gives a response if none is needed.
func (x *exchange) quote() (*http.Response, error) {
	if k := x.c.Key; k != nil {
		x.report.Payer = crypto.PubkeyToAddress(k.PublicKey)
	}
	if err := x.prepare(); err != nil {
		return nil, err
	}
	resp, err := x.ask()
	if err != nil || resp != nil {
		return resp, err
	}
	if err := x.choose(); err != nil {
		return nil, err
	}
	if x.c.OnOffer != nil {
		if err := x.c.OnOffer(x.report); err != nil {
			return nil, fail(CodeDeclined, err, "the offer was declined")
		}
	}
	return nil, nil //nolint:nilnil // neither means: pay
}

func (c *Client) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

func (c *Client) pause(ctx context.Context, d time.Duration) error {
	if c.wait != nil {
		return c.wait(ctx, d)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// or gives the default for a value that is not set.
func or[T int | int64 | time.Duration](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}
