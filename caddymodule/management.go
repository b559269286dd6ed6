package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-x402/caddy-x402/management"
)

func init() {
	caddy.RegisterModule(new(Management))
	httpcaddyfile.RegisterHandlerDirective("x402_management", parseManagement)
}

// Management serves the management API to operators and their programs, who sign in with API keys. Its paths are never charged; everything
// else passes on to the next handler. The first key is made with `caddy x402 apikeys create` on the machine.
//
//   - `/v1/…`: the operations; see `/docs`
//   - `/dashboard`: how the shop is doing, for people, who sign in with an API key
//   - `/docs`: what there is, for people
//   - `/openapi.json`, `/openapi.yaml`: the same for programs (OpenAPI 3.1)
//
// The same operations stand under `/x402/v1/` of Caddy's admin endpoint, where no key is needed.
type Management struct {
	// What the paths begin with, such as `/ops`. Default: nothing.
	Path string `json:"path,omitempty"`
	// How old API keys may become before that is told: to their users in a header, and once by the event `apikey_rotation_due`.
	// Default: 0, never.
	KeyMaxAge caddy.Duration `json:"key_max_age,omitempty"`
	// How long the answers to calls with an Idempotency-Key are kept, to be given again: 5m at least. Default: 24h.
	IdempotencyTTL caddy.Duration `json:"idempotency_ttl,omitempty"`

	// How many requests may come: by API key (`key`), from an address (`client`), and with keys that are refused, by address (`refused`).
	// Default: 600 in a minute by key, and 60 refused in a minute.
	RateLimits []*RateLimit `json:"rate_limits,omitempty"`
	// Limits nothing.
	Unlimited bool `json:"unlimited,omitempty"`

	api *management.API
}

// CaddyModule implements caddy.Module.
func (*Management) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.x402_management", New: func() caddy.Module { return new(Management) }}
}

// Provision implements caddy.Provisioner. It opens nothing.
func (m *Management) Provision(ctx caddy.Context) error {
	if err := m.check(); err != nil {
		return err
	}
	found, err := ctx.AppIfConfigured("x402")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return fmt.Errorf("x402_management needs the x402 app; add the global option x402: %w", err)
	}
	if err != nil {
		return err
	}
	limits, err := m.limits()
	if err != nil {
		return err
	}
	app := found.(*App)
	app.keyAge.want(time.Duration(m.KeyMaxAge))
	app.manageable()
	m.api, err = management.New(management.Config{
		Open: app.shop, Prefix: m.Path, KeyMaxAge: time.Duration(m.KeyMaxAge), IdempotencyTTL: time.Duration(m.IdempotencyTTL),
		Usage: &app.upkeep.usage, Observe: countAPIKey, Logger: ctx.Slogger(), Limits: limits, Limited: countLimited, Client: clientAddress,
	})
	if err != nil {
		return err
	}
	// A server that is stopping waits for what is answered, and feeds of events would go on for long.
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && server != nil {
		server.RegisterOnShutdown(m.api.Leave)
	}
	return nil
}

// Cleanup implements caddy.CleanerUpper.
func (m *Management) Cleanup() error {
	if m.api != nil {
		m.api.Leave()
	}
	return nil
}

// leastReplay is longer than a call takes, and than a program needs to try again.
const leastReplay = 5 * time.Minute

func (m *Management) check() error {
	switch {
	case m.Path != "" && (!strings.HasPrefix(m.Path, "/") || strings.HasSuffix(m.Path, "/") || strings.ContainsAny(m.Path, "?#*%{} \\") || strings.Contains(m.Path, "//")):
		return fmt.Errorf("x402_management: %q is not the beginning of a path; write one such as /ops", m.Path)
	case m.KeyMaxAge < 0 || m.KeyMaxAge > 0 && time.Duration(m.KeyMaxAge) < time.Hour:
		return errors.New("x402_management: key_max_age must be an hour or more, or be left out")
	case m.IdempotencyTTL < 0 || m.IdempotencyTTL > 0 && time.Duration(m.IdempotencyTTL) < leastReplay:
		return fmt.Errorf("x402_management: idempotency_ttl must be %s or more", leastReplay)
	}
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (m *Management) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if !m.api.Paths(r.URL.Path) || calledOf(r) != nil { // a route can't be one of these
		return next.ServeHTTP(w, r)
	}
	m.api.ServeHTTP(w, r)
	return nil
}

// parseManagement reads the directive, which takes no matcher: where it answers is its argument.
func parseManagement(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	m := new(Management)
	err := m.UnmarshalCaddyfile(h.Dispenser)
	return m, err
}

// UnmarshalCaddyfile reads
//
//	x402_management [<matcher>] {
//		path            <prefix>
//		key_max_age     <duration>
//		idempotency_ttl <duration>
//		rate_limit      off | key|client|refused <requests> <window>   # repeatable
//	}
func (m *Management) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	if d.NextArg() {
		return d.ArgErr()
	}
	return subdirectives(d, "x402_management", map[string]func() error{
		"path":            one(d, &m.Path),
		"key_max_age":     duration(d, &m.KeyMaxAge),
		"idempotency_ttl": duration(d, &m.IdempotencyTTL),
		"rate_limit":      func() error { return m.parseRateLimit(d) },
	}, "rate_limit")
}

var apiKeyEvents = counters("apikey_events_total",
	"What happened to API keys, by their mode: apikey_rotated, apikey_revoked, apikey_rotation_due, and apikey_predecessor_used, a call with a key that has a successor.",
	"event", "mode")

func countAPIKey(event, mode string) { apiKeyEvents.WithLabelValues(event, mode).Inc() }

// localAPI is the management API of Caddy's admin endpoint. It is made when it is first asked for.
var localAPI = sync.OnceValues(func() (*management.API, error) {
	return management.New(management.Config{
		Open: func(ctx context.Context) (*management.Shop, func(), error) {
			app, err := liveApp()
			if err != nil {
				e := asOperatorError(err)
				return nil, nil, &management.Error{Status: e.Status, Code: codeNoApp, Message: e.Detail}
			}
			return app.shop(ctx)
		},
		Prefix: strings.TrimSuffix(adminBase, "/"), Local: true, Observe: countAPIKey, Logger: localLogger(),
	})
})

// codeNoApp is codeNotConfigured in the words of the management API.
const codeNoApp = "x402.not_configured"

// Paths on Caddy's admin endpoint.
const (
	adminV1   = "/x402/v1/"
	adminDocs = "/x402/docs"
	adminSpec = "/x402/openapi.json"
	adminYAML = "/x402/openapi.yaml"
)

// managementRoutes are those of the management API.
func (a *AdminAPI) managementRoutes() (routes []caddy.AdminRoute) {
	for _, pattern := range [...]string{adminV1, adminDocs, adminSpec, adminYAML} {
		routes = append(routes, caddy.AdminRoute{Pattern: pattern, Handler: caddy.AdminHandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			api, err := localAPI()
			if err != nil {
				return caddy.APIError{HTTPStatus: http.StatusInternalServerError, Err: err}
			}
			api.ServeHTTP(w, r)
			return nil
		})})
	}
	return routes
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Management)(nil)
	_ caddy.CleanerUpper          = (*Management)(nil)
	_ caddyfile.Unmarshaler       = (*Management)(nil)
	_ caddyhttp.MiddlewareHandler = (*Management)(nil)
)
