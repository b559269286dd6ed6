package verify

import (
	"context"
	"errors"
	"net/http"

	"github.com/caddy-x402/caddy-x402/token"
)

type contextKey struct{}

// FromContext is who paid for the request, within a handler behind Middleware.
func FromContext(ctx context.Context) (*token.Claims, bool) {
	c, ok := ctx.Value(contextKey{}).(*token.Claims)
	return c, ok
}

// Middleware lets requests through that came through the paywall and were paid for. Others are answered 401, and all are answered 503
// while the paywall's keys can't be had.
func (v *Verifier) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := v.Request(r)
		switch {
		case errors.Is(err, ErrUnavailable):
			w.Header().Set("Retry-After", "2")
			http.Error(w, "payment_unverifiable", http.StatusServiceUnavailable)
		case err != nil:
			http.Error(w, "payment_unproven", http.StatusUnauthorized)
		default:
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), contextKey{}, c)))
		}
	})
}
