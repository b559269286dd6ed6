package paywall

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/refund"
	"github.com/caddy-x402/caddy-x402/x402"
)

// refundWorld is a ledger, a token, and instances that come and go, on one clock.
type refundWorld struct {
	t        rapid.TB
	clock    atomic.Int64
	bank     *bank
	store    *storetest.Memory
	wallet   refund.Signer // of the configuration
	limits   RefundLimits
	payments []ledger.Payment
	failures map[string]int
	mistold  []string
}

func newRefundWorld(t rapid.TB) *refundWorld {
	w := &refundWorld{t: t, wallet: refundKey(1), failures: map[string]int{}}
	w.clock.Store(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixNano())
	w.bank = newBank(w.now)
	w.store = storetest.NewMemory(w.now, false)
	return w
}

func (w *refundWorld) now() time.Time { return time.Unix(0, w.clock.Load()).UTC() }

func (w *refundWorld) pass(d time.Duration) { w.clock.Add(int64(d)) }

// seller is who is paid.
var refundSeller = common.Address{0x5e}

// held makes a payment that was settled just now, and not delivered.
func (w *refundWorld) held(n int, plan string) ledger.Payment {
	w.t.Helper()
	payer := common.Address{0xbb, byte(n >> 8), byte(n)}
	amount := uint64(1000 + n)
	id, err := ledger.NewID(randomness, payer)
	if err != nil {
		w.t.Fatal(err)
	}
	p := ledger.Payment{ID: id, PayTo: refundSeller, Amount: *uint256.NewInt(amount), Flow: ledger.FlowUpfront, ValidBefore: 1 << 40}
	p.ChainID, p.Asset, p.Payer, p.Nonce = sepolia.ChainID, sepolia.Asset.Address, payer, common.Hash{1, byte(n >> 8), byte(n)}
	p.Binding.Plan = plan
	w.bank.mu.Lock()
	p.ClaimBlock = w.bank.block
	w.bank.balances[payer] += amount
	a := x402.Authorization{From: payer, To: refundSeller, Value: p.Amount, Nonce: p.Nonce}
	w.bank.block++
	w.bank.balances[payer] -= amount
	w.bank.balances[refundSeller] += amount
	w.bank.used[use{payer, a.Nonce}] = moved{to: refundSeller, amount: amount, block: w.bank.block, at: w.now()}
	in := settlement.Intent{Authorization: a, ClaimBlock: p.ClaimBlock}
	out := w.bank.find(&in)
	w.bank.mu.Unlock()
	p, err = w.store.Claim(context.Background(), p, ledger.Change{Event: ledger.EventClaim, Actor: actorRequest, Hold: time.Minute})
	if err == nil {
		p, err = w.store.Update(context.Background(), p.ID, p.Version,
			ledger.Change{Event: ledger.EventSettle, Actor: actorRequest, Transaction: out.Transaction, Block: out.Block, BlockHash: out.BlockHash},
			ledger.Change{Event: ledger.EventDeliver, Actor: actorRequest, Fence: p.Hold.Fence, Hold: time.Minute},
			ledger.Change{Event: ledger.EventUndelivered, Actor: actorRequest, Fence: p.Hold.Fence, Reason: "upstream_status_502"})
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.payments = append(w.payments, p)
	return p
}

// instance is one process, which does what is due and dies after so many steps; -1: it lives.
func (w *refundWorld) instance(steps int) {
	w.t.Helper()
	end := &mortal{left: steps}
	settings := Settings{
		Payees:         []*Payee{{Network: sepolia, PayTo: refundSeller, Settler: dyingBank{w.bank, end}, Refund: w.limits}},
		ReconcileEvery: time.Second,
		Refunds: &Refunds{
			Signer: func(context.Context) (refund.Signer, error) { return w.wallet, nil }, Interval: time.Minute, MinAge: 5 * time.Minute, Batch: 4,
		},
		Happened: func(f Fact) {
			w.bank.mu.Lock()
			defer w.bank.mu.Unlock()
			switch {
			case f.Kind == FactRefundFailed:
				w.failures[f.Payment.ID]++
			case (f.Kind == FactRefunded) != (f.Back != common.Hash{}) || f.Back == f.Payment.Transaction:
				w.mistold = append(w.mistold, fmt.Sprintf("%s went back by %s", f.ID, f.Back))
			}
		},
	}
	e := idleEngine(dyingStore{w.store, end}, settings)
	e.reconcile(context.Background())
	e.background.Wait()
}

// check holds at any time: no payment came back twice, none but what was received, and none that the ledger does not say.
func (w *refundWorld) check() {
	w.t.Helper()
	if len(w.mistold) > 0 {
		w.t.Fatalf("told %q", w.mistold)
	}
	for i := range w.payments {
		p, err := w.store.Payment(context.Background(), w.payments[i].ID)
		if errors.Is(err, ledger.ErrNotFound) {
			continue // forgotten by a restored copy
		}
		if err != nil {
			w.t.Fatal(err)
		}
		times, amount := w.bank.received(refund.Nonce(p.AuthorizationID))
		if times > 1 || times == 1 && amount != p.Amount.Uint64() {
			w.t.Fatalf("%s was paid back %d times, %d in all, and had cost %s", p.ID, times, amount, p.Amount.Dec())
		}
		if p.Refund == ledger.Refunded && times != 1 {
			w.t.Fatalf("%s is %s, and nothing was paid", p.ID, p.State())
		}
		if p.Delivery == ledger.Delivered && times > 0 {
			w.t.Fatalf("%s was delivered and paid back", p.ID)
		}
	}
}

// rest lets everything come to its end: what was in the way is gone, and the operator has all tried again.
func (w *refundWorld) rest() {
	w.t.Helper()
	w.bank.mu.Lock()
	clear(w.bank.banned)
	w.bank.paused = false
	w.bank.balances[w.wallet.Address()] += 1 << 32
	w.bank.mu.Unlock()
	w.limits = RefundLimits{}
	for range 40 {
		w.retry()
		w.instance(-1)
		w.pass(20 * time.Minute)
		w.check()
	}
}

func (w *refundWorld) retry() {
	ctx := context.Background()
	for i := range w.payments {
		if p, err := w.store.Payment(ctx, w.payments[i].ID); err == nil && p.Refund == ledger.RefundFailed {
			if _, err := w.store.Update(ctx, p.ID, p.Version, ledger.Change{Event: ledger.EventRefundRetry, Actor: "operator"}); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// trails of all payments tell what became of them.
func (w *refundWorld) trails() {
	w.t.Helper()
	report, err := ledger.Verify(context.Background(), w.store, ledger.VerifyOptions{})
	if err != nil || report.Found > 0 {
		w.t.Fatalf("the trails: %+v, %v", report, err)
	}
}

// dyingBank is the bank as a process sees it that will die.
type dyingBank struct {
	*bank
	end *mortal
}

func (d dyingBank) Check(ctx context.Context, in settlement.Intent) (uint64, error) {
	if err := d.end.step(); err != nil {
		return 0, errors.Join(settlement.ErrUnavailable, err)
	}
	return d.bank.Check(ctx, in)
}

// Settle is two steps: who dies between them has sent, and does not know.
func (d dyingBank) Settle(ctx context.Context, in settlement.Intent) settlement.Outcome {
	if err := d.end.step(); err != nil {
		return settlement.Outcome{Err: err}
	}
	out := d.bank.Settle(ctx, in)
	if err := d.end.step(); err != nil {
		return settlement.Outcome{Err: err}
	}
	return out
}

func (d dyingBank) Resolve(ctx context.Context, in settlement.Intent) settlement.Outcome {
	if err := d.end.step(); err != nil {
		return settlement.Outcome{Err: err}
	}
	return d.bank.Resolve(ctx, in)
}

// dyingStore is the ledger as that process sees it. A write may be made though its answer never comes.
type dyingStore struct {
	ledger.Store
	end *mortal
}

func (d dyingStore) Claim(ctx context.Context, p ledger.Payment, c ledger.Change) (q ledger.Payment, err error) {
	if err = d.end.step(); err == nil {
		if q, err = d.Store.Claim(ctx, p, c); err == nil {
			err = d.end.step()
		}
	}
	return q, err
}

func (d dyingStore) Update(ctx context.Context, id string, version uint64, changes ...ledger.Change) (q ledger.Payment, err error) {
	if err = d.end.step(); err == nil {
		if q, err = d.Store.Update(ctx, id, version, changes...); err == nil {
			err = d.end.step()
		}
	}
	return q, err
}

func (d dyingStore) Reserve(ctx context.Context, r ledger.Reservation, over string, ttl time.Duration) (q ledger.Reservation, err error) {
	if err = d.end.step(); err == nil {
		if q, err = d.Store.Reserve(ctx, r, over, ttl); err == nil {
			err = d.end.step()
		}
	}
	return q, err
}

func (d dyingStore) Reservation(ctx context.Context, key common.Hash) (ledger.Reservation, error) {
	if err := d.end.step(); err != nil {
		return ledger.Reservation{}, err
	}
	return d.Store.Reservation(ctx, key)
}

func (d dyingStore) Payment(ctx context.Context, id string) (ledger.Payment, error) {
	if err := d.end.step(); err != nil {
		return ledger.Payment{}, err
	}
	return d.Store.Payment(ctx, id)
}

func (d dyingStore) Recheck(ctx context.Context, id string, after time.Duration) error {
	if err := d.end.step(); err != nil {
		return err
	}
	return d.Store.Recheck(ctx, id, after)
}

// misfortunes are what may happen between two steps of a refund.
func (w *refundWorld) misfortunes() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"sale": func(t *rapid.T) {
			if len(w.payments) < 12 {
				w.held(len(w.payments), rapid.SampledFrom([]string{"", "", "day"}).Draw(t, "plan"))
			}
		},
		"time":     func(t *rapid.T) { w.pass(time.Duration(rapid.IntRange(1, 1500).Draw(t, "seconds")) * time.Second) },
		"instance": func(*rapid.T) { w.instance(-1) },
		"dying":    func(t *rapid.T) { w.instance(rapid.IntRange(0, 60).Draw(t, "steps")) },
		"stranger": func(t *rapid.T) { w.bank.execute(rapid.IntRange(0, 1000).Draw(t, "which")) },
		"operator": func(*rapid.T) { w.retry() },
		"money": func(t *rapid.T) {
			w.bank.mu.Lock()
			defer w.bank.mu.Unlock()
			w.bank.balances[w.wallet.Address()] = uint64(rapid.IntRange(0, 5000).Draw(t, "money"))
		},
		"ban": func(t *rapid.T) {
			w.bank.mu.Lock()
			defer w.bank.mu.Unlock()
			if n := len(w.payments); n > 0 {
				p := &w.payments[rapid.IntRange(0, n-1).Draw(t, "payer")]
				w.bank.banned[p.Payer] = !w.bank.banned[p.Payer]
			}
		},
		"pause": func(*rapid.T) {
			w.bank.mu.Lock()
			defer w.bank.mu.Unlock()
			w.bank.paused = !w.bank.paused
		},
	}
}

// Whatever fails, dies, or is sent by strangers, and whichever wallet the configuration names: each payment comes back once, and just as it
// was paid; and if it can, it does.
func TestRefundsAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newRefundWorld(t)
		next := int64(1)
		actions := w.misfortunes()
		actions["wallet"] = func(*rapid.T) {
			next++
			w.wallet = refundKey(next)
		}
		// An instance that has not heard of the newest configuration, with a wallet that has money again.
		actions["stale"] = func(t *rapid.T) {
			newest := w.wallet
			w.wallet = refundKey(rapid.Int64Range(1, next).Draw(t, "wallet"))
			w.bank.mu.Lock()
			w.bank.balances[w.wallet.Address()] = uint64(rapid.IntRange(0, 5000).Draw(t, "money"))
			w.bank.mu.Unlock()
			w.instance(rapid.IntRange(-1, 60).Draw(t, "steps"))
			w.wallet = newest
		}
		actions[""] = func(*rapid.T) { w.check() }
		t.Repeat(actions)
		actions["wallet"](t) // one that was not given up
		w.rest()
		for i := range w.payments {
			if p, err := w.store.Payment(t.Context(), w.payments[i].ID); err != nil || p.Refund != ledger.Refunded {
				t.Fatalf("%s is %s (%s), %v", w.payments[i].ID, p.State(), p.Reason, err)
			}
		}
		w.trails()
	})
}

