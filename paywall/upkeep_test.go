package paywall

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
)

// told keeps what is logged.
type told struct {
	slog.Handler
	mu   sync.Mutex
	list []string
}

func (l *told) Enabled(context.Context, slog.Level) bool { return true }

func (l *told) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := r.Level.String()
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	l.list = append(l.list, line)
	return nil
}

// clocked is a ledger with a clock that the test turns.
func clocked(t *testing.T) (store ledger.Store, ahead *atomic.Int64) {
	t.Helper()
	ahead = new(atomic.Int64)
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), sqlite.Options{
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store, ahead
}

// Of several instances one makes the anchor, when the last one is old, and says its hash where the operator's log keeps it.
func TestAnchors(t *testing.T) {
	store, ahead := clocked(t)
	logs := &told{Handler: slog.DiscardHandler}
	engines := make([]*Engine, 3)
	for i := range engines {
		engines[i] = startEngine(t, store, Settings{Logger: slog.New(logs), ReconcileEvery: time.Hour})
	}
	together := func() {
		var wg sync.WaitGroup
		for _, e := range engines {
			wg.Go(func() { e.anchorIfOld(t.Context()) })
		}
		wg.Wait()
	}
	anchors := func() []ledger.Anchor {
		list, err := store.Anchors(t.Context(), 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if _, err := engines[0].Anchor(t.Context()); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("an anchor of nothing: %v", err)
	}
	var want []int
	for i, step := range []struct {
		wait    time.Duration
		anchors int
	}{{0, 0}, {2 * time.Minute, 1}, {10 * time.Minute, 1}, {time.Hour, 2}} {
		reserved(t, store, byte(i))
		ahead.Add(int64(step.wait))
		if together(); len(anchors()) != step.anchors {
			t.Errorf("step %d: %d anchors, want %d", i, len(anchors()), step.anchors)
		}
		want = append(want, step.anchors)
	}
	if _, err := engines[0].Anchor(t.Context()); err != nil && !errors.Is(err, ledger.ErrNotFound) {
		t.Error(err)
	}
	logs.mu.Lock()
	defer logs.mu.Unlock()
	list := anchors()
	if len(logs.list) != len(list) {
		t.Fatalf("%d anchors (%v), and the log says %q", len(list), want, logs.list)
	}
	for i, a := range list {
		line := "INFO anchor=" + string(rune('1'+i)) + " hash=" + a.Hash.Hex()
		if len(logs.list[i]) < len(line) || logs.list[i][:len(line)] != line {
			t.Errorf("the log says %q, want %q", logs.list[i], line)
		}
	}
}

// reserved makes a payment, so that there is an entry, and a reservation for a minute.
func reserved(t *testing.T, store ledger.Store, n byte) {
	t.Helper()
	id, err := ledger.NewID(randomness, common.Address{n})
	if err != nil {
		t.Fatal(err)
	}
	p := ledger.Payment{ID: id, Flow: ledger.FlowUpfront}
	p.Payer, p.Nonce = common.Address{n}, common.Hash{n, 1}
	if _, err := store.Claim(t.Context(), p, ledger.Change{Event: ledger.EventClaim, Actor: actorRequest}); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Reserve(t.Context(), ledger.Reservation{Key: digest("x", id), Payment: id}, "", time.Minute); err != nil {
		t.Fatal(err)
	}
}

// counted counts the pages of sweeps, and with which retention they were asked for.
type counted struct {
	ledger.Store
	mu    sync.Mutex
	pages []int
	keep  time.Duration
}

func (c *counted) Sweep(ctx context.Context, keep time.Duration, limit int) (int, error) {
	n, err := c.Store.Sweep(ctx, keep, limit)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pages, c.keep = append(c.pages, n), keep
	return n, err
}

// What has expired is gone after a sweep, page by page; what has not stays.
func TestSweep(t *testing.T) {
	store, ahead := clocked(t)
	c := &counted{Store: store}
	e := startEngine(t, c, Settings{ReconcileEvery: time.Hour, Retention: 72 * time.Hour})
	for i := range sweepPage + 10 {
		if _, err := store.Reserve(t.Context(), ledger.Reservation{Key: common.Hash{byte(i >> 8), byte(i)}, Payment: "p"}, "", time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	ahead.Add(int64(time.Hour))
	if _, err := store.Reserve(t.Context(), ledger.Reservation{Key: common.Hash{31: 1}, Payment: "p"}, "", time.Minute); err != nil {
		t.Fatal(err)
	}
	e.sweep(t.Context())
	if len(c.pages) != 2 || c.pages[0] != sweepPage || c.pages[1] != 10 || c.keep != 72*time.Hour {
		t.Errorf("swept %v, keeping %s", c.pages, c.keep)
	}
	left := 0
	if err := store.EachReservation(t.Context(), func(ledger.Reservation) error { left++; return nil }); err != nil || left != 1 {
		t.Errorf("%d reservations are left, %v", left, err)
	}
}
