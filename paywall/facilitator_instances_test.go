package paywall

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// facilitator makes one of the i-th instance, for the seller's payments.
func toldOnce(f *FacilitatorConfig) { f.Repeat = false }

func (c *cluster) facilitator(i int, change ...func(*FacilitatorConfig)) *Facilitator {
	c.t.Helper()
	e := c.instances[i].engine
	config := FacilitatorConfig{
		Name: "f", Acquire: func() (*Engine, func(), error) { return e, func() {}, nil },
		Repeat: true, Offers: []FacilitatorOffer{{Payee: e.current().Payees[0]}}, AllowPayTo: []common.Address{seller},
	}
	for _, f := range change {
		f(&config)
	}
	f, err := NewFacilitator(config)
	if err != nil {
		c.t.Fatal(err)
	}
	return f
}

// order is what a server would ask for a payment of the n-th payer.
func (c *cluster) order(n int) string {
	c.t.Helper()
	raw, err := base64.StdEncoding.DecodeString(c.sign(0, n, ""))
	if err != nil {
		c.t.Fatal(err)
	}
	var p struct {
		Accepted json.RawMessage `json:"accepted"`
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		c.t.Fatal(err)
	}
	return fmt.Sprintf(`{"x402Version":2,"paymentPayload":%s,"paymentRequirements":%s}`, raw, p.Accepted)
}

// settles asks f to settle an order.
func settles(t *testing.T, f *Facilitator, order string) (int, x402.SettlementResponse) {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodPost, "/settle", strings.NewReader(order))
	if ours, err := f.Serve(w, r, "192.0.2.1"); !ours || err != nil {
		t.Errorf("%v, %v", ours, err)
	}
	var s x402.SettlementResponse
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
		t.Error(err)
	}
	if w.Code != http.StatusOK && bytes.Contains(w.Body.Bytes(), []byte("success")) {
		t.Errorf("a verdict with status %d: %s", w.Code, w.Body)
	}
	return w.Code, s
}

// Copies of orders come to two instances at the same moment, and claim before either has seen the other: each is sent once, and
// all who asked are told the same.
func TestTwoInstancesSettleForOthers(t *testing.T) {
	c := newCluster(t, 2, Settings{ReconcileEvery: time.Hour}, meetings(4))
	orders := []string{c.order(1), c.order(2), c.order(1)}
	desks := []*Facilitator{c.facilitator(0), c.facilitator(1)}
	var mu sync.Mutex
	told := map[string][]string{}
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			order := orders[i%len(orders)]
			status, s := settles(t, desks[i%2], order)
			if status != http.StatusOK || !s.Success {
				t.Errorf("%d %+v", status, s)
			}
			mu.Lock()
			defer mu.Unlock()
			if !slices.Contains(told[order], s.Transaction) {
				told[order] = append(told[order], s.Transaction)
			}
		})
	}
	wg.Wait()
	for _, hashes := range told {
		if len(hashes) != 1 {
			t.Errorf("one order was told of %v", hashes)
		}
	}
	c.saw(0, 3*cent)
	if s := c.states(); len(s) != 1 || s[ledger.StateSettled] != 3 {
		t.Errorf("payments: %v", s)
	}
}

// Where a success is told once, it is told once by all instances together.
func TestTwoInstancesTellOnce(t *testing.T) {
	c := newCluster(t, 2, Settings{ReconcileEvery: time.Hour}, nil)
	desks := []*Facilitator{c.facilitator(0, toldOnce), c.facilitator(1, toldOnce)}
	order := c.order(1)
	var told atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			_, s := settles(t, desks[i%2], order)
			switch {
			case s.Success:
				told.Add(1)
			case s.ErrorReason != x402.ReasonDuplicateSettlement || s.Transaction == "":
				t.Errorf("%+v", s)
			}
		})
	}
	wg.Wait()
	if told.Load() != 1 {
		t.Errorf("%d were told", told.Load())
	}
	c.saw(0, cent)
}

// aging is a ledger in which, once it is old, a month has passed: what was reserved is forgotten.
type aging struct {
	ledger.Store
	old atomic.Bool
}

func (s *aging) Now() time.Time {
	if s.old.Load() {
		return s.Store.Now().AddDate(0, 1, 0)
	}
	return s.Store.Now()
}

func (s *aging) Reserve(ctx context.Context, r ledger.Reservation, over string, _ time.Duration) (ledger.Reservation, error) {
	return s.Store.Reserve(ctx, r, over, time.Microsecond)
}

