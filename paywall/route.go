package paywall

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Payee is where one network's money goes and who moves it there.
type Payee struct {
	Network x402.Network
	PayTo   common.Address
	Settler settlement.Settler
	// Lending bounds what may be owed here; zero: nothing is lent.
	Lending Lending
	// Finality is how deep the transfers of payments must lie, by their amounts, before these count as settled. Default: all are
	// as soon as the newest block has them.
	Finality settlement.Demands
	// Refund bounds what goes back by itself.
	Refund RefundLimits
	// separator is the EIP-712 domain separator of the network's asset.
	separator common.Hash
}

// Price is what one request costs on one network, in atomic units of the payee's asset.
type Price struct {
	Payee  *Payee
	Amount uint256.Int
}

// Plan is a pass: paid once, good for every route of its gate for a time, and for so many requests or so much credit where it says so.
type Plan struct {
	Name   string
	TTL    time.Duration
	Prices []Price
	// Granter gives out what its buyers get. Default: a token of ours.
	Granter Granter
	// Requests is how many requests the pass opens; 0: any number.
	Requests uint64
	// Credit is what requests draw down by the prices of their routes, for each network; empty: requests cost nothing more. Of a
	// pass that was bought on one network the prices on that network count.
	Credit []Price
	// Least is the lowest of the prices that draw from Credit, for each network, where that is known; empty: any.
	Least []Price
	// Description says what is sold, for people; may be empty.
	Description string
	// Free: a signature over an amount of zero proves who wants it, and nothing is settled. Each payer gets it once in TTL.
	Free bool
}

// Route is what one price rule says.
type Route struct {
	// Name is part of every claim: a payment for one route opens no other. It is unique within a
	// site and stays the same over reloads.
	Name string
	// Scope names the set of routes that the plans are good for.
	Scope       string
	Description string
	MIMEType    string
	// Prices holds a price per network; empty when only plans open the route.
	Prices []Price
	// Pricer says what a request costs, where that is not always the same; Prices is then empty.
	Pricer Pricer
	Plans  []Plan
	// FreeTier lets some requests pass unpaid; nil: none.
	FreeTier *FreeTier
	// Timeout is announced as maxTimeoutSeconds.
	Timeout time.Duration
	// Flow is when the money moves: ledger.FlowUpfront, before the upstream is asked, which is the default;
	// ledger.FlowAuthorization, after the upstream has answered, and before its answer goes out; ledger.FlowDeferred,
	// after the delivery, for payers who are good for it, and before it for all others.
	Flow string
	// RefundOn says which answers are no delivery, where the payment was settled before. Default: those of status 500 and above.
	RefundOn *RefundOn
	// Held is how many bytes of an answer's body are held back until it is paid for, with FlowAuthorization. Default: HeldAnswer.
	Held int

	offer          // of everybody; with a Pricer, of nobody: see moving
	moving *moving // the offers of a route whose price moves; nil if it does not
	grants bool    // what a plan of the route gives out is somebody else's
}

// offer is what may be paid.
type offer struct {
	prices   []Price // of one request
	options  []option
	accepts  []x402.Requirements // one per option
	template *x402.OfferTemplate
}

// option is one element of accepts, with what stands behind it.
type option struct {
	price Price
	plan  *Plan
}

// errNoPrice refuses a route that nobody could pay for.
var errNoPrice = errors.New("paywall: a route needs a price or a plan")

// prepare builds the offer, which announces extensions. The per-request price comes first, then plans by rising price: clients that
// take the first option pay the least.
func (r *Route) prepare(extensions map[string]json.RawMessage) error {
	if len(r.Prices) == 0 && len(r.Plans) == 0 && r.Pricer == nil {
		return fmt.Errorf("%w: route %s", errNoPrice, r.Name)
	}
	if err := r.prepareFlow(); err != nil {
		return err
	}
	r.grants = slices.ContainsFunc(r.Plans, func(p Plan) bool { return p.Granter != nil })
	if r.Pricer != nil {
		r.moving = newMoving(r, extensions)
		return nil
	}
	o, err := r.newOffer(r.Prices, extensions)
	r.offer = o
	return err
}

// newOffer makes the offer of a request that costs prices.
func (r *Route) newOffer(prices []Price, extensions map[string]json.RawMessage) (offer, error) {
	f := offer{prices: prices}
	for _, p := range prices {
		f.options = append(f.options, option{price: p})
	}
	var passes []option
	for i := range r.Plans {
		for _, p := range r.Plans[i].Prices {
			if r.Plans[i].affords(prices, p.Payee) {
				passes = append(passes, option{price: p, plan: &r.Plans[i]})
			}
		}
	}
	slices.SortStableFunc(passes, func(a, b option) int {
		switch {
		case a.plan.Free == b.plan.Free:
			return a.price.Amount.Cmp(&b.price.Amount)
		case a.plan.Free: // who has had it would choose it again and again, and get nothing
			return 1
		}
		return -1
	})
	f.options = append(f.options, passes...)
	for _, o := range f.options {
		f.accepts = append(f.accepts, r.requirements(o))
	}

	template, err := x402.NewOfferTemplate(f.accepts, x402.ResourceInfo{Description: r.Description, MimeType: r.MIMEType}, extensions)
	if err != nil {
		return offer{}, fmt.Errorf("making the offer of route %s: %w", r.Name, err)
	}
	f.template = template
	return f, nil
}

func (r *Route) requirements(o option) x402.Requirements {
	plan := ""
	if o.plan != nil {
		plan = o.plan.Name
	}
	y := o.price.Payee
	q := x402.NewRequirements(y.Network, y.PayTo, &o.price.Amount, r.Timeout, r.Flow, plan)
	if o.plan != nil {
		q.Extra.PlanRequests = o.plan.Requests
		if credit := o.plan.creditOn(y.Network.ID, y.Network.Asset.Address.Hex()); !credit.IsZero() {
			q.Extra.PlanCredit = credit.Dec()
		}
	}
	return q
}
