package paywall

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/token"
	"github.com/caddy-x402/caddy-x402/x402"
)

// The kinds of allowances that come with a plan.
const (
	kindRequests = "requests"
	kindCredit   = "credit"
)

// counted reports whether requests use the plan up.
func (p *Plan) counted() bool { return p.Requests > 0 || len(p.Credit) > 0 }

// creditOn is how much credit the plan has where it was bought on a network; zero if none.
func (p *Plan) creditOn(network, asset string) (credit uint256.Int) {
	return priceOn(p.Credit, network, asset)
}

// affords reports whether the plan, bought on the network of y, has credit enough for a request that costs prices. Routes that sell plans
// alone have no prices, and draw nothing.
func (p *Plan) affords(prices []Price, y *Payee) bool {
	if len(p.Credit) == 0 || len(prices) == 0 {
		return true
	}
	network, asset := y.Network.ID, y.Network.Asset.Address.Hex()
	costs, credit := priceOn(prices, network, asset), p.creditOn(network, asset)
	return !costs.IsZero() && !credit.Lt(&costs)
}

// mayBuy refuses a plan whose credit would not do for the very request that buys it: it would be paid, and nothing be got for it. What the
// request costs may have moved since it was offered.
func (a *attempt) mayBuy(o *option) error {
	if o.plan == nil || len(o.plan.Credit) == 0 || a.buysGrant() {
		return nil
	}
	prices, err := a.requestPrices()
	if err != nil {
		return err
	}
	if !o.plan.affords(prices, o.price.Payee) {
		return refuse(x402.Refuse(x402.ReasonNoMatchingRequirements, "this request costs more than the plan %q has credit; choose one of accepts", o.plan.Name))
	}
	return nil
}

// priceOn is the price in an asset of a network; zero if there is none.
func priceOn(prices []Price, network, asset string) (amount uint256.Int) {
	for i := range prices {
		if n := &prices[i].Payee.Network; n.ID == network && strings.EqualFold(n.Asset.Address.Hex(), asset) {
			return prices[i].Amount
		}
	}
	return amount
}

// describe adds to what the buyer is told of its token how much the plan has.
func (p *Plan) describe(grant map[string]any, bought *ledger.Payment) {
	if p == nil {
		return
	}
	if p.Requests > 0 {
		grant["requests"] = p.Requests
	}
	if credit := p.creditOn(networkID(bought.ChainID), bought.Asset.Hex()); !credit.IsZero() {
		grant["credit"] = credit.Dec()
	}
}

// holder is what a plan was bought with.
type holder struct {
	payment        string // id
	network, asset string
	until          time.Time
}

// allowanceKey names what is used up of the plan that was bought with a payment.
func allowanceKey(kind, payment string) common.Hash { return digest("allowance", kind, payment) }

// dues is what this request takes of a plan.
func (a *attempt) dues(plan *Plan, h *holder) ([]due, error) {
	var list []due
	if plan.Requests > 0 {
		list = append(list, due{
			key: allowanceKey(kindRequests, h.payment), units: *uint256.NewInt(1), limit: *uint256.NewInt(plan.Requests),
			until: h.until, policy: kindRequests, window: plan.TTL,
		})
	}
	if len(plan.Credit) > 0 {
		prices, err := a.requestPrices()
		if err != nil {
			return nil, err
		}
		d := due{
			key: allowanceKey(kindCredit, h.payment), units: priceOn(prices, h.network, h.asset), limit: plan.creditOn(h.network, h.asset),
			until: h.until, policy: kindCredit, unit: "atomic-units", window: plan.TTL,
		}
		if d.units.IsZero() || d.limit.IsZero() {
			return nil, fmt.Errorf("%w: nothing has a price on %s any more", errUsedUp, h.network)
		}
		list = append(list, d)
	}
	return list, nil
}

// drawn is what a request has taken. It is used up with the answer, unless that is the upstream's failure.
type drawn struct {
	giveBack func(*due, *standing)
	dues     []due
	stands   []standing
	decided  bool
	release  func() // lets go of the engine, once it is decided: an answer may take days; may be nil
}

// draw takes what this request uses up of a plan. What is used up is a refusal with ReasonUsedUp; nothing is taken then.
func (a *attempt) draw(ctx context.Context, plan *Plan, h *holder) error {
	if !plan.counted() {
		return nil
	}
	dues, err := a.dues(plan, h)
	if err == nil {
		err = a.drawAll(ctx, dues)
	}
	if refused, ok := errors.AsType[*refusal](err); ok { // nobody knows what the request costs
		return refused
	}
	switch {
	case errors.Is(err, errUsedUp):
		return a.usedUp(plan, h)
	case err != nil:
		return unavailable(codeStore, err).of(h.payment)
	}
	return nil
}

// usedUp notes that nothing is left of a plan, and refuses it.
func (a *attempt) usedUp(plan *Plan, h *holder) *refusal {
	if a.spent == nil {
		a.spent = make(map[string]bool)
	}
	a.spent[h.payment] = true
	return refuse(x402.Refuse(ReasonUsedUp, "what was bought with the plan %q is used up", plan.Name)).of(h.payment)
}

// drawAll takes all of dues, or nothing.
func (a *attempt) drawAll(ctx context.Context, dues []due) error {
	patience := leasePatience
	if len(a.spent) > 0 { // it has waited for another already
		patience = 0
	}
	d := &drawn{giveBack: a.engine.leases.giveBack}
	for i := range dues {
		s, err := a.engine.leases.take(ctx, &dues[i], patience)
		if err != nil {
			d.drop()
			return err
		}
		d.dues, d.stands = append(d.dues, dues[i]), append(d.stands, s)
	}
	a.drawn = d
	return nil
}