// Who sends an order again when everybody has forgotten that it was told is told nothing: servers that settle first would serve it again.
func TestFacilitatorTellsNothingOld(t *testing.T) {
	store := &aging{}
	c := newCluster(t, 1, Settings{ReconcileEvery: time.Hour}, func(_ int, s ledger.Store) ledger.Store {
		store.Store = s
		return store
	})
	f, order := c.facilitator(0, toldOnce), c.order(1)
	_, first := settles(t, f, order)
	if !first.Success {
		t.Fatalf("%+v", first)
	}
	store.old.Store(true)
	if status, s := settles(t, f, order); status != http.StatusOK || s.Success || s.ErrorReason != x402.ReasonDuplicateSettlement || s.Transaction != first.Transaction {
		t.Errorf("a month later: %d %+v", status, s)
	}
	if _, s := settles(t, c.facilitator(0), order); !s.Success { // who wants to be told again is
		t.Errorf("a month later, with repeat: %+v", s)
	}
	c.saw(0, cent)
}

// Where blocks take long, an authorization must be good for longer: one that ends before its block comes costs us gas, and its payer nothing.
func TestFacilitatorOfASlowChain(t *testing.T) {
	c := newCluster(t, 1, Settings{ReconcileEvery: time.Hour}, nil)
	f := c.facilitator(0, func(f *FacilitatorConfig) { f.Offers[0].MinRemaining = 10 * time.Minute })
	if status, s := settles(t, f, c.order(1)); status != http.StatusOK || s.Success || s.ErrorReason != x402.ReasonValidBefore {
		t.Errorf("%d %+v", status, s)
	}
	c.saw(0, 0)
}

// failing is a ledger that fails where it is told to.
type failing struct {
	ledger.Store
	at atomic.Value // string
}

var errDisk = errors.New("the disk is full")

func (s *failing) fails(what string) bool { at, _ := s.at.Load().(string); return at == what }

func (s *failing) ByAuthorization(ctx context.Context, id x402.AuthorizationID) (ledger.Payment, error) {
	if s.fails("read") {
		return ledger.Payment{}, errDisk
	}
	return s.Store.ByAuthorization(ctx, id)
}

func (s *failing) Claim(ctx context.Context, p ledger.Payment, c ledger.Change) (ledger.Payment, error) {
	if s.fails("claim") {
		return ledger.Payment{}, errDisk
	}
	return s.Store.Claim(ctx, p, c)
}

func (s *failing) Record(ctx context.Context, t ledger.Transaction, actor string) error {
	if s.fails("record") {
		return errDisk
	}
	return s.Store.Record(ctx, t, actor)
}

func (s *failing) Update(ctx context.Context, id string, version uint64, changes ...ledger.Change) (ledger.Payment, error) {
	if s.fails("update") {
		return ledger.Payment{}, errDisk
	}
	return s.Store.Update(ctx, id, version, changes...)
}

func (s *failing) Reserve(ctx context.Context, r ledger.Reservation, over string, ttl time.Duration) (ledger.Reservation, error) {
	if s.fails("reserve") {
		return ledger.Reservation{}, errDisk
	}
	return s.Store.Reserve(ctx, r, over, ttl)
}

// Whatever of the ledger fails: nobody is told that a payment failed that may be made, nothing is made twice, and who asks again
// when the ledger is well gets what became of it.
func TestFacilitatorOfAFailingLedger(t *testing.T) {
	for at, moved := range map[string]bool{"read": false, "claim": false, "record": false, "update": true, "reserve": true} {
		t.Run(at, func(t *testing.T) {
			var store *failing
			c := newCluster(t, 1, Settings{ReconcileEvery: 100 * time.Millisecond, HoldTTL: time.Second},
				func(_ int, s ledger.Store) ledger.Store {
					store = &failing{Store: s}
					return store
				})
			f := c.facilitator(0, func(f *FacilitatorConfig) { f.Repeat = at != "reserve" })
			order := c.order(1)
			store.at.Store(at)
			status, s := settles(t, f, order)
			// A settlement that the chain shows is one, whether or not that could be written.
			if at == "update" && (status != http.StatusOK || !s.Success) || at != "update" && status != http.StatusServiceUnavailable {
				t.Errorf("%d %+v", status, s)
			}
			if moved {
				c.saw(0, cent)
			} else {
				c.saw(0, 0)
			}
			store.at.Store("")
			waitUntil(t, "a verdict", func() bool {
				status, s = settles(t, f, order)
				return status == http.StatusOK && s.ErrorReason != x402.ReasonSettlementPending
			})
			if status != http.StatusOK || !s.Success {
				t.Errorf("afterwards: %d %+v", status, s)
			}
			c.saw(0, cent)
		})
	}
}

