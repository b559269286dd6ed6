package paywall

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// Access is what a request to `POST /x402/access` asks for, an order for short: a plan, whose buyer is answered with an AccessGrant, or a route of the
// catalogue. It is paid as everything else is: by the same offer, claim and settlement, and resumed by the same header. Beside that the
// client may name its request: of one name there is one challenge at any time, which one payer can pay, once, until it expires.
type Access struct {
	// RequestID is the client's name for what it wants. Empty: an unpaid request gets one; a paid one is not bound to any.
	RequestID string
	// Item is the id of the plan or the route in the catalogue.
	Item string
	// Plan says that Item is a plan: the answer is an AccessGrant.
	Plan bool
	// ResourceID is what the client says that it wants the plan for; it goes into the grant.
	ResourceID string
	// Terms are what else must be equal for two requests of one name to be the same.
	Terms []string
	// TTL is how long a challenge may be paid.
	TTL time.Duration
	// Base is the public address of the site, and Endpoint that of what the grant opens.
	Base, Endpoint string
	// Description of what is sold; Key0 is the entry of the offer's extensions under that name, but for its info.
	Description string
	Key0        map[string]any
	// Outcome is told which challenge it was; may be nil.
	Outcome *AccessOutcome
}

// AccessOutcome is what an order's answer says of its challenge; empty where there is none.
type AccessOutcome struct{ ChallengeID, RequestID string }

// buysGrant reports whether the request buys a plan for its grant.
func (a *attempt) buysGrant() bool { return a.Access != nil && a.Access.Plan }

// challengeUnits are what an unpaid order takes of its client's allowance: 128 at once, and 4 a second. Each may store something.
const challengeUnits = 32

// demandAccess is the 402 of an order that carries no payment. It stores a challenge, unless the request id has one.
func (a *attempt) demandAccess(text string) error {
	engine, release, err := a.Acquire()
	if err != nil {
		return a.answer(unavailable(codeStore, err))
	}
	defer release()
	a.engine = engine
	if !engine.limits.spend(clientKey(a.Client), challengeUnits, time.Now()) {
		return a.answer(tooManyChallenges())
	}
	c, err := a.openChallenge(a.r.Context())
	if refused, ok := errors.AsType[*refusal](err); ok {
		return a.answer(refused)
	} else if err != nil {
		return a.answer(unavailable(codeStore, err))
	}
	a.knowChallenge(c)
	if a.challenge.payment() != "" {
		// Who has paid proves it by a signature, which is not used; who has not paid can't have the grant.
		text = "This request id was paid for: sign to prove that it was you; nothing is charged again"
	}
	a.decided("required", "")
	return a.writeAccessOffer(text)
}

func (a *attempt) knowChallenge(c *heldChallenge) {
	a.challenge = c
	if a.Access.Outcome != nil {
		*a.Access.Outcome = AccessOutcome{ChallengeID: c.ID, RequestID: c.RequestID}
	}
}

// openChallenge gives the challenge of the order's request id, which is made if there is none that could be paid.
func (a *attempt) openChallenge(ctx context.Context) (*heldChallenge, error) {
	if a.Access.RequestID == "" {
		id, err := newRequestID()
		if err != nil {
			return nil, err
		}
		o := *a.Access
		o.RequestID, a.Access = id, &o
	}
	key, terms := a.accessKey(), a.accessTerms()
	for range mostHolders {
		over := ""
		c, err := readChallenge(ctx, a.engine.store, key)
		switch {
		case errors.Is(err, ledger.ErrNotFound):
		case err != nil:
			return nil, unavailable(codeStore, err)
		default:
			dead, err := a.cameToNothing(ctx, c)
			if err != nil {
				return nil, err
			}
			if !dead {
				if c.reservation.Fingerprint != terms {
					return nil, otherAccess()
				}
				return c, nil
			}
			over = c.reservation.Payment
		}
		made, err := a.newChallenge(key)
		if err != nil {
			return nil, err
		}
		err = made.put(ctx, a.engine.store, key, terms, made.ID, over, a.Access.TTL+a.MaxValidity)
		switch {
		case err == nil:
			a.engine.current().Observe(Observation{Event: "challenge", Outcome: "made"})
			return &heldChallenge{Challenge: *made, reservation: ledger.Reservation{Key: key, Fingerprint: terms, Payment: made.ID}}, nil
		case !errors.Is(err, ledger.ErrExists):
			return nil, unavailable(codeStore, err)
		}
	}
	return nil, busy("")
}

