package caddymodule

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Who comes from Key0 has its catalogue as JSON in PLANS and ROUTES, or in base64 in PLANS_B64 and ROUTES_B64.

type key0PlanJSON struct {
	PlanID     string `json:"planId"`
	UnitAmount string `json:"unitAmount"`
	Free       bool   `json:"free"`
}

type key0RouteJSON struct {
	RouteID     string   `json:"routeId"`
	Method      string   `json:"method"`
	Path        string   `json:"path"`
	UnitAmount  string   `json:"unitAmount"`
	Description string   `json:"description"`
	Params      []*Param `json:"params"`
}

// key0JSON reads the argument of a subdirective: JSON, or base64 of it.
func key0JSON(d *caddyfile.Dispenser, what string, into any) error {
	var text string
	if err := one(d, &text)(); err != nil {
		return err
	}
	raw := []byte(strings.TrimSpace(text))
	if len(raw) == 0 {
		return nil
	}
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
	if err := subdirectives(d, "key0_plans", map[string]func() error{"ttl": duration(d, &ttl)}); err != nil {
		return err
	}
	for _, p := range list {
		if p.Free || p.UnitAmount == "" {
			return d.Errf("key0_plans: plan %s has no price; write it as a plan of its own", p.PlanID)
		}
		h.Plans = append(h.Plans, &Plan{Name: p.PlanID, Price: p.UnitAmount, TTL: ttl})
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
