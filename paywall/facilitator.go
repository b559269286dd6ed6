package paywall

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// FacilitatorConfig is what a [Facilitator] is made of.
type FacilitatorConfig struct {
	// Name is part of the record of each payment.
	Name string
	// Prefix stands before its paths, such as "/facilitator"; or nothing does.
	Prefix string
	// Acquire gives the engine for one request, and what gives it back. A failure answers 503.
	Acquire func() (*Engine, func(), error)
	// Offers are the networks and assets on which payments are settled.
	Offers []FacilitatorOffer
	// AllowPayTo are those to whom payments are settled; empty: anybody, for who has a key.
	AllowPayTo []common.Address
	// Keys are those of who may ask; empty: everybody, for the payees allowed.
	Keys []FacilitatorKey
	// Requests are how many each key, or without keys each address, may send in Per. Default: 1,000 in a second with a key, 100
	// without.
	Requests int
	Per      time.Duration
	// Repeat tells a success to every request for the same settlement. Without it, one request is told, and whoever asks again is
	// refused: a server that keeps no books of what it has served would serve every copy of a payment, whether it serves before it
	// settles or afterwards.
	Repeat bool
	// MinRemaining is how much of its validity an authorization must have left. Default: 6 s, as the reference has it.
	MinRemaining time.Duration
	// MaxValidity is how far away its end may be. Default: 1 h.
	MaxValidity time.Duration
	// BodyTimeout is how long a request's body may take. Default: 30 s.
	BodyTimeout time.Duration
	// Now is the clock for limits. Default: time.Now.
	Now func() time.Time
	// Decided hears what became of each request: of which endpoint, and "supported", "valid", "invalid", "settled", "refused", "pending",
	// "unavailable", "unauthorized", "limited" or "malformed"; may be nil.
	Decided func(endpoint, outcome string)
	// Filed hears which payment a request is about, once that is in the ledger; may be nil.
	Filed  func(r *http.Request, payment string)
	Logger *slog.Logger
}

// FacilitatorOffer is a network and an asset in which payments are settled. Its payee's own PayTo counts for nothing here.
type FacilitatorOffer struct {
	Payee *Payee
	// Least is the least amount, in atomic units: moving money costs gas, whatever it is worth.
	Least uint256.Int
	// MinRemaining is how much of its validity an authorization must have left here, where that is more than elsewhere: one that ends
	// before the next block comes fails on the chain, and costs its payer nothing.
	MinRemaining time.Duration
}

// FacilitatorKey lets a caller in. The secret itself is not kept.
type FacilitatorKey struct {
	// Name is what the caller is called in logs and in the ledger.
	Name string
	hash [sha256.Size]byte
}

// NewFacilitatorKey makes a key of its secret.
func NewFacilitatorKey(name, secret string) FacilitatorKey {
	return FacilitatorKey{Name: name, hash: sha256.Sum256([]byte(secret))}
}

// Facilitator settles payments for other servers: the facilitator interface of x402, versions 1 and 2, over HTTP. Their payments
// are in the ledger beside ours, each authorization once, and end when they are settled. It is safe for concurrent use.
type Facilitator struct {
	FacilitatorConfig
	callers callers
}

var (
	errNoOffers  = errors.New("paywall: a facilitator needs a network")
	errOpenRelay = errors.New("paywall: a facilitator that everybody may ask needs allowed payees: else it would move anybody's money to anywhere, at our cost")
	errNotOurs   = errors.New("paywall: a facilitator settles from wallets of its own alone")
)

// NewFacilitator makes a facilitator. It refuses one that strangers could use for strangers.
func NewFacilitator(c FacilitatorConfig) (*Facilitator, error) {
	if len(c.Offers) == 0 {
		return nil, errNoOffers
	}
	if len(c.Keys) == 0 && len(c.AllowPayTo) == 0 {
		return nil, errOpenRelay
	}
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&c.MinRemaining, 6*time.Second)
	set(&c.MaxValidity, time.Hour)
	set(&c.BodyTimeout, 30*time.Second)
	if c.Requests <= 0 || c.Per <= 0 {
		if c.Requests, c.Per = 100, time.Second; len(c.Keys) > 0 {
			c.Requests = 1000
		}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Decided == nil {
		c.Decided = func(string, string) {}
	}
	for _, o := range c.Offers {
		if _, ok := o.Payee.Settler.(settlement.Owner); !ok {
			return nil, fmt.Errorf("%w: %s", errNotOurs, o.Payee.Network.ID)
		}
		o.Payee.Prepare()
	}
	return &Facilitator{FacilitatorConfig: c, callers: callers{most: c.Requests, per: c.Per}}, nil
}

