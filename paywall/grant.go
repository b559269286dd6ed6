package paywall

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/golang-jwt/jwt/v5"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/token"
	"github.com/caddy-x402/caddy-x402/x402"
)

// AssertionTTL is how long an assertion is good for.
const AssertionTTL = 60 * time.Second

// Grant is who paid for a request, and what. It goes to the upstream as an assertion and as plain headers.
type Grant struct {
	PaymentID   string
	Payer       common.Address
	Amount      uint256.Int // atomic units
	Asset       common.Address
	Network     string      // CAIP-2
	Transaction common.Hash // zero while it is not settled
	Plan        string      // empty for a single request
	Route       string
	Resource    string // public URL
}

// TransactionHex is the transaction as upstreams and logs are told of it; empty while it is not settled.
func (g *Grant) TransactionHex() string {
	return transactionText(g.Transaction)
}

// Tokens makes and checks the tokens of a site.
type Tokens struct {
	Issuer *token.Issuer
	Access *token.Verifier
	// Revoked is what Access heeds, and the engine keeps up to date. After MaxStale without news of it no token is taken.
	Revoked  *token.Revoked
	MaxStale time.Duration

	cache *assertionCache
}

// heard reports whether it is known of all tokens whether they were revoked, as of MaxStale ago or later.
func (t *Tokens) heard(now time.Time) bool { return heardLately(t.Revoked, t.MaxStale, now) }

// heardLately: nil is for sites whose tokens are never revoked.
func heardLately(r *token.Revoked, most time.Duration, now time.Time) bool {
	if r == nil {
		return true
	}
	silence, heard := r.Silence(now)
	return heard && silence <= most
}

// NewTokens makes the tokens of a site; the verifier is of kind token.Access.
func NewTokens(i *token.Issuer, access *token.Verifier) *Tokens {
	return &Tokens{Issuer: i, Access: access, cache: &assertionCache{entries: make(map[assertionKey]assertion)}}
}

// verify gives the claims of an access token for a plan of q's site. Another site's, another set of routes' and
// another plan's are refused, whoever signed them.
func (t *Tokens) verify(bearer string, q Request, now time.Time) (*token.Claims, *Plan, error) {
	if t.Access == nil {
		return nil, nil, token.ErrUnknownKey
	}
	c, err := t.Access.Verify(bearer, now)
	if err != nil {
		return nil, nil, err
	}
	if c.X402.Route == q.Route.Scope && c.X402.Resource == q.Audience {
		for i := range q.Route.Plans {
			if q.Route.Plans[i].Name == c.X402.Plan {
				return c, &q.Route.Plans[i], nil
			}
		}
	}
	return nil, nil, fmt.Errorf("%w: plan %q of %s does not cover this", token.ErrWrongAudience, c.X402.Plan, c.X402.Route)
}

// foreign reports whether a bearer token that could not be verified is the client's own, for the upstream.
func foreign(err error) bool {
	return errors.Is(err, token.ErrMalformed) || errors.Is(err, token.ErrUnknownKey)
}

// serveStrange is the way of a request with a bearer token that could not be verified, for the reason why. Where it is not done, it goes on
// to a 402 with the reason, or to its payment.
func (a *attempt) serveStrange(bearer, payment string, why error) (reason x402.Reason, done bool, err error) {
	if done, err := a.serveForeign(bearer, why); done {
		return "", true, err
	}
	if errors.Is(why, token.ErrBadSignature) {
		if refused, ok := errors.AsType[*refusal](a.countForged()); ok && payment == "" {
			return "", true, a.answer(refused)
		}
	}
	if len(a.spent) > 0 { // it is a credential of a plan that is used up
		return ReasonUsedUp, false, nil
	}
	return tokenReason(why), false, nil
}

// tokenReason is what the 402 says about a token that opens nothing; a foreign one is not worth a word.
func tokenReason(err error) x402.Reason {
	switch {
	case foreign(err):
		return ""
	case errors.Is(err, token.ErrExpired):
		return ReasonTokenExpired
	case errors.Is(err, token.ErrRevoked):
		return ReasonTokenRevoked
	}
	return ReasonTokenInvalid
}

func (a *attempt) grantOf(p *ledger.Payment) Grant {
	g := Grant{
		PaymentID: p.ID, Payer: p.Payer, Amount: p.Amount, Asset: p.Asset, Transaction: p.Transaction,
		Plan: p.Binding.Plan, Route: p.Binding.Route, Resource: a.URL, Network: networkID(p.ChainID),
	}
	return g
}

