// Package redis is the Caddy module x402.stores.redis: the ledger in Redis, which several instances may share.
package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-x402/caddy-x402/caddymodule"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/redis"
)

func init() {
	caddy.RegisterModule(new(Store))
}

// Store keeps the ledger in Redis: in one server, in one that Sentinel watches, or in a Cluster. Any number of instances may
// share it; nothing else is needed beside it. A server that may evict keys (`maxmemory-policy`) is refused.
//
//	store redis {env.LEDGER_URL} {
//		prefix   x402
//		replicas 1
//		durable  on
//	}
type Store struct {
	// How to connect: `redis://user:password@host:6379/0`, `redis+sentinel://host,host,host/master-name`, or
	// `redis+cluster://host,host,host`; with `rediss` in place of `redis` over TLS, with the options `ca`, `cert`, `key` (files) and
	// `server_name` behind a question mark. Write placeholders for what is secret, or for all of it: `{env.LEDGER_URL}`,
	// `{file./run/secrets/ledger_url}`. A literal password is accepted for servers on this machine only.
	URL string `json:"url"`

	// What every key begins with, so that the server may keep other things too. Default: `x402`.
	Prefix string `json:"prefix,omitempty"`

	// How many replicas must have a change before it counts. With too few at hand, nothing can be sold. Default: 1 behind Sentinel,
	// in a Cluster 1 where a primary has a replica when it is connected to, and 0 for a single server.
	Replicas *int `json:"replicas,omitempty"`

	// Whether a change counts only when it is on the server's disk. That needs `appendonly yes`, and `appendfsync always` or Redis 7.2.
	// Default: true. With false, what the last second brought is lost with the server's power: for test networks.
	Durable *bool `json:"durable,omitempty"`

	log *slog.Logger
	url string
	key string
}

// CaddyModule implements caddy.Module.
func (*Store) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "x402.stores.redis", New: func() caddy.Module { return new(Store) }}
}

// Provision implements caddy.Provisioner. It connects to nothing.
func (s *Store) Provision(ctx caddy.Context) error {
	s.log = ctx.Slogger()
	if s.URL == "" {
		return errors.New("url is missing; write `store redis redis://host`")
	}
	if s.Replicas != nil && *s.Replicas < 0 {
		return fmt.Errorf("replicas is %d; it must not be negative", *s.Replicas)
	}
	url, written, err := caddymodule.ServerURL("url", s.URL, "")
	if err != nil {
		return err
	}
	s.url = url
	place, err := redis.Locate(s.url, s.Prefix)
	if err != nil {
		return fmt.Errorf("url: %w", err)
	}
	if !place.Loopback && redis.HasPassword(written) {
		return fmt.Errorf("url: %w", caddymodule.ErrLiteralPassword)
	}
	s.key = "redis:" + place.Name
	return nil
}

// Key implements caddymodule.StoreModule: where the ledger is, without who asks for it.
func (s *Store) Key() string { return s.key }

// Open implements caddymodule.StoreModule.
func (s *Store) Open(ctx context.Context) (ledger.Store, error) {
	return redis.Open(ctx, s.url, redis.Options{
		Prefix: s.Prefix, Durable: s.Durable == nil || *s.Durable, Replicas: s.Replicas, Logger: s.log,
	})
}

// UnmarshalCaddyfile reads
//
//	redis <url> {
//		prefix   <text>
//		replicas <number>
//		durable  on|off
//	}
func (s *Store) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the module's name
	if !d.AllArgs(&s.URL) {
		return d.Errf("the redis store takes one URL; write `store redis {env.LEDGER_URL}`")
	}
	seen := map[string]bool{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		if seen[name] {
			return d.Errf("%s is given twice", name)
		}
		seen[name] = true
		var value string
		if !d.AllArgs(&value) {
			return d.ArgErr()
		}
		if err := s.set(d, name, value); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) set(d *caddyfile.Dispenser, name, value string) error {
	switch name {
	case "prefix":
		s.Prefix = value
	case "replicas":
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return d.Errf("replicas must be a number, not %q", value)
		}
		s.Replicas = &n
	case "durable":
		if value != "on" && value != "off" {
			return d.Errf("durable is on or off, not %q", value)
		}
		on := value == "on"
		s.Durable = &on
	default:
		return d.Errf("the redis store has no setting %q; it has prefix, replicas and durable", name)
	}
	return nil
}

// Interface guards.
var (
	_ caddy.Provisioner       = (*Store)(nil)
	_ caddyfile.Unmarshaler   = (*Store)(nil)
	_ caddymodule.StoreModule = (*Store)(nil)
)