// The endpoints of the facilitator interface.
const (
	pathSupported = "/supported"
	pathVerify    = "/verify"
	pathSettle    = "/settle"
)

// Serve answers r if its path is one of the facilitator's; else ours is false, and nothing was done. client is the address of who asks.
func (f *Facilitator) Serve(w http.ResponseWriter, r *http.Request, client string) (ours bool, err error) {
	path, ok := strings.CutPrefix(r.URL.Path, f.Prefix)
	if !ok {
		return false, nil
	}
	c := &call{Facilitator: f, w: w, r: r, client: client, endpoint: path}
	method, serve := http.MethodPost, c.serve
	switch path {
	case pathSupported:
		method, serve = http.MethodGet, c.serveSupported
	case pathVerify, pathSettle:
	default:
		return false, nil
	}
	if r.Method != method && (method != http.MethodGet || r.Method != http.MethodHead) {
		w.Header().Set("Allow", method)
		return true, c.answer(&refusal{status: http.StatusMethodNotAllowed, code: "method_not_allowed", detail: "use " + method})
	}
	err = serve()
	if refused, ok := errors.AsType[*refusal](err); ok {
		return true, c.answer(refused)
	}
	return true, err
}

// call is one request to a facilitator.
type call struct {
	*Facilitator
	w        http.ResponseWriter
	r        *http.Request
	client   string
	endpoint string

	caller string // the name of its key
	order  *x402.Order
	offer  *FacilitatorOffer
	signer x402.Signer
	engine *Engine
}

func (c *call) serveSupported() error {
	var networks []x402.Network
	var signers []common.Address
	for _, o := range c.Offers {
		networks = append(networks, o.Payee.Network)
		for _, a := range o.Payee.Settler.(settlement.Owner).Wallets() {
			if !slices.Contains(signers, a) {
				signers = append(signers, a)
			}
		}
	}
	return c.write(http.StatusOK, "supported", x402.NewSupported(networks, signers))
}

// serve is the way of a request that brings a payment.
func (c *call) serve() error {
	if err := c.admit(); err != nil {
		return err
	}
	body, err := c.readBody()
	if err != nil {
		return err
	}
	order, payer, malformed, err := x402.ParseOrder(body)
	if malformed {
		return malformedOrder(err)
	}
	if err != nil {
		return c.no(err, payer)
	}
	c.order = order
	if err := c.accept(); err != nil {
		return c.no(err, payer)
	}
	c.signer = order.Payload.Identify(c.offer.Payee.separator)
	engine, release, err := c.Acquire()
	if err != nil {
		return unavailable(codeStore, err)
	}
	defer release()
	c.engine = engine
	if c.endpoint == pathSettle {
		return c.settle()
	}
	return c.verify()
}

// admit finds out who asks, and whether it may ask now.
func (c *call) admit() error {
	who := "address " + clientKey(c.client)
	if len(c.Keys) > 0 {
		hash := sha256.Sum256([]byte(bearerToken(c.r.Header)))
		found := -1
		for i := range c.Keys { // all of them: how long it takes tells nothing
			if subtle.ConstantTimeCompare(hash[:], c.Keys[i].hash[:]) == 1 {
				found = i
			}
		}
		if found >= 0 {
			c.caller = c.Keys[found].Name
			who = "key " + strconv.Itoa(found)
		}
	}
	if !c.callers.admit(who, c.Now()) {
		return &refusal{status: http.StatusTooManyRequests, code: "too_many_requests", detail: "too many requests; wait, and send this one again"}
	}
	if len(c.Keys) > 0 && c.caller == "" {
		c.w.Header().Set("WWW-Authenticate", `Bearer realm="x402"`)
		return &refusal{
			status: http.StatusUnauthorized, code: "unauthorized",
			detail: "this facilitator wants an API key: send it as Authorization: Bearer <key>",
		}
	}
	return nil
}

// mostOrder is how long the body of a request may be.
const mostOrder = 128 << 10

