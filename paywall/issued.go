package paywall

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/token"
)

// A credential that somebody else has issued opens the gate like a token of ours. What it looks like nobody here knows, so it is found in
// the ledger, by a hash of it, and then remembered for a while. Only gates that sell such plans ask the ledger about a bearer token that
// they don't know.

// issuedFor is how long a credential is taken without another look at its payment.
const issuedFor = 30 * time.Second

// mostIssued bounds how many credentials are remembered, and how many tokens that are none.
const mostIssued = 4096

// strangeFor is how long a token is remembered that is no credential: a client's own for the upstream, which comes with each of its
// requests, paid ones too. What is issued meanwhile by another instance is found that much later.
const strangeFor = 2 * time.Second

// strangeUnits are what a bearer token that nobody knows takes of its client's allowance: it costs a look into the ledger.
const strangeUnits = 16

func issuedKey(credential string) common.Hash { return digest("issued", credential) }

// rememberIssued lets the gate find the payment that bought a credential. One that is given out for several payments, as a seller may
// do with a customer's key, is the newest one's.
func (e *Engine) rememberIssued(ctx context.Context, c *Credential, payment string, ttl time.Duration) error {
	if !strings.EqualFold(c.Type, typeBearer) {
		return nil // it can't be presented as one
	}
	r := ledger.Reservation{Key: issuedKey(c.Token), Payment: payment}
	over := ""
	for range mostHolders {
		there, err := e.store.Reserve(ctx, r, over, ttl)
		if err == nil || errors.Is(err, ledger.ErrExists) && there.Payment == payment {
			return nil
		}
		if !errors.Is(err, ledger.ErrExists) {
			return err
		}
		over = there.Payment
	}
	return busy(payment)
}

// serveForeign is the way of a request with a bearer token that is none of ours, for the reason why.
func (a *attempt) serveForeign(bearer string, why error) (done bool, err error) {
	if !foreign(why) {
		return false, nil
	}
	done, err = a.serveIssued(bearer)
	if refused, ok := errors.AsType[*refusal](err); ok {
		err = a.answer(refused)
	}
	return done, err
}

// serveIssued is the way of a request with a bearer token that is none of ours. done is false if it is no credential of a plan of this
// route either, or of one that is used up.
func (a *attempt) serveIssued(bearer string) (done bool, err error) {
	if !a.Route.grants {
		return false, nil
	}
	p, ok, err := a.issuedPayment(bearer)
	if err != nil || !ok {
		return err != nil, err
	}
	g := a.grantOf(&p)
	c := g.claims()
	c.ExpiresAt = jwt.NewNumericDate(p.PlanUntil)
	a.bearerKept = true
	if plan := a.plan(p.Binding.Plan); plan.counted() {
		return a.serveCounted(&c, plan)
	}
	return true, a.serveToken(&c)
}

// issuedPayment finds the payment that bought a credential, if it opens this route.
func (a *attempt) issuedPayment(bearer string) (p ledger.Payment, ok bool, err error) {
	engine, release, err := a.Acquire()
	if err != nil {
		return p, false, unavailable(codeStore, err)
	}
	defer release() // an answer may take days
	a.engine = engine
	if p, ok = a.issuedTo.Get(sha256.Sum256([]byte(bearer)), a.Now()); !ok {
		p, ok, err = a.findIssued(bearer)
	}
	if err != nil || !ok {
		return p, false, err
	}
	ok, err = a.covers(&p)
	return p, ok, err
}

// isStrange reports whether a bearer token is known to be no credential.
func (a *attempt) isStrange(bearer string) bool {
	_, ok := a.strange.Get(sha256.Sum256([]byte(bearer)), a.Now())
	return ok
}

// findIssued asks the ledger.
func (a *attempt) findIssued(bearer string) (p ledger.Payment, ok bool, err error) {
	if len(bearer) > token.MaxSize*2 || a.isStrange(bearer) {
		return p, false, nil
	}
	engine := a.engine
	if !engine.limits.spend(clientKey(a.Client), 0, time.Now()) {
		return p, false, limited()
	}
	r, err := engine.store.Reservation(a.r.Context(), issuedKey(bearer))
	if err == nil {
		p, err = engine.store.Payment(a.r.Context(), r.Payment)
	}
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		engine.limits.spend(clientKey(a.Client), strangeUnits, time.Now())
		now := a.Now()
		a.strange.Put(sha256.Sum256([]byte(bearer)), struct{}{}, now.Add(strangeFor), now)
		return p, false, nil
	case err != nil:
		return p, false, unavailable(codeStore, err)
	case p.Delivery != ledger.Delivered || p.Refund != ledger.NotRefunded:
		return p, false, nil
	}
	now := a.Now()
	a.issuedTo.Put(sha256.Sum256([]byte(bearer)), p, now.Add(issuedFor), now)
	return p, true, nil
}

// carriable reports whether a credential can stand in a header as it is.
func (c *Credential) carriable() bool {
	for _, b := range []byte(c.Token) {
		if b < ' ' || b >= 0x7f {
			return false
		}
	}
	return c.Token != "" && !strings.EqualFold(c.Type, "custom") && strings.TrimSpace(c.Token) == c.Token
}

// give puts what a buyer gets into the header of its answer.
func (a *attempt) give(h http.Header, p *ledger.Payment, c *Credential) {
	a.addReceiptOf(h, p, c)
	if c.carriable() {
		h.Set(headerAccessToken, c.Token)
	}
	if plan := a.plan(p.Binding.Plan); plan != nil && plan.Granter == nil { // what others issue is for clients that know what it is
		a.addCookie(h, c.Token, p.PlanUntil)
	}
}
