package paywall

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// surveyor is a settler that only looks for what was lost, as survey says; what it finds is settled for good.
type surveyor struct {
	survey func(context.Context, settlement.Survey) (settlement.Surveyed, error)
}

var _ settlement.Settler = (*surveyor)(nil)

func (*surveyor) Check(context.Context, settlement.Intent) (uint64, error) {
	return 0, settlement.ErrUnavailable
}

func (*surveyor) Settle(context.Context, settlement.Intent) settlement.Outcome {
	return settlement.Outcome{}
}

func (*surveyor) Resolve(_ context.Context, in settlement.Intent) settlement.Outcome {
	return settlement.Outcome{
		Status: settlement.Settled, Transaction: common.Hash{8}, Block: 101, BlockHash: common.Hash{in.Authorization.Nonce[31]}, Final: true,
	}
}

func (*surveyor) Ready(context.Context) error { return nil }

func (s *surveyor) Survey(ctx context.Context, q settlement.Survey) (settlement.Surveyed, error) {
	return s.survey(ctx, q)
}

var sepolia, _ = x402.LookupNetwork("base-sepolia")

// lostLedger is an empty ledger, and a payee whose settler surveys.
func lostLedger(t *testing.T, survey func(context.Context, settlement.Survey) (settlement.Surveyed, error)) (ledger.Store, *Payee) {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store, &Payee{Network: sepolia, PayTo: common.Address{4}, Settler: &surveyor{survey}}
}

func startEngine(t *testing.T, store ledger.Store, s Settings) *Engine {
	t.Helper()
	e := NewEngine(store, s)
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// Two instances find the same lost payments at the same time, and neither knows them when it looks: each payment is imported
// once, told once, and stays where it is: it is made final, and neither served nor refunded.
func TestQuarantineByTwoEngines(t *testing.T) {
	const finds = 20
	var looked sync.WaitGroup
	looked.Add(2)
	var ends atomic.Int32
	find := func(n int) settlement.Find {
		a := x402.Authorization{From: common.Address{byte(n)}, To: common.Address{4}, Nonce: common.Hash{31: byte(n)}}
		a.Value.SetUint64(10_000)
		a.ValidBefore = *uint256.MustFromHex("0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff")
		return settlement.Find{Authorization: a, Transaction: common.Hash{7}, Block: 100, BlockHash: common.Hash{9}}
	}
	store, payee := lostLedger(t, func(ctx context.Context, q settlement.Survey) (settlement.Surveyed, error) {
		if q.Back == 0 {
			return settlement.Surveyed{}, nil
		}
		defer ends.Add(1)
		for n := range finds {
			f := find(n)
			if known, err := q.Known(ctx, f.Authorization.ID(84532, sepolia.Asset.Address)); known || err != nil {
				t.Errorf("known before it was imported (%t), %v", known, err)
			}
		}
		looked.Done()
		looked.Wait() // none of the two has imported anything yet
		for n := range finds {
			if err := q.Found(ctx, find(n)); err != nil {
				t.Error(err)
			}
		}
		return settlement.Surveyed{To: 1, Payments: finds, Found: finds}, nil
	})
	var told, heard atomic.Int32
	s := Settings{Payees: []*Payee{payee}, ReconcileEvery: 5 * time.Millisecond, CollectWithin: time.Nanosecond, Observe: func(o Observation) {
		if o.Event == "quarantine" {
			told.Add(1)
		}
	}, Happened: func(f Fact) {
		if f.Kind == FactRefundFailed && f.Reason == ledger.ReasonQuarantine {
			heard.Add(1)
		}
	}}
	startEngine(t, store, s)
	startEngine(t, store, s)
	eventually(t, func() bool { return ends.Load() == 2 })
	for n := range finds {
		var p ledger.Payment
		eventually(t, func() bool {
			var err error
			a := find(n).Authorization
			p, err = store.ByAuthorization(t.Context(), a.ID(84532, sepolia.Asset.Address))
			return err == nil && p.Final
		})
		trail, err := store.Audit(t.Context(), p.ID)
		if err == nil {
			err = ledger.VerifyAudit(&p, trail)
		}
		if err != nil || len(trail) != 2 || trail[0].Event != ledger.EventImport || trail[1].Event != ledger.EventFinal {
			t.Errorf("its trail: %+v, %v", trail, err)
		}
		if p.State() != ledger.StateRefundFailed || p.Open() || p.Unserved() || p.Reason != ledger.ReasonQuarantine || p.ClaimBlock >= 100 ||
			p.ValidBefore != 1<<63-1 {
			t.Errorf("it is %+v", p)
		}
	}
	if told.Load() != finds || heard.Load() != finds {
		t.Errorf("%d imports were told of, and %d to subscribers, want %d", told.Load(), heard.Load(), finds)
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	waitUntil(t, "what was waited for", ok)
}

// An engine looks back when it starts, until that has worked, then only with a reason: somebody asks, or a payment that was
// there is not there any more.
func TestWhenEnginesLookBack(t *testing.T) {
	asked := make(chan time.Duration)
	answer := make(chan error)
	store, payee := lostLedger(t, func(ctx context.Context, q settlement.Survey) (settlement.Surveyed, error) {
		select {
		case asked <- q.Back:
			return settlement.Surveyed{}, <-answer
		case <-ctx.Done():
			return settlement.Surveyed{}, ctx.Err()
		}
	})
	e := startEngine(t, store, Settings{Payees: []*Payee{payee}, ReconcileEvery: time.Millisecond})
	expect := func(want time.Duration, what string, result error) {
		t.Helper()
		if got := <-asked; got != want {
			t.Errorf("%s: it looks %s back, want %s", what, got, want)
		}
		answer <- result
	}
	expect(time.Hour, "at the start", settlement.ErrUnavailable)
	expect(time.Hour, "after a failure", nil)
	expect(0, "afterwards", nil)
	<-asked
	e.LookBack(48 * time.Hour)
	answer <- nil
	expect(48*time.Hour, "when it is asked", nil)
	expect(0, "afterwards", nil)
	<-asked
	_, err := e.update(t.Context(), ledger.Payment{ID: "pay_aagone"}, func(ledger.Payment) []ledger.Change {
		return []ledger.Change{{Event: ledger.EventVoid}}
	})
	if !errors.Is(err, ledger.ErrNotFound) {
		t.Fatal(err)
	}
	answer <- nil
	expect(time.Hour, "when a payment is missing", nil)
	expect(0, "afterwards", nil)
	other := *payee
	other.PayTo = common.Address{5}
	<-asked
	e.Configure(Settings{Payees: []*Payee{&other}, ReconcileEvery: time.Millisecond})
	answer <- nil
	expect(time.Hour, "for another payee", nil)
}
