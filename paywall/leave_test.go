package paywall

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/refund"
)

// slowChain is a settler that knows of nothing until it is asked no more.
type slowChain struct {
	surveyor

	asked chan struct{}
}

func (s *slowChain) Resolve(ctx context.Context, _ settlement.Intent) settlement.Outcome {
	s.asked <- struct{}{}
	<-ctx.Done()
	return settlement.Outcome{Err: ctx.Err()}
}

// An engine that closes while it looks at payments, and before it looks at others that it has leased, leaves them to whoever comes after it, at once.
func TestWhatIsLeftHalfwayIsLookedAtSoon(t *testing.T) {
	const many, every = 3 * reconcileAtOnce, 100 * time.Millisecond
	now := time.Unix(1_800_000_000, 0)
	store := storetest.NewMemory(func() time.Time { return now }, false)
	for i := range uint64(many) {
		var p ledger.Payment
		var err error
		binary.BigEndian.PutUint64(p.Payer[:], i+1)
		p.Nonce[0], p.ChainID, p.Asset, p.PayTo, p.Amount, p.Flow = 1, sepolia.ChainID, sepolia.Asset.Address, seller, *uint256.NewInt(cent), ledger.FlowUpfront
		if p.ID, err = ledger.NewID(randomness, p.Payer); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Claim(t.Context(), p, ledger.Change{Event: ledger.EventClaim, Actor: actorRequest, Hold: time.Second}); err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(time.Hour)
	chain := &slowChain{asked: make(chan struct{}, many)}
	chain.survey = func(context.Context, settlement.Survey) (settlement.Surveyed, error) {
		return settlement.Surveyed{}, nil
	}
	payee := &Payee{Network: sepolia, PayTo: common.Address{4}, Settler: chain}
	e := NewEngine(store, Settings{Payees: []*Payee{payee}, ReconcileEvery: every})
	for range reconcileAtOnce {
		<-chain.asked
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	now = now.Add(every + time.Millisecond)
	due, err := store.Lease(t.Context(), 2*many, time.Minute)
	if err != nil || len(due) != many {
		t.Errorf("%d of %d payments are due, %v", len(due), many, err)
	}
}

// closing is a ledger during one of whose answers its engine is closed.
type closing struct {
	ledger.Store
	close func()
}

func (c closing) Reservation(ctx context.Context, key common.Hash) (ledger.Reservation, error) {
	defer c.close()
	return c.Store.Reservation(ctx, key)
}

// A refund that has begun when its engine closes is not left to others: who is at it says when to look again.
func TestRefundThatHasBegunIsNotLeft(t *testing.T) {
	w := newRefundWorld(t)
	w.fund(1 << 20)
	p := w.held(1, "")
	w.pass(2 * time.Minute)
	w.instance(-1) // its block is safe
	w.pass(10 * time.Minute)
	p, err := w.store.Payment(t.Context(), p.ID)
	if err != nil || !p.Final {
		t.Fatalf("%+v, %v", p, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	e := idleEngine(closing{w.store, cancel}, Settings{
		Payees:  []*Payee{{Network: sepolia, PayTo: refundSeller, Settler: w.bank}},
		Refunds: &Refunds{Signer: func(context.Context) (refund.Signer, error) { return w.wallet, nil }},
	})
	if next := e.reconcileOne(ctx, p, nil); next != 0 || ctx.Err() == nil {
		t.Errorf("others look at it in %s", next)
	}
	e.background.Wait()
	if w.bank.transfers != 1 {
		t.Errorf("%d transfers", w.bank.transfers)
	}
}
