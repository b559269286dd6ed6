package caddymodule

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("x402", parseApp)
	httpcaddyfile.RegisterDirective("x402", parseHandler)
	httpcaddyfile.RegisterHandlerDirective("x402_service", parseService)
	httpcaddyfile.RegisterDirective("x402_facilitator", parseFacilitator)
	// Authentication and rewrites have run; request_header and everything that answers comes later. The service, the
	// facilitator and the management are registered last, so they stand first: their paths are never charged.
	httpcaddyfile.RegisterDirectiveOrder("x402", httpcaddyfile.After, "forward_auth")
	httpcaddyfile.RegisterDirectiveOrder("x402_service", httpcaddyfile.After, "forward_auth")
	httpcaddyfile.RegisterDirectiveOrder("x402_facilitator", httpcaddyfile.After, "forward_auth")
	httpcaddyfile.RegisterDirectiveOrder("x402_management", httpcaddyfile.After, "forward_auth")
}

// subdirectives reads a block. Each name is read by its function, at most once unless repeated says otherwise; an unknown
// one is an error that lists what there is.
func subdirectives(d *caddyfile.Dispenser, where string, known map[string]func() error, repeated ...string) error {
	seen := map[string]bool{}
	for _, name := range repeated {
		seen[name+" "] = true
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		read, ok := known[name]
		if !ok {
			return d.Errf("unrecognized subdirective '%s' of %s; it knows %s", name, where, listed(known))
		}
		if seen[name] && !seen[name+" "] {
			return d.Errf("%s is there twice in %s", name, where)
		}
		seen[name] = true
		if err := read(); err != nil {
			return err
		}
	}
	return nil
}

func listed(known map[string]func() error) string {
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// one reads the only argument of a subdirective.
func one(d *caddyfile.Dispenser, into *string) func() error {
	return func() error {
		if !d.Args(into) || d.NextArg() {
			return d.ArgErr()
		}
		return nil
	}
}

// several reads the arguments of a subdirective, of which there must be one. If it is repeated, they add up.
func several(d *caddyfile.Dispenser, into *[]string) func() error {
	return func() error {
		args := d.RemainingArgs()
		if len(args) == 0 {
			return d.ArgErr()
		}
		*into = append(*into, args...)
		return nil
	}
}

// flag reads a subdirective without arguments.
func flag(d *caddyfile.Dispenser, into *bool) func() error {
	return func() error {
		if d.NextArg() {
			return d.ArgErr()
		}
		*into = true
		return nil
	}
}

// duration reads the only argument of a subdirective.
func duration(d *caddyfile.Dispenser, into *caddy.Duration) func() error {
	return func() error {
		var s string
		if err := one(d, &s)(); err != nil {
			return err
		}
		return parseDuration(d, s, into)
	}
}

func parseDuration(d *caddyfile.Dispenser, s string, into *caddy.Duration) error {
	v, err := caddy.ParseDuration(s)
	if err != nil || v < time.Millisecond {
		return d.Errf("'%s' is not a duration; write one such as 30s, 5m or 24h", s)
	}
	*into = caddy.Duration(v)
	return nil
}

// count reads a number of requests, the only argument of a subdirective.
func count(d *caddyfile.Dispenser, into *uint64) func() error {
	return func() error {
		var s string
		if err := one(d, &s)(); err != nil {
			return err
		}
		return parseCount(d, s, into)
	}
}

func parseCount(d *caddyfile.Dispenser, s string, into *uint64) error {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || n == 0 {
		return d.Errf("'%s' is not a number of requests; write one such as 1000", s)
	}
	*into = n
	return nil
}

// parseApp reads the global option.
//
//	x402 {
//		network <name|caip2> [{
//			<the following, for this network>
//		}]
//		pay_to  <address>
//		rpc     <url...>
//		asset   <address> { symbol <s> ; name <s> ; version <s> ; decimals <n> }
//		wallet  <key> { ... }                  # or: facilitator <url...> { ... } ; settler <module> ...
//		credit  <for each payer> <in total>    # what may be owed, with flow deferred
//		finality latest|<blocks>|safe [above <amount>]  # repeatable, by rising amounts
//
//		refund  [<key>] { ... }                # or: refunds off
//		store   <module> [<args...>] { ... }   # x402.stores.*; default: sqlite
//		token_key      <key>                   # first signs, all verify; repeatable
//		public_url     <url>
//		max_timeout    <duration>
//		settle_timeout <duration>
//		max_validity   <duration>
//		min_age        <duration>
//		hold_ttl       <duration>
//		interval       <duration>
//		max_stale      <duration>
//		retention      <duration>
//
//		webhook <url> { ... }                  # repeatable
//		webhooks      { ... }                  # what is said of all of them
//	}
//
// With one network, what belongs to it may stand beside it; with several, each has a block.
func parseApp(d *caddyfile.Dispenser, existing any) (any, error) {
	d.Next() // consume the option's name
	if existing != nil {
		return nil, d.Err("the global option x402 is there twice; put everything into one block")
	}
	if d.NextArg() {
		return nil, d.ArgErr()
	}
	a, err := parseAppBlock(d)
	if err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "x402", Value: caddyconfig.JSON(a, nil)}, nil
}