// cameToNothing reports whether the challenge can't be paid any more, nor was.
func (a *attempt) cameToNothing(ctx context.Context, c *heldChallenge) (bool, error) {
	if c.payment() == "" {
		return c.state(a.engine.store.Now()) != ledger.StatePending, nil
	}
	p, err := a.engine.store.Payment(ctx, c.payment())
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return true, nil
	case err != nil:
		return false, unavailable(codeStore, err)
	}
	return a.ended(ctx, &p)
}

// ended reports whether p serves nobody any more, so that its request id may be paid anew.
func (a *attempt) ended(ctx context.Context, p *ledger.Payment) (bool, error) {
	switch {
	case p.Settlement == ledger.Failed, p.Settlement == ledger.Void, p.Refund != ledger.NotRefunded, p.Delivery == ledger.Undelivered:
		return true, nil
	case p.Delivery != ledger.Delivered || p.Binding.Plan == "":
		return false, nil
	case !p.PlanUntil.After(a.Now()) || a.engine.revoked.Has(p.ID):
		return true, nil
	}
	over, err := a.nothingLeft(ctx, p)
	if err != nil {
		return false, unavailable(codeStore, err)
	}
	return over, nil
}

func (a *attempt) accessKey() common.Hash { return challengeKey(a.Host, a.Access.RequestID) }

func (a *attempt) accessTerms() common.Hash {
	kind := "route"
	if a.Access.Plan {
		kind = "plan"
	}
	return digest(slices.Concat([]string{"order", kind, a.Access.Item, a.Access.ResourceID}, a.Access.Terms, a.ofPrice())...)
}

func (a *attempt) newChallenge(key common.Hash) (*Challenge, error) {
	id, err := newChallengeID(randomness, key, a.Access.Plan)
	if err != nil {
		return nil, err
	}
	now := a.engine.store.Now().UTC().Truncate(time.Microsecond)
	c := &Challenge{
		ID: id, RequestID: a.Access.RequestID, Item: a.Access.Item, Plan: a.Access.Plan, CreatedAt: now, ExpiresAt: now.Add(a.Access.TTL),
	}
	offer := &a.Route.offer
	if a.price != nil {
		offer = a.price.offer
	}
	if len(offer.accepts) > 0 {
		first := &offer.accepts[0]
		c.Network, c.Asset, c.Amount, c.PayTo = first.Network, first.Asset, first.Amount, first.PayTo
	}
	return c, nil
}

// admitPayer refuses a new payment for a challenge that can't be paid by this payer, before anything is claimed.
func (a *attempt) admitPayer(ctx context.Context, payer common.Address) error {
	if !a.named() {
		return nil
	}
	_, _, other, err := a.admitted(ctx, payer, "")
	if err == nil && other != nil && other.Delivery == ledger.Delivered && other.Binding.Plan == "" && !a.keyed() {
		return answeredAccess(other)
	}
	return err
}

// named reports whether the order has a request id.
func (a *attempt) named() bool { return a.Access != nil && a.Access.RequestID != "" }

// nameAccess finds the request id that the payment was signed for, as its client has sent it back with the offer's extensions. It pays
// under no other.
func (a *attempt) nameAccess() error {
	if a.Access == nil {
		return nil
	}
	echoed := echoedRequest(a.payload.Extensions[extensionKey0])
	switch {
	case echoed == "" || echoed == a.Access.RequestID:
		return nil
	case a.named():
		return otherAccess()
	}
	o := *a.Access
	o.RequestID, a.Access = echoed, &o
	return nil
}

// admitted gives the challenge that payer may pay, and what it is reserved for as yet; or the payer's own payment, which has it already.
// own is the payment that wants it.
func (a *attempt) admitted(ctx context.Context, payer common.Address, own string) (c *heldChallenge, over string, other *ledger.Payment, err error) {
	key, terms := a.accessKey(), a.accessTerms()
	c, err = readChallenge(ctx, a.engine.store, key)
	switch {
	case errors.Is(err, ledger.ErrNotFound): // nobody has asked before, or it was long ago
		made, err := a.newChallenge(key)
		if err != nil {
			return nil, "", nil, unavailable(codeStore, err)
		}
		return &heldChallenge{Challenge: *made, reservation: ledger.Reservation{Key: key, Fingerprint: terms}}, "", nil, nil
	case err != nil:
		return nil, "", nil, unavailable(codeStore, err)
	case c.reservation.Fingerprint != terms:
		return nil, "", nil, otherAccess()
	}
	over = c.reservation.Payment
	if id := c.payment(); id != "" {
		if id == own {
			return c, over, nil, nil
		}
		p, err := a.engine.store.Payment(ctx, id)
		ended := errors.Is(err, ledger.ErrNotFound)
		if err != nil && !ended {
			return nil, "", nil, unavailable(codeStore, err)
		}
		if !ended {
			if ended, err = a.ended(ctx, &p); err != nil {
				return nil, "", nil, err
			}
		}
		switch {
		case ended:
		case p.Payer != payer:
			return nil, "", nil, takenAccess()
		default:
			return c, over, &p, nil
		}
	}
	switch c.state(a.engine.store.Now()) {
	case ledger.StateCancelled:
		return nil, "", nil, accessOver("Challenge was cancelled. Request access again; nothing was charged.")
	case ledger.StateExpired:
		return nil, "", nil, accessOver("Challenge expired. Request access again; nothing was charged.")
	}
	return c, over, nil, nil
}

