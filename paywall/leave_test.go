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
