package paywall

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
)

// What a request has taken is used up by an answer, whatever it says, and given back where there was none, or the upstream's failure.
func TestWhatUsesUp(t *testing.T) {
	broken := errors.New("upstream is down")
	for name, tt := range map[string]struct {
		next Handler
		used uint64
	}{
		"an answer": {func(w http.ResponseWriter, _ *http.Request) error { _, err := w.Write([]byte("x")); return err }, 1},
		"no body":   {func(http.ResponseWriter, *http.Request) error { return nil }, 1},
		"not found": {func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(http.StatusNotFound); return nil }, 1},
		"a hint, and a failure": {func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusBadGateway)
			return nil
		}, 0},
		"a flush":  {func(w http.ResponseWriter, _ *http.Request) error { w.(http.Flusher).Flush(); return broken }, 1},
		"an error": {func(http.ResponseWriter, *http.Request) error { return broken }, 0},
		"a panic":  {func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) }, 0},
		"a panic in the middle": {func(w http.ResponseWriter, _ *http.Request) error {
			_, _ = w.Write([]byte("x"))
			panic(http.ErrAbortHandler)
		}, 1},
	} {
		store := storetest.NewMemory(time.Now, false)
		l := newLeaser(store, func() *slog.Logger { return slog.New(slog.DiscardHandler) })
		a := &attempt{
			Gate: &Gate{Config: Config{ErrorStatus: func(error) int { return http.StatusBadGateway }}}, w: httptest.NewRecorder(),
			r: httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", nil), next: tt.next, engine: &Engine{leases: l},
		}
		released := 0
		func() {
			defer func() { _ = recover() }()
			if err := a.drawAll(t.Context(), []due{*pass(10, 1)}); err != nil {
				t.Fatal(err)
			}
			a.drawn.release = func() { released++ }
			defer a.drawn.drop()
			_ = a.pass("token", nil)
		}()
		l.close()
		got, err := store.Allowance(t.Context(), pass(10, 1).key)
		if err != nil || got.Used.Uint64() != tt.used || released != 1 {
			t.Errorf("%s: %+v, %v, released %d times; want %d used", name, got, err, released, tt.used)
		}
	}
}

// Who pays a plan back can tell whether anything of it was used.
func TestTouched(t *testing.T) {
	store := storetest.NewMemory(time.Now, false)
	e := NewEngine(store, Settings{})
	defer e.Close()
	touched := func(want bool) {
		t.Helper()
		if got, err := e.touched(t.Context(), "pay_x"); got != want || err != nil {
			t.Errorf("touched: %v, %v", got, err)
		}
	}
	touched(false)
	d := ledger.Draw{
		Key: allowanceKey(kindCredit, "pay_x"), Want: *uint256.NewInt(3), Limit: *uint256.NewInt(9), Until: time.Now().Add(time.Hour),
	}
	n, a, err := e.store.Draw(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	touched(true)
	if err := e.store.Return(t.Context(), d.Key, a.CreatedAt, n); err != nil {
		t.Fatal(err)
	}
	touched(false)
}

// A free plan is one payer's for its time, on whatever instance it asks, and an address has so many of them.
func TestTrials(t *testing.T) {
	var clock atomic.Int64 // which the reconciler reads too
	clock.Store(time.Now().UnixNano())
	now := func() time.Time { return time.Unix(0, clock.Load()) }
	store := storetest.NewMemory(now, false)
	e := NewEngine(store, Settings{})
	defer e.Close()
	plan := &Plan{Name: "trial", TTL: time.Hour, Free: true}
	open := func(payer byte, client string) (trial, error) {
		return e.openTrial(t.Context(), plan, "r", "https://shop.test", common.Address{payer}, client)
	}
	first, err := open(1, "10.0.0.1")
	if err != nil || first.until.Sub(now()) > time.Hour || first.until.Sub(now()) < time.Hour-2*time.Second {
		t.Fatalf("%+v, %v", first, err)
	}
	clock.Add(int64(30 * time.Minute))
	if again, err := open(1, "10.0.0.2"); err != nil || again != first {
		t.Errorf("again: %+v, %v", again, err)
	}
	for payer := byte(2); payer <= trialsPerAddress; payer++ {
		if other, err := open(payer, "10.0.0.1"); err != nil || other.id == first.id {
			t.Errorf("payer %d: %+v, %v", payer, other, err)
		}
	}
	if _, err := open(100, "10.0.0.1"); !errors.Is(err, errTrialLimit) {
		t.Errorf("one too many: %v", err)
	}
	if _, err := open(100, "10.0.0.9"); err != nil {
		t.Errorf("from elsewhere: %v", err)
	}
	clock.Add(int64(time.Hour))
	if later, err := open(1, "10.0.0.1"); err != nil || !later.until.After(first.until) {
		t.Errorf("when it is over: %+v, %v", later, err)
	}
}
