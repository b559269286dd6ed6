package paywall

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/internal/faultpoint"
	"github.com/caddy-x402/caddy-x402/ledger"
)

// What the buyer of a plan gets is a token of ours, made anew whenever it is asked for, or a credential that somebody else has issued:
// a Granter. Such a credential is asked for once the payment is settled and before it is delivered. While the issuer can't be had the
// payment stays paid: the same header asks again, until it is held for refund. Whoever holds the payment for issuing is not refunded
// meanwhile, and what is refunded is not delivered, whatever the issuer answers then; so nobody gets both.
//
// Nothing is issued twice: each try of a payment carries the same key, and the first answer is kept, sealed, before the delivery is on
// record. So a crash before that asks again, and a crash after it does not have to.

// Granter gives out what the buyers of a plan get, in place of an access token of ours.
type Granter interface {
	// Grant gives the credential of a sale. Asked again for the same payment, it must give the same. Its error, which goes to the
	// log, tells no secret; one with a method Timeout that reports true says that nobody knows whether there is one by now.
	Grant(ctx context.Context, s Sale) (Credential, error)
	// Longest is how long Grant takes at most.
	Longest() time.Duration
}

// Sale is a plan that was paid, as its Granter gets to know it. All of it is the same each time.
type Sale struct {
	Order
	Payment     string // id; whatever is issued for it is issued once
	Plan        string
	Payer       common.Address
	Amount      string // atomic units
	Asset       common.Address
	Network     string // CAIP-2
	Transaction common.Hash
	TTL         time.Duration // of the plan; zero where no time ends it
}

// Order is what a buyer calls its purchase. Where it has no names for it, they are the payment's id, and "default".
type Order struct {
	RequestID   string `json:"requestId,omitempty"`
	ChallengeID string `json:"challengeId,omitempty"`
	ResourceID  string `json:"resourceId,omitempty"`
}

func (o Order) withDefaults(payment string) Order {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&o.RequestID, payment)
	set(&o.ChallengeID, payment)
	set(&o.ResourceID, "default")
	return o
}

// Credential is what the buyer of a plan gets. It is a secret.
type Credential struct {
	Token string `json:"token"`
	// Type is "Bearer", or what its issuer calls it.
	Type string `json:"tokenType"`
}

// String hides the token from logs.
func (c Credential) String() string { return c.Type + " credential" }

// LogValue hides the token from logs.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }

// GoString hides the token from logs.
func (c Credential) GoString() string { return c.String() }

// typeBearer is that of our own tokens.
const typeBearer = "Bearer"

// Codes of answers to whoever has paid for a plan whose credential could not be had.
const (
	CodeIssueTimeout = "TOKEN_ISSUE_TIMEOUT" // 504: the issuer did not answer
	CodeIssueFailed  = "TOKEN_ISSUE_FAILED"  // 502: it did not give one
)

const statusPaid = "paid"

// purposeCredential is what credentials are sealed for.
const purposeCredential = "credential"

// keepUntimed is how long the credential of a plan is kept that no time ends.
const keepUntimed = 400 * 24 * time.Hour

// notIssuedError wraps the Granter's error, which says why there is no credential. What else may be wrong is ours.
type notIssuedError struct{ error }

func (e notIssuedError) Unwrap() error { return e.error }

func (e notIssuedError) late() bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](e.error)
	return ok && t.Timeout()
}

// credential gives what the buyer of p gets.
func (a *attempt) credential(ctx context.Context, p *ledger.Payment) (Credential, error) {
	plan := a.plan(p.Binding.Plan)
	if plan == nil || plan.Granter == nil {
		token, err := a.accessToken(p)
		return Credential{Token: token, Type: typeBearer}, err
	}
	if c, err := a.keptCredential(ctx, p); err == nil || !errors.Is(err, ledger.ErrNotFound) {
		return c, err
	}
	return a.issue(ctx, p, plan)
}

func credentialKey(payment string) common.Hash { return digest("credential", payment) }

// keptCredential reads what was issued for p; ledger.ErrNotFound if there is nothing, or it can't be opened any more since the keys of
// tokens have changed: then its issuer has to give it again.
func (a *attempt) keptCredential(ctx context.Context, p *ledger.Payment) (c Credential, err error) {
	r, err := a.engine.store.Reservation(ctx, credentialKey(p.ID))
	if err != nil {
		return c, err
	}
	return a.openCredential(p, &r)
}

