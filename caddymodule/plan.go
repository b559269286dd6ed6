package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-x402/caddy-x402/paywall"
)

const (
	// free is what stands in place of an amount where there is none.
	free = "free"
	// defaultTTL is how long plans are good for that are used up by requests, if nothing is said.
	defaultTTL = 365 * 24 * time.Hour
	// mostTTL is how long a plan may be good for.
	mostTTL = 100 * defaultTTL
)

// Plan is a pass that is paid once.
type Plan struct {
	// The plan's name, unique within the handler.
	Name string `json:"name"`
	// What it costs, such as `1.00`; or `free`: then each payer gets it once in its time, for a signature that pays nothing.
	Price string `json:"price"`
	// How long it is good for. Default, where it is for a number of requests or has credit: a year.
	TTL caddy.Duration `json:"ttl,omitempty"`
	// How many requests it opens. Default: any number.
	Requests uint64 `json:"requests,omitempty"`
	// How much there is for requests to draw down, each by the price of its route, such as `5.00`. Default: they draw nothing.
	Credit string `json:"credit,omitempty"`
	// It also opens price rules that demand this tier.
	Tier string `json:"tier,omitempty"`
	// The methods that it is good for, such as `GET`, which stands for `HEAD` too. Default: all.
	Methods []string `json:"methods,omitempty"`
	// What is sold, for people and agents.
	Description string `json:"description,omitempty"`
	// Who gives out what its buyers get. Default: an access token, signed by the key of tokens.
	Issuer *Issuer `json:"issuer,omitempty"`
}

// counted reports whether requests use the plan up.
func (p *Plan) counted() bool { return p.Requests > 0 || p.Credit != "" }

// subdirectives are what a plan's block may hold.
func (p *Plan) subdirectives(d *caddyfile.Dispenser) map[string]func() error {
	return map[string]func() error{
		"ttl":         duration(d, &p.TTL),
		"requests":    count(d, &p.Requests),
		"credit":      one(d, &p.Credit),
		"tier":        one(d, &p.Tier),
		"description": one(d, &p.Description),
		"methods": func() error {
			if several(d, &p.Methods)() != nil {
				return d.Err("write which methods the plan is good for, such as `methods GET POST`")
			}
			return nil
		},
		"issuer": func() (err error) {
			p.Issuer, err = parseIssuer(d)
			return err
		},
	}
}

func (h *Handler) plans() ([]paywall.Plan, error) {
	var out []paywall.Plan
	for _, p := range h.Plans {
		if slices.ContainsFunc(out, func(q paywall.Plan) bool { return q.Name == p.Name }) {
			return nil, fmt.Errorf("plan %s is there twice", p.Name)
		}
		plan, err := h.plan(p)
		if err != nil {
			return nil, err
		}
		if err := h.app.sell(h.Name, plan); err != nil {
			return nil, err
		}
		out = append(out, plan)
	}
	return out, nil
}

