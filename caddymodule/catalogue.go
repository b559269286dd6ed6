package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/paywall"
)

// RouteEntry is a route as the catalogue has it: what may be called, by its id, with `POST /x402/access`, or at its own address. What it
// costs is what the price rule says for the request; an entry whose request comes to another rule is refused.
type RouteEntry struct {
	// The id, unique among the routes and plans of the configuration.
	ID string `json:"id"`
	// The HTTP method: GET, POST, PUT, PATCH or DELETE.
	Method string `json:"method"`
	// The path, such as `/api/weather/:city`; a part that begins with a colon stands for any one part.
	Path string `json:"path"`
	// What the route does, for people and agents.
	Description string `json:"description,omitempty"`
	// What a call may say, for people and agents.
	Params []*Param `json:"params,omitempty"`
	// The route costs nothing, though everything else does: its requests are exempt. Only beside the prices.
	Free bool `json:"free,omitempty"`
}

// Param describes a parameter of a route, for people and agents; nothing is checked.
type Param struct {
	// The parameter's name, as the path, the query or the body has it.
	Name string `json:"name"`
	// Where it stands: `path`, `query` or `body`.
	In string `json:"in"`
	// What it means.
	Description string `json:"description,omitempty"`
	// The route can't be called without it. What stands in the path always is.
	Required bool `json:"required,omitempty"`
	// `string`, `number`, `boolean` or `object`. Default: string.
	Type string `json:"type"`
}

// itemID is what ids of routes and plans look like in a catalogue: they stand in URLs, documents and JSON of all kinds.
var itemID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

var routeMethods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

func (e *RouteEntry) check() error {
	switch {
	case e == nil:
		return errors.New("a route of the catalogue is null")
	case !itemID.MatchString(e.ID):
		return fmt.Errorf("route id %q: write letters, digits, dots, hyphens and underscores", e.ID)
	case !slices.Contains(routeMethods, e.Method):
		return fmt.Errorf("route %s: the method %q is none of %s", e.ID, e.Method, strings.Join(routeMethods, ", "))
	case !strings.HasPrefix(e.Path, "/") || strings.HasPrefix(e.Path, "//") || strings.ContainsAny(e.Path, "?#*%\\ {}"):
		return fmt.Errorf("route %s: the path %q is not one such as /api/weather/:city", e.ID, e.Path)
	case ownPath(e.Path):
		return fmt.Errorf("route %s: the path %s belongs to x402_service", e.ID, e.Path)
	}
	for part := range strings.SplitSeq(e.Path[1:], "/") {
		if part == ":" || part == "." || part == ".." {
			return fmt.Errorf("route %s: the path %q has a part %q", e.ID, e.Path, part)
		}
	}
	for _, p := range e.Params {
		if err := p.check(); err != nil {
			return fmt.Errorf("route %s: %w", e.ID, err)
		}
	}
	return nil
}

func (p *Param) check() error {
	switch {
	case p == nil || p.Name == "":
		return errors.New("a param needs a name")
	case !slices.Contains([]string{"path", "query", "body"}, p.In):
		return fmt.Errorf("param %s is in %q, which is none of path, query, body", p.Name, p.In)
	}
	if p.Type == "" {
		p.Type = "string"
	}
	if !slices.Contains([]string{"string", "number", "boolean", "object"}, p.Type) {
		return fmt.Errorf("param %s has the type %q, which is none of string, number, boolean, object", p.Name, p.Type)
	}
	p.Required = p.Required || p.In == "path"
	return nil
}

// target reads the path of a call, with its query. It must be one that the entry stands for, in one spelling: what an upstream might
// read otherwise (dots, encoded slashes, another host) is none.
func (e *RouteEntry) target(path string) (*url.URL, error) {
	u, err := url.ParseRequestURI(path)
	switch {
	case err != nil, !strings.HasPrefix(path, "/"), strings.HasPrefix(path, "//"), u.Host != "", u.Scheme != "", strings.Contains(path, "#"):
		return nil, errors.New("resource.path must be a path, such as " + e.Path)
	}
	want, got := strings.Split(e.Path[1:], "/"), strings.Split(u.EscapedPath()[1:], "/")
	if len(want) != len(got) {
		return nil, e.mismatch(path)
	}
	for i, part := range got {
		plain, err := url.PathUnescape(part)
		if err != nil || plain == "." || plain == ".." || strings.ContainsFunc(plain, func(r rune) bool {
			return r == '/' || r == '\\' || r < ' ' || r == 0x7f || r == 0xfffd
		}) {
			return nil, errors.New("resource.path has a part that can be read in two ways")
		}
		if name := want[i]; strings.HasPrefix(name, ":") && plain != "" || name == plain {
			continue
		}
		return nil, e.mismatch(path)
	}
	return u, nil
}

func (e *RouteEntry) mismatch(path string) error {
	return fmt.Errorf("%s is not the path of route %s, which is %s", path, e.ID, e.Path)
}

// entry is a route with the price rule that it belongs to; nil: it is free.
type entry struct {
	*RouteEntry
	handler *Handler
	price   *Price
	isFree  bool // of a price that says so
}

// planEntry is a plan with the set of routes that it is good for.
type planEntry struct {
	id      string
	plan    *Plan
	handler *Handler
	pass    *paywall.Route
}