// bindAccess makes p the payment of the order's challenge. other is the payer's own payment, which has it already.
func (a *attempt) bindAccess(ctx context.Context, p *ledger.Payment) (other *ledger.Payment, err error) {
	if !a.named() {
		return nil, nil
	}
	for range mostHolders {
		c, over, other, err := a.admitted(ctx, p.Payer, p.ID)
		if err != nil || other != nil {
			return other, err
		}
		if over == p.ID {
			a.knowChallenge(c)
			return nil, nil
		}
		ttl := max(keepChallenges, a.Access.TTL+a.MaxValidity)
		err = c.put(ctx, a.engine.store, c.reservation.Key, c.reservation.Fingerprint, p.ID, over, ttl)
		switch {
		case err == nil:
			a.knowChallenge(c)
			a.engine.current().Observe(Observation{Event: "challenge", Outcome: "claimed"})
			return nil, nil
		case !errors.Is(err, ledger.ErrExists):
			return nil, unavailable(codeStore, err).of(p.ID)
		}
	}
	return nil, busy("")
}

// keepChallenges is how long it is known which payment a request id was paid with.
const keepChallenges = 7 * 24 * time.Hour

// reserveAccess is what reserve does for the order. Who has paid is served whatever became of the name.
func (a *attempt) reserveAccess(ctx context.Context, p *ledger.Payment) (other *ledger.Payment, err error) {
	if a.Access == nil {
		return nil, nil
	}
	other, err = a.bindAccess(ctx, p)
	if p.Settlement == ledger.Claimed {
		return other, err
	}
	return nil, nil
}

// drawFor takes what this request uses up of the plan that p bought. Who gets a grant uses nothing up; and whose plan has nothing left buys
// another one, but for the same payment header, which gets the same again.
func (a *attempt) drawFor(p *ledger.Payment, plan *Plan, bought bool) error {
	ctx := a.r.Context()
	h := &holder{p.ID, networkID(p.ChainID), p.Asset.Hex(), p.PlanUntil}
	switch {
	case !a.buysGrant():
		return a.draw(ctx, plan, h)
	case bought:
		return nil
	}
	switch over, err := a.nothingLeft(ctx, p); {
	case err != nil:
		return unavailable(codeStore, err).of(p.ID)
	case over:
		return a.usedUp(plan, h)
	}
	return nil
}

// accessOrder is what the buyer of a plan calls its purchase.
func (a *attempt) accessOrder() Order {
	o := Order{RequestID: a.Access.RequestID, ResourceID: a.Access.ResourceID}
	if a.challenge != nil {
		o.ChallengeID = a.challenge.ID
	}
	return o
}

// serveGrant answers the buyer of a plan with what it has bought.
func (a *attempt) serveGrant(p *ledger.Payment, c *Credential) error {
	if a.named() && (a.challenge == nil || a.challenge.payment() != p.ID) {
		// It has a plan already, and pays nothing for the name, which is kept all the same.
		if !a.engine.limits.spend(clientKey(a.Client), challengeUnits, time.Now()) {
			return tooManyChallenges()
		}
		ctx, cancel := a.detached()
		if _, err := a.bindAccess(ctx, p); err != nil {
			a.Logger.Debug("a request id stays without its payment", slog.String("payment", p.ID), slog.Any("error", err))
		}
		cancel()
	}
	if a.Granted != nil {
		a.Granted(a.r, a.grantOf(p))
	}
	body, err := json.Marshal(a.accessGrant(p, c)) //nolint:gosec // its buyer is whom the token is for
	if err != nil {
		return unavailable(codeToken, err).of(p.ID)
	}
	a.next = func(w http.ResponseWriter, _ *http.Request) error {
		return writeJSON(w, http.StatusOK, body)
	}
	return a.pass("paid", func(h http.Header) { a.give(h, p, c) })
}
