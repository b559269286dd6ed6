package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
)

// The resource's address is the public one: that of the configuration, or else the one that the request came to. Only a
// trusted proxy is believed about how that was.
func TestPublicAddress(t *testing.T) {
	r := rig.New(t, rig.Options{})
	b := rig.NewBuyer(t, 1)
	const trusted = "servers {\n trusted_proxies static 127.0.0.1/32\n }"
	const stranger = "servers {\n trusted_proxies static 192.0.2.0/24\n }"
	forwarded := []string{"X-Forwarded-Proto", "https", "X-Forwarded-Host", "evil.example", "Forwarded", "proto=https;host=evil.example"}
	for name, c := range map[string]struct {
		o      rig.Options
		header []string
		want   string
	}{
		"plain":              {rig.Options{}, nil, r.URL("/a/b?c=d")},
		"forged":             {rig.Options{}, forwarded, r.URL("/a/b?c=d")},
		"by a stranger":      {rig.Options{Global: stranger}, forwarded, r.URL("/a/b?c=d")},
		"by a trusted proxy": {rig.Options{Global: trusted}, forwarded, strings.Replace(r.URL("/a/b?c=d"), "http:", "https:", 1)},
		"configured":         {rig.Options{App: "public_url https://api.example.com/base/"}, nil, "https://api.example.com/base/a/b?c=d"},
		"configured, forged": {rig.Options{App: "public_url https://api.example.com"}, forwarded, "https://api.example.com/a/b?c=d"},
		"before a rewrite": {
			rig.Options{Site: "rewrite /a/b /elsewhere\n x402 $0.01\n reverse_proxy {upstream}"}, nil, r.URL("/a/b?c=d"),
		},
		"before a prefix was stripped": {
			rig.Options{Site: "handle_path /a/* {\n x402 $0.01\n reverse_proxy {upstream}\n }"}, nil, r.URL("/a/b?c=d"),
		},
	} {
		r.Load(c.o)
		var a rig.Answer
		waitFor(t, func() bool { // a reload may close a connection that was just opened
			a = b.Get(r.URL("/a/b?c=d"), c.header...)
			return a.Err == nil
		})
		if a.Status != http.StatusPaymentRequired {
			t.Errorf("%s: %d %v %s", name, a.Status, a.Err, a.Body)
			continue
		}
		o := rig.Offered(t, a)
		if o.Resource.URL != c.want {
			t.Errorf("%s: the offer is for %s, want %s", name, o.Resource.URL, c.want)
		}
	}
}