func (c *call) readBody() ([]byte, error) {
	inTime := limitBodyTime(c.w, c.r, c.BodyTimeout)
	body, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, mostOrder))
	if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong {
		return nil, &refusal{
			status: http.StatusRequestEntityTooLarge, code: codeBody, cause: err,
			detail: fmt.Sprintf("the body is longer than %d bytes", mostOrder),
		}
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &refusal{status: http.StatusRequestTimeout, code: codeBody, cause: err, detail: "the body did not come in time"}
	case err != nil:
		return nil, &refusal{status: http.StatusBadRequest, code: codeBody, cause: err, detail: "the body can't be read"}
	}
	inTime()
	return body, nil
}

func malformedOrder(err error) *refusal {
	r := refuse(err)
	r.status = http.StatusBadRequest
	return r
}

// accept finds by whose rules the order is judged, and whether it is one that is settled here at all.
func (c *call) accept() error {
	o := c.order
	i := slices.IndexFunc(c.Offers, func(f FacilitatorOffer) bool { return o.On(f.Payee.Network) })
	if i < 0 {
		for _, f := range c.Offers {
			if n := f.Payee.Network; o.Requirements.Network == n.ID || o.Version == 1 && o.Requirements.Network == n.V1Name {
				return x402.Refuse(x402.ReasonInvalidRequirements, "the asset %s is not settled here on %s", o.Asset, n.ID)
			}
		}
		return x402.Refuse(x402.ReasonInvalidNetwork, "network %.40q is not settled here; see %s", o.Requirements.Network, pathSupported)
	}
	c.offer = &c.Offers[i]
	switch least := &c.offer.Least; {
	case len(c.AllowPayTo) > 0 && !slices.Contains(c.AllowPayTo, o.PayTo):
		return x402.Refuse(x402.ReasonInvalidRequirements, "payments to %s are not settled here", o.PayTo)
	case o.Amount.IsZero() || o.Amount.Lt(least):
		return x402.Refuse(x402.ReasonInvalidRequirements, "%s atomic units are too little to be settled here; the least is %s", o.Amount.Dec(), least.Dec())
	}
	return nil
}

// no is the verdict that the payment is not valid, or not settled. payer may be nil.
func (c *call) no(err error, payer *common.Address) error {
	reason, detail := x402.ReasonOf(err), ""
	if e, ok := errors.AsType[*x402.Error](err); ok {
		detail = e.Detail
	}
	who := ""
	if payer != nil {
		who = payer.Hex()
	}
	if c.endpoint == pathVerify {
		return c.write(http.StatusOK, "invalid", x402.VerifyResponse{InvalidReason: reason, InvalidMessage: detail, Payer: who})
	}
	return c.write(http.StatusOK, "refused", x402.SettlementResponse{
		ErrorReason: reason, ErrorMessage: detail, Payer: who, Network: c.network(),
	})
}

// network is what the caller calls the network.
func (c *call) network() string {
	if c.order == nil {
		return ""
	}
	return c.order.Requirements.Network
}

func (c *call) payer() *common.Address { return &c.order.Payload.Authorization.From }

// apiError is an answer that is no verdict: nothing is said of the payment.
type apiError struct {
	Error string `json:"error"`
	Code  string `json:"code"`
}

func (c *call) answer(r *refusal) error {
	outcome := "malformed"
	switch r.status {
	case http.StatusServiceUnavailable:
		outcome = "unavailable"
		c.Logger.Warn("a payment for another server was put off", slog.String("code", r.code), slog.String("payment", r.payment),
			slog.String("caller", c.caller), slog.Any("error", r.cause))
	case http.StatusUnauthorized:
		outcome = "unauthorized"
	case http.StatusTooManyRequests:
		outcome = "limited"
	}
	if r.retryable() {
		c.w.Header().Set("Retry-After", r.comeBack())
	}
	return c.write(r.status, outcome, apiError{Error: r.detail, Code: r.code})
}

func (c *call) write(status int, outcome string, v any) error {
	c.Decided(c.endpoint[1:], outcome)
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing an answer: %w", err)
	}
	h := c.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	keepUpload(h, c.r)
	c.w.WriteHeader(status)
	if c.r.Method == http.MethodHead {
		return nil
	}
	if _, err := c.w.Write(body); err != nil {
		c.Logger.Debug("writing an answer", slog.Any("error", err)) // who asked has left
	}
	return nil
}
