package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/caddy-x402/caddy-x402/client"
	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/token"
)

// keyOperations are what operators ask of a ring: in its storage, or through Caddy's admin endpoint.
type keyOperations interface {
	list(ctx context.Context) (keyList, error)
	rotate(ctx context.Context, q keyRotation) (keyList, error)
	retire(ctx context.Context, q keyRetirement) (keyList, error)
}

// keyClient asks a running Caddy.
type keyClient struct{ *adminClient }

func (c keyClient) list(ctx context.Context) (keyList, error) {
	return ask[keyList](ctx, c.adminClient, adminKeys, nil)
}

func (c keyClient) rotate(ctx context.Context, q keyRotation) (keyList, error) {
	r, err := q.rotation()
	if err != nil {
		return keyList{}, err
	}
	body := map[string]any{"force": r.Force}
	if r.Algorithm != "" {
		body["algorithm"] = r.Algorithm
	}
	if r.Lead != 0 {
		body["leadSeconds"] = int64(r.Lead / time.Second)
	}
	if r.Overlap != nil {
		body["overlapSeconds"] = int64(*r.Overlap / time.Second)
	}
	return c.change(ctx, "rotate", body, adminRotate, q)
}

func (c keyClient) retire(ctx context.Context, q keyRetirement) (keyList, error) {
	if err := q.check(); err != nil {
		return keyList{}, err
	}
	return c.change(ctx, url.PathEscape(q.Key)+"/retire", map[string]any{"force": q.Force}, adminRetire, q)
}

// change has the ring changed through the management API, whose audit says who did it. That is in the ledger; while the ledger is away it is done without, since a
// key that was stolen can't wait. Nothing is done twice: a ring that was changed refuses the same again.
func (c keyClient) change(ctx context.Context, path string, body map[string]any, without string, q any) (keyList, error) {
	var list management.TokenKeyList
	err := c.managed(ctx, http.MethodPost, "token-keys/"+path, body, &list)
	if e, ok := errors.AsType[*operatorError](err); ok && e.Code == codeUnavailable && e.Status == http.StatusServiceUnavailable {
		return tell[keyList](ctx, c.adminClient, without, q)
	}
	if err != nil {
		return keyList{}, err
	}
	out := keyList{Source: list.Source, Keys: []token.KeyInfo{}}
	for i := range list.Data {
		k := &list.Data[i]
		out.Keys = append(out.Keys, token.KeyInfo{
			ID: k.ID, Algorithm: k.Algorithm, State: token.KeyState(k.State), CreatedAt: valueOr(k.CreatedAt), SignsFrom: valueOr(k.SignsFrom),
			VerifiesUntil: valueOr(k.VerifiesUntil), LongestToken: k.LongestTokenSeconds,
		})
	}
	return out, nil
}

// find finds the ring that the flags mean. say hears which way was taken. The second result lets go of it.
func (f *keysFlags) find(ctx context.Context, say func(string, ...any)) (keyOperations, func(), error) {
	if f.address != "" {
		c, err := newAdminClient(f.address)
		if err != nil {
			return nil, nil, err
		}
		say("asking the Caddy at %s", f.address)
		return keyClient{c}, c.close, nil
	}
	c, file, err := loadConfigured(f.config, f.adapter)
	if err != nil {
		return nil, nil, err
	}
	a, _, why, err := c.running(ctx)
	switch {
	case a != nil && (err == nil || asOperatorError(err).Status == http.StatusServiceUnavailable):
		say("asking the Caddy at %s", a.listen) // it has its keys, whether its ledger answers or not
		return keyClient{a}, a.close, nil
	case err != nil:
		if a != nil {
			a.close()
		}
		return nil, nil, err
	}
	d, done, err := storedKeys(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	if file == "" {
		file = "Caddy's default"
	}
	say("%s; looking straight into the storage of %s", why, file)
	return d, done, nil
}

// storedKeys opens the storage that a configuration names.
func storedKeys(ctx context.Context, c *configured) (*keyDesk, func(), error) {
	d := &keyDesk{storage: caddy.DefaultStorage, now: time.Now}
	if c.Apps.X402 != nil && len(c.Apps.X402.TokenKeys) > 0 {
		ring, err := configuredRing(c.Apps.X402.TokenKeys)
		if err != nil {
			return nil, nil, invalidRequest("%v", err)
		}
		d.configured = ring
		return d, func() {}, nil
	}
	if c.Storage == nil {
		return d, func() {}, nil
	}
	cctx, cancel := caddy.NewContext(caddy.Context{Context: ctx})
	storage, err := openStorage(cctx, c.Storage)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	d.storage = storage
	return d, cancel, nil
}

func openStorage(ctx caddy.Context, raw json.RawMessage) (certmagic.Storage, error) {
	config := struct {
		StorageRaw json.RawMessage `caddy:"namespace=caddy.storage inline_key=module"`
	}{raw}
	loaded, err := ctx.LoadModule(&config, "StorageRaw")
	if err != nil {
		return nil, invalidRequest("the storage in the configuration: %s", scrub(err.Error(), string(raw)))
	}
	converter, ok := loaded.(caddy.StorageConverter)
	if !ok {
		return nil, invalidRequest("the storage in the configuration is a %T, which is none", loaded)
	}
	storage, err := converter.CertMagicStorage()
	if err != nil {
		return nil, &operatorError{0, codeKeysAway, "opening the storage: " + scrub(err.Error(), string(raw)), err}
	}
	return storage, nil
}

// showKeys prints the ring for people.
func showKeys(w io.Writer, list *keyList) error {
	t := newTable("key", "alg", "state", "signs from", "verifies until", "longest token")
	for _, k := range list.Keys {
		longest := ""
		if k.LongestToken > 0 {
			longest = (time.Duration(k.LongestToken) * time.Second).String()
		}
		t.AppendRow(table.Row{
			client.Printable(k.ID, 64), client.Printable(k.Algorithm, 16), client.Printable(string(k.State), 16),
			rfc3339(k.SignsFrom), rfc3339(k.VerifiesUntil), longest,
		})
	}
	if _, err := fmt.Fprintln(w, t.Render()); err != nil {
		return fmt.Errorf("writing the list: %w", err)
	}
	if list.Source == "configuration" {
		if _, err := fmt.Fprintln(w, "These keys stand in the configuration as token_key, and change with it."); err != nil {
			return fmt.Errorf("writing the list: %w", err)
		}
	}
	return nil
}
