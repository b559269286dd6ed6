package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/internal/faultpoint"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/token"
)

// StoreModule is what a module in the namespace x402.stores offers. Provisioning one opens nothing: `caddy validate`
// provisions too, beside a running instance that has the store open.
type StoreModule interface {
	// Key names the store whatever its settings are: the same key is the same data.
	Key() string
	// Open opens the store.
	Open(ctx context.Context) (ledger.Store, error)
}

// engineSlot is the pooled engine of one ledger. It is opened at its first use, not when it is made, and takes its
// settings from the newest configuration that is live.
type engineSlot struct {
	store StoreModule
	// revoked outlives the opening of the ledger: those who look at tokens have it before.
	revoked *token.Revoked

	mu     sync.Mutex
	opened ledger.Store
	engine *paywall.Engine
	live   []*App // oldest first
	census census
	hooks  hooks

	failed error // of the last try to open, if that took long
	again  time.Time
}

func newEngineSlot(store StoreModule) (*engineSlot, error) {
	return &engineSlot{store: store, revoked: token.NewRevoked()}, nil
}

// settings are those of a for the engine of this slot.
func (s *engineSlot) settings(a *App) paywall.Settings {
	settings := a.settings()
	settings.Revoked = s.revoked
	settings.Happened = s.hooks.hearing(settings.Happened)
	return settings
}

// A try to open that took longer than slowOpen is not repeated for openAgain: all who waited for it would each
// wait as long, one after another.
const (
	slowOpen  = 500 * time.Millisecond
	openAgain = time.Second
)

// open gives the engine, opening the ledger if that was not done, or not possible, before. by is whose settings
// count while no configuration is live.
func (s *engineSlot) open(ctx context.Context, by *App) (*paywall.Engine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine != nil {
		return s.engine, nil
	}
	started := time.Now()
	if s.failed != nil && started.Before(s.again) {
		return nil, s.failed
	}
	store, err := s.store.Open(ctx)
	if err != nil {
		err = fmt.Errorf("opening the ledger: %w", err)
		if now := time.Now(); now.Sub(started) > slowOpen {
			s.failed, s.again = err, now.Add(openAgain)
		}
		return nil, err
	}
	if n := len(s.live); n > 0 {
		by = s.live[n-1]
	}
	s.opened, s.engine = store, paywall.NewEngine(store, s.settings(by))
	s.hooks.configure(by, store)
	return s.engine, nil
}

// ready is the engine if it is open.
func (s *engineSlot) ready() *paywall.Engine {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.engine
}

// follow makes a the configuration whose settings count.
func (s *engineSlot) follow(a *App) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = append(s.live, a)
	s.configure()
}

// unfollow goes back to the configuration before a, if a was the newest. One that never started changes nothing.
func (s *engineSlot) unfollow(a *App) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = slices.DeleteFunc(s.live, func(b *App) bool { return a == b })
	s.configure()
}

func (s *engineSlot) configure() {
	if n := len(s.live); n > 0 && s.engine != nil {
		s.engine.Configure(s.settings(s.live[n-1]))
		s.hooks.configure(s.live[n-1], s.opened)
	}
}

// Destruct ends the workers, waits for the settlements under way and closes the ledger.
func (s *engineSlot) Destruct() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine == nil {
		return nil
	}
	s.hooks.close()
	return errors.Join(s.engine.Close(), s.opened.Close())
}

// journal lets a wallet write into the ledger of a slot.
type journal struct {
	slot *engineSlot
	app  *App
}

func (j *journal) store(ctx context.Context) (ledger.Store, error) {
	e, err := j.slot.open(ctx, j.app)
	if err != nil {
		return nil, err
	}
	return e.Store(), nil
}

// Nonce implements settlement.Journal.
func (j *journal) Nonce(ctx context.Context, chainID uint64, wallet common.Address) (uint64, bool, error) {
	s, err := j.store(ctx)
	if err != nil {
		return 0, false, err
	}
	return s.Nonce(ctx, chainID, wallet)
}

// Record implements settlement.Journal.
func (j *journal) Record(ctx context.Context, t settlement.Transaction) error {
	s, err := j.store(ctx)
	if err != nil {
		return err
	}
	faultpoint.Reached("signed")
	actor := "wallet"
	if _, note := t.Note(); note {
		actor = "facilitator"
	}
	err = s.Record(ctx, ledger.Transaction{
		ChainID: t.ChainID, Wallet: t.Wallet, Nonce: t.Nonce, Hash: t.Hash, Raw: t.Raw, Payments: t.Payments,
	}, actor)
	switch {
	case errors.Is(err, ledger.ErrNonce):
		return fmt.Errorf("%w: %w", settlement.ErrNonce, err)
	case errors.Is(err, ledger.ErrTransition), errors.Is(err, ledger.ErrNotFound):
		return fmt.Errorf("%w: %w", settlement.ErrNotClaimed, err)
	}
	if err == nil {
		faultpoint.Reached("recorded")
	}
	return err
}

// Advance implements settlement.Journal.
func (j *journal) Advance(ctx context.Context, chainID uint64, wallet common.Address, to uint64) error {
	s, err := j.store(ctx)
	if err != nil {
		return err
	}
	return s.AdvanceNonce(ctx, chainID, wallet, to)
}

// Transactions implements settlement.Journal.
func (j *journal) Transactions(ctx context.Context, payment string) ([]settlement.Transaction, error) {
	s, err := j.store(ctx)
	if err != nil {
		return nil, err
	}
	list, err := s.Transactions(ctx, payment)
	out := make([]settlement.Transaction, len(list))
	for i, t := range list {
		out[i] = settlement.Transaction{
			ChainID: t.ChainID, Wallet: t.Wallet, Nonce: t.Nonce, Hash: t.Hash, Raw: t.Raw, Payments: t.Payments, CreatedAt: t.CreatedAt,
		}
	}
	return out, err
}