func (a *attempt) openCredential(p *ledger.Payment, r *ledger.Reservation) (c Credential, err error) {
	plain, err := a.tokens.Issuer.Keyring.Open(purposeCredential, p.ID, r.Answer)
	if err == nil {
		err = json.Unmarshal(plain, &c)
	}
	if err != nil || r.Payment != p.ID {
		a.Logger.Warn("a credential that is kept can't be opened; its issuer is asked again", slog.String("payment", p.ID))
		return Credential{}, ledger.ErrNotFound
	}
	return c, nil
}

// issue asks for the credential of p, and keeps it before anybody gets it.
func (a *attempt) issue(ctx context.Context, p *ledger.Payment, plan *Plan) (Credential, error) {
	if !a.engine.limits.spend(clientKey(a.Client), 0, time.Now()) { // who comes back in a hurry does not wear the issuer out
		return Credential{}, limited()
	}
	order, err := a.order(ctx, p.ID, plan)
	if err != nil {
		return Credential{}, err
	}
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), plan.Granter.Longest())
	defer cancel()
	started := time.Now()
	asking, s := a.engine.stage(asking, StageIssue, p.ID)
	c, err := plan.Granter.Grant(asking, Sale{
		Order: order, Payment: p.ID, Plan: plan.Name, Payer: p.Payer, Amount: p.Amount.Dec(), Asset: p.Asset,
		Network: networkID(p.ChainID), Transaction: p.Transaction, TTL: plan.TTL,
	})
	if err == nil && c.Token == "" {
		err = errors.New("the issuer of tokens gave none")
	}
	failed := notIssuedError{err}
	o := Observation{Event: "issue", Network: networkID(p.ChainID), Outcome: "issued", Took: time.Since(started)}
	if err != nil {
		o.Outcome, o.Reason = "failed", CodeIssueFailed
		if failed.late() {
			o.Outcome, o.Reason = "unknown", CodeIssueTimeout
		}
	}
	s.end(o.Reason)
	a.engine.current().Observe(o)
	if err != nil {
		a.charge()
		return Credential{}, failed
	}
	faultpoint.Reached("issued")
	return a.keepCredential(ctx, p, plan, c)
}

func (p *Plan) keepFor() time.Duration {
	if p.TTL <= 0 {
		return keepUntimed
	}
	return p.TTL + 24*time.Hour // it begins when it is delivered, which may take until the next try
}

// order is what the buyer has called its purchase first: whoever comes back for it may come by another way.
func (a *attempt) order(ctx context.Context, payment string, plan *Plan) (Order, error) {
	key := digest("order", payment)
	r, err := a.engine.store.Reservation(ctx, key)
	if errors.Is(err, ledger.ErrNotFound) {
		if !a.buysGrant() {
			return Order{}.withDefaults(payment), nil
		}
		var raw []byte
		if raw, err = json.Marshal(a.accessOrder()); err != nil {
			return Order{}, err
		}
		r, err = a.engine.store.Reserve(ctx, ledger.Reservation{Key: key, Payment: payment, Answer: raw}, "", plan.keepFor())
	}
	if err != nil && !errors.Is(err, ledger.ErrExists) {
		return Order{}, err
	}
	var o Order
	if err := json.Unmarshal(r.Answer, &o); err != nil {
		return o, fmt.Errorf("paywall: the order of payment %s can't be read: %w", payment, err)
	}
	return o.withDefaults(payment), nil
}