// provisionCatalogue checks the entries of a handler, and prepares its plans to be bought by their ids.
func (h *Handler) provisionCatalogue(plans []paywall.Plan) error {
	for i := range plans {
		plan := plans[i]
		plan.Least = h.least(plan.Name)
		h.passes = append(h.passes, &paywall.Route{
			Name: h.Name, Scope: h.Name, Description: h.Description, MIMEType: "application/json", Plans: []paywall.Plan{plan},
			Timeout: time.Duration(h.app.MaxTimeout), Flow: ledger.FlowUpfront,
		})
	}
	entries := h.entries()
	for _, e := range entries {
		if err := e.RouteEntry.check(); err != nil {
			return err
		}
		if slices.ContainsFunc(h.Plans, func(p *Plan) bool { return p.Name == e.ID }) {
			return fmt.Errorf("a route and a plan have the id %q; give the route another one", e.ID)
		}
		if e.Free && e.price != nil {
			return fmt.Errorf("route %s is free, and stands in the block of a price", e.ID)
		}
		if e.price == nil && !e.isFree && h.Unpriced != "free" && len(h.exempt) == 0 {
			return fmt.Errorf("route %s has no price, and nothing is free here; put it into the block of its price", e.ID)
		}
	}
	return h.app.catalogue.add(h, entries)
}

// least is the lowest price of what a plan opens, on each network; nil where one moves.
func (h *Handler) least(plan string) (list []paywall.Price) {
	for _, p := range h.Prices {
		if p.route == nil || !slices.ContainsFunc(p.route.Plans, func(q paywall.Plan) bool { return q.Name == plan }) {
			continue
		}
		if p.isMoving() {
			return nil
		}
		for _, price := range p.route.Prices {
			at := slices.IndexFunc(list, func(q paywall.Price) bool { return q.Payee == price.Payee })
			switch {
			case at < 0:
				list = append(list, price)
			case price.Amount.Lt(&list[at].Amount):
				list[at] = price
			}
		}
	}
	return list
}

// entries are the routes of the catalogue that h serves. Those that stand beside the prices cost what everything else costs.
func (h *Handler) entries() (list []entry) {
	var rest *Price
	for _, p := range h.Prices {
		for _, e := range p.Routes {
			if p.free() {
				list = append(list, entry{e, h, nil, true})
				continue
			}
			list = append(list, entry{e, h, p, false})
		}
		if len(p.matchers) == 0 {
			rest = p
		}
	}
	for _, e := range h.Routes {
		if e != nil && e.Free {
			list = append(list, entry{e, h, nil, false})
			continue
		}
		list = append(list, entry{e, h, rest, false})
	}
	return list
}

// catalogue is what the sites of a configuration sell.
type catalogue struct {
	handlers []*Handler
	routes   []entry
}

func (c *catalogue) add(h *Handler, entries []entry) error {
	c.handlers = append(c.handlers, h)
	for _, e := range entries {
		same := slices.IndexFunc(c.routes, func(o entry) bool { return o.ID == e.ID })
		if same >= 0 && (c.routes[same].Method != e.Method || c.routes[same].Path != e.Path || c.routes[same].handler == h) {
			return fmt.Errorf("two routes of the catalogue have the id %q; give each an id of its own", e.ID)
		}
		c.routes = append(c.routes, e)
	}
	return nil
}

// at is what the handlers of one site sell. Plans of two sets with one name go by both.
func (c *catalogue) at(belongs func(*Handler) bool) (plans []planEntry, routes []entry) {
	count := map[string]int{}
	for _, h := range c.handlers {
		if !belongs(h) {
			continue
		}
		for i, p := range h.Plans {
			count[p.Name]++
			plans = append(plans, planEntry{id: p.Name, plan: p, handler: h, pass: h.passes[i]})
		}
	}
	for i := range plans {
		if p := &plans[i]; count[p.id] > 1 {
			p.id = p.handler.Name + ":" + p.id
		}
	}
	for _, e := range c.routes {
		if belongs(e.handler) {
			routes = append(routes, e)
		}
	}
	return plans, routes
}

// parseRouteEntry reads `route <id> <method> <path> { … }`.
func parseRouteEntry(d *caddyfile.Dispenser, into *[]*RouteEntry) error {
	e := new(RouteEntry)
	if !d.Args(&e.ID, &e.Method, &e.Path) || d.NextArg() {
		return d.Err("a route needs an id, a method and a path, such as `route weather GET /api/weather/:city`")
	}
	e.Method = strings.ToUpper(e.Method)
	err := subdirectives(d, "route", map[string]func() error{
		"description": one(d, &e.Description),
		"param":       func() error { return parseParam(d, e) },
		"free":        flag(d, &e.Free),
	}, "param")
	if err != nil {
		return err
	}
	if err := e.check(); err != nil {
		return d.WrapErr(err)
	}
	*into = append(*into, e)
	return nil
}

func parseParam(d *caddyfile.Dispenser, e *RouteEntry) error {
	p := new(Param)
	if !d.Args(&p.Name, &p.In) {
		return d.Err("a param needs a name and a place, such as `param city path`")
	}
	if d.NextArg() {
		p.Type = d.Val()
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	e.Params = append(e.Params, p)
	return subdirectives(d, "param", map[string]func() error{
		"description": one(d, &p.Description),
		"required":    flag(d, &p.Required),
	})
}