// What was claimed, and never sent, ends when its authorization has: nothing was charged, and whoever asks again is told so.
func TestFacilitatorGivesUpWhatHasExpired(t *testing.T) {
	var store *failing
	c := newCluster(t, 1, Settings{ReconcileEvery: 50 * time.Millisecond, HoldTTL: time.Second},
		func(_ int, s ledger.Store) ledger.Store {
			store = &failing{Store: s}
			return store
		})
	f, order := c.facilitator(0), c.order(1)
	store.at.Store("record")
	if status, s := settles(t, f, order); status != http.StatusServiceUnavailable {
		t.Fatalf("%d %+v", status, s)
	}
	if s := c.states(); s[ledger.StateSettling] != 1 {
		t.Fatalf("payments: %v", s)
	}
	store.at.Store("")
	if err := c.chain.AdvanceTime(time.Hour); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); c.states()[ledger.StateVoid] != 1; time.Sleep(50 * time.Millisecond) {
		if err := c.chain.Commit(); err != nil || time.Now().After(deadline) {
			t.Fatalf("payments: %v, %v", c.states(), err)
		}
	}
	if status, s := settles(t, f, order); status != http.StatusOK || s.Success || s.ErrorReason != x402.ReasonValidBefore || s.Transaction != "" {
		t.Errorf("%d %+v", status, s)
	}
	c.saw(0, 0)
}

// spoilt is a settler that panics, and then does not.
type spoilt struct {
	settlement.Settler
	well atomic.Bool
}

func (s *spoilt) Settle(ctx context.Context, in settlement.Intent) settlement.Outcome {
	if !s.well.Load() {
		panic("spoilt")
	}
	return s.Settler.Settle(ctx, in)
}

func (s *spoilt) Wallets() []common.Address { return nil }

// A settler that panics is one whose outcome is unknown.
func TestFacilitatorOfASettlerThatPanics(t *testing.T) {
	c := newCluster(t, 1, Settings{}, nil)
	s := &spoilt{Settler: c.instances[0].engine.current().Payees[0].Settler}
	f := c.facilitator(0, func(f *FacilitatorConfig) {
		y := *f.Offers[0].Payee
		y.Settler = s
		f.Offers[0].Payee = &y
	})
	order := c.order(1)
	if status, said := settles(t, f, order); status != http.StatusServiceUnavailable {
		t.Errorf("%d %+v", status, said)
	}
	s.well.Store(true)
	if status, said := settles(t, f, order); status != http.StatusOK || !said.Success {
		t.Errorf("%d %+v", status, said)
	}
	c.saw(0, cent)
}

// What is made of no settler of ours, or for nobody, is refused.
func TestNewFacilitator(t *testing.T) {
	own := FacilitatorOffer{Payee: &Payee{Settler: &spoilt{}}}
	others := FacilitatorOffer{Payee: &Payee{Settler: struct{ settlement.Settler }{}}}
	key := NewFacilitatorKey("shop", "secret")
	for name, tt := range map[string]struct {
		c    FacilitatorConfig
		want error
	}{
		"key":        {FacilitatorConfig{Offers: []FacilitatorOffer{own}, Keys: []FacilitatorKey{key}}, nil},
		"payees":     {FacilitatorConfig{Offers: []FacilitatorOffer{own}, AllowPayTo: []common.Address{seller}}, nil},
		"no offers":  {FacilitatorConfig{Keys: []FacilitatorKey{key}}, errNoOffers},
		"open relay": {FacilitatorConfig{Offers: []FacilitatorOffer{own}}, errOpenRelay},
		"others'":    {FacilitatorConfig{Offers: []FacilitatorOffer{own, others}, Keys: []FacilitatorKey{key}}, errNotOurs},
	} {
		if _, err := NewFacilitator(tt.c); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s := fmt.Sprintf("%+v %#v", key, key); strings.Contains(s, "secret") {
		t.Errorf("a key tells its secret: %s", s)
	}
}
