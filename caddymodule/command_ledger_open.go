package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// AddressedStore is what a StoreModule may offer so that it can be named in a command line. Without it the address as it
// was written, with its placeholders, becomes the module's `url`.
type AddressedStore interface {
	// FromAddress sets what an address kind:address says. Placeholders in it are replaced when the module is provisioned.
	FromAddress(address string) error
}

// ExistingStore is what a StoreModule may offer whose Open would make a ledger where there is none.
type ExistingStore interface {
	// Exists answers nil if there is a ledger, and a NoLedgerError if there is none. It changes nothing.
	Exists(ctx context.Context) error
}

// NoLedgerError says in words that there is no ledger where it was looked for.
type NoLedgerError string

// Error gives the words.
func (e NoLedgerError) Error() string { return string(e) }

// storeModules is the namespace of stores.
const storeModules = "x402.stores"

// openedStore is a store that a command has opened.
type openedStore struct {
	store ledger.Store
	key   string
	shown string // its address without secrets
	close func()
}

// Whether a ledger is made where there is none.
const (
	mustExist = true
	mayMake   = false
)

// openAddress opens the ledger at kind:address. settings are more of its module's, names and values in turn.
func openAddress(ctx context.Context, address string, exists bool, settings ...string) (*openedStore, error) {
	kind, resolved, err := resolveAddress(address)
	if err != nil {
		return nil, err
	}
	raw, err := addressConfig(kind, address, resolved, settings)
	if err != nil {
		return nil, err
	}
	return openStore(ctx, kind, raw, shownAddress(kind, address), exists)
}

// addressConfig is the configuration of the store module of that kind for an address.
func addressConfig(kind, address, resolved string, settings []string) (json.RawMessage, error) {
	info, err := caddy.GetModule(storeModules + "." + kind)
	if err != nil {
		return nil, noSuchStore(kind)
	}
	fields := map[string]any{"url": address}
	if a, ok := info.New().(AddressedStore); ok {
		if err := a.FromAddress(resolved); err != nil {
			return nil, invalidRequest("%s", scrub(err.Error(), address))
		}
		text, err := json.Marshal(a)
		if err != nil {
			return nil, invalidRequest("%s", scrub(err.Error(), address))
		}
		clear(fields)
		if err := json.Unmarshal(text, &fields); err != nil {
			return nil, invalidRequest("%s", scrub(err.Error(), address))
		}
	}
	for i := 0; i+1 < len(settings); i += 2 {
		if settings[i+1] != "" {
			fields[settings[i]] = settings[i+1]
		}
	}
	return json.Marshal(fields)
}

// openConfigured opens the ledger that a configuration's x402 app names.
func openConfigured(ctx context.Context, raw json.RawMessage) (*openedStore, error) {
	fields := map[string]json.RawMessage{}
	kind := "sqlite"
	if raw != nil {
		if err := json.Unmarshal(raw, &fields); err != nil {
			return nil, invalidRequest("reading the store in the configuration: %v", err)
		}
		if err := json.Unmarshal(fields["store"], &kind); err != nil {
			return nil, invalidRequest("the store in the configuration has no name")
		}
		delete(fields, "store")
	}
	rest, err := json.Marshal(fields)
	if err != nil {
		return nil, invalidRequest("reading the store in the configuration: %v", err)
	}
	if _, err := caddy.GetModule(storeModules + "." + kind); err != nil {
		return nil, noSuchStore(kind)
	}
	return openStore(ctx, kind, rest, kind, mustExist)
}

func noSuchStore(kind string) error {
	var have []string
	for _, m := range caddy.GetModules(storeModules) {
		have = append(have, m.ID.Name())
	}
	return invalidRequest("this Caddy was built without the store %s; it has: %s", kind, strings.Join(have, ", "))
}

// openStore opens the ledger of a store module. What goes wrong is told without the secrets of its address.
func openStore(ctx context.Context, kind string, raw json.RawMessage, shown string, exists bool) (_ *openedStore, err error) {
	cctx, cancel := caddy.NewContext(caddy.Context{Context: ctx})
	defer func() {
		if err != nil {
			cancel()
		}
	}()
	loaded, err := cctx.LoadModuleByID(storeModules+"."+kind, raw)
	if err != nil {
		return nil, invalidRequest("the ledger %s: %s", shown, scrub(err.Error(), string(raw)))
	}
	module, ok := loaded.(StoreModule)
	if !ok {
		return nil, invalidRequest("the store %s is a %T, which is no caddymodule.StoreModule", kind, loaded)
	}
	if e, ok := loaded.(ExistingStore); ok && exists {
		if err := e.Exists(ctx); err != nil {
			if _, none := errors.AsType[NoLedgerError](err); none {
				return nil, &operatorError{0, codeNoLedger, scrub(err.Error(), string(raw)), err}
			}
			return nil, &operatorError{0, codeUnavailable, fmt.Sprintf("looking for the ledger %s: %s", shown, scrub(err.Error(), string(raw))), err}
		}
	}
	store, err := module.Open(ctx)
	if err != nil {
		return nil, &operatorError{0, codeUnavailable, fmt.Sprintf("opening the ledger %s: %s", shown, scrub(err.Error(), string(raw))), err}
	}
	return &openedStore{store: store, key: module.Key(), shown: shown, close: func() {
		_ = store.Close()
		cancel()
	}}, nil
}

// shownAddress is an address without what nobody should see.
func shownAddress(kind, address string) string {
	if kind == "sqlite" || isPlaceholder(address) {
		return address
	}
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok {
		return kind + ":…"
	}
	rest, _, _ = strings.Cut(rest, "?")
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		user, _, secret := strings.Cut(rest[:at], ":")
		if secret {
			user += ":xxxxx"
		}
		rest = user + rest[at:]
	}
	return scheme + "://" + rest
}

// secretLike finds passwords in addresses, as user:password@ and as parameters.
var secretLike = regexp.MustCompile(`://[^:/?#\s"]*:([^\s"]+)@|(?i)pass(?:word|wd)?=([^&\s"]+)`)

// scrub takes the secrets that stand in source, or that its placeholders stand for, out of text.
func scrub(text, source string) string {
	for _, s := range [...]string{source, caddy.NewReplacer().ReplaceKnown(source, "")} {
		for _, m := range secretLike.FindAllStringSubmatch(s, -1) {
			for _, secret := range m[1:] {
				if secret != "" {
					text = strings.ReplaceAll(text, secret, "xxxxx")
				}
			}
		}
	}
	return text
}
