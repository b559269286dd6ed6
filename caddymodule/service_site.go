package caddymodule

import (
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// stock is what the service's site sells, as documents too. It is made when it is first asked for: until then handlers may still be
// provisioned.
func (s *Service) stock() *shelf {
	s.once.Do(func() { s.shelf.fill(s) })
	return &s.shelf
}

func (s *Service) plan(id string) (planEntry, bool) {
	plans := s.stock().plans
	i := slices.IndexFunc(plans, func(p planEntry) bool { return p.id == id })
	if i < 0 {
		return planEntry{}, false
	}
	return plans[i], true
}

func (s *Service) route(id string) (entry, bool) {
	routes := s.stock().routes
	i := slices.IndexFunc(routes, func(e entry) bool { return e.ID == id })
	if i < 0 {
		return entry{}, false
	}
	return routes[i], true
}

// site is where a handler stands: in a route of a server, for some hosts.
type site struct {
	server string
	route  int
	hosts  []string // none: for all
}

// together reports whether requests may come to handlers of both.
func (a site) together(b site) bool {
	if a.server != b.server {
		return false
	}
	if a.route == b.route || len(a.hosts) == 0 || len(b.hosts) == 0 {
		return true
	}
	return slices.ContainsFunc(a.hosts, func(h string) bool { return slices.Contains(b.hosts, h) })
}

// neighbours tells which handlers stand on the service's site: another site's plans open nothing here. Where the configuration can't be
// looked at, all are.
func (s *Service) neighbours() func(*Handler) bool {
	all := func(*Handler) bool { return true }
	sites := sitesOf(s.ctx)
	own := sites[s]
	if len(own) == 0 {
		return all
	}
	return func(h *Handler) bool {
		return slices.ContainsFunc(sites[h], func(a site) bool {
			return slices.ContainsFunc(own, a.together)
		})
	}
}

// sitesOf tells where the handlers of a configuration stand; nil where it can't be looked at. Those that stand within handlers of others
// are not found.
func sitesOf(ctx caddy.Context) map[any][]site {
	mod, err := ctx.AppIfConfigured("http")
	app, ok := mod.(*caddyhttp.App)
	if err != nil || !ok {
		return nil
	}
	sites := map[any][]site{}
	for name, server := range app.Servers {
		for i, route := range server.Routes {
			at := site{server: name, route: i, hosts: hostsOf(route)}
			eachHandler(route, func(h any) { sites[h] = append(sites[h], at) })
		}
		for _, route := range server.NamedRoutes { // whoever invokes it, it may be any site
			at := site{server: name, route: -1}
			eachHandler(*route, func(h any) { sites[h] = append(sites[h], at) })
		}
	}
	return sites
}

// siteName names the site that h stands on by what the configuration says of it. A Host is what the client says: any port goes with it, and
// a wildcard, or a site without a name, takes any.
func siteName(ctx caddy.Context, h *Handler) string {
	var hosts []string
	for _, s := range sitesOf(ctx)[h] {
		for _, host := range s.hosts {
			hosts = append(hosts, strings.ToLower(host))
		}
		if len(s.hosts) == 0 {
			hosts = append(hosts, anyHost)
		}
	}
	if len(hosts) == 0 {
		return anyHost
	}
	slices.Sort(hosts)
	return strings.Join(slices.Compact(hosts), ",")
}

// anyHost stands for the hosts of a site that takes all.
const anyHost = "*"

func hostsOf(r caddyhttp.Route) (hosts []string) {
	for _, set := range r.MatcherSets {
		found := false
		for _, m := range set {
			switch m := m.(type) {
			case *caddyhttp.MatchHost:
				hosts, found = append(hosts, *m...), true
			case caddyhttp.MatchHost:
				hosts, found = append(hosts, m...), true
			}
		}
		if !found {
			return nil // one that takes any host
		}
	}
	return hosts
}

// eachHandler calls f with all handlers of ours in r.
func eachHandler(r caddyhttp.Route, f func(any)) {
	for _, h := range r.Handlers {
		switch h := h.(type) {
		case *Handler, *Service:
			f(h)
		case *caddyhttp.Subroute:
			for _, inner := range h.Routes {
				eachHandler(inner, f)
			}
		}
	}
}
