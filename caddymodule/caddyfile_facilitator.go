package caddymodule

import (
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

// parseFacilitator reads the directive with its matcher. One such as /facilitator/* is the prefix of the facilitator's paths, too.
func parseFacilitator(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	if !h.Next() {
		return nil, h.ArgErr()
	}
	f := new(Facilitator)
	if h.NextArg() {
		if dir, ok := strings.CutSuffix(h.Val(), "/*"); ok && strings.HasPrefix(dir, "/") && !strings.ContainsAny(dir, "*{") {
			f.Prefix = dir
		}
		h.Prev()
	}
	matcher, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, err
	}
	if err := f.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return h.NewRoute(matcher, f), nil
}

// UnmarshalCaddyfile reads
//
//	x402_facilitator [<matcher>] {
//		allow_pay_to <addresses...>
//		key          <name> <secret>      # repeatable; or: keys off
//		networks     <names...>
//		min_amount   <amount>
//		rate_limit   <requests> [<per>]
//		max_validity <duration>
//		repeat
//		name         <name>
//	}
func (f *Facilitator) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	if d.NextArg() {
		return d.ArgErr()
	}
	return subdirectives(d, "x402_facilitator", map[string]func() error{
		"name":         one(d, &f.Name),
		"allow_pay_to": several(d, &f.AllowPayTo),
		"networks":     several(d, &f.Networks),
		"min_amount":   one(d, &f.MinAmount),
		"max_validity": duration(d, &f.MaxValidity),
		"key": func() error {
			k := new(FacilitatorKey)
			if !d.Args(&k.Name, &k.Secret) || d.NextArg() {
				return d.Err("a key needs a name and a secret, such as `key shop {env.SHOP_KEY}`")
			}
			f.Keys = append(f.Keys, k)
			return nil
		},
		"keys": func() error {
			if !d.NextArg() || d.Val() != "off" || d.NextArg() {
				return d.Err("write `keys off`, or `key <name> <secret>` for each who may ask")
			}
			f.Open = true
			return nil
		},
		"rate_limit": func() error { return f.parseRateLimit(d) },
		"repeat":     flag(d, &f.Repeat),
	}, "key", "allow_pay_to", "networks")
}

func (f *Facilitator) parseRateLimit(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	n, err := strconv.Atoi(d.Val())
	if err != nil || n < 1 {
		return d.Errf("rate_limit '%s' is no number of requests; write one such as `rate_limit 100 1s`", d.Val())
	}
	if f.Requests = n; d.NextArg() {
		d.Prev()
		return duration(d, &f.Per)()
	}
	return nil
}
