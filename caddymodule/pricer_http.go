package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/paywall/pricing"
	"github.com/caddy-x402/caddy-x402/token/remote"
)

func init() {
	caddy.RegisterModule(new(HTTPPricer))
}

// HTTPPricer asks an endpoint of the seller's for the price: POST with what is asked for, as JSON; it answers `{"price":"0.05"}`. While it
// does not answer, nobody pays: requests get 503.
type HTTPPricer struct {
	// The address of the endpoint, which may be a placeholder. It must be https, unless it is on this machine. Redirects are not followed.
	URL string `json:"url"`
	// What proves to the endpoint who asks. Default: nothing.
	Auth *EndpointAuth `json:"auth,omitempty"`
	// How long it may take to answer, 30s at most. Default: 2s.
	Timeout caddy.Duration `json:"timeout,omitempty"`
	// How long an answer is good for. Default: each request asks anew.
	Cache caddy.Duration `json:"cache,omitempty"`
	// Headers of requests that the price depends on. The endpoint is told of these alone.
	Headers []string `json:"headers,omitempty"`

	remote *pricing.Remote
}

// CaddyModule implements caddy.Module.
func (*HTTPPricer) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "x402.pricers.http", New: func() caddy.Module { return new(HTTPPricer) }}
}

// ByClient implements PricerModule.
func (*HTTPPricer) ByClient() bool { return false }

// useApp makes what asks; it asks nobody.
func (p *HTTPPricer) useApp(app *App) error {
	address, err := resolve("the pricer's address", p.URL)
	if err != nil {
		return err
	}
	for i, name := range p.Headers {
		p.Headers[i] = http.CanonicalHeaderKey(name)
		if clientSecret(name) {
			return errors.New("the pricer must not be told of " + p.Headers[i] + ", which is a secret of the client's")
		}
	}
	transport := remote.NewTransport()
	app.closers = append(app.closers, transport.CloseIdleConnections)
	c := pricing.Config{URL: address, Timeout: time.Duration(p.Timeout), Cache: time.Duration(p.Cache), Transport: transport}
	if c.Authorize, c.Refused, err = p.Auth.authorize(app, "pricer", address, transport); err != nil {
		return err
	}
	p.remote, err = pricing.New(c)
	return err
}

// clientSecret reports whether a header carries what must not go anywhere else, or what the gate takes out of the request.
func clientSecret(name string) bool {
	return secretHeader(name) || strings.EqualFold(name, "cookie") || strings.EqualFold(name, "proxy-authorization")
}

// question is what the endpoint is asked.
type question struct {
	Route   string              `json:"route"`
	Method  string              `json:"method"`
	URL     string              `json:"url"`
	Host    string              `json:"host"`
	URI     string              `json:"uri"`
	Headers map[string][]string `json:"headers,omitempty"`
}

// Subject is what the endpoint is asked, as JSON.
func (p *HTTPPricer) Subject(r *http.Request, q *paywall.Request) (string, error) {
	ask := question{Route: q.Route.Name, Method: r.Method, URL: q.URL, Host: q.Host, URI: q.URI}
	for _, name := range p.Headers {
		if values := r.Header[name]; len(values) > 0 {
			if ask.Headers == nil {
				ask.Headers = make(map[string][]string, len(p.Headers))
			}
			ask.Headers[name] = values
		}
	}
	raw, err := json.Marshal(ask)
	if err != nil {
		return "", err
	}
	if len(raw) > longestQuestion {
		return "", &paywall.PriceError{Detail: "what it depends on is too long"}
	}
	return string(raw), nil
}

// longestQuestion bounds what is asked and kept.
const longestQuestion = 16 << 10

// Price asks.
func (p *HTTPPricer) Price(ctx context.Context, subject string) (string, error) {
	return p.remote.Price(ctx, subject)
}

// UnmarshalCaddyfile reads
//
//	pricer http <url> {
//		timeout <duration>
//		cache   <duration>
//		header  <names...>
//		auth    ...            # as an issuer's
//	}
func (p *HTTPPricer) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the module's name
	if !d.Args(&p.URL) || d.NextArg() {
		return d.Err("a pricer needs the address of its endpoint, such as `pricer http https://backend.example.com/price`")
	}
	return subdirectives(d, "pricer http", map[string]func() error{
		"timeout": duration(d, &p.Timeout),
		"cache":   duration(d, &p.Cache),
		"auth":    parseAuth(d, &p.Auth),
		"header":  several(d, &p.Headers),
	}, "header")
}

// Interface guards.
var (
	_ PricerModule          = (*HTTPPricer)(nil)
	_ appUser               = (*HTTPPricer)(nil)
	_ caddyfile.Unmarshaler = (*HTTPPricer)(nil)
)
