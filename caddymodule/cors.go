package caddymodule

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-x402/caddy-x402/paywall"
)

// CORS says which web pages may read the answers. A preflight can't carry a payment, so it is answered and never charged.
type CORS struct {
	// Disabled leaves CORS to the upstream. Preflights then pass to it, unpaid, without a body either way.
	Disabled bool `json:"disabled,omitempty"`
	// The origins that may read the answers, such as `https://app.example.com`. Default: all.
	Origins []string `json:"origins,omitempty"`
	// How long browsers may remember the answer to a preflight. Default: 10m.
	MaxAge caddy.Duration `json:"max_age,omitempty"`
}

const (
	corsAllowHeaders = "PAYMENT-SIGNATURE, X-PAYMENT, Authorization, Content-Type, Accept, Idempotency-Key, " +
		"Access-Control-Expose-Headers, SIGN-IN-WITH-X"
	corsAllowMethods  = "GET, HEAD, POST, PUT, PATCH, DELETE"
	corsExposeHeaders = "PAYMENT-REQUIRED, PAYMENT-RESPONSE, X-PAYMENT-RESPONSE, X-Payment-Id, X-Payment-Status, X-Access-Token, Idempotency-Replayed, " +
		"WWW-Authenticate, Retry-After, Link, RateLimit, RateLimit-Policy"
)

func (c *CORS) prepare() error {
	if c.MaxAge == 0 {
		c.MaxAge = caddy.Duration(10 * time.Minute)
	}
	for _, o := range c.Origins {
		u, err := url.Parse(o)
		if err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return fmt.Errorf("cors: %q is not an origin; write one such as https://app.example.com", o)
		}
	}
	return nil
}

// allowed gives the value of Access-Control-Allow-Origin for a page of this origin, or "".
func (c *CORS) allowed(origin string) string {
	if len(c.Origins) == 0 {
		return "*"
	}
	if slices.ContainsFunc(c.Origins, func(o string) bool { return strings.EqualFold(o, origin) }) {
		return origin
	}
	return ""
}

// isPreflight reports whether a browser asks whether a page may make a request.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != "" &&
		r.Header.Get("Upgrade") == ""
}

// preflight answers a preflight request, or lets the upstream do it.
func (c *CORS) preflight(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if c.Disabled {
		return passPreflight(w, r, next)
	}
	h := w.Header()
	c.vary(h)
	if origin := c.allowed(r.Header.Get("Origin")); origin != "" {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Methods", corsAllowMethods)
		h.Set("Access-Control-Allow-Headers", allowHeaders(r.Header.Get("Access-Control-Request-Headers")))
		h.Set("Access-Control-Max-Age", strconv.Itoa(int(time.Duration(c.MaxAge).Seconds())))
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// passPreflight asks the upstream, unpaid: so nothing but the question goes there, and nothing but the header of the answer
// comes back. An upstream that takes OPTIONS for GET gives nothing away by it.
func passPreflight(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	decided(r, outcomeFree, "")
	paywall.CleanRequest(r)
	r.Body, r.ContentLength, r.TransferEncoding, r.Trailer = http.NoBody, 0, nil, nil
	for _, name := range [...]string{"Content-Length", "Trailer", "X-Http-Method-Override", "X-Http-Method", "X-Method-Override"} {
		r.Header.Del(name)
	}
	return next.ServeHTTP(&headerOnly{w: w}, r)
}

// headerOnly is a writer that drops the body. It can't be unwrapped.
type headerOnly struct {
	w     http.ResponseWriter
	wrote bool
}

func (o *headerOnly) Header() http.Header { return o.w.Header() }

func (o *headerOnly) WriteHeader(status int) {
	if o.wrote || status < http.StatusOK {
		return
	}
	o.wrote = true
	o.w.Header().Del("Content-Length")
	o.w.WriteHeader(status)
}

func (o *headerOnly) Write(b []byte) (int, error) {
	o.WriteHeader(http.StatusOK)
	return len(b), nil
}

// allowHeaders allows what payments need and what the page asks for: the headers of the upstream are not ours to judge.
func allowHeaders(asked string) string {
	for name := range strings.SplitSeq(asked, ",") {
		if strings.ContainsFunc(strings.TrimSpace(name), func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			return corsAllowHeaders
		}
	}
	if asked = strings.TrimSpace(asked); asked == "" {
		return corsAllowHeaders
	}
	return corsAllowHeaders + ", " + asked
}

func (c *CORS) vary(h http.Header) {
	if len(c.Origins) > 0 {
		h.Add("Vary", "Origin")
	}
}

// wrap lets web pages read the answer, ours or the upstream's. failed does so for one that somebody else writes, because of
// an error.
func (c *CORS) wrap(w http.ResponseWriter, r *http.Request) (_ http.ResponseWriter, failed func()) {
	if c.Disabled {
		return w, func() {}
	}
	origin, done := c.allowed(r.Header.Get("Origin")), false
	allow := func(h http.Header) {
		if done {
			return
		}
		done = true
		c.vary(h)
		if origin == "" {
			return
		}
		if h.Get("Access-Control-Allow-Origin") == "" { // the upstream's own, if it has one, is kept
			h.Set("Access-Control-Allow-Origin", origin)
		}
		h.Add("Access-Control-Expose-Headers", corsExposeHeaders)
	}
	return paywall.BeforeHeader(w, allow), func() { allow(w.Header()) }
}
