package caddymodule

import (
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"
)

func parseService(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	s := new(Service)
	err := s.UnmarshalCaddyfile(h.Dispenser)
	return s, err
}

// parseHandler reads the directive with its matcher. The matcher's text becomes the name of the set of routes, since
// payments are bound to it. A path such as /paid/* stands for /paid as well: the matcher takes /paid/. for that, which
// upstreams take for /paid/.
func parseHandler(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	if !h.Next() {
		return nil, h.ArgErr()
	}
	name := ""
	if h.NextArg() {
		name = h.Val()
		h.Prev()
	}
	matcher, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, err
	}
	handler := new(Handler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	if dir, ok := strings.CutSuffix(name, "/*"); ok && matcher != nil && strings.HasPrefix(dir, "/") && !strings.Contains(dir, "*") {
		matcher["path"] = h.JSON(caddyhttp.MatchPath{name, dir})
	}
	if matcher != nil && handler.Name == "" {
		handler.Name = name
	}
	return h.NewRoute(matcher, handler), nil
}

// UnmarshalCaddyfile reads
//
//	x402 [<matcher>] [<price>] {
//		name        <name>
//		description <text>
//		mime_type   <type>
//		flow        upfront|authorization|deferred {
//			buffer <size>
//		}
//		refund_on   transport|5xx|4xx|<status>...
//		price  [<price>|free|<placeholder>] {
//			match { <matchers> }
//			pricer <module> [<args...>] { ... }   # x402.pricers.*, where there is no price
//			each   <price>                        # of a placeholder's unit
//			min    <price>
//			max    <price>
//			name        <name>
//			description <text>
//			mime_type   <type>
//			flow        upfront|authorization|deferred
//			refund_on   transport|5xx|4xx|<status>...
//			tier        <tier>
//			free_tier   <requests> <window> [<key>]
//			route <id> <method> <path> { <as below> }
//		}
//		plan   <name> <price>|free {
//			ttl         <duration>
//			requests    <number>
//			credit      <amount>
//			tier        <tier>
//			methods     <methods...>
//			description <text>
//			issuer      <url> { ... }             # see parseIssuer
//		}
//		cookie
//		free_tier <requests> <window> [<key>]
//		rate_limit key|payer|client|refused <requests> <window>
//		api_keys  [off|optional|required]
//		route  <id> <method> <path> {
//			description <text>
//			param <name> path|query|body [<type>] {
//				description <text>
//				required
//			}
//			free
//		}
//		key0_plans  <json or base64...> {        # the first that is not empty counts
//			ttl    <duration>
//			issuer <url> { ... }
//		}
//		key0_routes <json or base64...>
//		unpriced free|deny
//		exempt { <matchers> }
//		idempotency off|optional|required {
//			ttl        <duration>
//			max_answer <size>
//		}
//		cors   off | [<origins...>] { max_age <duration> }
//	}
//
// `match`, `exempt` and `rate_limit` may be repeated: one of several is enough.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	if d.NextArg() {
		p := new(Price)
		p.setAmount(d.Val())
		h.Prices = append(h.Prices, p)
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	return subdirectives(d, "x402", map[string]func() error{
		"name":        one(d, &h.Name),
		"description": one(d, &h.Description),
		"mime_type":   one(d, &h.MIMEType),
		"flow":        func() error { return h.parseFlow(d) },
		"refund_on":   parseRefundOn(d, &h.RefundOn),
		"unpriced":    one(d, &h.Unpriced),
		"price":       func() error { return h.parsePrice(d) },
		"plan":        func() error { return h.parsePlan(d) },
		"exempt":      func() error { return parseMatch(d, &h.ExemptRaw) },
		"idempotency": func() error { return h.parseIdempotency(d) },
		"cors":        func() error { return h.parseCORS(d) },
		"cookie":      flag(d, &h.Cookie),
		"free_tier":   func() error { return parseFreeTier(d, &h.FreeTier) },
		"rate_limit":  func() error { return parseRateLimit(d, &h.RateLimits) },
		"api_keys":    parseAPIKeys(d, &h.APIKeys),
		"route":       func() error { return parseRouteEntry(d, &h.Routes) },
		"key0_plans":  func() error { return h.parseKey0Plans(d) },
		"key0_routes": func() error { return h.parseKey0Routes(d) },
	}, "price", "plan", "exempt", "rate_limit", "route")
}