// keepCredential seals and stores c. Where another try was faster, its answer is the one that counts.
func (a *attempt) keepCredential(ctx context.Context, p *ledger.Payment, plan *Plan, c Credential) (Credential, error) {
	plain, err := json.Marshal(c)
	if err != nil {
		return c, err
	}
	sealed, err := a.tokens.Issuer.Keyring.Seal(purposeCredential, p.ID, plain, a.Now())
	if err != nil {
		return c, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	r := ledger.Reservation{Key: credentialKey(p.ID), Payment: p.ID, Answer: sealed}
	there, err := a.engine.store.Reserve(ctx, r, "", plan.keepFor())
	if errors.Is(err, ledger.ErrExists) {
		if first, opened := a.openCredential(p, &there); opened == nil {
			return first, nil
		}
		_, err = a.engine.store.Reserve(ctx, r, p.ID, plan.keepFor())
	}
	if err == nil {
		err = a.engine.rememberIssued(ctx, &c, p.ID, plan.keepFor())
	}
	if err != nil {
		return Credential{}, err
	}
	a.strange.Delete(sha256.Sum256([]byte(c.Token)))
	faultpoint.Reached("kept")
	return c, nil
}

// deliverIssued is deliver for a plan whose credential somebody else issues.
func (a *attempt) deliverIssued(p ledger.Payment, settled func() (ledger.Payment, error), plan *Plan) error {
	fence := p.Hold.Fence
	q, err := settled()
	switch {
	case err != nil:
		return unavailable(codeStore, err).of(p.ID)
	case q.Hold.Fence != fence || !q.Unserved():
		return busy(p.ID) // overtaken; whoever holds it now delivers it
	}
	stop := a.engine.keep(a.r.Context(), q.ID, fence)
	c, err := a.credential(a.r.Context(), &q)
	stop()
	if err != nil {
		a.engine.release(q, fence)
		return a.notIssued(&q, err)
	}
	if a.left() { // it is kept for whoever comes back with the same header, or goes back with the money
		a.engine.release(q, fence)
		return nil
	}
	delivered, err := a.recordIssued(q, fence, plan)
	if err != nil {
		a.engine.release(q, fence)
		return unavailable(codeStore, err).of(p.ID)
	}
	if delivered.Delivery != ledger.Delivered || delivered.Hold.Fence != fence {
		return busy(p.ID)
	}
	faultpoint.Reached("delivered")
	a.observeDelivery(string(ledger.Delivered), "")
	a.issued = &c
	return a.servePlan(delivered, true)
}

// left reports whether the client has gone.
func (a *attempt) left() bool { return a.r.Context().Err() != nil }

// recordIssued records the delivery of what was issued, if this request still holds the payment.
func (a *attempt) recordIssued(p ledger.Payment, fence uint64, plan *Plan) (ledger.Payment, error) {
	ctx, cancel := a.detached()
	defer cancel()
	p, err := a.engine.store.Payment(ctx, p.ID) // its hold was renewed meanwhile
	if err != nil {
		return p, err
	}
	ttl := a.engine.current().HoldTTL
	return a.engine.update(ctx, p, func(p ledger.Payment) []ledger.Change {
		if p.Hold.Fence != fence || !p.Unserved() {
			return nil
		}
		return []ledger.Change{
			{Event: ledger.EventDeliver, Actor: actorRequest, Fence: fence, Hold: ttl},
			{Event: ledger.EventDelivered, Actor: actorRequest, Fence: fence, PlanUntil: a.planUntil(plan)},
		}
	})
}

// planUntil is when a plan that is delivered now ends.
func (a *attempt) planUntil(plan *Plan) time.Time { return a.Now().Add(plan.TTL).Truncate(time.Second) }

// notIssued is the answer to whoever has paid for a plan whose credential can't be had. It does not say what the issuer has said.
func (a *attempt) notIssued(p *ledger.Payment, err error) *refusal {
	if refused, ok := errors.AsType[*refusal](err); ok {
		return refused.of(p.ID)
	}
	failed, ok := errors.AsType[notIssuedError](err)
	if !ok {
		code := codeStore
		if plan := a.plan(p.Binding.Plan); plan != nil && plan.Granter == nil {
			code = codeToken // ours could not be signed
		}
		return unavailable(code, err).of(p.ID)
	}
	r := &refusal{
		status: http.StatusBadGateway, code: CodeIssueFailed, payment: p.ID, receipt: p, retry: true, cause: failed.error,
		detail: "the payment is settled, and what it buys could not be issued; do not sign another one, send the same request, with the same payment " +
			"header, again. If it can't be issued in time, the payment is refunded",
	}
	if p.Delivery == ledger.Delivered {
		r.detail = "what was bought can't be given again at the moment; send the same request, with the same payment header, again"
	}
	if failed.late() {
		r.status, r.code = http.StatusGatewayTimeout, CodeIssueTimeout
	}
	return r
}