func (h *Handler) plan(p *Plan) (plan paywall.Plan, err error) {
	if p.TTL == 0 && p.counted() {
		p.TTL = caddy.Duration(defaultTTL)
	}
	ttl := time.Duration(p.TTL)
	switch {
	case p.Name == "":
		return plan, errors.New("a plan needs a name")
	case strings.ContainsFunc(p.Name, unicode.IsControl):
		return plan, fmt.Errorf("the name of plan %q has a character that a header can't hold", p.Name)
	case ttl < time.Second:
		return plan, fmt.Errorf("plan %s needs a ttl of a second or more; write how long it is good for, such as `ttl 24h`", p.Name)
	case ttl > mostTTL:
		return plan, fmt.Errorf("plan %s: a ttl of more than a hundred years", p.Name)
	}
	for i, m := range p.Methods {
		if p.Methods[i] = strings.ToUpper(m); strings.Trim(p.Methods[i], "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" || m == "" {
			return plan, fmt.Errorf("plan %s: %q is no method", p.Name, m)
		}
	}
	plan = paywall.Plan{Name: p.Name, TTL: ttl, Requests: p.Requests, Description: p.Description, Free: p.Price == free}
	if plan.Free {
		for _, y := range h.app.payees {
			plan.Prices = append(plan.Prices, paywall.Price{Payee: y})
		}
	} else if plan.Prices, err = h.prices(p.Price); err != nil {
		return plan, fmt.Errorf("plan %s: %w", p.Name, err)
	}
	if p.Credit != "" {
		if plan.Credit, err = h.prices(p.Credit); err != nil {
			return plan, fmt.Errorf("plan %s: credit: %w", p.Name, err)
		}
	}
	if plan.Free && p.Issuer != nil { // nobody issues anything for a payment that there is not
		return plan, fmt.Errorf("plan %s is free, so its tokens are ours; leave its issuer out, or give it a price", p.Name)
	}
	if plan.Granter, err = h.granter(p); err != nil {
		return plan, fmt.Errorf("plan %s: %w", p.Name, err)
	}
	return plan, nil
}

// sell refuses plans that would share their tokens on different terms. A token names a set of routes and a plan, and one
// that was bought cheap must not open what is dear.
func (a *App) sell(set string, p paywall.Plan) error {
	if a.sold == nil {
		a.sold = make(map[[2]string]paywall.Plan)
	}
	key := [2]string{set, p.Name}
	q, ok := a.sold[key]
	same := func(x, y paywall.Price) bool { return x.Payee == y.Payee && x.Amount == y.Amount }
	if ok && (p.TTL != q.TTL || p.Requests != q.Requests || p.Free != q.Free ||
		!slices.EqualFunc(p.Prices, q.Prices, same) || !slices.EqualFunc(p.Credit, q.Credit, same)) {
		return fmt.Errorf("two sets of routes are called %q and sell plan %s on different terms, so that a token of one would "+
			"open the other; give each x402 block a name of its own, such as `name reports`", set, p.Name)
	}
	a.sold[key] = p
	return nil
}

// opening are the plans that open what has the price p.
func (h *Handler) opening(p *Price, plans []paywall.Plan) []paywall.Plan {
	if p.Tier == "" {
		return plans
	}
	var out []paywall.Plan
	for i := range plans { // as many as h.Plans, in their order
		if h.Plans[i].Tier == p.Tier {
			out = append(out, plans[i])
		}
	}
	return out
}

// checkPlansOf refuses what nobody could buy.
func (h *Handler) checkPlansOf(p *Price, plans []paywall.Plan) error {
	switch {
	case p.Tier != "" && len(plans) == 0:
		return fmt.Errorf("no plan is of the tier %s that a price demands; write `tier %s` into a plan", p.Tier, p.Tier)
	case p.Amount != "" || p.isMoving():
		return nil
	case len(plans) == 0:
		return errors.New("a price needs an amount, such as $0.01")
	}
	for i := range plans {
		if len(plans[i].Credit) > 0 {
			return fmt.Errorf("plan %s has credit, and there is no price to draw it down by; give its routes a price, such as `price $0.01`", plans[i].Name)
		}
	}
	return nil
}

// byMethod makes the routes of p for each method, where plans are for some methods only: none is offered to who could not use it.
func (h *Handler) byMethod(p *Price) []*paywall.Route {
	named := map[string]bool{}
	for i := range p.route.Plans {
		for _, m := range h.methodsOf(p.route.Plans[i].Name) {
			named[m] = true
		}
	}
	if len(named) == 0 {
		return nil
	}
	p.methods = map[string]*paywall.Route{}
	named[otherMethods] = true
	var routes []*paywall.Route
	for m := range named {
		r := *p.route
		r.Plans = slices.DeleteFunc(slices.Clone(r.Plans), func(plan paywall.Plan) bool {
			methods := h.methodsOf(plan.Name)
			return len(methods) > 0 && !slices.Contains(methods, m)
		})
		if len(r.Plans) == 0 && len(r.Prices) == 0 {
			p.methods[m] = nil // see matched
			continue
		}
		p.methods[m] = &r
		routes = append(routes, &r)
	}
	return routes
}

// otherMethods stands for all methods that no plan names.
const otherMethods = ""

// methodsOf are the methods of a plan, with HEAD where GET is; none: all.
func (h *Handler) methodsOf(plan string) []string {
	for _, p := range h.Plans {
		if p.Name == plan {
			if slices.Contains(p.Methods, http.MethodGet) && !slices.Contains(p.Methods, http.MethodHead) {
				return append(slices.Clone(p.Methods), http.MethodHead)
			}
			return p.Methods
		}
	}
	return nil
}

// routeFor is the route of p for requests of a method.
func (p *Price) routeFor(method string) *paywall.Route {
	if p.methods == nil {
		return p.route
	}
	r, ok := p.methods[method]
	if !ok {
		r = p.methods[otherMethods]
	}
	return r
}

// free reports whether what matches is free. All that has no price is not free by this: `unpriced free` says that.
func (p *Price) free() bool { return p.Amount == free && len(p.matchers) > 0 }

// matched is what becomes of a request that has the price p.
func (p *Price) matched(method string) (*Price, string, error) {
	switch {
	case p.free():
		return nil, outcomeFree, nil
	case p.routeFor(method) == nil: // only plans open it, and none of them is for this method
		return nil, outcomeDenied, nil
	}
	return p, "", nil
}
