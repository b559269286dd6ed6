package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-x402/caddy-x402/paywall"
)

func init() {
	caddy.RegisterModule(new(Handler))
}

// Handler lets a request pass if it is paid for: by a payment (x402, versions 1 and 2), or by the access token of a plan. Any
// other request is answered `402 Payment Required`, with what may be paid and to whom.
//
// The handler uses Caddy's own matchers, so what is paid is exactly what Caddy routes. It sets these placeholders, which
// are empty where nothing was paid:
//
// Placeholder | Description
// ------------|------------
// `{http.x402.status}` | `paid`, `token`, `replayed`, `owed` (served, to be settled), `void` (the upstream refused, nothing was charged), `required`, `refused`, `unavailable`, `malformed`, `limited`, `exempt`, `free` or `denied`
// `{http.x402.error}` | The code of why a request was not let through
// `{http.x402.api_key}` | The id of the API key that the request came with, where `api_keys` are looked at
// `{http.x402.payment.id}` | The payment's id
// `{http.x402.payment.payer}` | The payer's address, proven by its signature
// `{http.x402.payment.amount}` | The amount in atomic units of the asset
// `{http.x402.payment.asset}` | The asset's address
// `{http.x402.payment.network}` | The network's CAIP-2 identifier
// `{http.x402.payment.transaction}` | The hash of the settling transaction
// `{http.x402.payment.plan}` | The name of the plan
type Handler struct {
	// The name of this set of routes. Payments and plans are bound to it: it must differ from that of every other set on the
	// site, and stay the same. Default in a Caddyfile: the matcher, or the site's directive without one.
	Name string `json:"name,omitempty"`

	// What requests cost, in the order in which the rules are tried; the first that matches counts.
	Prices []*Price `json:"prices,omitempty"`

	// What happens to a request that no rule matches: `free` lets it pass, `deny` answers 403. It must be given if there is
	// no rule that matches everything, so that nothing is free by omission.
	Unpriced string `json:"unpriced,omitempty"`

	// Requests that need not be paid for, whatever they cost.
	ExemptRaw caddyhttp.RawMatcherSets `json:"exempt,omitempty" caddy:"namespace=http.matchers"`

	// Passes that open every route of this handler.
	Plans []*Plan `json:"plans,omitempty"`

	// Gives browsers the token of a plan as a cookie too (`Secure`, `HttpOnly`), and takes it from there.
	Cookie bool `json:"cookie,omitempty"`

	// What is free of all that has a price here. A price rule may say its own.
	FreeTier *FreeTier `json:"free_tier,omitempty"`

	// How many requests somebody may make, of all that has a price here; at most one limit of each kind.
	RateLimits []*RateLimit `json:"rate_limits,omitempty"`

	// Whether the API keys of consumers (with the scope `access`, in `X-Api-Key` or as a bearer token) are looked at, for who they are and
	// for limits: `off`, `optional`, or `required`. A key pays for nothing. The upstream gets its id in `X-Payment-Consumer`, and never the key.
	// Default: off.
	APIKeys string `json:"api_keys,omitempty"`

	// Entries of the catalogue for what everything else costs: the price without a match, or nothing where that is free.
	Routes []*RouteEntry `json:"routes,omitempty"`

	// What is sold, for people and agents. A price rule may say its own.
	Description string `json:"description,omitempty"`

	// The media type of what is sold, such as `application/json`. A price rule may say its own.
	MIMEType string `json:"mime_type,omitempty"`

	// When the money moves.
	//
	//   - `upfront`, the default: before the upstream is asked. For anything, streams and plans too. What the upstream then fails to
	//     deliver is refunded, so `refund` or `refunds off` must be said.
	//   - `authorization`: after the upstream has answered, and before its answer goes out. An answer of status 400 and above costs
	//     nothing. Answers are held back in memory; requests for WebSocket and for events alone are refused.
	//
	//   - `deferred`: after the delivery, for payers who have the money and owe little; all others pay up front. A payer whose
	//     payment then fails is refused until it is made good. What may be lost is bounded by the networks' `credit`.
	//
	// A price rule may say its own.
	Flow string `json:"flow,omitempty"`

	// How many bytes of an answer are held back until it is paid for, with the flow `authorization`, 64 MiB at most. A longer answer is
	// paid for as soon as it turns out to be longer, while the upstream waits; the rest of it streams. Default: 1048576 (1 MiB).
	Buffer int `json:"buffer,omitempty"`

	// Which answers of the upstream count as not delivered, so that what was paid for them goes back: `5xx`, `4xx` and single statuses such
	// as `404`. That there is no answer (`transport`) always counts. It is for payments that are settled before the upstream is asked: with
	// the flows `authorization` and `deferred`, an answer of 400 and above costs nothing. A price rule may say its own. Default: `5xx`.
	RefundOn []string `json:"refund_on,omitempty"`

	// What is made of keys by which clients say that a request is the same as one before: x402's extension
	// payment-identifier, and the header Idempotency-Key. The same payer with the same key and request gets the stored answer,
	// and pays once. Default: optional.
	Idempotency *Idempotency `json:"idempotency,omitempty"`

	// Which web pages may read the answers. Default: all, without credentials.
	CORS *CORS `json:"cors,omitempty"`

	app    *App
	site   func() string // see siteName
	gate   *paywall.Gate
	passes []*paywall.Route // of each plan, for who buys it by POST /x402/access
	exempt caddyhttp.MatcherSets
	log    *zap.Logger
}

