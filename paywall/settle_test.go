package paywall

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// hasty says that a transfer failed, while another process finds it settled.
type hasty struct {
	settlement.Settler
	meanwhile func()
}

func (h hasty) Settle(context.Context, settlement.Intent) settlement.Outcome {
	h.meanwhile()
	return settlement.Outcome{Status: settlement.Failed, Reason: x402.ReasonTransactionFailed}
}

// Where the ledger knows that the money is there, nobody is told that nothing was charged: the request is served, or, if
// somebody else has taken the payment, put off.
func TestFailureThatTheLedgerKnowsBetter(t *testing.T) {
	for name, taken := range map[string]bool{"still held": false, "taken by another": true} {
		t.Run(name, func(t *testing.T) {
			c := newCounter(t)
			id, err := ledger.NewID(randomness, common.Address{1})
			if err != nil {
				t.Fatal(err)
			}
			p, err := c.store.Claim(t.Context(), ledger.Payment{
				ID: id, AuthorizationID: x402.AuthorizationID{ChainID: 84532, Payer: common.Address{1}, Nonce: common.Hash{1}},
				Flow: ledger.FlowUpfront, Binding: ledger.Binding{Route: "r", Method: http.MethodGet, Host: "h", URI: "/"},
			}, ledger.Change{Event: ledger.EventClaim, Actor: actorRequest, Hold: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			settler := hasty{meanwhile: func() {
				changes := []ledger.Change{{Event: ledger.EventSettle, Actor: actorReconciler, Transaction: common.Hash{7}}}
				if taken {
					changes = append(changes, ledger.Change{Event: ledger.EventRelease, Actor: actorRequest, Fence: p.Hold.Fence},
						ledger.Change{Event: ledger.EventTake, Actor: actorRequest, Hold: time.Minute})
				}
				if _, err := c.store.Update(context.Background(), p.ID, p.Version, changes...); err != nil {
					t.Error(err)
				}
			}}
			w := httptest.NewRecorder()
			a := c.attempt(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody),
				answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("served")) }))
			a.payload, a.payee = &x402.Payload{}, &Payee{Settler: settler}

			err = a.settle(p)
			if !taken {
				if err != nil || w.Code != http.StatusOK || w.Body.String() != "served" {
					t.Errorf("%v, %d %s", err, w.Code, w.Body)
				}
				c.is(p.ID, ledger.Delivered, ledger.NotRefunded, "")
				return
			}
			if r, ok := errors.AsType[*refusal](err); !ok || r.status != http.StatusServiceUnavailable {
				t.Errorf("%v", err)
			}
			c.is(p.ID, ledger.NotDelivered, ledger.NotRefunded, "")
		})
	}
}
