package paywall

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

// FreeTier lets the first requests of each key pass unpaid, in each window of time. Windows begin at whole multiples of their length.
// It is counted in the ledger request by request, so that it is exact over instances; where the ledger does not answer, all pay.
type FreeTier struct {
	// Name is what shares the count: all routes with a tier of one name.
	Name     string
	Requests uint64
	Window   time.Duration
	// Key says by whom a request is counted; addresses of one customer of IPv6, a /64, are one. Empty: the request has to be paid.
	Key func(*http.Request) string
}

const (
	kindFreeTier = "free-tier"
	kindTrial    = "trial"
	kindAddress  = "trials of an address"

	// trialsPerAddress is how often a free plan is given to payers from one address in its time: signatures cost nothing.
	trialsPerAddress = 5
	// mostExhausted bounds how many used-up windows are remembered, so that the ledger is not asked about them again.
	mostExhausted = 1 << 16
)

// ReasonFreeLimit: a free plan was given to too many payers from one address.
const ReasonFreeLimit x402.Reason = "free_plan_limit"

// unpaid is the way of a request without a payment, and without a token that opens anything.
func (a *attempt) unpaid(reason x402.Reason) error {
	if refused, ok := errors.AsType[*refusal](a.countAlone(common.Address{})); ok {
		return a.answer(refused)
	}
	if a.Route.FreeTier != nil {
		if done, err := a.serveFreeTier(a.Route.FreeTier, reason); done {
			return err
		}
	}
	return a.demand(reason)
}

// serveFreeTier lets a request pass that is free; done is false if it is not.
func (a *attempt) serveFreeTier(t *FreeTier, reason x402.Reason) (done bool, err error) {
	who := t.Key(a.r)
	if who == "" {
		return false, nil
	}
	engine, release, err := a.Acquire()
	if err != nil {
		return false, nil // then everybody pays, and hears there what is wrong
	}
	now := engine.store.Now()
	start := now.Truncate(t.Window)
	d := due{
		key:   digest(kindFreeTier, t.Name, a.site(), strconv.FormatInt(start.Unix(), 10), t.Window.String(), clientKey(who)),
		units: *uint256.NewInt(1), limit: *uint256.NewInt(t.Requests), until: start.Add(t.Window), policy: kindFreeTier, window: t.Window,
	}
	s, ok := engine.drawOne(a.r.Context(), &d, now)
	if !ok {
		release()
		if !s.limit.IsZero() {
			addRateLimit(a.w.Header(), &d, &s)
		}
		return false, nil
	}
	a.drawn = &drawn{giveBack: engine.returnOne, dues: []due{d}, stands: []standing{s}, release: release}
	defer a.drawn.drop()
	if reason != "" && !a.inCookie { // its token is ours, and opens nothing: no upstream should have it
		delete(a.r.Header, "Authorization")
	}
	return true, a.pass(outcomeFree, nil)
}

// site is what names the site, whatever its clients call it by: who came by another port, or by another of the names that a wildcard stands
// for, would get what is free anew.
func (q *Request) site() string { return cmp.Or(q.Site, q.Host) }

// outcomeFree is what the gate says of a request that was free.
const outcomeFree = "free"

// drawOne draws in the ledger what is due, whatever else is drawn.
func (e *Engine) drawOne(ctx context.Context, d *due, now time.Time) (standing, bool) {
	if _, over := e.exhausted.Get(d.key, now); over {
		return standing{limit: d.limit, until: d.until}, false
	}
	n, al, err := e.store.Draw(ctx, ledger.Draw{Key: d.key, Least: d.units, Want: d.units, Limit: d.limit, Until: d.until})
	if err != nil {
		e.current().Logger.Warn("what is free could not be counted, so it was not given", slog.Any("error", err))
		return standing{}, false
	}
	s := standing{limit: al.Limit, left: al.Left(), created: al.CreatedAt, until: al.ExpiresAt}
	if n.IsZero() {
		e.exhausted.Put(d.key, struct{}{}, d.until, now)
		return s, false
	}
	return s, true
}

// returnOne gives back what drawOne has drawn.
func (e *Engine) returnOne(d *due, s *standing) {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	if err := e.store.Return(ctx, d.key, s.created, d.units); err != nil {
		e.current().Logger.Warn("what was free and not served could not be given back", slog.Any("error", err))
		return
	}
	e.exhausted.Delete(d.key)
}

// trial is a free plan that was given to a payer.
type trial struct {
	id    string // it stands for the payment that there is not: it is the id of its tokens
	until time.Time
}

// errTrialLimit refuses a free plan that was given to too many payers from one address.
var errTrialLimit = errors.New("paywall: the free plan was given to too many payers from one address")

// openTrial gives payer the free plan of a set of routes, or finds the one that it has: each payer gets it once in the plan's TTL, and
// an address so many times for all payers that come from it. payer must be proven. site is as in Request; client is the address, or whatever
// else is known of who asks.
func (e *Engine) openTrial(ctx context.Context, plan *Plan, scope, site string, payer common.Address, client string) (trial, error) {
	sum := digest(kindTrial, scope, plan.Name, site, string(payer[:]))
	t := trial{id: "free_" + hex.EncodeToString(sum[:16])}
	key, one := allowanceKey(kindTrial, t.id), *uint256.NewInt(1)
	al, err := e.store.Allowance(ctx, key)
	if err == nil {
		t.until = al.ExpiresAt
		return t, nil
	}
	if !errors.Is(err, ledger.ErrNotFound) {
		return t, fmt.Errorf("looking for a free plan: %w", err)
	}
	until := e.store.Now().Add(plan.TTL)
	address := digest(kindAddress, scope, plan.Name, site, clientKey(client))
	n, _, err := e.store.Draw(ctx, ledger.Draw{Key: address, Least: one, Want: one, Limit: *uint256.NewInt(trialsPerAddress), Until: until})
	switch {
	case err != nil:
		return t, fmt.Errorf("giving a free plan: %w", err)
	case n.IsZero():
		return t, errTrialLimit
	}
	_, al, err = e.store.Draw(ctx, ledger.Draw{Key: key, Want: one, Limit: one, Until: until.Truncate(time.Second)})
	if err != nil {
		return t, fmt.Errorf("giving a free plan: %w", err)
	}
	t.until = al.ExpiresAt
	return t, nil
}

// serveFree serves this request under a free plan, for which its signature proves the payer: nothing is claimed, and nothing settled.
func (a *attempt) serveFree(ctx context.Context, f *proof) error {
	t, err := a.engine.openTrial(ctx, f.opt.plan, a.Route.Scope, a.site(), f.id.Payer, a.Client)
	switch {
	case errors.Is(err, errTrialLimit):
		a.charge()
		return refuse(x402.Refuse(ReasonFreeLimit, "the plan %q was given to too many payers from your address; choose another of accepts", f.opt.plan.Name))
	case err != nil:
		return unavailable(codeStore, err)
	}
	p := ledger.Payment{ID: t.id, AuthorizationID: f.id, PayTo: a.payee.PayTo, Binding: a.binding(f.opt), PlanUntil: t.until}
	if err = a.servePlan(p, false); usedUp(err) {
		a.charge() // what such signatures cost us is paid by nobody
	}
	return err
}