// CaddyModule implements caddy.Module.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.x402", New: func() caddy.Module { return new(Handler) }}
}

// Provision implements caddy.Provisioner.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.log = ctx.Logger()
	h.site = sync.OnceValue(func() string { return siteName(ctx, h) })
	app, err := ctx.AppIfConfigured("x402")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return fmt.Errorf("the x402 handler needs the x402 app; add the global option x402 with a network, pay_to, rpc and wallet: %w", err)
	}
	if err != nil {
		return err
	}
	h.app = app.(*App)
	if len(h.app.payees) == 0 {
		return errors.New("the x402 app has no network to be paid on; add network, pay_to, rpc and wallet to the global option x402")
	}
	if err := h.check(); err != nil {
		return err
	}
	if err := h.provisionMatchers(ctx); err != nil {
		return err
	}
	if h.CORS == nil {
		h.CORS = new(CORS)
	}
	if err := h.CORS.prepare(); err != nil {
		return err
	}
	return h.provisionGate(ctx)
}

func (h *Handler) check() error {
	if h.Name == "" {
		h.Name = "site"
	}
	if len(h.Prices) == 0 && len(h.Plans) == 0 {
		return errors.New("nothing has a price; write one, such as `x402 /path/* $0.01`, or a plan")
	}
	if i := slices.Index(h.Prices, nil); i >= 0 {
		return fmt.Errorf("price number %d is null", i+1)
	}
	if i := slices.Index(h.Plans, nil); i >= 0 {
		return fmt.Errorf("plan number %d is null", i+1)
	}
	if len(h.Prices) == 0 { // passes alone open everything
		h.Prices = []*Price{{}}
	}
	if err := h.checkFlows(); err != nil {
		return err
	}
	rest := slices.IndexFunc(h.Prices, func(p *Price) bool { return len(p.MatcherSetsRaw) == 0 })
	if rest >= 0 && rest < len(h.Prices)-1 {
		return fmt.Errorf("price number %d would never count: one before it has no match", rest+2)
	}
	all := rest >= 0
	switch h.Unpriced {
	case "", "free", "deny":
	default:
		return fmt.Errorf("unpriced %q is neither free nor deny", h.Unpriced)
	}
	if !all && h.Unpriced == "" {
		return errors.New("some requests match no price; write `unpriced free` or `unpriced deny`, or a price without match")
	}
	if all && h.Unpriced != "" {
		return errors.New("unpriced has no meaning: a price without match is the price of everything else")
	}
	return nil
}

