package caddymodule

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func (a *App) hooks() *Webhooks {
	if a.Webhooks == nil {
		a.Webhooks = new(Webhooks)
	}
	return a.Webhooks
}

// parseWebhook reads one endpoint.
//
//	webhook <url> {
//		secret <secret...>         # all sign, the newest first
//		events <type...>
//		mode   live|test
//		description <text>
//		compatibility
//	}
func parseWebhook(d *caddyfile.Dispenser, a *App) error {
	e := new(Webhook)
	if err := one(d, &e.URL)(); err != nil {
		return err
	}
	w := a.hooks()
	w.Endpoints = append(w.Endpoints, e)
	return subdirectives(d, "webhook", map[string]func() error{
		"secret":      several(d, &e.Secrets),
		"events":      several(d, &e.Events),
		"mode":        one(d, &e.Mode),
		"description": one(d, &e.Description),
		"compatibility": func() error {
			if d.NextArg() {
				return d.ArgErr()
			}
			e.Compatibility = true
			return nil
		},
	})
}

// parseWebhooks reads what is said of all endpoints.
//
//	webhooks {
//		key           <key...>     # the first seals the secrets of endpoints that the API adds
//		allow_private [<range...>]
//		timeout       <duration>
//		keep          <duration>
//	}
func parseWebhooks(d *caddyfile.Dispenser, a *App) error {
	if d.NextArg() {
		return d.Err("an endpoint is `webhook <url> { ... }`; `webhooks { ... }` has what is said of all of them")
	}
	w := a.hooks()
	return subdirectives(d, "webhooks", map[string]func() error{
		"key": several(d, &w.Keys),
		"allow_private": func() error {
			if w.AllowPrivate = d.RemainingArgs(); len(w.AllowPrivate) == 0 {
				w.AllowPrivate = []string{privateAddress}
			}
			return nil
		},
		"timeout": duration(d, &w.Timeout),
		"keep":    duration(d, &w.Keep),
	})
}
