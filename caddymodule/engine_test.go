package caddymodule

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"go.uber.org/zap"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// file is a store module on a real ledger, which can be out of reach.
type file struct {
	path   string
	broken atomic.Bool
	opened atomic.Int32
}

func (f *file) Key() string { return "test:" + f.path }

func (f *file) Open(ctx context.Context) (ledger.Store, error) {
	if f.broken.Load() {
		return nil, errors.New("no such disk")
	}
	f.opened.Add(1)
	return sqlite.Open(ctx, f.path, sqlite.Options{})
}

// voice is a logger's handler that says whose it is, and nothing else.
type voice struct {
	name  string
	heard chan<- string
}

func (voice) Enabled(context.Context, slog.Level) bool { return true }
func (v voice) WithAttrs([]slog.Attr) slog.Handler     { return v }
func (v voice) WithGroup(string) slog.Handler          { return v }
func (v voice) Handle(context.Context, slog.Record) error {
	select {
	case v.heard <- v.name:
	default:
	}
	return nil
}

// provisionedApp is an app as Provision leaves it, whose settings can be told by its voice: it has no networks, so its engine
// says of each new payment that it waits on one that is not configured.
func provisionedApp(t *testing.T, name string, heard chan<- string, store *file) *App {
	t.Helper()
	a := &App{
		Interval: caddy.Duration(time.Millisecond), slog: slog.New(voice{name, heard}), log: zap.NewNop(),
		store: store, storeID: "x402 ledger " + store.Key(),
	}
	if err := a.engine.acquire(a.storeID, func() (*engineSlot, error) { return &engineSlot{store: store}, nil }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Cleanup() })
	return a
}

