package caddymodule

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-x402/caddy-x402/paywall"
)

// FreeTier lets the first requests pass unpaid.
type FreeTier struct {
	// How many requests are free in each window of time, for each key.
	Requests uint64 `json:"requests"`
	// How long a window is. Windows begin at whole multiples of it: one of 24h at midnight, UTC.
	Window caddy.Duration `json:"window"`
	// By whom requests are counted, with placeholders, such as `{http.auth.user.id}`. Whoever has an empty one pays. Default: the
	// client's address.
	Key string `json:"key,omitempty"`
}

// parseFreeTier reads `free_tier <requests> <window> [<key>]`.
func parseFreeTier(d *caddyfile.Dispenser, into **FreeTier) error {
	var requests, window string
	t := new(FreeTier)
	if !d.Args(&requests, &window) {
		return d.Err("write how many requests are free, and in what time, such as `free_tier 100 24h`")
	}
	if err := parseCount(d, requests, &t.Requests); err != nil {
		return err
	}
	if err := parseDuration(d, window, &t.Window); err != nil {
		return err
	}
	if d.NextArg() {
		t.Key = d.Val()
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	*into = t
	return nil
}

// freeTier is what is free of the price p, whose route has the given name.
func (h *Handler) freeTier(p *Price, route string) (*paywall.FreeTier, error) {
	t, name := p.FreeTier, route
	if t == nil {
		t, name = h.FreeTier, h.Name
	}
	switch {
	case t == nil:
		return nil, nil
	case t.Requests == 0:
		return nil, errors.New("free_tier: how many requests are free is not said")
	case time.Duration(t.Window) < time.Second || time.Duration(t.Window) > mostTTL:
		return nil, errors.New("free_tier: the window must be a second or more, such as 24h")
	}
	return &paywall.FreeTier{Name: name, Requests: t.Requests, Window: time.Duration(t.Window), Key: t.key}, nil
}

// key is by whom a request is counted; empty: by nobody.
func (t *FreeTier) key(r *http.Request) string {
	if t.Key == "" {
		return clientAddress(r)
	}
	repl, ok := replacer(r)
	if !ok {
		return ""
	}
	return strings.TrimSpace(repl.ReplaceAll(t.Key, ""))
}
