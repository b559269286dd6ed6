package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-x402/caddy-x402/management/webhooks"
	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/token"
)

func init() {
	caddy.RegisterModule(new(App))
}

// App is the paywall's part that all sites share: networks, wallets, the ledger and the keys of tokens. In a Caddyfile it is
// the global option `x402`.
//
//	{
//		x402 {
//			network base
//			pay_to  0x209693Bc6afc0C5328bA36FaF03C514EF312287C
//			rpc     {env.BASE_RPC_URL}
//			wallet  {env.GAS_WALLET_PRIVATE_KEY}
//			refund  {env.REFUND_WALLET_PRIVATE_KEY}
//		}
//	}
type App struct {
	// The networks on which payments are accepted, in the order in which they are offered.
	Networks []*Network `json:"networks,omitempty"`

	// Where payments are recorded. Default: a SQLite file in Caddy's data directory.
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=x402.stores inline_key=store"`

	// The public address of the sites, such as `https://api.example.com`. It is the issuer of tokens and the base of the
	// addresses that are given to clients. Default: the address that the request came to.
	PublicURL string `json:"public_url,omitempty"`

	// The private key of the wallet that refunds are paid from, as a placeholder such as `{env.REFUND_KEY}`, or `off`: what can't be
	// delivered then stays REFUND_PENDING, visible in health and metrics. A wallet or `off` must be given where a handler has the flow
	// `upfront`. It must be neither a gas wallet nor a `pay_to`. A literal key is accepted for a test network on this machine only.
	Refund string `json:"refund,omitempty"`

	// More about refunds.
	Refunds *Refunds `json:"refunds,omitempty"`

	// The keys that sign tokens: secrets of at least 32 bytes (HS256) or PEM (EdDSA, ES256, RS256), as placeholders.
	// The first one signs, the others are accepted and published, too: a new key is listed second until every instance and
	// every upstream knows it, then first, and the old one second until its last token has expired. Default: an Ed25519 key that is
	// made at the first start and kept in Caddy's storage, where `caddy x402 keys rotate` changes it.
	TokenKeys []string `json:"token_keys,omitempty"`

	// What clients are told they have to complete a payment. Default: 120s.
	MaxTimeout caddy.Duration `json:"max_timeout,omitempty"`

	// How long a request waits for its settlement before it is answered 503; the settlement goes on. Keep it below
	// the timeout of clients. Default: 45s.
	SettleTimeout caddy.Duration `json:"settle_timeout,omitempty"`

	// How far the end of an authorization may lie ahead. Default: 1h.
	MaxValidity caddy.Duration `json:"max_validity,omitempty"`

	// How long a payment that was made and not used waits for its payer before it is held for refund. Default: 5m.
	MinAge caddy.Duration `json:"min_age,omitempty"`

	// How long a payment stays reserved for a request whose process died, before another request may be served with it.
	// Default: 15s.
	HoldTTL caddy.Duration `json:"hold_ttl,omitempty"`

	// How long the tokens of plans are still taken while the ledger can't be asked which of them were revoked. Refunds of plans
	// wait as long before they are paid. Default: 30s.
	MaxStale caddy.Duration `json:"max_stale,omitempty"`

	// How often open payments are looked after. Default: 2s.
	Interval caddy.Duration `json:"interval,omitempty"`

	// How long the ledger keeps what payments left behind that are closed: delivered, refunded, or never charged. After that
	// SQL stores move their trails into an archive, and Redis forgets them. Default: 0, for ever.
	Retention caddy.Duration `json:"retention,omitempty"`

	// Where the seller's own systems are told of payments. Default: nowhere.
	Webhooks *Webhooks `json:"webhooks,omitempty"`

	log       *zap.Logger
	slog      *slog.Logger
	ctx       caddy.Context
	payees    []*paywall.Payee
	sold      map[[2]string]paywall.Plan // by set of routes and name
	catalogue catalogue
	engine    Lease[*engineSlot]
	storeID   string
	store     StoreModule
	keyring   atomic.Pointer[token.Keyring]
	keys      keyFollower
	events    *events
	closers   []func() // of what handlers of this configuration have opened
	making    sync.Mutex
	made      atomic.Pointer[paywall.Tokens]
	started   atomic.Bool
	startedAt time.Time

	refundWallet *refundWallet // nil where refunds are off
	keyAge       keyAge
	upkeep       upkeep
	webhooks     *webhooks.Settings // nil where there are none
	sealing      []string           // the configuration's secrets that seal those of webhooks
	sealed       bool               // the webhooks have their keys
}

