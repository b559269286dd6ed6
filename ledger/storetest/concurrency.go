package storetest

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// atOnce runs n callers that start together.
func atOnce(n int, call func(i int)) {
	var wg sync.WaitGroup
	gun := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-gun
			call(i)
		})
	}
	close(gun)
	wg.Wait()
}

const crowd = 100

// Of many that claim one authorization, one wins, and the others are given its payment.
func testOneAuthorization(t *testing.T, open Open) {
	f := setup(t, open)
	got, errs := make([]ledger.Payment, crowd), make([]error, crowd)
	offers := make([]ledger.Payment, crowd)
	for i := range offers {
		offers[i] = newPayment(t, 1, 1)
	}
	atOnce(crowd, func(i int) {
		got[i], errs[i] = f.store().Claim(f.ctx, offers[i], ledger.Change{Hold: time.Minute})
	})
	var won []int
	for i, err := range errs {
		switch {
		case err == nil:
			won = append(won, i)
		case !errors.Is(err, ledger.ErrExists):
			t.Errorf("caller %d: %v", i, err)
		}
	}
	if len(won) != 1 {
		t.Fatalf("%d callers won, want 1", len(won))
	}
	winner := f.read(offers[won[0]].ID)
	for i := range got {
		if got[i] != winner {
			t.Errorf("caller %d was given %+v, want the winner's", i, got[i])
		}
		if i != won[0] {
			if _, err := f.store().Payment(f.ctx, offers[i].ID); !errors.Is(err, ledger.ErrNotFound) {
				t.Errorf("caller %d left a payment: %v", i, err)
			}
		}
	}
}

// Many that claim different authorizations all win. One that is refused does not spoil its neighbours.
func testManyClaims(t *testing.T, open Open) {
	f := setup(t, open)
	taken := f.claim(newPayment(t, 1, 1), 0)
	offers := make([]ledger.Payment, 2*crowd)
	for i := range offers {
		offers[i] = newPayment(t, 2+uint64(i), uint64(i))
		switch i % 10 {
		case 3:
			offers[i].AuthorizationID = taken.AuthorizationID
			payer(&offers[i], taken.Payer)
		case 7:
			offers[i].Payer, offers[i].ID = taken.Payer, taken.ID
		}
	}
	errs := make([]error, len(offers))
	atOnce(len(offers), func(i int) { _, errs[i] = f.store().Claim(f.ctx, offers[i], ledger.Change{}) })
	for i, p := range offers {
		switch i % 10 {
		case 3:
			if !errors.Is(errs[i], ledger.ErrExists) {
				t.Errorf("claim %d: %v, want ErrExists", i, errs[i])
			}
		case 7:
			if errs[i] == nil {
				t.Errorf("claim %d: took another's id", i)
			}
		default:
			if errs[i] != nil {
				t.Errorf("claim %d: %v", i, errs[i])
				continue
			}
			f.read(p.ID)
		}
	}
	f.read(taken.ID)
}

// Of many that change one version, one wins; the others are told that it changed.
func testOneVersion(t *testing.T, open Open) {
	f := setup(t, open)
	p := f.claim(newPayment(t, 1, 1), time.Minute)
	errs := make([]error, crowd)
	changes := []ledger.Event{ledger.EventSettle, ledger.EventVoid, ledger.EventFail}
	atOnce(crowd, func(i int) {
		_, errs[i] = f.store().Update(f.ctx, p.ID, p.Version, ledger.Change{Event: changes[i%len(changes)]})
	})
	won := 0
	for i, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, ledger.ErrConflict):
			t.Errorf("caller %d: %v", i, err)
		}
	}
	if got := f.read(p.ID); won != 1 || got.Version != p.Version+1 {
		t.Errorf("%d callers won, version %d", won, got.Version)
	}
}