// failedFrom is the first status of an upstream that means that the holder of a plan did not get what it pays for. What it asks for and
// is not there costs as much as what is.
const failedFrom = http.StatusInternalServerError

// answered decides by the status of the answer whether what was taken is used up, and tells the client how the allowance stands.
func (d *drawn) answered(h http.Header, status int) {
	if d == nil {
		return
	}
	if status >= failedFrom {
		d.drop()
	}
	d.decide()
	for i := range d.dues {
		addRateLimit(h, &d.dues[i], &d.stands[i])
	}
}

func (d *drawn) decide() {
	d.decided = true
	if d.release != nil {
		d.release()
		d.release = nil
	}
}

// drop gives back what was taken, if no answer has used it up.
func (d *drawn) drop() {
	if d == nil || d.decided {
		return
	}
	for i := range d.dues {
		d.giveBack(&d.dues[i], &d.stands[i])
		d.stands[i].left.Add(&d.stands[i].left, &d.dues[i].units)
	}
	d.decide()
}

// usedUp reports whether a request was refused because its plan is used up.
func usedUp(err error) bool {
	r, ok := errors.AsType[*refusal](err)
	return ok && r.code == string(ReasonUsedUp)
}

// serveCounted is the way of a request with the token of a plan that is used up by requests. done is false if nothing is left of it.
func (a *attempt) serveCounted(c *token.Claims, plan *Plan) (done bool, err error) {
	engine, release, err := a.Acquire()
	if err != nil {
		return true, a.answer(unavailable(codeStore, err))
	}
	a.engine = engine
	err = a.draw(a.r.Context(), plan, &holder{c.ID, c.X402.Network, c.X402.Asset, c.ExpiresAt.Time})
	if err != nil {
		release()
	} else {
		a.drawn.release = release
		defer a.drawn.drop()
	}
	if usedUp(err) {
		return false, nil
	}
	if refused, ok := errors.AsType[*refusal](err); ok {
		refused.payment = "" // who has a token need not know of payments
		return true, a.answer(refused)
	}
	return true, a.serveToken(c)
}

const (
	headerRateLimit       = "Ratelimit"
	headerRateLimitPolicy = "Ratelimit-Policy"
	// mostInteger is the greatest number of a structured header (RFC 9651, section 3.3.1).
	mostInteger = 999_999_999_999_999
)

// addRateLimit says how an allowance stands (draft-ietf-httpapi-ratelimit-headers), beside what the upstream may say of its own. Other
// instances may have used more of it by now.
func addRateLimit(h http.Header, d *due, s *standing) {
	b := make([]byte, 0, 128)
	b = append(append(append(b, '"'), d.policy...), `";q=`...)
	b = appendInteger(b, &s.limit)
	if d.unit != "" {
		b = append(append(append(b, `;qu="`...), d.unit...), '"')
	}
	b = strconv.AppendInt(append(b, ";w="...), int64(d.window/time.Second), 10)
	end := len(b)
	b = append(append(append(b, '"'), d.policy...), `";r=`...)
	b = appendInteger(b, &s.left)
	if t := time.Until(s.until); t > 0 {
		b = strconv.AppendInt(append(b, ";t="...), int64(t/time.Second), 10)
	}
	text := string(b)
	values := []string{text[:end], text[end:]} // one allocation for both
	addValue(h, headerRateLimitPolicy, values[0:1:1])
	addValue(h, headerRateLimit, values[1:2:2])
}

func addValue(h http.Header, name string, value []string) {
	if len(h[name]) > 0 { // the upstream's own
		h[name] = append(h[name], value[0])
		return
	}
	h[name] = value
}

func appendInteger(b []byte, n *uint256.Int) []byte {
	if n.GtUint64(mostInteger) {
		return strconv.AppendInt(b, mostInteger, 10)
	}
	return strconv.AppendUint(b, n.Uint64(), 10)
}

// touched reports whether anything was used up, or is just held by some process, of the plan that was bought with a payment. A plan
// that is not counted is never touched, by what can be told here.
func (e *Engine) touched(ctx context.Context, payment string) (bool, error) {
	for _, kind := range [...]string{kindRequests, kindCredit} {
		a, err := e.store.Allowance(ctx, allowanceKey(kind, payment))
		switch {
		case errors.Is(err, ledger.ErrNotFound):
		case err != nil:
			return false, fmt.Errorf("reading what a plan has left: %w", err)
		case !a.Used.IsZero():
			return true, nil
		}
	}
	return false, nil
}

// nothingLeft reports whether so little is left of the plan that p bought that it opens nothing more. What a process has drawn ahead counts as
// used; the last units are drawn one by one.
func (a *attempt) nothingLeft(ctx context.Context, p *ledger.Payment) (bool, error) {
	plan := a.plan(p.Binding.Plan)
	if plan == nil || !plan.counted() {
		return false, nil
	}
	least := priceOn(plan.Least, networkID(p.ChainID), p.Asset.Hex())
	for kind, least := range map[string]uint256.Int{kindRequests: {}, kindCredit: least} {
		al, err := a.engine.store.Allowance(ctx, allowanceKey(kind, p.ID))
		if errors.Is(err, ledger.ErrNotFound) {
			continue // nothing was drawn yet
		}
		if err != nil {
			return false, fmt.Errorf("reading what a plan has left: %w", err)
		}
		if left := al.Left(); left.IsZero() || left.Lt(&least) {
			return true, nil
		}
	}
	return false, nil
}
