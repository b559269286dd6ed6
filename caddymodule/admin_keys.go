package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/token"
)

// Paths on Caddy's admin endpoint that have to do with tokens.
const (
	adminKeys   = "/x402/keys"
	adminRotate = "/x402/keys/rotate"
	adminRetire = "/x402/keys/retire"
	adminRevoke = "/x402/tokens/revoke"
)

// Codes of what can go wrong with them.
const (
	codeNoKey       = "key_not_found"
	codeKeyWaiting  = "key_waiting"
	codeKeySigns    = "key_signs"
	codeKeyCost     = "tokens_would_end"
	codeKeysFixed   = "keys_configured"
	codeKeysMissing = "keys_not_found"
	codeKeysAway    = "keys_unavailable"
	codeNoPlan      = "payment_without_plan"
	codePlanOver    = "plan_over"
)

// keys makes a handler of one that looks after the ring of the live configuration, whose ledger need not answer.
func (a *AdminAPI) keys(serve func(http.ResponseWriter, *http.Request, *keyDesk) error, methods ...string) caddy.AdminHandler {
	return a.only(methods, func(w http.ResponseWriter, r *http.Request) error {
		app, err := liveApp()
		if err != nil {
			return err
		}
		d := app.keyDesk()
		d.audit = app.auditKeys
		return serve(w, r, d)
	})
}

func serveKeys(w http.ResponseWriter, r *http.Request, d *keyDesk) error {
	list, err := d.list(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, r, http.StatusOK, list)
}

func serveRotation(w http.ResponseWriter, r *http.Request, d *keyDesk) error {
	q, err := readJSON[keyRotation](r)
	if err != nil {
		return err
	}
	list, err := d.rotate(r.Context(), q)
	if err != nil {
		return err
	}
	return writeJSON(w, r, http.StatusOK, list)
}

func serveRetirement(w http.ResponseWriter, r *http.Request, d *keyDesk) error {
	q, err := readJSON[keyRetirement](r)
	if err != nil {
		return err
	}
	list, err := d.retire(r.Context(), q)
	if err != nil {
		return err
	}
	return writeJSON(w, r, http.StatusOK, list)
}

func serveRevocation(w http.ResponseWriter, r *http.Request, d *desk) error {
	q, err := readJSON[tokenRevocation](r)
	if err != nil {
		return err
	}
	done, err := d.revoke(r.Context(), q.Payment)
	if err != nil {
		return err
	}
	return writeJSON(w, r, http.StatusOK, done)
}

// readJSON reads the body of a request that changes something. A page in a browser can't send its content type to another site unasked.
func readJSON[T any](r *http.Request) (v T, err error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return v, &operatorError{http.StatusUnsupportedMediaType, codeInvalid, "the body must be application/json", err}
	}
	dec := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 1<<16))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		return v, invalidRequest("reading the body: %v", err)
	}
	return v, nil
}

// keyList is the ring as operators see it.
type keyList struct {
	// Source is "storage", or "configuration" where the keys stand in it.
	Source string          `json:"source"`
	Keys   []token.KeyInfo `json:"keys"`
}

// keyRotation is token.Rotation on the wire. Durations are written as in a Caddyfile.
type keyRotation struct {
	Algorithm string `json:"algorithm,omitempty"`
	Lead      string `json:"lead,omitempty"`
	Overlap   string `json:"overlap,omitempty"`
	Force     bool   `json:"force,omitempty"`
}

// keyRetirement names a key by its id, or the beginning of it.
type keyRetirement struct {
	Key   string `json:"key"`
	Force bool   `json:"force,omitempty"`
}

func (q *keyRetirement) check() error {
	if q.Key == "" {
		return invalidRequest("key is missing: the id of the key to retire, or the beginning of it")
	}
	return nil
}

// tokenRevocation is what was revoked: the token of a payment's plan, which would have ended then.
type tokenRevocation struct {
	Payment string    `json:"payment"`
	Until   time.Time `json:"until,omitzero"`
}

// rotation reads q.
func (q *keyRotation) rotation() (token.Rotation, error) {
	r := token.Rotation{Algorithm: q.Algorithm, Force: q.Force}
	parse := func(name, text string) (time.Duration, error) {
		d, err := caddy.ParseDuration(text)
		if err != nil {
			return 0, invalidRequest("%s %q is no duration; write one such as 10m, 24h or 30d", name, text)
		}
		return d, nil
	}
	var err error
	if q.Lead != "" {
		if r.Lead, err = parse("lead", q.Lead); err != nil {
			return r, err
		}
		if r.Lead < token.MinLead {
			return r, invalidRequest("a lead of %s is too short: instances need %s to hear of a new key", r.Lead, token.MinLead)
		}
	}
	if q.Overlap != "" {
		overlap, err := parse("overlap", q.Overlap)
		if err != nil {
			return r, err
		}
		r.Overlap = &overlap
	}
	return r, nil
}