// Callers that each take the hold, deliver and commit the delivery: however they mix, one delivery (I3).
func testOneHold(t *testing.T, open Open) {
	f := setup(t, open)
	p := f.settled(newPayment(t, 1, 1))
	var served atomic.Int64
	atOnce(crowd, func(int) {
		for {
			q, err := f.store().Payment(f.ctx, p.ID)
			if err != nil {
				t.Error(err)
				return
			}
			q, err = f.store().Update(f.ctx, q.ID, q.Version, ledger.Change{Event: ledger.EventTake, Hold: time.Second})
			if errors.Is(err, ledger.ErrTransition) {
				return // delivered
			}
			if err != nil {
				f.clock.Add(300 * time.Millisecond) // holds run out all the time
				continue
			}
			fence := q.Hold.Fence
			q, err = f.store().Update(f.ctx, q.ID, q.Version, ledger.Change{Event: ledger.EventDeliver, Fence: fence, Hold: time.Second})
			if err != nil {
				continue
			}
			f.clock.Add(300 * time.Millisecond)
			if _, err = f.store().Update(f.ctx, q.ID, q.Version, ledger.Change{Event: ledger.EventDelivered, Fence: fence}); err == nil {
				served.Add(1)
				return
			}
		}
	})
	if got := f.read(p.ID); served.Load() != 1 || got.Delivery != ledger.Delivered {
		t.Errorf("delivered %d times, now %s", served.Load(), got.Delivery)
	}
}

// Wallets that sign at the same time: every nonce is given once, without a gap.
func testOneNonce(t *testing.T, open Open) {
	f := setup(t, open)
	offers := make([]ledger.Payment, crowd/2)
	for i := range offers {
		offers[i] = f.claim(newPayment(t, 1, uint64(i)), 0)
	}
	atOnce(len(offers), func(i int) {
		for try := uint64(0); ; try++ {
			nonce, known, err := f.store().Nonce(f.ctx, 84532, account(9))
			if err != nil {
				t.Error(err)
				return
			}
			if !known {
				nonce = 5
			}
			tx := newTransaction(9, nonce, 1000+uint64(i)<<32+try, offers[i].ID)
			if err := f.store().Record(f.ctx, tx, "request"); err == nil {
				return
			} else if !errors.Is(err, ledger.ErrNonce) {
				t.Error(err)
				return
			}
		}
	})
	seen := map[uint64]bool{}
	for _, p := range offers {
		txs, err := f.store().Transactions(f.ctx, p.ID)
		if err != nil || len(txs) != 1 || seen[txs[0].Nonce] {
			t.Fatalf("transactions %+v, %v", txs, err)
		}
		seen[txs[0].Nonce] = true
		f.read(p.ID)
	}
	if n, _ := f.nonce(9); n != 5+uint64(len(offers)) {
		t.Errorf("next nonce %d, want %d", n, 5+len(offers))
	}
}

// A payment that is due is leased to one of those who ask.
func testCompetingLeases(t *testing.T, open Open) {
	f := setup(t, open)
	due := map[string]int{}
	for i := range crowd {
		due[f.claim(newPayment(t, 1, uint64(i)), 0).ID] = 0
	}
	var mu sync.Mutex
	atOnce(crowd, func(int) {
		got, err := f.store().Lease(f.ctx, 3, time.Minute)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, p := range got {
			due[p.ID]++
		}
	})
	for id, n := range due {
		if n != 1 {
			t.Errorf("%s was leased %d times", id, n)
		}
	}
}

// What a caller was told is seen by every read that begins afterwards, by anybody.
func testReadYourWrites(t *testing.T, open Open) {
	f := setup(t, open)
	offers := make([]ledger.Payment, 20)
	for i := range offers {
		offers[i] = newPayment(t, 1, uint64(i))
	}
	atOnce(len(offers), func(i int) {
		p, err := f.store().Claim(f.ctx, offers[i], ledger.Change{Hold: time.Minute})
		for range 10 {
			if err != nil {
				t.Error(err)
				return
			}
			got, rerr := f.store().Payment(f.ctx, p.ID)
			if rerr != nil || got != p {
				t.Errorf("read %+v (%v) after %+v was answered", got, rerr, p)
				return
			}
			p, err = f.store().Update(f.ctx, p.ID, p.Version, ledger.Change{Event: ledger.EventExtend, Fence: 1, Hold: time.Hour})
		}
	})
}