func parseAppBlock(d *caddyfile.Dispenser) (*App, error) {
	a := new(App)
	outer := new(Network) // what stands beside `network`
	beside := networkSubdirectives(d, outer)
	known := map[string]func() error{
		"network": func() error {
			n, err := parseNetwork(d)
			a.Networks = append(a.Networks, n)
			return err
		},
		"refund":  func() error { return parseRefund(d, a, func() error { return parseRefunds(d, a) }) },
		"refunds": func() error { return parseRefund(d, a, refundsOff(d, a)) },
		"store": func() (err error) {
			a.StoreRaw, err = parseModule(d, "x402.stores.", "store")
			return err
		},
		"token_key": func() error {
			var key string
			if err := one(d, &key)(); err != nil {
				return err
			}
			a.TokenKeys = append(a.TokenKeys, key)
			return nil
		},
		"public_url":     one(d, &a.PublicURL),
		"max_timeout":    duration(d, &a.MaxTimeout),
		"settle_timeout": duration(d, &a.SettleTimeout),
		"max_validity":   duration(d, &a.MaxValidity),
		"min_age":        duration(d, &a.MinAge),
		"hold_ttl":       duration(d, &a.HoldTTL),
		"interval":       duration(d, &a.Interval),
		"max_stale":      duration(d, &a.MaxStale),
		"retention":      duration(d, &a.Retention),
		"webhook":        func() error { return parseWebhook(d, a) },
		"webhooks":       func() error { return parseWebhooks(d, a) },
	}
	maps.Copy(known, beside)
	if err := subdirectives(d, "the global option x402", known, "network", "token_key", "finality", "webhook"); err != nil {
		return nil, err
	}
	return a, joinNetworks(d, a, outer)
}

// parseRefund lets one of the two ways to say it speak.
func parseRefund(d *caddyfile.Dispenser, a *App, read func() error) error {
	if a.saysRefund() {
		return d.Err("`refund` and `refunds off` contradict each other; write one of them")
	}
	return read()
}

func refundsOff(d *caddyfile.Dispenser, a *App) func() error {
	return func() error {
		if !d.NextArg() || d.Val() != refundOff || d.NextArg() {
			return d.Err("write `refunds off`, or `refund` and the key of the wallet that pays them")
		}
		a.Refund = refundOff
		return nil
	}
}

