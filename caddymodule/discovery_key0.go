package caddymodule

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Who comes from Key0 has its catalogue as JSON in PLANS and ROUTES, or in base64 in PLANS_B64 and ROUTES_B64.

type key0PlanJSON struct {
	PlanID      string `json:"planId"`
	UnitAmount  string `json:"unitAmount"`
	Description string `json:"description"`
	Free        bool   `json:"free"`

	// rest is all of it but its name and price, which every issuer is told.
	rest map[string]json.RawMessage
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *key0PlanJSON) UnmarshalJSON(raw []byte) error {
	type plain key0PlanJSON
	if err := json.Unmarshal(raw, (*plain)(p)); err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &p.rest); err != nil {
		return err
	}
	maps.DeleteFunc(p.rest, func(name string, _ json.RawMessage) bool {
		return strings.EqualFold(name, "planId") || strings.EqualFold(name, "unitAmount")
	})
	return nil
}

// issuer is the one of all plans as it is asked for this one. Key0 tells its endpoint all that stands in a plan.
func (p *key0PlanJSON) issuer(all *Issuer) *Issuer {
	if all == nil {
		return nil
	}
	i := *all
	i.Fields = maps.Clone(all.Fields)
	if i.Fields == nil {
		i.Fields = make(map[string]json.RawMessage, len(p.rest))
	}
	for name, value := range p.rest {
		i.Fields[name] = literal(value)
	}
	return &i
}

// literal makes sure that a text stays what it is, whatever braces are in it.
func literal(value json.RawMessage) json.RawMessage {
	var text *string
	if json.Unmarshal(value, &text) != nil || text == nil || !strings.ContainsAny(*text, "{}") {
		return value
	}
	return caddyconfig.JSON(strings.NewReplacer("{", `\{`, "}", `\}`).Replace(*text), nil)
}

type key0RouteJSON struct {
	RouteID     string   `json:"routeId"`
	Method      string   `json:"method"`
	Path        string   `json:"path"`
	UnitAmount  string   `json:"unitAmount"`
	Description string   `json:"description"`
	Params      []*Param `json:"params"`
}

// key0JSON reads the arguments of a subdirective, each JSON, or base64 of it: the first that is not empty counts, as with Key0's variables.
func key0JSON(d *caddyfile.Dispenser, what string, into any) error {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.ArgErr()
	}
	at := slices.IndexFunc(args, func(s string) bool { return strings.TrimSpace(s) != "" })
	if at < 0 {
		return nil
	}
	raw := []byte(strings.TrimSpace(args[at]))
	if raw[0] != '[' {
		plain, err := base64.StdEncoding.DecodeString(string(raw))
		if err != nil {
			return d.Errf("%s is neither JSON nor base64; give it a list as Key0's %s has it", what, strings.ToUpper(strings.TrimPrefix(what, "key0_")))
		}
		raw = plain
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return d.Errf("%s: %v", what, err)
	}
	return nil
}

// key0PlanTTL is how long a plan of Key0, whose plans say nothing of it, is good for.
const key0PlanTTL = time.Hour

func (h *Handler) parseKey0Plans(d *caddyfile.Dispenser) error {
	var list []key0PlanJSON
	if err := key0JSON(d, "key0_plans", &list); err != nil {
		return err
	}
	ttl := caddy.Duration(key0PlanTTL)
	var issuer *Issuer
	if err := subdirectives(d, "key0_plans", map[string]func() error{
		"ttl": duration(d, &ttl),
		"issuer": func() (err error) {
			issuer, err = parseIssuer(d)
			return err
		},
	}); err != nil {
		return err
	}
	for _, p := range list {
		if p.Free || p.UnitAmount == "" {
			return d.Errf("key0_plans: plan %s has no price; write it as a plan of its own", p.PlanID)
		}
		h.Plans = append(h.Plans, &Plan{Name: p.PlanID, Price: p.UnitAmount, Description: p.Description, TTL: ttl, Issuer: p.issuer(issuer)})
	}
	return nil
}

func (h *Handler) parseKey0Routes(d *caddyfile.Dispenser) error {
	var list []key0RouteJSON
	if err := key0JSON(d, "key0_routes", &list); err != nil {
		return err
	}
	priced := false
	for _, r := range list {
		e := &RouteEntry{ID: r.RouteID, Method: r.Method, Path: r.Path, Description: r.Description, Params: r.Params}
		if err := e.check(); err != nil {
			return d.Errf("key0_routes: %v", err)
		}
		match := caddy.ModuleMap{
			"method":      caddyconfig.JSON(caddyhttp.MatchMethod(methodsOf(e.Method)), nil),
			"path_regexp": caddyconfig.JSON(caddyhttp.MatchPathRE{MatchRegexp: caddyhttp.MatchRegexp{Pattern: e.pattern()}}, nil),
		}
		if r.UnitAmount == "" {
			e.Free = true
			h.ExemptRaw = append(h.ExemptRaw, match)
			h.Routes = append(h.Routes, e)
			continue
		}
		priced = true
		h.Prices = append(h.Prices, &Price{
			Amount: r.UnitAmount, Name: r.RouteID, Description: r.Description, MatcherSetsRaw: caddyhttp.RawMatcherSets{match}, Routes: []*RouteEntry{e},
		})
	}
	if h.Unpriced == "" && priced {
		h.Unpriced = "deny" // Key0 answers for its routes alone
	}
	return nil
}

// methodsOf: HEAD is charged as GET is.
func methodsOf(method string) []string {
	if method == "GET" {
		return []string{"GET", "HEAD"}
	}
	return []string{method}
}

// pattern is the entry's path as a regular expression; a trailing slash makes no other path of it.
func (e *RouteEntry) pattern() string {
	var b strings.Builder
	b.WriteString("^")
	for part := range strings.SplitSeq(strings.Trim(e.Path, "/"), "/") {
		if strings.HasPrefix(part, ":") {
			b.WriteString("/[^/]+")
		} else if part != "" {
			fmt.Fprintf(&b, "/%s", regexp.QuoteMeta(part))
		}
	}
	return b.String() + "/?$"
}
