package storetest

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// bounds lends 320 to each payer and 1,000 in all: slots of 10.
func bounds() *ledger.Credit {
	return &ledger.Credit{ChainID: 84532, Asset: usdc, PerPayer: *uint256.NewInt(320), Total: *uint256.NewInt(1000)}
}

// onCredit is a payment of the flow deferred, of that amount.
func onCredit(t fail, who, n, amount uint64) ledger.Payment {
	p := newPayment(t, who, n)
	p.Flow, p.Amount = ledger.FlowDeferred, *uint256.NewInt(amount)
	return p
}

// lend takes credit for p, and claims it under a hold.
func (f *fixture) lend(p ledger.Payment, want error) ledger.Payment {
	f.Helper()
	_, err := bounds().Take(f.ctx, f.store(), &p)
	if !errors.Is(err, want) {
		f.Errorf("lending %s: %v, want %v", p.Amount.Dec(), err, want)
	}
	if err != nil {
		return p
	}
	return f.claim(p, time.Minute)
}

// served delivers what is not paid.
func (f *fixture) served(p ledger.Payment) ledger.Payment {
	f.Helper()
	return f.delivered(p, time.Time{})
}

// What is outstanding stays within the bounds, of a payer and of all; what is over is free again, however it ended.
func testCredit(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	f.lend(onCredit(t, 1, 1, 321), ledger.ErrCredit)
	f.lend(onCredit(t, 1, 2, 0), ledger.ErrCredit)
	first := f.served(f.lend(onCredit(t, 1, 3, 200), nil))
	second := f.served(f.lend(onCredit(t, 1, 4, 111), nil)) // 12 slots, the last ones
	f.lend(onCredit(t, 1, 5, 1), ledger.ErrCredit)
	f.lend(onCredit(t, 2, 6, 320), nil) // another payer's
	third := f.lend(onCredit(t, 3, 7, 320), nil)
	f.lend(onCredit(t, 4, 8, 50), ledger.ErrCredit) // 40 of the total are left
	f.served(f.lend(onCredit(t, 4, 9, 40), nil))
	f.lend(onCredit(t, 5, 10, 1), ledger.ErrCredit)

	settle := ledger.Change{Event: ledger.EventSettle, Actor: "request", Transaction: hash(1), Block: 18, BlockHash: hash(2)}
	f.update(first, settle)
	f.lend(onCredit(t, 1, 11, 201), ledger.ErrCredit)
	f.served(f.lend(onCredit(t, 1, 12, 200), nil))
	second = f.update(second, ledger.Change{Event: ledger.EventFail, Actor: "request", Reason: "why"})
	f.lend(onCredit(t, 1, 13, 120), ledger.ErrCredit) // it is lost, until it is made good
	f.update(second, ledger.Change{Event: ledger.EventMadeGood, Actor: "request", ServedBy: "pay_other"})
	f.served(f.lend(onCredit(t, 1, 14, 120), nil))

	// Who was not served and is held no more holds nothing.
	f.lend(onCredit(t, 5, 15, 320), ledger.ErrCredit)
	f.update(third, ledger.Change{Event: ledger.EventRelease, Actor: "request", Fence: third.Hold.Fence})
	f.served(f.lend(onCredit(t, 5, 16, 320), nil))
}

