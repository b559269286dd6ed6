package management

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddy-x402/caddy-x402/management/apikey"
)

// caller is who asks.
type caller struct {
	actor string      // what is written down
	key   *apikey.Key // nil: who sits at the machine, and may do everything
}

// localActor is who uses the admin endpoint of this machine.
const localActor = "admin"

func (c *caller) local() bool { return c.key == nil }

func (c *caller) grantor() apikey.Grantor {
	g := apikey.Grantor{Actor: c.actor, Local: c.local()}
	if k := c.key; k != nil {
		g.Mode, g.Scopes, g.Until = k.Mode, k.Scopes, k.Ends()
	}
	return g
}

// admit lets a request in, or says why not. The order is part of the interface: whether too much comes from its address (429), who it is
// (401), whether its key calls too often (429), whether X-Network is there and a network (400), whether the key is of that network (401),
// whether this instance serves it (403), and whether the key may do this (403).
func (a *API) admit(ctx context.Context, x *exchange) error {
	if err := a.identify(ctx, x); err != nil {
		return err
	}
	if err := a.countCall(ctx, x); err != nil {
		return err
	}
	if err := x.chooseNetwork(); err != nil {
		return err
	}
	k := x.caller.key
	if k != nil && x.rule.scope != "" && !slices.Contains(k.Scopes, x.rule.scope) {
		return told(http.StatusForbidden, CodeKeyScope, "this API key does not have the scope "+string(x.rule.scope), nil)
	}
	return nil
}

// identify finds out who asks, unless too much comes from there.
func (a *API) identify(ctx context.Context, x *exchange) (err error) {
	if !a.local {
		if err := a.countClient(ctx, x); err != nil {
			return err
		}
		if err := a.shutOut(ctx, x); err != nil {
			return err
		}
	}
	x.caller, err = a.recognize(ctx, x)
	if refused, ok := errors.AsType[*Error](err); ok && refused.Status == http.StatusUnauthorized {
		return a.refusedKey(ctx, x, refused)
	}
	if err == nil && !x.caller.local() {
		a.remind(x, x.caller.key)
	}
	return err
}

// recognize finds out who asks. Nothing is counted: who listens is looked at again and again.
func (a *API) recognize(ctx context.Context, x *exchange) (*caller, error) {
	if a.local {
		return &caller{actor: localActor}, nil
	}
	shown, err := bearer(x.r)
	if err != nil {
		return nil, err
	}
	if _, err := apikey.ParseSecret(shown); err != nil {
		return nil, unauthorized(CodeKeyInvalid, "this is not an API key: check that all of it was copied", err)
	}
	key, err := a.keys(x.shop).Authenticate(ctx, shown)
	switch {
	case errors.Is(err, apikey.ErrInvalid):
		return nil, unauthorized(CodeKeyInvalid, "there is no such API key", err)
	case errors.Is(err, apikey.ErrExpired):
		return nil, unauthorized(CodeKeyExpired, "this API key has expired", err)
	case errors.Is(err, apikey.ErrRevoked):
		return nil, unauthorized(CodeKeyRevoked, "this API key was revoked", err)
	case err != nil:
		return nil, unavailable(err)
	}
	return &caller{actor: key.ID, key: &key}, nil
}

// remind tells the caller that its key has a successor, or that it is old.
func (a *API) remind(x *exchange, k *apikey.Key) {
	h := x.w.Header()
	if k.Superseded() {
		h.Set("X-Api-Key-Successor", k.RotatedTo)
		h.Set("Sunset", k.OverlapEndsAt.UTC().Format(http.TimeFormat)) // RFC 8594
		a.observe("apikey_predecessor_used", string(k.Mode))
	}
	if due := k.CreatedAt.Add(a.keyMaxAge); a.keyMaxAge > 0 && !k.Superseded() && !x.shop.Store.Now().Before(due) {
		h.Set("X-Api-Key-Rotation-Due", due.UTC().Format(time.RFC3339))
	}
}

// bearer reads the key that a request shows.
func bearer(r *http.Request) (string, error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 || values[0] == "" {
		return "", unauthorized(CodeMissingToken, "an API key is needed: Authorization: Bearer sk_…", nil)
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if len(values) > 1 || !strings.EqualFold(scheme, "Bearer") {
		return "", unauthorized(CodeMissingToken, "the header Authorization must be there once: Bearer, a space and an API key", nil)
	}
	return strings.TrimSpace(token), nil
}

func unauthorized(code, message string, cause error) *Error {
	e := told(http.StatusUnauthorized, code, message, cause)
	e.header = map[string]string{"WWW-Authenticate": fmt.Sprintf(`Bearer realm="x402", error=%q`, tokenError(code))}
	return e
}

// tokenError is the word of RFC 6750.
func tokenError(code string) string {
	if code == CodeMissingToken {
		return "invalid_request"
	}
	return "invalid_token"
}

// headerNetwork says which network a request is about.
const headerNetwork = "X-Network"

// chooseNetwork reads X-Network. Local callers may leave it out, and then see both.
func (x *exchange) chooseNetwork() error {
	values := x.r.Header.Values(headerNetwork)
	if len(values) == 0 || len(values) == 1 && values[0] == "" {
		if x.caller.local() {
			return nil
		}
		return told(http.StatusBadRequest, CodeNetworkRequired, "the header X-Network is missing: mainnet or testnet", nil)
	}
	if len(values) > 1 || values[0] != Mainnet && values[0] != Testnet {
		return told(http.StatusBadRequest, CodeNetworkInvalid, "X-Network must be mainnet or testnet", nil)
	}
	x.w.Header().Set(headerNetwork, values[0])
	if k := x.caller.key; k != nil && k.Mode.Network() != values[0] {
		return unauthorized(CodeKeyMismatch, fmt.Sprintf("this is a %s key, for %s; X-Network says %s", k.Mode, k.Mode.Network(), values[0]), nil)
	}
	if lock := x.shop.Lock(); lock != "" && lock != values[0] {
		return told(http.StatusForbidden, CodeNetworkLocked, fmt.Sprintf("only %s is served here; X-Network says %s", lock, values[0]), nil)
	}
	x.network = values[0]
	return nil
}
