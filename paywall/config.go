package paywall

import (
	"crypto/sha256"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/internal/expiring"
	"github.com/caddy-x402/caddy-x402/ledger"
)

// Config is what a gate is made of.
type Config struct {
	// Acquire gives the engine for one request, and what gives it back. A failure answers 503.
	Acquire func() (*Engine, func(), error)
	Payees  []*Payee
	// Tokens gives what makes and checks tokens. A failure answers 503 to whoever presents a payment or a token.
	Tokens func() (*Tokens, error)
	// StatusURL is where a payer may ask what became of a payment; may be nil.
	StatusURL func(paymentID string) string
	// Granted hears, before the upstream is called, who paid for a request; may be nil.
	Granted func(*http.Request, Grant)
	// Decided hears what the gate made of each request: "paid", "owed", "void" (served, and nothing charged), "token", "free", "replayed",
	// "required", "refused", "unavailable", "malformed", "limited"; may be nil.
	Decided func(r *http.Request, outcome, reason string)
	// Filed hears under which name a request's payment is in the ledger, as soon as that is known, for logs; may be nil.
	Filed func(r *http.Request, paymentID string)
	// ErrorStatus is the status that an error of the next handler will be answered with.
	ErrorStatus func(error) int
	// Cookie gives tokens to browsers as a cookie too, and takes them from it.
	Cookie bool
	// Idempotency says what is made of keys by which clients say that two requests are one. Default: off.
	Idempotency Idempotency
	// Zones bound how often somebody may ask; there is at most one of a kind.
	Zones []Zone
	// Consumers knows whose API keys requests show; nil: nobody looks at them.
	Consumers Consumers
	// ConsumersOnly: a request without an API key is refused.
	ConsumersOnly bool
	// Recognized hears, before anything else is done, whose API key a request shows; may be nil.
	Recognized func(*http.Request, Consumer)
	// MinRemaining is how much of its validity an authorization must have left. Default: 15 s.
	MinRemaining time.Duration
	// MaxValidity is how far away its end may be. Default: 1 h.
	MaxValidity time.Duration
	// BodyTimeout is how long a client may take for the body of a request with a key, which is read before anything is paid.
	// Default: 30 s.
	BodyTimeout time.Duration
	// Now is the clock for offers and tokens. Default: time.Now.
	Now    func() time.Time
	Logger *slog.Logger
}

// Gate decides about every request of one set of routes. It is safe for concurrent use.
type Gate struct {
	Config
	// By the SHA-256 of a bearer token that is none of ours: the payment that bought it, or that it is no credential.
	issuedTo expiring.Map[[sha256.Size]byte, ledger.Payment]
	strange  expiring.Map[[sha256.Size]byte, struct{}]
}

// NewGate makes a gate, and prepares the offers of its routes.
func NewGate(c Config, routes ...*Route) (*Gate, error) {
	if c.MinRemaining <= 0 {
		c.MinRemaining = 15 * time.Second
	}
	if c.MaxValidity <= 0 {
		c.MaxValidity = time.Hour
	}
	if c.BodyTimeout <= 0 {
		c.BodyTimeout = 30 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.ErrorStatus == nil {
		c.ErrorStatus = func(error) int { return http.StatusInternalServerError }
	}
	for _, y := range c.Payees {
		y.Prepare()
	}
	c.Idempotency = c.Idempotency.withDefaults()
	for _, r := range routes {
		if err := r.prepare(c.extensions()); err != nil {
			return nil, err
		}
		if r.moving != nil {
			r.moving.payees = c.Payees
		}
	}
	return &Gate{
		Config:   c,
		issuedTo: expiring.Map[[sha256.Size]byte, ledger.Payment]{Most: mostIssued},
		strange:  expiring.Map[[sha256.Size]byte, struct{}]{Most: mostIssued},
	}, nil
}

// extensions are those that every offer announces, beside the resume key.
func (c *Config) extensions() map[string]json.RawMessage {
	if !c.Idempotency.on() {
		return nil
	}
	return map[string]json.RawMessage{extensionIdentifier: identifierExtension(c.Idempotency.Mode == IdempotencyRequired)}
}

// Prepare computes what does not change. NewGate does it for its payees.
func (y *Payee) Prepare() {
	if y.separator == (common.Hash{}) {
		y.separator = y.Network.Domain().Separator()
	}
}
