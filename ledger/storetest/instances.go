package storetest

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// instances are the store and the same data as another instance sees it.
func (f *fixture) instances() []ledger.Store {
	f.Helper()
	two, ok := f.b.(Instances)
	if !ok {
		f.Fatalf("%T can't give a second instance: it must be a storetest.Instances", f.b)
	}
	return []ledger.Store{f.store(), two.Second()}
}

// What one instance was answered, the other sees at once.
func testInstancesSeeEachOther(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	s := f.instances()
	p := newPayment(t, 1, 1)
	for i := range 20 {
		here, there := s[i%2], s[(i+1)%2]
		var err error
		if i == 0 {
			p, err = here.Claim(f.ctx, p, ledger.Change{Hold: time.Minute})
		} else {
			p, err = here.Update(f.ctx, p.ID, p.Version, ledger.Change{Event: ledger.EventExtend, Fence: 1, Hold: time.Hour})
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := read(f.ctx, t, there, p.ID); got != p {
			t.Fatalf("the other instance reads %+v\nafter %+v", got, p)
		}
	}
	if _, err := s[1].Claim(f.ctx, withID(t, p), ledger.Change{}); !errors.Is(err, ledger.ErrExists) {
		t.Errorf("claimed on both: %v", err)
	}
	// What an instance anchored holds the other's clock too.
	f.clock.Add(2 * ledger.AnchorLag)
	a, err := ledger.NextAnchor(f.ctx, s[0], s[0].Now())
	if err != nil {
		t.Fatal(err)
	}
	f.clock.Add(-time.Hour)
	p, err = s[1].Update(f.ctx, p.ID, p.Version, ledger.Change{Event: ledger.EventSettle})
	if err != nil || !p.UpdatedAt.After(a.Until) {
		t.Errorf("changed at %v (%v), which is anchored until %v", p.UpdatedAt, err, a.Until)
	}
}

// withID is the same authorization under another id.
func withID(t fail, p ledger.Payment) ledger.Payment {
	t.Helper()
	p.ID = newID(t, 0)
	payer(&p, p.Payer)
	return p
}

// Instances that compete for authorizations: each is claimed once, and all are told the same.
func testInstancesClaim(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	s := f.instances()
	const authorizations = 10
	got := make([]ledger.Payment, crowd)
	won := make([]int, authorizations)
	var mu sync.Mutex
	offers := make([]ledger.Payment, crowd)
	for i := range offers {
		offers[i] = newPayment(t, 1, uint64(i%authorizations))
	}
	atOnce(crowd, func(i int) {
		p, err := s[i/authorizations%2].Claim(f.ctx, offers[i], ledger.Change{Hold: time.Minute})
		if err != nil && !errors.Is(err, ledger.ErrExists) {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		got[i] = p
		if err == nil {
			won[i%authorizations]++
		}
	})
	for i, p := range got {
		if p != got[i%authorizations] || won[i%authorizations] != 1 {
			t.Errorf("caller %d was given %+v, of %d winners", i, p, won[i%authorizations])
		}
	}
}

// Instances that sign for one wallet at the same time: every nonce is given once, without a gap.
func testInstancesNonce(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	s := f.instances()
	offers := make([]ledger.Payment, crowd/2)
	for i := range offers {
		offers[i] = f.claim(newPayment(t, uint64(i), uint64(i)), 0)
	}
	atOnce(len(offers), func(i int) {
		for try := uint64(0); ; try++ {
			nonce, _, err := s[i%2].Nonce(f.ctx, 84532, account(9))
			if err == nil {
				err = s[i%2].Record(f.ctx, newTransaction(9, nonce, 1000+uint64(i)<<32+try, offers[i].ID), "request")
			}
			if err == nil {
				return
			}
			if !errors.Is(err, ledger.ErrNonce) {
				t.Error(err)
				return
			}
		}
	})
	f.wholeNonces(9, 0, len(offers))
}

// wholeNonces finds the nonces of the wallet's recorded transactions from first on without gap or clash.
func (f *fixture) wholeNonces(wallet, first uint64, n int) {
	f.Helper()
	seen := map[uint64]string{}
	for _, r := range f.records() {
		for _, t := range r.Transactions {
			if t.Wallet != account(wallet) {
				continue
			}
			if had, ok := seen[t.Nonce]; ok && had != r.Payment.ID {
				f.Errorf("nonce %d carries %s and %s", t.Nonce, had, r.Payment.ID)
			}
			seen[t.Nonce] = r.Payment.ID
		}
	}
	for i := range uint64(n) {
		if seen[first+i] == "" {
			f.Errorf("nonce %d was left out", first+i)
		}
	}
	if next, _ := f.nonce(wallet); next != first+uint64(n) || len(seen) != n {
		f.Errorf("next nonce %d, %d transactions, want %d", next, len(seen), n)
	}
}

// Instances that ask for work at the same time: what is due is given to one.
func testInstancesLease(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	s := f.instances()
	due := map[string]int{}
	for i := range uint64(crowd) {
		due[f.claim(newPayment(t, i%7, i), 0).ID] = 0
	}
	var mu sync.Mutex
	atOnce(crowd/2, func(i int) {
		for {
			got, err := s[i%2].Lease(f.ctx, 3, time.Minute)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			for _, p := range got {
				due[p.ID]++
			}
			mu.Unlock()
			if len(got) == 0 {
				return
			}
		}
	})
	for id, n := range due {
		if n != 1 {
			t.Errorf("%s was leased %d times", id, n)
		}
	}
}

// Instances that take the hold of one payment at the same time: one has it.
func testInstancesHold(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	s := f.instances()
	p := f.settled(newPayment(t, 1, 1))
	for round := range 5 {
		won := make([]bool, crowd/4)
		atOnce(len(won), func(i int) {
			for {
				q, err := s[i%2].Payment(f.ctx, p.ID)
				if err == nil {
					_, err = s[i%2].Update(f.ctx, q.ID, q.Version, ledger.Change{Event: ledger.EventTake, Hold: time.Minute})
				}
				switch {
				case err == nil:
					won[i] = true
					return
				case errors.Is(err, ledger.ErrFence):
					return
				case !errors.Is(err, ledger.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
		winners := 0
		for _, w := range won {
			if w {
				winners++
			}
		}
		if got := f.read(p.ID); winners != 1 || got.Hold.Fence != uint64(round+1) {
			t.Errorf("round %d: %d hold it, fence %d", round, winners, got.Hold.Fence)
		}
		f.clock.Add(time.Minute)
	}
}