// A ledger that was restored from an older copy pays nothing that was paid after it was made, by whichever wallet.
func TestRefundsOfARestoredLedger(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newRefundWorld(t)
		var copied *storetest.Memory
		actions, next := w.misfortunes(), int64(1)
		actions["wallet"] = func(*rapid.T) { // but not while signatures are good that nobody remembers
			w.pass(refundValidity + time.Second)
			next++
			w.wallet = refundKey(next)
		}
		actions["copy"] = func(*rapid.T) { copied = w.store.Clone() }
		actions["restore"] = func(*rapid.T) {
			if copied != nil {
				w.store = copied.Clone()
			}
		}
		actions[""] = func(*rapid.T) { w.check() }
		t.Repeat(actions)
		actions["wallet"](t)
		w.rest()
		for i := range w.payments {
			p, err := w.store.Payment(t.Context(), w.payments[i].ID)
			if errors.Is(err, ledger.ErrNotFound) {
				continue
			}
			if err != nil || p.Refund != ledger.Refunded {
				t.Fatalf("%s is %s (%s), %v", p.ID, p.State(), p.Reason, err)
			}
		}
		w.trails()
	})
}

func (w *refundWorld) state(p ledger.Payment) string {
	w.t.Helper()
	q, err := w.store.Payment(context.Background(), p.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	return fmt.Sprint(q.State(), " ", q.Reason)
}