// start does what Start does, but for keys and chains.
func (a *App) startEngine(t *testing.T) {
	t.Helper()
	if _, err := a.engine.value.open(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	a.engine.value.follow(a)
	a.started.Store(true)
}

// waiting puts a payment into the ledger that no configuration can look after.
func waiting(t *testing.T, a *App) (id string) {
	t.Helper()
	e, release, err := a.acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if id, err = ledger.NewID(rand.Reader, common.Address{}); err != nil {
		t.Fatal(err)
	}
	p := ledger.Payment{ID: id, AuthorizationID: x402.AuthorizationID{ChainID: 99, Nonce: crypto.Keccak256Hash([]byte(id))}, Flow: ledger.FlowUpfront}
	if _, err := e.Store().Claim(t.Context(), p, ledger.Change{Event: ledger.EventClaim, Actor: "request", Hold: time.Microsecond}); err != nil {
		t.Fatal(err)
	}
	return id
}

// speaks puts payments into a's ledger until name is heard about them, and then checks that nobody else is: one worker has
// one configuration's settings.
func speaks(t *testing.T, a *App, heard chan string, name string) {
	t.Helper()
	for streak := 0; streak < 3; {
		waiting(t, a)
		select {
		case got := <-heard:
			switch {
			case got == name:
				streak++
			case streak > 0:
				t.Errorf("%s speaks after %s did", got, name)
				return
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s is not heard", name)
		}
	}
}

// The settings of the newest live configuration count; when it goes, those before it count again, in whatever order
// configurations come and go.
func TestEngineFollowsTheNewest(t *testing.T) {
	heard := make(chan string, 1000)
	store := &file{path: filepath.Join(t.TempDir(), "ledger.db")}
	a := provisionedApp(t, "a", heard, store)
	a.startEngine(t)
	speaks(t, a, heard, "a")

	b := provisionedApp(t, "b", heard, store) // provisioned only
	speaks(t, a, heard, "a")
	b.startEngine(t)
	speaks(t, a, heard, "b")
	c := provisionedApp(t, "c", heard, store)
	c.startEngine(t)
	speaks(t, a, heard, "c")

	end(t, b) // an older one ends: nothing changes
	speaks(t, a, heard, "c")
	end(t, c)
	speaks(t, a, heard, "a")
	if n := store.opened.Load(); n != 1 {
		t.Errorf("the ledger was opened %d times", n)
	}
	end(t, a)
	if inPool(a.storeID) {
		t.Error("the engine outlives its configurations")
	}
}

func end(t *testing.T, a *App) {
	t.Helper()
	if err := errors.Join(a.Stop(), a.Cleanup()); err != nil {
		t.Error(err)
	}
}

// A configuration that was provisioned and never started takes nothing with it, nor does one whose start failed after ours.
func TestEngineSurvivesRefusedConfigurations(t *testing.T) {
	heard := make(chan string, 1000)
	store := &file{path: filepath.Join(t.TempDir(), "ledger.db")}
	a := provisionedApp(t, "a", heard, store)
	a.startEngine(t)
	for range 3 {
		refused := provisionedApp(t, "refused while provisioning", heard, store)
		end(t, refused)
		end(t, refused) // Caddy may clean up twice
		speaks(t, a, heard, "a")

		refused = provisionedApp(t, "refused while starting", heard, store)
		refused.startEngine(t)
		end(t, refused)
		speaks(t, a, heard, "a")
	}
	if n := store.opened.Load(); n != 1 {
		t.Errorf("the ledger was opened %d times", n)
	}
}

// A request may outlive its configuration: it keeps the engine, and no other.
func TestEngineOfARequestThatGoesOn(t *testing.T) {
	store := &file{path: filepath.Join(t.TempDir(), "ledger.db")}
	a := provisionedApp(t, "a", nil, store)
	a.startEngine(t)
	e, release, err := a.acquire()
	if err != nil {
		t.Fatal(err)
	}
	end(t, a)
	if err := e.Store().Ping(t.Context()); err != nil {
		t.Error("the ledger was closed under a request:", err)
	}
	release()
	if err := e.Store().Ping(t.Context()); !errors.Is(err, ledger.ErrClosed) {
		t.Error("the ledger is not closed after the last request:", err)
	}
	if inPool(a.storeID) {
		t.Error("the engine is still there")
	}
}

// A ledger that can't be opened is tried again with each request.
func TestEngineOpensLater(t *testing.T) {
	store := &file{path: filepath.Join(t.TempDir(), "ledger.db")}
	store.broken.Store(true)
	a := provisionedApp(t, "a", nil, store)
	a.engine.value.follow(a)
	a.started.Store(true)
	if _, _, err := a.acquire(); err == nil {
		t.Fatal("an engine without a ledger")
	}
	if _, err := a.engine.value.counts(t.Context()); !errors.Is(err, errNotOpen) {
		t.Error("counting a ledger that is not open:", err)
	}
	store.broken.Store(false)
	_, release, err := a.acquire()
	if err != nil {
		t.Fatal(err)
	}
	release()
	end(t, a)
	if inPool(a.storeID) {
		t.Error("the engine is still there")
	}
}

// The ledger's refusals reach a wallet in the words that it acts on.
func TestJournal(t *testing.T) {
	store := &file{path: filepath.Join(t.TempDir(), "ledger.db")}
	a := provisionedApp(t, "a", nil, store)
	a.startEngine(t)
	id := waiting(t, a)
	j := &journal{slot: a.engine.value, app: a}
	ctx, wallet := t.Context(), common.Address{7}
	if n, known, err := j.Nonce(ctx, 99, wallet); n != 0 || known || err != nil {
		t.Errorf("a wallet that is not known: %d, %v, %v", n, known, err)
	}
	first := settlement.Transaction{ChainID: 99, Wallet: wallet, Nonce: 5, Hash: common.Hash{1}, Raw: []byte{1}, Payments: []string{id}}
	if err := j.Record(ctx, first); err != nil {
		t.Fatal(err)
	}
	gap := first
	gap.Nonce, gap.Hash = 9, common.Hash{2}
	if err := j.Record(ctx, gap); !errors.Is(err, settlement.ErrNonce) {
		t.Errorf("a gap: %v", err)
	}
	unknown := first
	unknown.Nonce, unknown.Hash, unknown.Payments = 6, common.Hash{3}, []string{"pay_nobody"}
	if err := j.Record(ctx, unknown); !errors.Is(err, settlement.ErrNotClaimed) {
		t.Errorf("an unknown payment: %v", err)
	}
	if err := j.Advance(ctx, 99, wallet, 8); err != nil {
		t.Error(err)
	}
	if n, known, err := j.Nonce(ctx, 99, wallet); n != 8 || !known || err != nil {
		t.Errorf("after advancing: %d, %v, %v", n, known, err)
	}
	list, err := j.Transactions(ctx, id)
	if err != nil || len(list) != 1 || list[0].Hash != first.Hash || !bytes.Equal(list[0].Raw, first.Raw) || list[0].CreatedAt.IsZero() {
		t.Errorf("%+v, %v", list, err)
	}
}