// CaddyModule implements caddy.Module.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "x402", New: func() caddy.Module { return new(App) }}
}

// Provision resolves the configuration. It opens nothing, asks nobody and makes no key: `caddy validate` provisions too.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx, a.log, a.slog = ctx, ctx.Logger(), ctx.Slogger()
	a.defaults()
	if err := a.checkURL(); err != nil {
		return err
	}
	var err error
	if a.events, err = newEvents(ctx); err != nil {
		return err
	}
	if err := a.provisionStore(ctx); err != nil {
		return err
	}
	if err := a.provisionTokens(); err != nil {
		return err
	}
	if err := a.provisionNetworks(ctx); err != nil {
		return err
	}
	if err := a.provisionRefunds(ctx); err != nil {
		return err
	}
	if err := a.provisionWebhooks(); err != nil {
		return err
	}
	registerMetrics(ctx.GetMetricsRegistry())
	return nil
}

func (a *App) provisionNetworks(ctx caddy.Context) error {
	for i, n := range a.Networks {
		if n == nil {
			return fmt.Errorf("network number %d is null", i+1)
		}
		y, err := n.provision(ctx, a)
		if err != nil {
			return fmt.Errorf("network %s: %w", n.name(i), err)
		}
		same := func(o *paywall.Payee) bool {
			return o.Network.ChainID == y.Network.ChainID && o.Network.Asset.Address == y.Network.Asset.Address
		}
		if slices.ContainsFunc(a.payees, same) {
			return fmt.Errorf("network %s is there twice with the same asset, so payments could not be told apart", n.name(i))
		}
		a.payees = append(a.payees, y)
	}
	return nil
}

func (a *App) defaults() {
	set := func(d *caddy.Duration, v time.Duration) {
		if *d == 0 {
			*d = caddy.Duration(v)
		}
	}
	set(&a.MaxTimeout, 120*time.Second)
	set(&a.SettleTimeout, 45*time.Second)
	set(&a.MaxValidity, time.Hour)
	set(&a.MinAge, 5*time.Minute)
	set(&a.HoldTTL, 15*time.Second)
	set(&a.Interval, 2*time.Second)
	set(&a.MaxStale, 30*time.Second)
}

func (a *App) checkURL() error {
	if a.PublicURL == "" {
		return nil
	}
	u, err := url.Parse(a.PublicURL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		shown := strconv.Quote(a.PublicURL)
		if strings.Contains(shown, "@") {
			shown = "with a name or a password"
		}
		return fmt.Errorf("public_url %s is not an address; write one such as https://api.example.com", shown)
	}
	a.PublicURL = strings.TrimSuffix(a.PublicURL, "/")
	return nil
}

// provisionStore loads the module that knows how to open the ledger, and joins the engine of that ledger.
func (a *App) provisionStore(ctx caddy.Context) error {
	if a.StoreRaw == nil {
		a.StoreRaw = json.RawMessage(`{"store":"sqlite"}`)
	}
	mod, err := ctx.LoadModule(a, "StoreRaw")
	if err != nil {
		return fmt.Errorf("loading the store: %w", err)
	}
	store, ok := mod.(StoreModule)
	if !ok {
		return fmt.Errorf("the store is a %T, which is no caddymodule.StoreModule", mod)
	}
	a.store, a.storeID = store, "x402 ledger "+store.Key()
	return a.engine.acquire(a.storeID, func() (*engineSlot, error) { return newEngineSlot(store) })
}

// Validate implements caddy.Validator.
func (a *App) Validate() error {
	for name, d := range map[string]caddy.Duration{
		"max_timeout": a.MaxTimeout, "settle_timeout": a.SettleTimeout, "max_validity": a.MaxValidity, "min_age": a.MinAge,
		"hold_ttl": a.HoldTTL, "interval": a.Interval, "max_stale": a.MaxStale,
	} {
		if d <= 0 {
			return fmt.Errorf("%s must be more than zero", name)
		}
	}
	if a.Retention < 0 || a.Retention > 0 && time.Duration(a.Retention) < leastRetention {
		return fmt.Errorf("retention must be %s or more, or be left out to keep everything", leastRetention)
	}
	if time.Duration(a.MaxStale) < leastStale {
		return fmt.Errorf("max_stale must be %s or more: revocations are not heard of more often", leastStale)
	}
	if time.Duration(a.MaxTimeout) <= minRemaining {
		return fmt.Errorf("max_timeout must be more than %s: what has less time left is refused, so nobody could pay", minRemaining)
	}
	if a.MaxTimeout > a.MaxValidity {
		return errors.New("max_timeout is longer than max_validity: what clients are told to sign would be refused")
	}
	a.warnOfFinality()
	if a.Refund == refundOff {
		a.log.Warn("refunds are off: what is paid and can't be delivered must be paid back by hand")
	}
	return nil
}

