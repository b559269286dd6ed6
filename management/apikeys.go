package management

import (
	"context"
	"net/http"
	"time"

	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

const tagKeys = "API keys"

func (a *API) addKeys() {
	add(a, operation{
		rule: rule{id: "createApiKey", method: http.MethodPost, scope: apikey.KeysManage, keyRequired: true}, path: "/v1/api-keys", tag: tagKeys,
		status: http.StatusCreated, summary: "Makes an API key",
		description: "Its secret is in this answer and nowhere else, not even when the call is made again. A key gives no scope that it does not have, no other mode, and " +
			"no longer life than its own.",
	}, a.createKey)
	add(a, operation{
		rule: rule{id: "listApiKeys", method: http.MethodGet, scope: apikey.KeysManage}, path: "/v1/api-keys", tag: tagKeys,
		summary: "Lists API keys, in the order of their ids",
	}, a.listKeys)
	add(a, operation{
		rule: rule{id: "getCurrentApiKey", method: http.MethodGet}, path: "/v1/api-keys/current", tag: tagKeys,
		summary: "Shows the API key of the caller",
	}, a.currentKey)
	add(a, operation{
		rule: rule{id: "getApiKey", method: http.MethodGet, scope: apikey.KeysManage}, path: "/v1/api-keys/{id}", tag: tagKeys,
		summary: "Shows an API key",
	}, a.getKey)
	add(a, operation{
		rule: rule{id: "rotateApiKey", method: http.MethodPost, scope: apikey.KeysManage, keyRequired: true}, path: "/v1/api-keys/{id}/rotate", tag: tagKeys,
		status: http.StatusCreated, summary: "Makes a successor of an API key",
		description: "Both are good until the overlap ends: 7 days, or `overlapSeconds`, up to 30 days. 0 is for a key that has leaked: it ends now. " +
			"While the predecessor is in use, its answers carry `Sunset` and `X-Api-Key-Successor`.",
	}, a.rotateKey)
	add(a, operation{
		rule: rule{id: "revokeApiKey", method: http.MethodDelete, scope: apikey.KeysManage}, path: "/v1/api-keys/{id}", tag: tagKeys,
		status: http.StatusNoContent, summary: "Ends an API key at once",
	}, a.revokeKey)
}

// APIKey is what is known of a key.
type APIKey struct {
	ID            string     `json:"id" example:"ak_mzxw6ytboi"`
	Prefix        string     `json:"prefix" doc:"What its secret begins with"`
	Label         string     `json:"label"`
	Mode          string     `json:"mode" enum:"test,live"`
	Network       string     `json:"network" enum:"testnet,mainnet" doc:"The X-Network that it is for"`
	Scopes        []string   `json:"scopes"`
	Status        string     `json:"status" enum:"active,rotating,expired,revoked"`
	CreatedAt     time.Time  `json:"createdAt"`
	CreatedBy     string     `json:"createdBy"`
	ExpiresAt     *time.Time `json:"expiresAt"`
	LastUsedAt    *time.Time `json:"lastUsedAt" doc:"To within a minute"`
	RotatedAt     *time.Time `json:"rotatedAt"`
	RotatedTo     string     `json:"rotatedTo,omitempty"`
	RotatedFrom   string     `json:"rotatedFrom,omitempty"`
	OverlapEndsAt *time.Time `json:"overlapEndsAt"`
	RevokedAt     *time.Time `json:"revokedAt"`
}

// APIKeyWithSecret is a key that was just made.
type APIKeyWithSecret struct {
	APIKey
	Secret *string `json:"secret" doc:"Shown once; null when the call is made again"`
}

func viewKey(k *apikey.Key, now time.Time) APIKey {
	out := APIKey{
		ID: k.ID, Prefix: k.Prefix, Label: k.Label, Mode: string(k.Mode), Network: k.Mode.Network(), Scopes: apikey.Names(k.Scopes), Status: "active",
		CreatedAt: k.CreatedAt, CreatedBy: k.CreatedBy, ExpiresAt: moment(k.ExpiresAt), LastUsedAt: moment(k.LastUsedAt),
		RotatedAt: moment(k.RotatedAt), RotatedTo: k.RotatedTo, RotatedFrom: k.RotatedFrom, OverlapEndsAt: moment(k.OverlapEndsAt), RevokedAt: moment(k.RevokedAt),
	}
	switch {
	case !k.RevokedAt.IsZero():
		out.Status = "revoked"
	case k.Good(now) != nil:
		out.Status = "expired"
	case k.Superseded():
		out.Status = "rotating"
	}
	return out
}

func withSecret(k *apikey.Key, s apikey.Secret, now time.Time) APIKeyWithSecret {
	text := s.Reveal()
	return APIKeyWithSecret{viewKey(k, now), &text}
}

type createKeyInput struct {
	Body struct {
		Label            string   `json:"label" minLength:"1" maxLength:"80" doc:"Whose it is, and what for"`
		Scopes           []string `json:"scopes" minItems:"1" doc:"What it allows: payments:read, payments:write, webhooks:manage, keys:manage, access"`
		Mode             string   `json:"mode,omitempty" enum:"test,live" doc:"Default: that of X-Network"`
		ExpiresInSeconds int64    `json:"expiresInSeconds,omitempty" minimum:"60" maximum:"315360000" doc:"Default: it does not expire"`
	}
}

type keyWithSecretOutput struct{ Body APIKeyWithSecret }

func (a *API) createKey(ctx context.Context, x *exchange, in *createKeyInput) (*keyWithSecretOutput, error) {
	b := &in.Body
	mode := apikey.Mode(b.Mode)
	if mode == "" {
		mode = x.mode()
	}
	scopes, err := apikey.ParseScopes(b.Scopes)
	if err != nil {
		return nil, err
	}
	key, secret, err := a.keys(x.shop).Create(ctx, x.caller.grantor(), apikey.Request{
		Mode: mode, Label: b.Label, Scopes: scopes, Life: time.Duration(b.ExpiresInSeconds) * time.Second,
	})
	if err != nil {
		return nil, err
	}
	x.target = key.ID
	return &keyWithSecretOutput{withSecret(&key, secret, x.shop.Store.Now())}, nil
}

// mode is that of the network that is asked about, or else of the only one there is; empty: nobody has said.
func (x *exchange) mode() apikey.Mode {
	n := x.network
	if n == "" {
		n = x.shop.Lock()
	}
	for _, m := range [...]apikey.Mode{apikey.Test, apikey.Live} {
		if m.Network() == n {
			return m
		}
	}
	return ""
}

type keysOutput struct {
	Body struct {
		Data []APIKey `json:"data"`
		Page Page     `json:"page"`
	}
}

func (a *API) listKeys(ctx context.Context, x *exchange, in *PageInput) (*keysOutput, error) {
	var mode apikey.Mode
	if x.network != "" {
		mode = x.mode()
	}
	after, err := in.afterID()
	if err != nil {
		return nil, err
	}
	list, err := a.keys(x.shop).List(ctx, mode, after, in.Limit+1)
	if err != nil {
		return nil, err
	}
	out := new(keysOutput)
	out.Body.Data = []APIKey{}
	list, out.Body.Page = cutPage(list, in.Limit, func(k *apikey.Key) string { return k.ID })
	now := x.shop.Store.Now()
	for i := range list {
		out.Body.Data = append(out.Body.Data, viewKey(&list[i], now))
	}
	return out, nil
}

type keyOutput struct{ Body APIKey }

func (a *API) currentKey(_ context.Context, x *exchange, _ *struct{}) (*keyOutput, error) {
	if x.caller.local() {
		return nil, told(http.StatusNotFound, CodeKeyNotFound, "the machine's own admin endpoint is used without an API key", nil)
	}
	return &keyOutput{viewKey(x.caller.key, x.shop.Store.Now())}, nil
}

type keyInput struct {
	ID string `path:"id" maxLength:"128"`
}

// findKey reads a key of the network that is asked about.
func (a *API) findKey(ctx context.Context, x *exchange, id string) (apikey.Key, error) {
	k, err := a.keys(x.shop).Get(ctx, id)
	if err == nil && x.network != "" && k.Mode.Network() != x.network {
		err = apikey.ErrNotFound
	}
	return k, err
}

func (a *API) getKey(ctx context.Context, x *exchange, in *keyInput) (*keyOutput, error) {
	k, err := a.findKey(ctx, x, in.ID)
	if err != nil {
		return nil, err
	}
	return &keyOutput{viewKey(&k, x.shop.Store.Now())}, nil
}

type rotateKeyInput struct {
	ID   string `path:"id" maxLength:"128"`
	Body *struct {
		OverlapSeconds *int64 `json:"overlapSeconds,omitempty" minimum:"0" maximum:"2592000" doc:"Default: 604800, 7 days"`
	} `required:"false"`
}

type rotateKeyOutput struct {
	Body struct {
		Predecessor   APIKey           `json:"predecessor"`
		Successor     APIKeyWithSecret `json:"successor"`
		OverlapEndsAt time.Time        `json:"overlapEndsAt"`
	}
}

func (a *API) rotateKey(ctx context.Context, x *exchange, in *rotateKeyInput) (*rotateKeyOutput, error) {
	if _, err := a.findKey(ctx, x, in.ID); err != nil {
		return nil, err
	}
	overlap := apikey.DefaultOverlap
	if in.Body != nil && in.Body.OverlapSeconds != nil {
		overlap = time.Duration(*in.Body.OverlapSeconds) * time.Second
	}
	old, next, secret, err := a.keys(x.shop).Rotate(ctx, x.caller.grantor(), in.ID, overlap)
	if err != nil {
		return nil, err
	}
	a.observe("apikey_rotated", string(old.Mode))
	a.tellOfKey(ctx, x, &old, webhooks.TypeKeyRotated)
	now := x.shop.Store.Now()
	out := new(rotateKeyOutput)
	out.Body.Predecessor, out.Body.Successor, out.Body.OverlapEndsAt = viewKey(&old, now), withSecret(&next, secret, now), old.Ends()
	return out, nil
}

func (a *API) revokeKey(ctx context.Context, x *exchange, in *keyInput) (*struct{}, error) {
	k, err := a.findKey(ctx, x, in.ID)
	if err != nil {
		return nil, err
	}
	if k, err = a.keys(x.shop).Revoke(ctx, x.caller.grantor(), k.ID); err != nil {
		return nil, err
	}
	a.observe("apikey_revoked", string(k.Mode))
	a.tellOfKey(ctx, x, &k, webhooks.TypeKeyRevoked)
	return new(struct{}), nil
}
