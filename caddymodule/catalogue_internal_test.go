package caddymodule

import (
	"net/url"
	"path"
	"strings"
	"testing"
)

// Whatever a client calls a route's path, what is called is the route: read by any of the usual ways it has the same parts.
func FuzzTarget(f *testing.F) {
	e := &RouteEntry{ID: "r", Method: "GET", Path: "/api/weather/:city"}
	for _, p := range []string{
		"/api/weather/oslo", "/api/weather/oslo?x=1", "/api/weather/%6Fslo", "/api/weather/../dear", "/api/weather/%2e%2e", "//evil/api/weather/x",
		"/api/weather/a%2fb", "/api/weather/a\\b", "http://evil/api/weather/x", "/api/weather/x#y", "/api/weather/\x00", "/api/weather/ ", "*", "",
	} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		u, err := e.target(p)
		if err != nil {
			return
		}
		if u.Host != "" || u.Scheme != "" || u.User != nil || u.Fragment != "" || path.Clean(u.Path) != u.Path {
			t.Fatalf("%q is taken for %+v", p, u)
		}
		again, err := url.ParseRequestURI(u.RequestURI())
		if err != nil || again.Path != u.Path || again.RawQuery != u.RawQuery {
			t.Fatalf("%q is sent as %q: %v", p, u.RequestURI(), err)
		}
		if rest, ok := strings.CutPrefix(u.Path, "/api/weather/"); !ok || rest == "" || strings.ContainsAny(rest, "/\\") {
			t.Fatalf("%q calls %q", p, u.Path)
		}
	})
}

func TestSitesTogether(t *testing.T) {
	one := site{server: "a", route: 1, hosts: []string{"x"}}
	for name, tc := range map[string]struct {
		other site
		want  bool
	}{
		"the same route":       {site{server: "a", route: 1, hosts: []string{"x"}}, true},
		"the same host":        {site{server: "a", route: 2, hosts: []string{"y", "x"}}, true},
		"any host":             {site{server: "a", route: 2}, true},
		"another host":         {site{server: "a", route: 2, hosts: []string{"y"}}, false},
		"another server":       {site{server: "b", route: 1, hosts: []string{"x"}}, false},
		"another server's any": {site{server: "b", route: 2}, false},
	} {
		if one.together(tc.other) != tc.want || tc.other.together(one) != tc.want {
			t.Errorf("%s: %v", name, !tc.want)
		}
	}
}