func networkID(chainID uint64) string { return x402.CAIP2(chainID) }

// presentation is a grant as the upstream gets it: the values of its headers, ready to be set.
type presentation struct {
	grant  Grant
	values [len(presented) + 1]string // the last is that of Authorization
}

// presented are the headers that the upstream gets, always; what there is not (a plan, a transaction yet) is left out.
var presented = [...]string{
	"X-Payment-Token", headerPaymentID, "X-Payment-Payer", "X-Payment-Amount", "X-Payment-Asset", "X-Payment-Network",
	"X-Payment-Transaction", "X-Payment-Plan",
}

func newPresentation(g Grant, signed string) presentation {
	return presentation{grant: g, values: [len(presented) + 1]string{
		signed, g.PaymentID, g.Payer.Hex(), g.Amount.Dec(), g.Asset.Hex(), g.Network, g.TransactionHex(), g.Plan,
		"Bearer " + signed,
	}}
}

// granted tells the upstream, with an assertion made for this request, who paid for it.
func (a *attempt) granted(g Grant) error {
	signed, err := a.tokens.assertion(g, a.Now())
	if err != nil {
		return err
	}
	own := bearerToken(a.r.Header)
	a.present(newPresentation(g, signed), own != "" && !a.foreignToken(own))
	return nil
}

// present writes what the upstream gets. A client's own Authorization stays as it is; ours, which is for the gate, is
// replaced.
func (a *attempt) present(p presentation, bearerIsOurs bool) {
	h := a.r.Header
	values := make([]string, len(p.values)) // of its own: handlers may change values in place
	copy(values, p.values[:])
	for i, name := range presented {
		if values[i] != "" {
			h[name] = values[i : i+1 : i+1]
		}
	}
	if last := len(presented); bearerIsOurs || len(h["Authorization"]) == 0 {
		h["Authorization"] = values[last:]
	}
	if a.Granted != nil {
		a.Granted(a.r, p.grant)
	}
}

// foreignToken: only tokens of ours are replaced; an expired one is still ours.
func (a *attempt) foreignToken(bearer string) bool {
	if a.tokens.Access == nil {
		return true
	}
	_, err := a.tokens.Access.Verify(bearer, a.Now())
	return err != nil && foreign(err)
}

func (g *Grant) claims() token.Claims {
	c := token.Claims{X402: token.Purchase{
		Plan: g.Plan, Route: g.Route, Network: g.Network, Asset: g.Asset.Hex(), Amount: g.Amount.Dec(),
		Transaction: g.TransactionHex(), Resource: g.Resource,
	}}
	c.Subject, c.ID = g.Payer.Hex(), g.PaymentID
	return c
}

// accessToken makes the token of a bought plan. It depends on the payment alone, so that it can be made again.
func (a *attempt) accessToken(p *ledger.Payment) (string, error) {
	plan := a.plan(p.Binding.Plan)
	if plan == nil {
		return "", fmt.Errorf("paywall: plan %q is not sold here any more", p.Binding.Plan)
	}
	g := a.grantOf(p)
	g.Resource = a.Audience
	c := g.claims()
	from := p.PlanUntil.Add(-plan.TTL)
	if now := a.Now(); from.After(now) { // its time was shortened since
		from = now
	}
	c.IssuedAt = jwt.NewNumericDate(from)
	return a.tokens.Issuer.Issue(token.Access, c, p.PlanUntil.Sub(from))
}

// servePlan answers the buyer of a plan, who gets its token with the answer. bought says that the request is the one that bought
// it, so that the answer belongs to its keys.
func (a *attempt) servePlan(p ledger.Payment, bought bool) error {
	plan := a.plan(p.Binding.Plan)
	if plan == nil {
		a.leaveQueue()
		return refuse(x402.Refuse(ReasonPlanOver, "the plan %q is not sold here any more", p.Binding.Plan)).of(p.ID)
	}
	if err := a.drawFor(&p, plan, bought); err != nil {
		return err
	}
	defer a.drawn.drop()
	a.leaveQueue()
	c := a.issued // just now, or else
	if c == nil {
		again, err := a.credential(a.r.Context(), &p)
		if err != nil {
			return a.notIssued(&p, err)
		}
		c = &again
	}
	if a.buysGrant() {
		return a.serveGrant(&p, c)
	}
	g := a.grantOf(&p)
	g.Route = a.Route.Name
	if err := a.granted(g); err != nil {
		return unavailable(codeToken, err).of(p.ID)
	}
	receipt := func(h http.Header) { a.give(h, &p, c) }
	if !bought || !a.keyed() {
		return a.pass("paid", receipt)
	}
	return a.passOnce(p.ID, receipt)
}

