package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/paywall"
)

func init() {
	caddy.RegisterModule(new(Service))
}

// Service answers what buyers, agents and upstreams ask: what is sold, to have it, and what became of payments. Its paths are never
// charged; everything else passes on to the next handler. It tells of the handlers of its own site.
//
//   - `POST /x402/access`: a plan is bought, or a route of the catalogue called, by its id. Bodies, codes and headers are those of Key0
//   - `GET /discover`: the catalogue
//   - `GET /.well-known/x402`: the addresses that are paid for
//   - `GET /.well-known/agent.json`, `GET /.well-known/agent-card.json`: the agent card (A2A), if `public_url` is set
//   - `GET /llms.txt`, `GET /skills.md`: how to buy, for language models
//   - `GET /.well-known/jwks.json`: the public keys of tokens and assertions (RFC 7517)
//   - `GET /health`: whether payments can be taken now; ledger and chains are really asked. 200 or 503
//   - `GET /x402/payments/{id}`: what became of a payment, or of a challenge, which `DELETE` cancels
type Service struct {
	// What the seller is called, in the catalogue and on the agent card. Default: `x402 Service`.
	Name string `json:"name,omitempty"`
	// What is sold, for people and agents.
	Description string `json:"description,omitempty"`
	// The version of what is sold, on the agent card. Default: 1.0.0.
	Version string `json:"version,omitempty"`
	// Who sells, on the agent card. Default: the name.
	Provider string `json:"provider,omitempty"`
	// The address of who sells, on the agent card. Default: `public_url`.
	ProviderURL string `json:"provider_url,omitempty"`
	// How long what was asked for by `POST /x402/access` may be paid. Default: 15m.
	ChallengeTTL caddy.Duration `json:"challenge_ttl,omitempty"`
	// What grants give as the address that their tokens open; `{resourceId}` in it is replaced. Default: the site's root.
	ResourceEndpoint string `json:"resource_endpoint,omitempty"`
	// Which of `access`, `discover`, `well_known`, `agent_card`, `llms`, `skills` are not served.
	Off []string `json:"off,omitempty"`

	app *App
	ctx caddy.Context
	log *zap.Logger

	once   sync.Once
	shelf  shelf
	held   atomic.Int64 // of answers to calls
	bodies atomic.Int64 // of what was posted to pathAccess

	mu     sync.Mutex
	health health
	asked  time.Time
}

// CaddyModule implements caddy.Module.
func (*Service) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.x402_service", New: func() caddy.Module { return new(Service) }}
}

// Provision implements caddy.Provisioner.
func (s *Service) Provision(ctx caddy.Context) error {
	s.ctx, s.log = ctx, ctx.Logger()
	app, err := ctx.AppIfConfigured("x402")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return fmt.Errorf("x402_service needs the x402 app; add the global option x402: %w", err)
	}
	if err != nil {
		return err
	}
	s.app = app.(*App)
	return s.prepare()
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	p, ok := s.page(r)
	if !ok || calledOf(r) != nil { // a route can't be one of these
		return next.ServeHTTP(w, r)
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	allowed := p.methods()
	switch {
	case r.Method == http.MethodOptions:
		h.Set("Access-Control-Allow-Methods", strings.Join(allowed, ", "))
		h.Set("Access-Control-Allow-Headers", allowHeaders(r.Header.Get("Access-Control-Request-Headers")))
		w.WriteHeader(http.StatusNoContent)
		return nil
	case !slices.Contains(allowed, r.Method):
		h.Set("Allow", strings.Join(append(allowed, http.MethodOptions), ", "))
		return caddyhttp.Error(http.StatusMethodNotAllowed, fmt.Errorf("%s is not for %s", r.URL.Path, r.Method))
	}
	h.Set("Access-Control-Expose-Headers", corsExposeHeaders)
	return p[r.Method](w, r)
}

func (s *Service) serveJWKS(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.app.tokens(); err != nil {
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	// A new key is shown for twice as long, before it signs.
	w.Header().Set("Cache-Control", "public, max-age=300")
	return write(w, r, http.StatusOK, "application/jwk-set+json", s.app.keyring.Load().JWKS(s.app.now()))
}

func (s *Service) servePayment(w http.ResponseWriter, r *http.Request, id string) error {
	e, release, err := s.app.acquire()
	if err != nil {
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	defer release()
	var status any
	if paywall.IsChallenge(id) {
		status, err = e.Challenge(r.Context(), id)
	} else {
		status, err = e.Status(r.Context(), id)
	}
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return writeJSON(w, r, http.StatusNotFound, map[string]string{
			"code": "payment_not_found", "detail": "there is no payment with this id; check that it is written as it was given",
		})
	case err != nil:
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	return writeJSON(w, r, http.StatusOK, status)
}

// health is the answer to a health check.
type health struct {
	Status   string                 `json:"status"` // "ok" or "unavailable"
	Ledger   string                 `json:"ledger"`
	Networks map[string]string      `json:"networks"`
	Payments map[ledger.State]int64 `json:"payments,omitempty"`
	// Attention lists the states that somebody should look at, if there are payments in them.
	Attention []ledger.State `json:"attention,omitempty"`
}

// healthFor is how long an answer is given again: anybody may ask, and each question costs one to every chain.
const healthFor = time.Second

func (s *Service) serveHealth(w http.ResponseWriter, r *http.Request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.asked) > healthFor {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), startTimeout)
		defer cancel()
		s.health, s.asked = s.check(ctx), time.Now()
	}
	status := http.StatusOK
	if s.health.Status != "ok" {
		status = http.StatusServiceUnavailable
	}
	return writeJSON(w, r, status, s.health)
}

// check asks the ledger and every chain. What they say goes to the log; strangers are told that something is wrong, not what.
func (s *Service) check(ctx context.Context) health {
	h := health{Status: "ok", Ledger: "ok", Networks: map[string]string{}}
	for _, y := range s.app.payees {
		h.Networks[y.Network.ID] = "ok"
		if err := y.Settler.Ready(ctx); err != nil {
			h.Status, h.Networks[y.Network.ID] = "unavailable", "unavailable"
			s.log.Warn("payments can't be settled", zap.String("network", y.Network.ID), zap.Error(err))
		}
	}
	if err := s.checkLedger(ctx, &h); err != nil {
		h.Status, h.Ledger = "unavailable", "unavailable"
		s.log.Warn("the ledger is not available", zap.Error(err))
	}
	return h
}

func (s *Service) checkLedger(ctx context.Context, h *health) error {
	e, release, err := s.app.acquire()
	if err != nil {
		return err
	}
	defer release()
	if err := e.Store().Ping(ctx); err != nil {
		return err
	}
	if h.Payments, err = s.app.engine.value.counts(ctx); err != nil {
		return err
	}
	for _, state := range []ledger.State{ledger.StateRefundPending, ledger.StateRefundFailed} {
		if h.Payments[state] > 0 {
			h.Attention = append(h.Attention, state)
		}
	}
	return nil
}

func writeJSON(w http.ResponseWriter, r *http.Request, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return caddyhttp.Error(http.StatusInternalServerError, err)
	}
	w.Header().Set("Cache-Control", "no-store")
	return write(w, r, status, "application/json", body)
}

func write(w http.ResponseWriter, r *http.Request, status int, mime string, body []byte) error {
	w.Header().Set("Content-Type", mime)
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return nil
	}
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("writing an answer: %w", err)
	}
	return nil
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Service)(nil)
	_ caddyfile.Unmarshaler       = (*Service)(nil)
	_ caddyhttp.MiddlewareHandler = (*Service)(nil)
)
