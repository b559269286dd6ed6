package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-x402/caddy-x402/ledger"
)

func init() {
	caddy.RegisterModule(new(Service))
}

const (
	pathJWKS     = "/.well-known/jwks.json"
	pathHealth   = "/health"
	pathPayments = "/x402/payments/"
)

// Service answers what buyers and upstreams ask about payments. Its paths are never charged; everything else passes on to
// the next handler.
//
//   - `GET /.well-known/jwks.json`: the public keys of tokens and assertions (RFC 7517)
//   - `GET /health`: whether payments can be taken now; ledger and chains are really asked. 200 or 503
//   - `GET /x402/payments/{id}`: what became of a payment
type Service struct {
	app *App
	log *zap.Logger

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
	s.log = ctx.Logger()
	app, err := ctx.AppIfConfigured("x402")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return fmt.Errorf("x402_service needs the x402 app; add the global option x402: %w", err)
	}
	if err != nil {
		return err
	}
	s.app = app.(*App)
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	id, isPayment := strings.CutPrefix(r.URL.Path, pathPayments)
	var answer func(http.ResponseWriter, *http.Request) error
	switch {
	case r.URL.Path == pathJWKS:
		answer = s.serveJWKS
	case r.URL.Path == pathHealth:
		answer = s.serveHealth
	case isPayment && id != "":
		answer = func(w http.ResponseWriter, r *http.Request) error { return s.servePayment(w, r, id) }
	default:
		return next.ServeHTTP(w, r)
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return answer(w, r)
	case http.MethodOptions:
		h.Set("Access-Control-Allow-Methods", "GET, HEAD")
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	h.Set("Allow", "GET, HEAD, OPTIONS")
	return caddyhttp.Error(http.StatusMethodNotAllowed, fmt.Errorf("%s is not for %s", r.URL.Path, r.Method))
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
	status, err := e.Status(r.Context(), id)
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

// UnmarshalCaddyfile reads
//
//	x402_service
func (s *Service) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	if d.NextArg() {
		return d.ArgErr()
	}
	if d.NextBlock(d.Nesting()) {
		return d.Errf("unrecognized subdirective '%s' of x402_service; it has none", d.Val())
	}
	return nil
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Service)(nil)
	_ caddyfile.Unmarshaler       = (*Service)(nil)
	_ caddyhttp.MiddlewareHandler = (*Service)(nil)
)
