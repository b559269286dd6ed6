package storetest

import (
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// acknowledged is what callers were told before the crash.
type acknowledged struct {
	mu       sync.Mutex
	crashed  bool
	payments map[string]ledger.Payment
	sent     map[string]ledger.Transaction
}

// note keeps an answer, unless it came when the crash had begun. It reports whether to go on.
func (a *acknowledged) note(p ledger.Payment, t *ledger.Transaction) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.crashed {
		return false
	}
	a.payments[p.ID] = p
	if t != nil {
		a.sent[p.ID] = *t
	}
	return true
}

// A store that is killed in the middle of its work has all that it ever answered, and of what it had not
// answered each step wholly or not at all.
func testCrashUnderLoad(t *testing.T, open Open, o Options) {
	f := setup(t, open)
	callers, rounds := uint64(16), uint64(6)
	if o.Light {
		callers, rounds = 8, 3
	}
	acks := &acknowledged{payments: map[string]ledger.Payment{}, sent: map[string]ledger.Transaction{}}
	for round := range rounds {
		acks.crashed = false
		s := f.store()
		var wg sync.WaitGroup
		begun := make(chan struct{}, 1<<16)
		for i := range callers {
			offers := make([]ledger.Payment, 60)
			for k := range offers {
				offers[k] = newPayment(t, i, round<<32|uint64(k))
			}
			wg.Go(func() {
				for _, p := range offers {
					begun <- struct{}{}
					if !f.live(s, acks, p, 100+round<<16+i) {
						return
					}
				}
			})
		}
		done := make(chan struct{})
		go func() {
			wg.Wait()
			close(done)
		}()
		for range callers * (1 + round) {
			select {
			case <-begun:
			case <-done: // they failed
			}
		}
		acks.mu.Lock()
		acks.crashed = true
		acks.mu.Unlock()
		f.b.Crash()
		<-done
		f.compare(acks)
	}
	if uint64(len(acks.payments)) < callers*rounds/2 {
		t.Errorf("only %d payments were acknowledged: this test shows nothing", len(acks.payments))
	}
}

// live brings one payment through its life, as far as the store lets it.
func (f *fixture) live(s ledger.Store, acks *acknowledged, p ledger.Payment, wallet uint64) bool {
	p, err := s.Claim(f.ctx, p, ledger.Change{Actor: "request", Hold: time.Minute})
	if err != nil || !acks.note(p, nil) {
		return false
	}
	nonce, _, err := s.Nonce(f.ctx, 84532, account(wallet))
	if err != nil {
		return false
	}
	tx := newTransaction(wallet, nonce, uint64(p.Payer[19])<<56|binary.BigEndian.Uint64(p.Nonce[24:]), p.ID)
	if err := s.Record(f.ctx, tx, "request"); err != nil {
		return false
	}
	sent, err := s.Payment(f.ctx, p.ID)
	if err != nil || !acks.note(sent, &tx) {
		return false
	}
	p, err = s.Update(f.ctx, p.ID, sent.Version,
		ledger.Change{Event: ledger.EventSettle, Transaction: tx.Hash}, ledger.Change{Event: ledger.EventDeliver, Fence: 1, Hold: time.Minute})
	if err != nil || !acks.note(p, nil) {
		return false
	}
	p, err = s.Update(f.ctx, p.ID, p.Version, ledger.Change{Event: ledger.EventDelivered, Fence: 1})
	return err == nil && acks.note(p, nil)
}

// compare finds every acknowledged payment in the opened store, as acknowledged or one step further.
func (f *fixture) compare(acks *acknowledged) {
	f.Helper()
	for id, want := range acks.payments {
		got := f.read(id)
		switch {
		case got.Version < want.Version:
			f.Errorf("%s was acknowledged in version %d and is back in version %d", id, want.Version, got.Version)
		case got.Version == want.Version && got != want:
			f.Errorf("%s is %+v, acknowledged was %+v", id, got, want)
		case got.Version > want.Version:
			acks.payments[id] = got // the step that was under way was made
		}
		tx, ok := acks.sent[id]
		if !ok {
			continue
		}
		txs, err := f.store().Transactions(f.ctx, id)
		if err != nil || len(txs) != 1 || txs[0].Hash != tx.Hash || len(txs[0].Raw) != len(tx.Raw) {
			f.Errorf("%s: transactions %+v (%v), acknowledged was %+v", id, txs, err, tx)
		}
		if next, _ := f.nonceOf(tx); next <= tx.Nonce {
			f.Errorf("nonce %d was used, the next is said to be %d", tx.Nonce, next)
		}
		if other, err := f.store().ByAuthorization(f.ctx, want.AuthorizationID); err != nil || other.ID != id {
			f.Errorf("%s lost its authorization to %s (%v)", id, other.ID, err)
		}
	}
	if _, err := f.store().Payment(f.ctx, "pay_none"); !errors.Is(err, ledger.ErrNotFound) {
		f.Errorf("a payment that never was: %v", err)
	}
}

func (f *fixture) nonceOf(t ledger.Transaction) (uint64, bool) {
	f.Helper()
	n, known, err := f.store().Nonce(f.ctx, t.ChainID, t.Wallet)
	if err != nil {
		f.Fatalf("nonce: %v", err)
	}
	return n, known
}