// passOnce is pass for the request that bought a plan under a key: its answer is stored.
func (a *attempt) passOnce(payment string, add func(http.Header)) error {
	a.withoutEncoding()
	next := a.next
	a.next = func(w http.ResponseWriter, r *http.Request) error {
		c := a.record(w, payment, func() {})
		keep := func(err error) {
			gone := r.Context().Err() != nil && (err != nil || c.gaveUp())
			switch {
			case gone && replayable(r.Method):
				return // its client left before the answer, which nobody has; whoever comes back asks again
			case gone && err == nil:
				c.stop(missingAborted) // the upstream may have done it
				return
			}
			if s := c.end(err, a.ErrorStatus); c.whole() {
				a.keep(payment, s)
			}
		}
		defer func() {
			if v := recover(); v != nil {
				keep(&panicError{v})
				panic(v) //nolint:forbidigo // see forward
			}
		}()
		err := next(c, r)
		keep(err)
		return err
	}
	return a.pass("paid", add)
}

// serveToken is the way of a request with a valid access token: no ledger, no chain.
func (a *attempt) serveToken(c *token.Claims) error {
	p, err := a.tokens.presentationFor(c, a.Route.Name, a.Now())
	if err != nil {
		return a.answer(unavailable(codeToken, err))
	}
	if refused, ok := errors.AsType[*refusal](a.countAlone(p.grant.Payer)); ok {
		return a.answer(refused)
	}
	p.grant.Resource = a.URL
	a.present(p, !a.bearerKept && !a.inCookie)
	return a.pass("token", nil)
}

// pass lets a request through whose payment is not at stake; add completes the header of the answer.
func (a *attempt) pass(outcome string, add func(http.Header)) error {
	a.decided(outcome, "")
	w := &headerWriter{ResponseWriter: a.w, before: func(h http.Header, status int) {
		cleanResponse(h)
		markPrivate(h)
		if add != nil {
			add(h)
		}
		a.drawn.answered(h, status)
	}}
	err := a.next(w, a.r)
	// Whoever answers in place of the upstream, the buyer gets what it bought.
	status := http.StatusOK
	if err != nil && a.drawn != nil {
		status = a.ErrorStatus(err)
	}
	w.headers(status)
	return err
}

// assertion signs what the upstream is told about a single request.
func (t *Tokens) assertion(g Grant, now time.Time) (string, error) {
	c := g.claims()
	c.IssuedAt = jwt.NewNumericDate(now)
	return t.Issuer.Issue(token.Assertion, c, AssertionTTL)
}

// assertionCache spares the holders of tokens a signature per request: their assertions leave the resource out, and are
// signed anew when half their time is over.
type assertionCache struct {
	mu      sync.RWMutex
	entries map[assertionKey]assertion
}

type assertionKey struct{ payment, route string }

type assertion struct {
	presentation
	until time.Time
}

const maxAssertions = 4096

func (t *Tokens) presentationFor(c *token.Claims, route string, now time.Time) (presentation, error) {
	key := assertionKey{c.ID, route}
	t.cache.mu.RLock()
	e, ok := t.cache.entries[key]
	t.cache.mu.RUnlock()
	if ok && now.Before(e.until) {
		return e.presentation, nil
	}
	g, err := grantFrom(c, route)
	if err != nil {
		return presentation{}, err
	}
	signed, err := t.assertion(g, now)
	if err != nil {
		return presentation{}, err
	}
	p := newPresentation(g, signed)
	t.cache.mu.Lock()
	defer t.cache.mu.Unlock()
	if len(t.cache.entries) >= maxAssertions {
		clear(t.cache.entries)
	}
	t.cache.entries[key] = assertion{presentation: p, until: now.Add(AssertionTTL / 2)}
	return p, nil
}

func grantFrom(c *token.Claims, route string) (Grant, error) {
	g := Grant{
		PaymentID: c.ID, Payer: common.HexToAddress(c.Subject), Asset: common.HexToAddress(c.X402.Asset),
		Network: c.X402.Network, Transaction: common.HexToHash(c.X402.Transaction), Plan: c.X402.Plan, Route: route,
	}
	amount, err := x402.ParseAtomic(c.X402.Amount)
	if err != nil {
		return g, fmt.Errorf("reading the amount of a token: %w", err)
	}
	g.Amount = amount
	return g, nil
}