func (h *Handler) provisionMatchers(ctx caddy.Context) error {
	load := func(structure any, field string, into *caddyhttp.MatcherSets) error {
		raw, err := ctx.LoadModule(structure, field)
		if err != nil {
			return fmt.Errorf("loading matchers: %w", err)
		}
		return into.FromInterface(raw)
	}
	if h.ExemptRaw != nil {
		if err := load(h, "ExemptRaw", &h.exempt); err != nil {
			return err
		}
	}
	for _, p := range h.Prices {
		if p.MatcherSetsRaw != nil {
			if err := load(p, "MatcherSetsRaw", &p.matchers); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *Handler) provisionGate(ctx caddy.Context) error {
	plans, err := h.plans()
	if err != nil {
		return err
	}
	var routes []*paywall.Route
	names := map[string]bool{}
	for i, p := range h.Prices {
		if p.free() {
			continue
		}
		r, err := h.route(i, p, plans)
		if err != nil {
			return err
		}
		if p.isMoving() {
			if r.Pricer, err = h.provisionPricer(ctx, p); err != nil {
				return err
			}
		}
		if names[r.Name] {
			return fmt.Errorf("two prices have the name %q; payments could not be told apart", r.Name)
		}
		names[r.Name], p.route = true, r
		routes = append(append(routes, r), h.byMethod(p)...)
	}
	if err := h.provisionCatalogue(plans); err != nil {
		return err
	}
	idempotency, err := h.Idempotency.provision()
	if err != nil {
		return err
	}
	zones, err := h.zones()
	if err != nil {
		return err
	}
	var known paywall.Consumers
	if h.asksKeys() {
		known = newConsumers(ctx.Slogger())
	}
	h.gate, err = paywall.NewGate(paywall.Config{
		Zones: zones, Consumers: known, ConsumersOnly: h.APIKeys == apiKeysRequired, Recognized: setConsumer,
		Acquire: h.app.acquire, Payees: h.app.payees, Tokens: h.app.tokens, Granted: setPayment, Decided: decided, Filed: logPayment,
		ErrorStatus: errorStatus, MinRemaining: minRemaining, MaxValidity: time.Duration(h.app.MaxValidity), Now: h.app.now,
		Logger: ctx.Slogger(), StatusURL: h.app.statusURL, Idempotency: idempotency, Cookie: h.Cookie,
	}, append(routes, h.passes...)...)
	return err
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	t := toldOf(r)
	if t != nil && t.taken {
		return next.ServeHTTP(w, r)
	}
	first := t == nil
	if first {
		t = newTold(r)
	}
	if isPreflight(r) {
		h.gate.Clean(r, h.Name)
		return h.CORS.preflight(w, r, next)
	}
	if !first || r.Header.Get("Origin") == "" {
		return h.serve(w, r, t, next)
	}
	w, failed := h.CORS.wrap(w, r)
	err := h.serve(w, r, t, next)
	if err != nil {
		failed()
	}
	return err
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, t *told, next caddyhttp.Handler) error {
	price, outcome, err := h.match(r)
	if err != nil {
		countFailure(stageRequest, paywall.CodeInternalError)
		return caddyhttp.Error(http.StatusInternalServerError, err)
	}
	called := calledOf(r)
	if err := called.reached(h, price, outcome); err != nil {
		return err
	}
	if price == nil {
		decided(r, outcome, "")
		t.setAside(r)
		h.gate.Clean(r, h.Name)
		if outcome == outcomeDenied {
			return caddyhttp.Error(http.StatusForbidden, errors.New("no price matches the request, and unpriced is deny"))
		}
		return next.ServeHTTP(w, r)
	}
	t.taken = true
	t.putBack(r)
	if called != nil {
		return called.serve(w, r, price, next, t)
	}
	return h.gate.Serve(w, r, h.request(r, price.routeFor(r.Method)), next.ServeHTTP)
}

// match finds the price of a request; none is an outcome of its own. Where a path can be read in two ways, one that has
// a price is enough, and both must be exempt or free.
func (h *Handler) match(r *http.Request) (*Price, string, error) {
	other := otherReading(r)
	if len(h.exempt) > 0 {
		ok, err := h.exempt.AnyMatchWithError(r)
		if ok && err == nil && other != nil {
			ok, err = h.exempt.AnyMatchWithError(other)
		}
		if err != nil {
			return nil, "", fmt.Errorf("matching exempt: %w", err)
		} else if ok {
			return nil, outcomeExempt, nil
		}
	}
	for _, p := range h.Prices {
		if len(p.matchers) == 0 {
			return p.matched(r.Method)
		}
		ok, err := p.matchers.AnyMatchWithError(r)
		if err == nil && other != nil && ok == p.free() { // one reading is enough to be paid for, and not to be free
			ok, err = p.matchers.AnyMatchWithError(other)
		}
		if err != nil {
			return nil, "", fmt.Errorf("matching a price: %w", err)
		}
		if ok {
			return p.matched(r.Method)
		}
	}
	if h.Unpriced == "deny" {
		return nil, outcomeDenied, nil
	}
	return nil, outcomeFree, nil
}

// otherReading is r with the path that an upstream may make of it, where Caddy's matchers make another of it: they take
// /a/. and /a/b/.. for /a, and RFC 3986 (section 5.2.4) takes them for /a/. Usually there is none.
func otherReading(r *http.Request) *http.Request {
	if !strings.HasSuffix(r.URL.Path, "/.") && !strings.HasSuffix(r.URL.Path, "/..") {
		return nil
	}
	other, u := r.WithContext(r.Context()), *r.URL
	u.Path += "/"
	if u.RawPath != "" {
		u.RawPath += "/"
	}
	other.URL = &u
	return other
}

// request describes r as its client sent it: rewrites may have run before.
func (h *Handler) request(r *http.Request, route *paywall.Route) paywall.Request {
	original := r
	if o, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		original = &o
	}
	host := strings.ToLower(r.Host) // Caddy keeps the original URL, and nothing before us changes the host
	base := h.app.siteURL(r)
	audience := base
	if h.app.PublicURL != "" { // it may stand for several hosts, whose tokens are not each other's
		public, _, _ := strings.Cut(h.app.PublicURL, "://")
		audience = public + "://" + host
	}
	uri := original.URL.RequestURI()
	return paywall.Request{
		Client: clientAddress(r), Route: route, URL: base + uri, Host: host, URI: uri, Site: h.site(), Audience: audience,
	}
}

// siteURL is the public address of the site that r came to.
func (a *App) siteURL(r *http.Request) string {
	if a.PublicURL != "" {
		return a.PublicURL
	}
	return scheme(r) + "://" + strings.ToLower(r.Host)
}

// scheme is how the client reached us. Only a trusted proxy is believed about it.
func scheme(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); trusted {
		if strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
			return "https"
		}
	}
	return "http"
}

func errorStatus(err error) int {
	if e, ok := errors.AsType[caddyhttp.HandlerError](err); ok && e.StatusCode != 0 {
		return e.StatusCode
	}
	return http.StatusInternalServerError
}

// statusURL is where a payer may ask what became of a payment; x402_service answers there.
func (a *App) statusURL(id string) string { return a.PublicURL + pathPayments + id }

// Interface guards.
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