// What is given back is free at once, and nothing else is.
func testCreditGivenBack(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	p, q := onCredit(t, 1, 1, 160), onCredit(t, 1, 2, 160)
	loan, err := bounds().Take(f.ctx, f.store(), &p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bounds().Take(f.ctx, f.store(), &q); err != nil {
		t.Fatal(err)
	}
	f.lend(onCredit(t, 1, 3, 1), ledger.ErrCredit)
	for range 2 { // twice gives no more
		if err := loan.Give(f.ctx); err != nil {
			t.Fatal(err)
		}
	}
	f.lend(onCredit(t, 1, 4, 161), ledger.ErrCredit)
	f.lend(onCredit(t, 1, 5, 160), nil)
}

// What was taken for a payment that was never claimed is free again after a while.
func testCreditNotClaimed(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	p := onCredit(t, 1, 1, 320)
	if _, err := bounds().Take(f.ctx, f.store(), &p); err != nil {
		t.Fatal(err)
	}
	f.lend(onCredit(t, 1, 2, 10), ledger.ErrCredit)
	f.clock.Add(2 * time.Minute)
	f.lend(onCredit(t, 1, 3, 320), nil)
}

// Of many who borrow at once, on two instances, no more are lent to than the bounds allow; nobody who was refused holds anything.
func testInstancesBorrow(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	stores := f.instances()
	var mu sync.Mutex
	lent := map[uint64]uint64{}
	var wg sync.WaitGroup
	for i := range uint64(60) {
		wg.Go(func() {
			who := 1 + i%2
			if i%3 == 0 {
				who = 10 + i
			}
			p := onCredit(t, who, 100+i, 100)
			s := stores[i%2]
			_, err := bounds().Take(f.ctx, s, &p)
			if errors.Is(err, ledger.ErrCredit) {
				return
			}
			if err == nil {
				_, err = s.Claim(f.ctx, p, ledger.Change{Actor: "request", Hold: time.Minute})
			}
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			lent[who] += 100
		})
	}
	wg.Wait()
	total := uint64(0)
	for who, n := range lent {
		if total += n; n > 320 {
			t.Errorf("%d was lent to payer %d", n, who)
		}
	}
	if total > 1000 {
		t.Errorf("%d was lent in all", total)
	}
	// Those who got in each other's way may have left some over; then there is enough for one.
	if total < 1000 {
		f.lend(onCredit(t, 99, 999, min(1000-total, 320)), nil)
	}
}

// Who loses its hold has lost what it was lent: another has it then, and nothing goes out for the first that is not paid.
func testCreditLapses(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	p := f.lend(onCredit(t, 1, 1, 320), nil)
	f.lend(onCredit(t, 1, 2, 10), ledger.ErrCredit)
	f.clock.Add(time.Minute + time.Second) // the clock that callers know may be behind
	f.lend(onCredit(t, 1, 3, 10), ledger.ErrCredit)
	f.clock.Add(time.Minute)
	f.served(f.lend(onCredit(t, 1, 4, 320), nil))
	for _, c := range [][]ledger.Change{
		{{Event: ledger.EventExtend, Actor: "request", Fence: p.Hold.Fence, Hold: time.Minute}},
		{{Event: ledger.EventDeliver, Actor: "request", Fence: p.Hold.Fence, Hold: time.Minute}},
		{
			{Event: ledger.EventDeliver, Actor: "request", Fence: p.Hold.Fence, Hold: time.Minute},
			{Event: ledger.EventDelivered, Actor: "request", Fence: p.Hold.Fence},
		},
	} {
		if _, err := f.store().Update(f.ctx, p.ID, p.Version, c...); !errors.Is(err, ledger.ErrFence) {
			t.Errorf("%s without a hold: %v, want ErrFence", c[len(c)-1].Event, err)
		}
	}
	// It may still be paid up front, and then served.
	p = f.update(p, ledger.Change{Event: ledger.EventTake, Actor: "request", Hold: time.Minute})
	f.served(f.update(p, ledger.Change{Event: ledger.EventSettle, Actor: "request", Transaction: hash(1), Block: 18, BlockHash: hash(2)}))
}

// Who takes too long to claim is not covered any more.
func testCreditCovers(t *testing.T, open Open, _ Options) {
	f := setup(t, open)
	p, late := onCredit(t, 1, 1, 10), onCredit(t, 1, 2, 10)
	var loans []*ledger.Loan
	for _, p := range []*ledger.Payment{&p, &late} {
		loan, err := bounds().Take(f.ctx, f.store(), p)
		if err != nil {
			t.Fatal(err)
		}
		loans = append(loans, loan)
	}
	p = f.claim(p, time.Minute)
	f.clock.Add(50 * time.Second)
	late = f.claim(late, time.Minute)
	if !loans[0].Covers(&p) || loans[1].Covers(&late) || loans[0].Covers(&late) {
		t.Errorf("covered: %v, %v; another's: %v", loans[0].Covers(&p), loans[1].Covers(&late), loans[0].Covers(&late))
	}
	if err := loans[0].Give(f.ctx); err != nil || loans[0].Covers(&p) {
		t.Errorf("given back: %v, and covered: %v", err, loans[0].Covers(&p))
	}
}
