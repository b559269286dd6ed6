// These measure the hot paths through a real Caddy without a network: its server's handler is called directly, so that the
// figures are those of the handlers and not of a client.
package main_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

const site = `
	handle /bare-402 {
		header Payment-Required "{$HEADER}"
		respond "{$BODY}" 402
	}
	handle /proxied/* {
		reverse_proxy {upstream}
	}
	handle /counted/* {
		x402 {
			name counted
			plan bulk $0.50 {
				requests 1000000000
			}
		}
		reverse_proxy {upstream}
	}
	handle /limited/* {
		x402 $0.01 {
			name limited
			api_keys
			rate_limit key 1000000000 1h
			rate_limit payer 1000000000 1h
			rate_limit client 1000000000 1h
			rate_limit refused 20 1h
			plan day $0.50 {
				ttl 24h
			}
		}
		reverse_proxy {upstream}
	}
	handle {
		x402 $0.01 {
			plan day $0.50 {
				ttl 24h
			}
		}
		reverse_proxy {upstream}
	}
`

// discard is a ResponseWriter that keeps the status only.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

// server starts everything and gives the handler of Caddy's server, and a token of the last plan that a path offers.
func server(b *testing.B, path string) (http.Handler, *rig.Rig, string) {
	b.Helper()
	r := rig.New(b, rig.Options{
		Site:     strings.NewReplacer("{$BODY}", strings.Repeat("x", 420), "{$HEADER}", strings.Repeat("x", 1160)).Replace(site),
		Upstream: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) },
	})
	app, err := caddy.ActiveContext().AppIfConfigured("http")
	if err != nil {
		b.Fatal(err)
	}
	buyer := rig.NewBuyer(b, 1)
	offer := buyer.Offer(r.URL(path))
	a := buyer.Get(r.URL(path), x402.HeaderSignature, buyer.Sign(offer, len(offer.Accepts)-1))
	if a.Status != http.StatusOK || a.Header.Get("X-Access-Token") == "" {
		b.Fatal("buying the plan:", a.Status, a.Body)
	}
	return app.(*caddyhttp.App).Servers["srv0"], r, a.Header.Get("X-Access-Token")
}

func measure(b *testing.B, h http.Handler, r *rig.Rig, path string, status int, header ...string) {
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://"+r.Addr+path, http.NoBody)
		if err != nil {
			b.Fatal(err)
		}
		req.RequestURI, req.RemoteAddr = path, "127.0.0.1:1234"
		if len(header) == 2 {
			req.Header.Set(header[0], header[1])
		}
		w := &discard{header: make(http.Header)}
		h.ServeHTTP(w, req)
		if w.status != status {
			b.Fatalf("%s: %d", path, w.status)
		}
	}
}

// BenchmarkOffer is the 402 of an unpaid request, beside Caddy's own `respond 402` with a header and a body of that size.
func BenchmarkOffer(b *testing.B) {
	h, r, _ := server(b, "/token")
	b.Run("x402", func(b *testing.B) { measure(b, h, r, "/unpaid", http.StatusPaymentRequired) })
	b.Run("respond", func(b *testing.B) { measure(b, h, r, "/bare-402", http.StatusPaymentRequired) })
}

// BenchmarkLimited is both where requests are limited.
func BenchmarkLimited(b *testing.B) {
	h, r, token := server(b, "/limited/any")
	b.Run("offer", func(b *testing.B) { measure(b, h, r, "/limited/any", http.StatusPaymentRequired) })
	b.Run("token", func(b *testing.B) { measure(b, h, r, "/limited/any", http.StatusOK, "Authorization", "Bearer "+token) })
}

// BenchmarkToken is a request with the token of a time plan, beside the same reverse_proxy without a paywall.
func BenchmarkToken(b *testing.B) {
	benchmarkToken(b, "/any")
}

// BenchmarkCountedToken is the same with the token of a counted plan.
func BenchmarkCountedToken(b *testing.B) {
	benchmarkToken(b, "/counted/any")
}

func benchmarkToken(b *testing.B, path string) {
	h, r, token := server(b, path)
	b.Run("x402", func(b *testing.B) { measure(b, h, r, path, http.StatusOK, "Authorization", "Bearer "+token) })
	b.Run("reverse_proxy", func(b *testing.B) { measure(b, h, r, "/proxied/any", http.StatusOK, "Authorization", "Bearer "+token) })
	b.Run("ratio", func(b *testing.B) { ratio(b, h, r, token, path) })
}

// ratio takes the two in turns, so that the machine's moods fall out.
func ratio(b *testing.B, h http.Handler, r *rig.Rig, token, path string) {
	var paid, bare time.Duration
	one := func(path string) time.Duration {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://"+r.Addr+path, http.NoBody)
		if err != nil {
			b.Fatal(err)
		}
		req.RequestURI, req.RemoteAddr = path, "127.0.0.1:1234"
		req.Header.Set("Authorization", "Bearer "+token)
		w := &discard{header: make(http.Header)}
		start := time.Now()
		h.ServeHTTP(w, req)
		took := time.Since(start)
		if w.status != http.StatusOK {
			b.Fatalf("%s: %d", path, w.status)
		}
		return took
	}
	for b.Loop() {
		paid += one(path)
		bare += one("/proxied/any")
	}
	b.ReportMetric(float64(bare)/float64(paid), "bare/paid")
}
