// Package remote asks the seller's own endpoint for the credential that the buyer of a plan gets, in place of a token of ours. What is
// asked and answered is the contract that Key0 calls ISSUE_TOKEN_API.
//
// The endpoint is the seller's, and asked with the seller's secrets: redirects are not followed, answers are bounded, what it says when
// it fails goes nowhere, and a retry carries the same Idempotency-Key, so that it issues nothing twice.
package remote

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Bounds and defaults of a Client.
const (
	DefaultTimeout = 15 * time.Second // of each try
	DefaultRetries = 2                // beside the first try
	MaxRetries     = 10

	firstPause = 500 * time.Millisecond // before the first retry; then twice as long each time
	longest    = 4 * time.Second        // pause
	spread     = 0.2                    // of a pause, up and down

	// MaxAnswer bounds the endpoint's answer: it has to fit into the header of ours.
	MaxAnswer = 8 << 10
)

// Config says which endpoint is asked, and how.
type Config struct {
	// URL must be https, unless it is on this machine.
	URL string
	// Timeout bounds each try. Default: DefaultTimeout.
	Timeout time.Duration
	// Retries is how often it is tried again. A try that took too long is not.
	Retries int
	// Authorize adds to each try what proves who asks; may be nil. It must not tell a secret in its error.
	Authorize func(*http.Request) error
	// Refused is called where the endpoint has answered 401 to what Authorize added, which is then tried again; may be nil.
	Refused func()
	// Extra are further members of what is asked, of any value that JSON has. None may have the name of a member that we set.
	Extra map[string]any
	// Transport does the asking. Default: one of its own, which Close closes.
	Transport http.RoundTripper
	// Pause is that before the first retry. Default: 500 ms.
	Pause time.Duration
}

// Sale is what the endpoint is told. Its own members win over those of Config.Extra, whatever these say.
type Sale struct {
	// Key is the same for each try to get the credential of one payment, and for no other payment.
	Key string `json:"-"`

	RequestID   string `json:"requestId"`
	ChallengeID string `json:"challengeId"`
	ResourceID  string `json:"resourceId"`
	PlanID      string `json:"planId"`
	TxHash      string `json:"txHash"`
	// UnitAmount is the price as the seller wrote it, such as "$0.10".
	UnitAmount string `json:"unitAmount"`
	// PaymentID is the ledger's; WalletAddress the payer's.
	PaymentID     string `json:"paymentId"`
	WalletAddress string `json:"walletAddress"`
	// Amount is in atomic units of Asset, on the CAIP-2 Network.
	Amount  string `json:"amount"`
	Asset   string `json:"asset"`
	Network string `json:"network"`
	// TTLSeconds is how long the plan is good for; absent where no time ends it.
	TTLSeconds int64 `json:"ttlSeconds,omitempty"`
}

// Credential is what the endpoint has given out.
type Credential struct {
	// Token is the member "token" of the answer, or, where there is none, the whole answer; then Type is TypeCustom.
	Token string
	Type  string
}

// Types of credentials, where the answer does not name another.
const (
	TypeBearer = "Bearer"
	TypeCustom = "custom"
)

// Error is why there is no credential. It never holds what the endpoint has said, nor where it is.
type Error struct {
	// Late: nobody knows whether the endpoint has issued one; it has not answered in time.
	Late bool
	what string
	err  error
}

func (e *Error) Error() string {
	if e.err != nil {
		return fmt.Sprintf("the issuer of tokens %s: %v", e.what, e.err)
	}
	return "the issuer of tokens " + e.what
}

// Timeout implements net.Error's half of the same name.
func (e *Error) Timeout() bool { return e.Late }

func (e *Error) Unwrap() error { return e.err }

// Client asks one endpoint. It is safe for concurrent use.
type Client struct {
	Config
	http *http.Client
	own  *http.Transport // nil: the caller's
}

// ErrConfig wraps what is wrong with a Config.
var ErrConfig = errors.New("issuer")

// New makes a client; it asks nobody.
func New(c Config) (*Client, error) {
	if err := CheckURL(c.URL); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Pause == 0 {
		c.Pause = firstPause
	}
	switch {
	case c.Timeout < 0:
		return nil, fmt.Errorf("%w: the timeout must be more than zero", ErrConfig)
	case c.Retries < 0 || c.Retries > MaxRetries:
		return nil, fmt.Errorf("%w: retries must be between 0 and %d", ErrConfig, MaxRetries)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Extra)) {
		if name == "" || slices.ContainsFunc(members, func(m string) bool { return strings.EqualFold(m, name) }) {
			return nil, fmt.Errorf("%w: the member %q is set by us and can't be another's", ErrConfig, name)
		}
	}
	m := &Client{Config: c}
	if c.Transport == nil {
		m.own = NewTransport()
		m.Transport = m.own
	}
	m.http = NewHTTP(m.Transport)
	return m, nil
}

// members are those that Sale has.
var members = []string{
	"requestId", "challengeId", "resourceId", "planId", "txHash", "unitAmount", "paymentId", "walletAddress", "amount", "asset", "network",
	"ttlSeconds",
}