func (h *Handler) parsePrice(d *caddyfile.Dispenser) error {
	p := new(Price)
	if err := p.parseAmount(d); err != nil {
		return err
	}
	for _, q := range h.Prices {
		if len(q.MatcherSetsRaw) == 0 {
			return d.Errf("this price would never count: the price %s before it has no match", q.Amount)
		}
	}
	h.Prices = append(h.Prices, p)
	err := subdirectives(d, "price", map[string]func() error{
		"pricer":      func() error { return p.parsePricer(d) },
		"each":        func() error { return p.setEach(d) },
		"min":         one(d, &p.Min),
		"max":         one(d, &p.Max),
		"match":       func() error { return parseMatch(d, &p.MatcherSetsRaw) },
		"name":        one(d, &p.Name),
		"description": one(d, &p.Description),
		"mime_type":   one(d, &p.MIMEType),
		"flow":        one(d, &p.Flow),
		"refund_on":   parseRefundOn(d, &p.RefundOn),
		"tier":        one(d, &p.Tier),
		"free_tier":   func() error { return parseFreeTier(d, &p.FreeTier) },
		"route":       func() error { return parseRouteEntry(d, &p.Routes) },
	}, "match", "route")
	if err == nil && p.Amount == "" && p.PricerRaw == nil {
		return d.Err("a price needs an amount, such as `price $0.01`, or a pricer")
	}
	return err
}

func (h *Handler) parsePlan(d *caddyfile.Dispenser) error {
	p := new(Plan)
	if !d.Args(&p.Name, &p.Price) || d.NextArg() {
		return d.Err("a plan needs a name and a price, such as `plan day $1.00 { ttl 24h }`")
	}
	h.Plans = append(h.Plans, p)
	if err := subdirectives(d, "plan", p.subdirectives(d)); err != nil {
		return err
	}
	if p.TTL == 0 && !p.counted() {
		return d.Errf("plan %s needs a ttl, requests or credit; write what it is good for, such as `ttl 24h` or `requests 1000`", p.Name)
	}
	return nil
}

func (h *Handler) parseIdempotency(d *caddyfile.Dispenser) error {
	i := new(Idempotency)
	if !d.Args(&i.Mode) || d.NextArg() {
		return d.Err("write `idempotency off`, `idempotency optional` or `idempotency required`")
	}
	h.Idempotency = i
	if _, err := i.provision(); err != nil {
		return d.WrapErr(err)
	}
	return subdirectives(d, "idempotency", map[string]func() error{
		"ttl":        duration(d, &i.TTL),
		"max_answer": size(d, &i.MaxAnswer, mostAnswer),
	})
}

func (h *Handler) parseFlow(d *caddyfile.Dispenser) error {
	if !d.Args(&h.Flow) || d.NextArg() {
		return d.ArgErr()
	}
	return subdirectives(d, "flow", map[string]func() error{"buffer": size(d, &h.Buffer, mostBuffer)})
}

// size reads a number of bytes, most at most.
func size(d *caddyfile.Dispenser, into *int, most uint64) func() error {
	return func() error {
		var s string
		if err := one(d, &s)(); err != nil {
			return err
		}
		n, err := humanize.ParseBytes(s)
		if err != nil || n == 0 || n > most {
			return d.Errf("'%s' is not a size up to %s; write one such as 64KiB or 1MiB", s, strings.ReplaceAll(humanize.IBytes(most), " ", ""))
		}
		*into = int(n)
		return nil
	}
}

func parseMatch(d *caddyfile.Dispenser, into *caddyhttp.RawMatcherSets) error {
	set, err := caddyhttp.ParseCaddyfileNestedMatcherSet(d)
	if err != nil {
		return err
	}
	if len(set) == 0 {
		return d.Err("a matcher is missing, such as `path /v1/*`")
	}
	*into = append(*into, set)
	return nil
}

func (h *Handler) parseCORS(d *caddyfile.Dispenser) error {
	h.CORS = &CORS{Origins: d.RemainingArgs()}
	if len(h.CORS.Origins) == 1 && h.CORS.Origins[0] == "off" {
		h.CORS = &CORS{Disabled: true}
	}
	return subdirectives(d, "cors", map[string]func() error{"max_age": func() error {
		if h.CORS.Disabled {
			return d.Err("cors off leaves nothing to configure")
		}
		return duration(d, &h.CORS.MaxAge)()
	}})
}

// Interface guards.
var (
	_ caddyfile.Unmarshaler = (*Handler)(nil)
	_ caddy.Module          = (*Handler)(nil)
)
