package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/paywall"
)

// RateLimit bounds how many requests somebody may make in a window of time, over all instances that share the ledger. What is more is
// answered 429, with `Retry-After`, `RateLimit` and `RateLimit-Policy`, before anything is charged.
type RateLimit struct {
	// By whom requests are counted: `key`, the API key of a consumer; `payer`, who has signed, or bought the plan whose token comes;
	// `client`, the client's address; or `refused`, the address again, for keys and signatures that were refused. A request counts once: by
	// the first of key, payer and client for which there is a limit, and that is known of it.
	By string `json:"by"`
	// How many requests may come in a window.
	Requests uint64 `json:"requests"`
	// How long a window is, from the first request in it.
	Window caddy.Duration `json:"window"`
}

// Bounds of windows: a shorter one can't be told in whole seconds, and a longer one is a plan.
const (
	leastWindow = time.Second
	mostWindow  = 31 * 24 * time.Hour
)

// parseRateLimit reads `rate_limit <by> <requests> <window>`.
func parseRateLimit(d *caddyfile.Dispenser, into *[]*RateLimit) error {
	var requests, window string
	l := new(RateLimit)
	if !d.Args(&l.By, &requests, &window) || d.NextArg() {
		return d.Err("write by whom requests are counted, how many may come, and in what time, such as `rate_limit payer 100 1m`")
	}
	if err := parseCount(d, requests, &l.Requests); err != nil {
		return err
	}
	if err := parseDuration(d, window, &l.Window); err != nil {
		return err
	}
	*into = append(*into, l)
	return nil
}

// checkRateLimits refuses limits that can't be, or of which one would never count.
func checkRateLimits(limits []*RateLimit, kinds ...paywall.ZoneBy) error {
	seen := map[string]bool{}
	for i, l := range limits {
		switch {
		case l == nil:
			return fmt.Errorf("rate_limit number %d is null", i+1)
		case !slices.Contains(kinds, paywall.ZoneBy(l.By)):
			return fmt.Errorf("rate_limit %q: requests are counted by %s", l.By, kindList(kinds))
		case seen[l.By]:
			return fmt.Errorf("rate_limit %s is there twice", l.By)
		case l.Requests == 0:
			return fmt.Errorf("rate_limit %s: how many requests may come is not said", l.By)
		case time.Duration(l.Window) < leastWindow || time.Duration(l.Window) > mostWindow:
			return fmt.Errorf("rate_limit %s: the window must be between %s and 31 days, such as 1m", l.By, leastWindow)
		}
		seen[l.By] = true
	}
	return nil
}

func kindList(kinds []paywall.ZoneBy) string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	return strings.Join(names, ", ")
}

// The words of `api_keys`.
const (
	apiKeysOff      = "off"
	apiKeysOptional = "optional"
	apiKeysRequired = "required"
)

// parseAPIKeys reads `api_keys [off|optional|required]`.
func parseAPIKeys(d *caddyfile.Dispenser, into *string) func() error {
	return func() error {
		*into = apiKeysOptional
		if d.NextArg() {
			*into = d.Val()
		}
		if d.NextArg() {
			return d.ArgErr()
		}
		return nil
	}
}

// zones are what the handler's limits come to.
func (h *Handler) zones() ([]paywall.Zone, error) {
	switch h.APIKeys {
	case "", apiKeysOff, apiKeysOptional, apiKeysRequired:
	default:
		return nil, fmt.Errorf("api_keys %q is neither off nor optional nor required", h.APIKeys)
	}
	if err := checkRateLimits(h.RateLimits, paywall.ZoneKinds()...); err != nil {
		return nil, err
	}
	var out []paywall.Zone
	for _, l := range h.RateLimits {
		z := paywall.Zone{By: paywall.ZoneBy(l.By), Name: h.Name, Requests: l.Requests, Window: time.Duration(l.Window)}
		if z.By == paywall.ByKey && !h.asksKeys() {
			return nil, errors.New("rate_limit key would never count: API keys are not looked at here; add `api_keys`")
		}
		out = append(out, z)
	}
	return out, nil
}

// asksKeys reports whether the handler looks at API keys.
func (h *Handler) asksKeys() bool {
	return h.APIKeys == apiKeysOptional || h.APIKeys == apiKeysRequired
}

// What the management API allows if nothing is said: more than people and dashboards need, and few guesses at keys.
var (
	defaultManagementLimit = management.Limit{Requests: 600, Window: time.Minute}
	defaultRefusedLimit    = management.Limit{Requests: 60, Window: time.Minute}
)

var managementLimited = counters("management_limited_total",
	"Calls of the management API that were answered 429, by the limit: key, client, or refused, the keys that are none.", "limit")

func countLimited(limit string) { managementLimited.WithLabelValues(limit).Inc() }

// limits are what is allowed of the management API.
func (m *Management) limits() (management.Limits, error) {
	if m.Unlimited {
		if len(m.RateLimits) > 0 {
			return management.Limits{}, errors.New("x402_management: rate_limit off leaves nothing to limit")
		}
		return management.Limits{}, nil
	}
	if err := checkRateLimits(m.RateLimits, paywall.ByKey, paywall.ByClient, paywall.ByRefused); err != nil {
		return management.Limits{}, fmt.Errorf("x402_management: %w", err)
	}
	out := management.Limits{Key: defaultManagementLimit, Refused: defaultRefusedLimit}
	for _, l := range m.RateLimits {
		limit := management.Limit{Requests: l.Requests, Window: time.Duration(l.Window)}
		switch paywall.ZoneBy(l.By) {
		case paywall.ByKey:
			out.Key = limit
		case paywall.ByClient:
			out.Client = limit
		case paywall.ByRefused:
			out.Refused = limit
		}
	}
	return out, nil
}

// parseRateLimit reads `rate_limit off`, or a limit.
func (m *Management) parseRateLimit(d *caddyfile.Dispenser) error {
	if d.CountRemainingArgs() == 1 {
		d.NextArg()
		if d.Val() != "off" {
			return d.Err("write `rate_limit off`, or a limit such as `rate_limit key 600 1m`")
		}
		m.Unlimited = true
		return nil
	}
	return parseRateLimit(d, &m.RateLimits)
}

// clientAddress is the client's address, as far as Caddy knows it.
func clientAddress(r *http.Request) string {
	client, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return client
}