// NewTransport makes one for a few endpoints of the seller's.
func NewTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    5 * time.Second,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           32,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// NewHTTP makes a client that follows no redirects: they would carry the seller's secrets elsewhere.
func NewHTTP(t http.RoundTripper) *http.Client {
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// CheckURL refuses addresses that secrets must not be sent to: they are https, unless they are on this machine.
func CheckURL(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("the address is none; write one such as https://backend.example.com/issue")
	}
	if u.User != nil || u.Fragment != "" {
		return errors.New("the address has a name, a password or a fragment; say who asks by `auth`")
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return errors.New("the address must be https, since secrets are sent to it; only one on this machine may be http")
	}
	return nil
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Close lets go of idle connections.
func (c *Client) Close() {
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
}

// Longest is how long Issue takes at most, with all its tries.
func (c *Client) Longest() time.Duration {
	total := time.Duration(c.Retries+1) * c.Timeout
	pause := c.Pause
	for range c.Retries {
		total += time.Duration(float64(pause) * (1 + spread))
		pause = min(2*pause, longest)
	}
	return total
}

// Issue asks for the credential of a sale. A try that fails is repeated, unless it took too long or the endpoint has refused: nobody but
// a person can help then. Its error is an *Error.
func (c *Client) Issue(ctx context.Context, s *Sale) (Credential, error) {
	body, err := c.encode(s)
	if err != nil {
		return Credential{}, &Error{what: "can't be asked", err: err}
	}
	pauses := &backoff.ExponentialBackOff{InitialInterval: c.Pause, RandomizationFactor: spread, Multiplier: 2, MaxInterval: longest}
	out, err := backoff.Retry(ctx, func() (Credential, error) { return c.try(ctx, s.Key, body) },
		backoff.WithBackOff(pauses), backoff.WithMaxTries(uint(c.Retries)+1), backoff.WithMaxElapsedTime(0))
	if err == nil {
		return out, nil
	}
	if p, ok := errors.AsType[*backoff.PermanentError](err); ok {
		err = p.Err
	}
	if _, ok := errors.AsType[*Error](err); !ok {
		err = &Error{what: "was not waited for", err: err, Late: true}
	}
	return Credential{}, err
}

// encode puts our members over the seller's own.
func (c *Client) encode(s *Sale) ([]byte, error) {
	ours, err := json.Marshal(s)
	if err != nil || len(c.Extra) == 0 {
		return ours, err
	}
	all := make(map[string]any, len(c.Extra)+len(members))
	maps.Copy(all, c.Extra)
	var set map[string]json.RawMessage
	if err := json.Unmarshal(ours, &set); err != nil {
		return nil, err
	}
	for name, value := range set {
		all[name] = value
	}
	return json.Marshal(all)
}

func (c *Client) try(ctx context.Context, key string, body []byte) (Credential, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL, bytes.NewReader(body))
	if err != nil {
		return Credential{}, backoff.Permanent(&Error{what: "can't be asked", err: errors.New("its address is none")})
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	r.Header.Set("Idempotency-Key", key)
	if c.Authorize != nil {
		if err := c.Authorize(r); err != nil {
			return Credential{}, c.failed(ctx, "can't be asked, since nothing proves who asks", err)
		}
	}
	res, err := c.http.Do(r)
	if err != nil {
		return Credential{}, c.failed(ctx, "did not answer", Plain(err))
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, MaxAnswer+1))
	switch {
	case res.StatusCode < 200 || res.StatusCode > 299:
		failure := error(&Error{what: fmt.Sprintf("answered with status %d", res.StatusCode)})
		stale := res.StatusCode == http.StatusUnauthorized && c.Refused != nil
		if stale {
			c.Refused()
		}
		if !stale && !transient(res.StatusCode) {
			failure = backoff.Permanent(failure)
		}
		return Credential{}, failure
	case err != nil:
		return Credential{}, c.failed(ctx, "broke its answer off", Plain(err))
	case len(answer) > MaxAnswer:
		return Credential{}, backoff.Permanent(&Error{what: fmt.Sprintf("answered more than %d bytes", MaxAnswer)})
	}
	out, err := read(answer)
	if err != nil {
		return out, backoff.Permanent(err)
	}
	return out, nil
}

// failed tells what took too long, which is not tried again: the endpoint may still be at it.
func (c *Client) failed(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return backoff.Permanent(&Error{what: fmt.Sprintf("did not answer within %s", c.Timeout), Late: true})
	}
	return &Error{what: what, err: err}
}

// Plain takes the address out of an error of net/http: it may hold secrets.
func Plain(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// transient reports whether a status may be another when it is asked again.
func transient(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status >= http.StatusInternalServerError && status != http.StatusNotImplemented
}

// read takes the credential out of an answer: its member "token" if that is a string, else all of it.
func read(answer []byte) (Credential, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(answer, &object); err != nil || object == nil {
		return Credential{}, &Error{what: "answered something else than a JSON object"}
	}
	var token string
	raw, ok := object["token"]
	if ok = ok && json.Unmarshal(raw, &token) == nil && string(raw) != "null"; !ok {
		var whole bytes.Buffer
		if err := json.Compact(&whole, answer); err != nil || len(object) == 0 {
			return Credential{}, &Error{what: "answered an empty object"}
		}
		return Credential{Token: whole.String(), Type: TypeCustom}, nil
	}
	if token == "" {
		return Credential{}, &Error{what: "answered an empty token"}
	}
	out := Credential{Token: token, Type: TypeBearer}
	if raw, ok := object["tokenType"]; ok && string(raw) != "null" {
		if err := json.Unmarshal(raw, &out.Type); err != nil || !word(out.Type) {
			return Credential{}, &Error{what: "answered a tokenType that is no word"}
		}
	}
	return out, nil
}

// word reports whether s can stand before a credential in a header (RFC 9110, section 11.1).
func word(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for _, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return true
}
