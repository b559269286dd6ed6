package caddymodule

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/pflag"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/paywall"
)

// operations are what operators ask of a ledger: of its store, or through Caddy's admin endpoint.
type operations interface {
	list(ctx context.Context, q paymentQuery) (paymentPage, error)
	show(ctx context.Context, id string) (paymentFile, error)
	states(ctx context.Context) (stateCounts, error)
	export(ctx context.Context, w io.Writer, after uint64, progress func(int64)) (ledger.ExportSummary, error)
	verify(ctx context.Context, o ledger.VerifyOptions) (ledger.Report, error)
	revoke(ctx context.Context, payment string) (tokenRevocation, error)
	plan(ctx context.Context, limit int) (paywall.RefundPlan, error)
	retry(ctx context.Context, id string) (paymentChange, error)
	settle(ctx context.Context, id string) (paymentChange, error)
	refund(ctx context.Context, id string) (paymentChange, error)
	tokens(ctx context.Context, q tokenQuery) (tokenPage, error)
}

// adminFlags say which Caddy a command asks.
type adminFlags struct {
	address, config, adapter string
}

// define defines them; named is what the configuration is read for.
func (f *adminFlags) define(fs *pflag.FlagSet, named string) {
	fs.StringVar(&f.address, "address", "", "address of the admin endpoint of a running Caddy (default: as the configuration has it, or "+caddy.DefaultAdminListen+")")
	fs.StringVarP(&f.config, "config", "c", "", "configuration file that names the "+named+" (default: the Caddyfile in the current directory)")
	fs.StringVarP(&f.adapter, "adapter", "a", "", "name of the configuration's adapter")
}

// ledgerFlags say which ledger a command looks into.
type ledgerFlags struct {
	store string
	adminFlags
}

func (f *ledgerFlags) define(fs *pflag.FlagSet) {
	fs.StringVar(&f.store, "store", "", "look straight into this ledger, such as sqlite:/path/to/ledger.db or '{env.LEDGER_URL}'")
	f.adminFlags.define(fs, "ledger")
}

// ledgerHelp is the part of the help of every command that looks for a ledger.
const ledgerHelp = `

Which ledger: the one that --store names; or else that of the Caddy that is running, through its admin endpoint; or else, if
none is running, the one that the configuration names. What was taken is said on the standard error.

--store is written kind:address: sqlite:/path, postgres://user@host/database, redis://host:port/0,
redis+cluster://…, redis+sentinel://…. Placeholders are replaced, so that a password need not stand in the command line:
--store 'postgres://x402:{env.LEDGER_PASSWORD}@db/x402', or all of it, --store '{env.LEDGER_URL}'.`

// find opens the ledger that the flags mean. say hears which way was taken. The second result lets go of it.
func (f *ledgerFlags) find(ctx context.Context, say func(format string, args ...any)) (operations, func(), error) {
	switch {
	case f.store != "" && f.adminFlags != (adminFlags{}):
		return nil, nil, invalidRequest("--store names the ledger; leave out --address, --config and --adapter")
	case f.store != "":
		s, err := openAddress(ctx, f.store, mustExist)
		if err != nil {
			return nil, nil, err
		}
		say("looking straight into the ledger %s", s.shown)
		return &desk{store: s.store}, s.close, nil
	case f.address != "":
		c, err := newAdminClient(f.address)
		if err != nil {
			return nil, nil, err
		}
		kind, err := c.hello(ctx)
		if err != nil {
			c.close()
			return nil, nil, err
		}
		say("asking the Caddy at %s (its ledger: %s)", f.address, kind)
		return c, c.close, nil
	}
	return f.findByConfig(ctx, say)
}

// configured is what commands read of a configuration.
type configured struct {
	Admin struct {
		Disabled bool   `json:"disabled"`
		Listen   string `json:"listen"`
	} `json:"admin"`
	Storage json.RawMessage `json:"storage"`
	Apps    struct {
		X402 *struct {
			Store     json.RawMessage `json:"store"`
			Retention caddy.Duration  `json:"retention"`
			TokenKeys []string        `json:"token_keys"`
		} `json:"x402"`
	} `json:"apps"`
}