// leastRetention is longer than anything that is still asked of a closed payment by its payer.
const leastRetention = 48 * time.Hour

// leastStale leaves a busy ledger time to answer.
const leastStale = 2 * time.Second

// minRemaining is how much of its validity an authorization must have left to be claimed.
const minRemaining = 15 * time.Second

// startTimeout bounds how long a configuration may take to ask chains and storage.
const startTimeout = 5 * time.Second

// Start opens what this configuration needs and was not open yet, and asks each chain once whether it is the configured one.
// What does not answer is tried again later and fails closed; what says something else refuses the configuration.
func (a *App) Start() error {
	ctx, cancel := context.WithTimeout(a.ctx, startTimeout)
	defer cancel()
	if _, err := a.tokens(); err != nil {
		a.log.Error("the keys of tokens can't be loaded; requests are refused until they can", zap.Error(err))
	}
	for _, n := range a.Networks {
		if err := n.start(ctx); err != nil {
			return fmt.Errorf("network %s: %w", n.network.ID, err)
		}
	}
	if err := a.loadSealingKey(ctx); err != nil {
		a.log.Error("the key of webhooks can't be loaded; their endpoints can't be changed until it can", zap.Error(err))
	}
	if _, err := a.engine.value.open(ctx, a); err != nil {
		a.log.Error("the ledger can't be opened; payments are refused until it can", zap.Error(err))
	}
	if a.events != nil {
		a.events.start(a.log, a.listening)
	}
	primeMetrics(a.payees)
	a.startedAt = time.Now()
	a.engine.value.follow(a)
	if err := a.engine.value.syncWebhooks(ctx); err != nil {
		a.log.Error("the webhooks of the configuration can't be written down; nothing is told to new ones until they are", zap.Error(err))
	}
	a.keys.start(a)
	a.keyAge.start(a)
	a.upkeep.start(a)
	a.started.Store(true)
	return nil
}

// Stop leaves everything as it is: requests of this configuration may still be under way, and what is pooled follows the
// configuration that is live. Cleanup lets go.
func (a *App) Stop() error { return nil }

// Cleanup implements caddy.CleanerUpper. It is called for configurations that never started, too.
func (a *App) Cleanup() error {
	var errs []error
	if a.started.CompareAndSwap(true, false) {
		a.engine.value.unfollow(a)
	}
	a.keys.stop()
	a.keyAge.stop()
	a.upkeep.stop(a)
	for _, n := range a.Networks {
		errs = append(errs, n.cleanup())
	}
	errs = append(errs, a.engine.Release(), a.refundWallet.close())
	for _, f := range a.closers {
		f()
	}
	if a.events != nil {
		a.events.end(a.log)
	}
	return errors.Join(errs...)
}

// settings are those of this configuration for the engine of its ledger.
func (a *App) settings() paywall.Settings {
	var happened func(paywall.Fact)
	if a.events != nil {
		happened = a.events.happened
	}
	return paywall.Settings{
		Happened: happened,
		Payees:   a.payees, SettleTimeout: time.Duration(a.SettleTimeout), CollectWithin: time.Duration(a.MinAge),
		HoldTTL: time.Duration(a.HoldTTL), ReconcileEvery: time.Duration(a.Interval), Observe: observe, Timed: observeStage, Logger: a.slog, Now: a.now,
		Retention: time.Duration(a.Retention), MaxStale: time.Duration(a.MaxStale), Refunds: a.refundSettings(),
	}
}

// now is the clock that authorizations are judged by.
func (a *App) now() time.Time { return time.Now() }

// acquire gives the engine to one request, which may outlive this configuration.
func (a *App) acquire() (*paywall.Engine, func(), error) {
	var l Lease[*engineSlot]
	store := a.store
	if err := l.acquire(a.storeID, func() (*engineSlot, error) { return newEngineSlot(store) }); err != nil {
		return nil, nil, err
	}
	e := l.value.ready()
	if e == nil {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		var err error
		if e, err = l.value.open(ctx, a); err != nil {
			_ = l.Release()
			return nil, nil, err
		}
	}
	return e, func() {
		if err := l.Release(); err != nil {
			a.log.Error("letting go of the ledger", zap.Error(err))
		}
	}, nil
}

// Interface guards.
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.Validator    = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