// joinNetworks gives the only network what stands beside it.
func joinNetworks(d *caddyfile.Dispenser, a *App, outer *Network) error {
	plain := outer.PayTo == "" && len(outer.RPC) == 0 && outer.Asset == nil && outer.SettlerRaw == nil && outer.Credit == nil &&
		len(outer.Finality) == 0
	switch {
	case plain:
		return nil
	case len(a.Networks) == 0:
		return d.Err("network is missing in the global option x402; write its name, such as `network base`")
	case len(a.Networks) > 1:
		return d.Err("with several networks, pay_to, rpc, asset, credit, finality and wallet belong into the block of each network")
	}
	n := a.Networks[0]
	twice := n.PayTo != "" && outer.PayTo != "" || len(n.RPC) > 0 && len(outer.RPC) > 0 ||
		n.SettlerRaw != nil && outer.SettlerRaw != nil || n.Asset != nil && outer.Asset != nil ||
		n.Credit != nil && outer.Credit != nil || len(n.Finality) > 0 && len(outer.Finality) > 0
	if twice {
		return d.Err("something is said both in the block of network and beside it; say it once")
	}
	if n.PayTo == "" {
		n.PayTo = outer.PayTo
	}
	if len(n.RPC) == 0 {
		n.RPC = outer.RPC
	}
	if n.Asset == nil {
		n.Asset = outer.Asset
	}
	if n.SettlerRaw == nil {
		n.SettlerRaw = outer.SettlerRaw
	}
	if n.Credit == nil {
		n.Credit = outer.Credit
	}
	if len(n.Finality) == 0 {
		n.Finality = outer.Finality
	}
	return nil
}

func parseNetwork(d *caddyfile.Dispenser) (*Network, error) {
	n := new(Network)
	if !d.Args(&n.Network) || d.NextArg() {
		return n, d.ArgErr()
	}
	return n, subdirectives(d, "network", networkSubdirectives(d, n), "finality")
}

func networkSubdirectives(d *caddyfile.Dispenser, n *Network) map[string]func() error {
	settler := func(name string) func() error {
		return func() error {
			if n.SettlerRaw != nil {
				return d.Errf("%s: who settles the payments is said already", name)
			}
			var err error
			if name == "settler" {
				n.SettlerRaw, err = parseModule(d, "x402.settlers.", "settler")
			} else {
				n.SettlerRaw, err = parseNamedModule(d, "x402.settlers.", "settler", name)
			}
			return err
		}
	}
	return map[string]func() error{
		"pay_to": one(d, &n.PayTo),
		"rpc": func() error {
			n.RPC = d.RemainingArgs()
			if len(n.RPC) == 0 {
				return d.ArgErr()
			}
			return nil
		},
		"asset": func() error { return parseAsset(d, n) },
		"credit": func() error {
			n.Credit = new(Credit)
			if !d.Args(&n.Credit.PerPayer, &n.Credit.Total) || d.NextArg() {
				return d.Err("write how much each payer, and all payers together, may owe, such as `credit $0.50 $50`")
			}
			return nil
		},
		"finality":    func() error { return parseFinality(d, n) },
		"wallet":      settler("wallet"),
		"facilitator": settler("facilitator"),
		"settler":     settler("settler"),
	}
}

func parseAsset(d *caddyfile.Dispenser, n *Network) error {
	n.Asset = new(Asset)
	if err := one(d, &n.Asset.Address)(); err != nil {
		return err
	}
	return subdirectives(d, "asset", map[string]func() error{
		"symbol":  one(d, &n.Asset.Symbol),
		"name":    one(d, &n.Asset.Name),
		"version": one(d, &n.Asset.Version),
		"decimals": func() error {
			var s string
			if err := one(d, &s)(); err != nil {
				return err
			}
			var v uint8
			if err := json.Unmarshal([]byte(s), &v); err != nil {
				return d.Errf("decimals '%s' is not a small number, such as 6", s)
			}
			n.Asset.Decimals = &v
			return nil
		},
	})
}

// parseModule reads a guest module, whose name is the first argument.
func parseModule(d *caddyfile.Dispenser, namespace, inlineKey string) (json.RawMessage, error) {
	if !d.NextArg() {
		return nil, d.ArgErr()
	}
	return parseNamedModule(d, namespace, inlineKey, d.Val())
}

func parseNamedModule(d *caddyfile.Dispenser, namespace, inlineKey, name string) (json.RawMessage, error) {
	m, err := caddyfile.UnmarshalModule(d, namespace+name)
	if err != nil {
		return nil, err
	}
	return caddyconfig.JSONModuleObject(m, inlineKey, name, nil), nil
}
