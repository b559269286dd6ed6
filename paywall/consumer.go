package paywall

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// Consumers knows the API keys that a seller gives to those who buy, so that they are known, and have limits of their own. A key pays for
// nothing.
type Consumers interface {
	// Written reports whether what somebody shows is written as our keys are. What is not goes on to the upstream as it is.
	Written(shown string) bool
	// Find finds whose key it is, in the ledger of the request. A *ConsumerError says that it is nobody's; other errors, that nobody knows.
	Find(ctx context.Context, store ledger.Store, shown string) (Consumer, error)
}

// Consumer is who asks, by an API key.
type Consumer struct {
	// ID is the key's, which is no secret.
	ID string
	// Testnet says that the key is for test networks alone; else it is for the others alone.
	Testnet bool
}

// ConsumerError refuses a key.
type ConsumerError struct {
	Status int    // 401, or 403 for a key that is good for something else
	Code   string // one of the CodeAPIKey…
	Detail string // for people
}

// Error gives the code.
func (e *ConsumerError) Error() string { return "paywall: " + e.Code }

// Codes of requests whose API key, or network, is refused: those of the management API.
const (
	CodeAPIKeyMissing  = "auth.missing_token"
	CodeAPIKeyInvalid  = "apikey.invalid"
	CodeAPIKeyExpired  = "apikey.expired"
	CodeAPIKeyRevoked  = "apikey.revoked"
	CodeAPIKeyScope    = "apikey.scope_insufficient"
	CodeAPIKeyMismatch = "apikey.network_mismatch"
	CodeNetworkInvalid = "network.invalid"
	CodeNetworkLocked  = "network_locked"
)

const (
	headerAPIKey  = "X-Api-Key"
	headerNetwork = "X-Network"
	// headerConsumer tells the upstream whose key it was.
	headerConsumer = "X-Payment-Consumer"
)

// takeKey removes the API key that a request shows, in X-Api-Key or as a bearer token, and gives it. No upstream needs it.
func (g *Gate) takeKey(h http.Header) (shown string) {
	if g.Consumers == nil {
		return ""
	}
	for _, v := range h[headerAPIKey] {
		if v = strings.TrimSpace(v); g.Consumers.Written(v) {
			shown = v
		}
	}
	if shown != "" {
		delete(h, headerAPIKey)
	}
	if b := bearerToken(h); b != "" && g.Consumers.Written(b) {
		delete(h, "Authorization")
		shown = cmp.Or(shown, b)
	}
	return shown
}

// enter finds out whose API key the request shows, and counts the request by it. One that brings a payment is counted later, if that is a new
// one: what was paid is never refused for a limit.
func (a *attempt) enter(shown string, pays bool) error {
	if a.Consumers == nil {
		return nil
	}
	if shown == "" {
		if a.ConsumersOnly {
			return &refusal{
				status: http.StatusUnauthorized, code: CodeAPIKeyMissing,
				detail: "an API key is needed here, beside the payment: send it in the header X-Api-Key; this request charged nothing",
			}
		}
		return a.checkNetwork()
	}
	engine, release, err := a.Acquire()
	if err != nil {
		return unavailable(codeStore, err)
	}
	defer release()
	if err := a.shutOut(engine); err != nil {
		return err
	}
	c, err := a.Consumers.Find(a.r.Context(), engine.store, shown)
	if refused, ok := errors.AsType[*ConsumerError](err); ok {
		a.countRefused(engine)
		return &refusal{status: refused.Status, code: refused.Code, detail: refused.Detail + "; this request charged nothing"}
	}
	if err != nil {
		return unavailable(codeStore, err)
	}
	a.consumer = &c
	if err := a.checkNetwork(); err != nil {
		return err
	}
	if !pays {
		if err := a.countKey(engine); err != nil {
			return err
		}
	}
	a.r.Header[headerConsumer] = []string{c.ID}
	if a.Recognized != nil {
		a.Recognized(a.r, c)
	}
	return nil
}

// countKey counts the request by its API key, if it has one and they are counted.
func (a *attempt) countKey(e *Engine) error {
	if a.consumer == nil || a.zone(ByKey) == nil {
		return nil
	}
	return a.count(a.r.Context(), e, common.Address{})
}

// checkNetwork refuses a request that is about networks on which nothing is sold here: by its X-Network, which it need not have, or by its key.
func (a *attempt) checkNetwork() error {
	values := a.r.Header[headerNetwork]
	said := ""
	switch {
	case len(values) == 1:
		said = values[0]
	case len(values) > 1:
		said = "several"
	}
	if said != "" && said != networkWord(true) && said != networkWord(false) {
		return &refusal{status: http.StatusBadRequest, code: CodeNetworkInvalid, detail: "X-Network must be mainnet or testnet, or be left out; this request charged nothing"}
	}
	if c := a.consumer; c != nil {
		of := networkWord(c.Testnet)
		if said != "" && said != of {
			return &refusal{
				status: http.StatusUnauthorized, code: CodeAPIKeyMismatch,
				detail: "this API key is for " + of + ", and X-Network says " + said + "; this request charged nothing",
			}
		}
		said = of
	}
	if said == "" {
		return nil
	}
	for _, y := range a.Payees {
		if networkWord(y.Network.Testnet) == said {
			a.w.Header().Set(headerNetwork, said)
			return nil
		}
	}
	return &refusal{status: http.StatusForbidden, code: CodeNetworkLocked, detail: "nothing is sold on " + said + " here; this request charged nothing"}
}

func networkWord(testnet bool) string {
	if testnet {
		return "testnet"
	}
	return "mainnet"
}