// adminListen is where the admin endpoint listens.
func (c *configured) adminListen() string { return cmp.Or(c.Admin.Listen, caddy.DefaultAdminListen) }

// loadConfigured reads a configuration as Caddy's own commands do. file is empty where there is none.
func loadConfigured(config, adapter string) (c *configured, file string, err error) {
	text, file, _, err := caddycmd.LoadConfig(config, adapter)
	if err != nil {
		return nil, "", invalidRequest("%v", err)
	}
	c = new(configured)
	if len(text) > 0 {
		if err := json.Unmarshal(text, c); err != nil {
			return nil, "", invalidRequest("reading the configuration %s: %v", file, err)
		}
	}
	return c, file, nil
}

// running finds the instance of a configuration that is running, and the kind of its ledger. Where nobody answers who has an x402 app,
// there is no client, and why says so. A client that comes with an error must be closed, too: its ledger does not answer, for instance.
func (c *configured) running(ctx context.Context) (a *adminClient, kind, why string, err error) {
	if c.Admin.Disabled {
		return nil, "", "its admin endpoint is off", nil
	}
	listen := c.adminListen()
	if a, err = newAdminClient(listen); err != nil {
		return nil, "", "", err
	}
	if kind, err = a.hello(ctx); err == nil {
		return a, kind, "", nil
	}
	switch e := asOperatorError(err); {
	case errors.Is(err, errNotRunning):
		why = "no Caddy answers at " + listen
	case e.Code == codeNotConfigured, e.Code == codeNoSuchPath:
		why = "the Caddy at " + listen + " has no x402 app"
	default:
		return a, "", "", err
	}
	a.close()
	return nil, "", why, nil
}

// findByConfig asks the running instance, or opens what the configuration names.
func (f *ledgerFlags) findByConfig(ctx context.Context, say func(string, ...any)) (operations, func(), error) {
	c, file, err := loadConfigured(f.config, f.adapter)
	if err != nil {
		return nil, nil, err
	}
	a, kind, why, err := c.running(ctx)
	switch {
	case err != nil:
		if a != nil {
			a.close()
		}
		return nil, nil, err
	case a != nil:
		say("asking the Caddy at %s (its ledger: %s)", a.listen, kind)
		return a, a.close, nil
	case file == "":
		return nil, nil, &operatorError{0, codeNoLedger, fmt.Sprintf("%s, and there is no Caddyfile here that names a ledger; "+
			"name one with --store, or a configuration with --config", why), nil}
	case c.Apps.X402 == nil:
		return nil, nil, &operatorError{0, codeNoLedger, fmt.Sprintf("%s, and %s has no x402 app that would name a ledger", why, file), nil}
	}
	s, err := openConfigured(ctx, c.Apps.X402.Store)
	if err != nil {
		return nil, nil, err
	}
	say("%s; looking straight into the ledger of %s, %s", why, file, s.shown)
	return &desk{store: s.store, forgets: forgetsAfter(s.shown, c.Apps.X402.Retention)}, s.close, nil
}

// resolveAddress gives the kind of the ledger at an address, postgres of "postgres://…", redis of "redis+cluster://…",
// and the address as it reads if it is a placeholder as a whole.
func resolveAddress(address string) (kind, resolved string, err error) {
	text, err := caddy.NewReplacer().ReplaceOrErr(address, true, true)
	if err != nil {
		return "", "", invalidRequest("a placeholder in the ledger's address gives nothing; set it and try again")
	}
	text = strings.TrimSpace(text) // a file ends with a line's end
	kind, _, ok := strings.Cut(text, ":")
	kind, _, _ = strings.Cut(strings.ToLower(kind), "+")
	switch kind {
	case "postgresql":
		kind = "postgres"
	case "rediss":
		kind = "redis"
	}
	if !ok || kind == "" || strings.Trim(kind, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		return "", "", invalidRequest("a ledger is written kind:address, such as sqlite:/path/to/ledger.db or postgres://user@host/database")
	}
	if isPlaceholder(address) {
		address = strings.ReplaceAll(text, "{", `\{`) // it is not to be resolved again
	}
	return kind, address, nil
}