// keyDesk changes the ring in a storage. Where its keys stand in the configuration it only shows them.
type keyDesk struct {
	storage    token.Storage
	configured *token.Keyring
	now        func() time.Time
	// changed hears of a change at once, before followers do; may be nil.
	changed func(*token.Keyring)
	// audit has a change done, and the operators' audit say so; nil: that is done elsewhere.
	audit func(ctx context.Context, operation, target string, do func() error)
}

func (a *App) keyDesk() *keyDesk {
	d := &keyDesk{storage: a.ctx.Storage(), now: a.now, changed: func(r *token.Keyring) {
		if ring := a.keyring.Load(); ring != nil {
			ring.Replace(r)
			a.tellKeys()
		}
	}}
	if len(a.TokenKeys) > 0 {
		d.configured = a.keyring.Load()
	}
	return d
}

func (d *keyDesk) list(ctx context.Context) (keyList, error) {
	if d.configured != nil {
		return keyList{"configuration", d.configured.Info(d.now())}, nil
	}
	ring, err := token.Read(ctx, d.storage)
	if err != nil {
		return keyList{}, keyError(err)
	}
	return keyList{"storage", ring.Info(d.now())}, nil
}

func (d *keyDesk) rotate(ctx context.Context, q keyRotation) (keyList, error) {
	r, err := q.rotation()
	if err != nil {
		return keyList{}, err
	}
	return d.audited(ctx, deedRotate, "", func() (keyList, error) { return d.turn(ctx, r) })
}

func (d *keyDesk) turn(ctx context.Context, r token.Rotation) (keyList, error) {
	return d.change(func(now time.Time) (*token.Keyring, error) { return token.Rotate(ctx, d.storage, r, now) })
}

func (d *keyDesk) retire(ctx context.Context, q keyRetirement) (keyList, error) {
	if err := q.check(); err != nil {
		return keyList{}, err
	}
	return d.audited(ctx, deedRetire, q.Key, func() (keyList, error) {
		return d.change(func(now time.Time) (*token.Keyring, error) { return token.Retire(ctx, d.storage, q.Key, q.Force, now) })
	})
}

func (d *keyDesk) audited(ctx context.Context, operation, target string, do func() (keyList, error)) (list keyList, err error) {
	if d.audit == nil {
		return do()
	}
	d.audit(ctx, operation, target, func() error {
		list, err = do()
		_, told := shopKeyList(list, err)
		return told
	})
	return list, err
}

func (d *keyDesk) change(f func(now time.Time) (*token.Keyring, error)) (keyList, error) {
	if d.configured != nil {
		return keyList{}, &operatorError{http.StatusConflict, codeKeysFixed, "the keys of tokens stand in the configuration as token_key: " +
			"list a new one second, reload every instance, then list it first and reload again; drop the old one when its last token has expired", nil}
	}
	ring, err := f(d.now())
	if err != nil {
		return keyList{}, keyError(err)
	}
	if d.changed != nil {
		d.changed(ring)
	}
	return keyList{"storage", ring.Info(d.now())}, nil
}

// keyError is the table of what errors of a ring mean to an operator.
func keyError(err error) error {
	told := func(status int, code, format string, args ...any) error {
		return &operatorError{status, code, fmt.Sprintf(format, args...), err}
	}
	switch {
	case errors.Is(err, token.ErrNoKey):
		return told(http.StatusNotFound, codeNoKey, "%v; see caddy x402 keys list", err)
	case errors.Is(err, token.ErrRotating):
		return told(http.StatusConflict, codeKeyWaiting, "%v; wait for it, or take it back with caddy x402 keys retire", err)
	case errors.Is(err, token.ErrKeySigns):
		return told(http.StatusConflict, codeKeySigns, "%v: caddy x402 keys rotate, if need be with --lead %s", err, token.MinLead)
	case errors.Is(err, token.ErrCost):
		return told(http.StatusConflict, codeKeyCost, "%v; with --force they are refused all the same, and their buyers get a new token when they "+
			"send the request that bought it again", err)
	case errors.Is(err, token.ErrRotation):
		return told(http.StatusBadRequest, codeInvalid, "%v", err)
	case errors.Is(err, fs.ErrNotExist):
		return told(http.StatusNotFound, codeKeysMissing, "there are no keys in this storage yet; they are made at the first start")
	}
	return told(http.StatusServiceUnavailable, codeKeysAway, "the keys can't be read or written now: %v", err)
}

// revoke takes back the token of the plan that a payment bought.
func (d *desk) revoke(ctx context.Context, payment string) (tokenRevocation, error) {
	p, err := audited(ctx, d, deedRevoke, payment, func(s *management.Shop) (ledger.Payment, error) { return s.RevokeToken(ctx, payment) })
	if err != nil {
		return tokenRevocation{}, err
	}
	return tokenRevocation{Payment: p.ID, Until: p.PlanUntil}, nil
}
