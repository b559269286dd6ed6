package paywall

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

// lostDebt is a debt whose authorization can't be executed any more.
func (c *cluster) lostDebt(n int, change ...func(*ledger.Payment)) ledger.Payment {
	c.t.Helper()
	p := c.debt(n, change...)
	p, err := c.instances[0].store.Update(c.t.Context(), p.ID, p.Version,
		ledger.Change{Event: ledger.EventFail, Actor: actorReconciler, Reason: "why"}, ledger.Change{Event: ledger.EventFinal, Actor: actorReconciler})
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// madeGood checks that an answer says so, and that it is so.
func (c *cluster) madeGood(what string, a reply, debt string) {
	c.t.Helper()
	if a.status != http.StatusOK || !strings.Contains(a.body, debt) || a.header.Get(headerResponse) == "" {
		c.t.Errorf("%s: %d %v %s", what, a.status, a.header, a.body)
	}
	if p := c.payment(debt); p.Owes() || p.State() != ledger.StateDelivered {
		c.t.Errorf("%s: the debt is %s", what, p.State())
	}
}

// A debt can be paid for what it is, whatever things cost by now, and wherever payments go by now.
func TestDebtOfAnotherTime(t *testing.T) {
	c := newFlowCluster(t, ledger.FlowDeferred, 1, Settings{ReconcileEvery: time.Hour}, nil)
	dear := uint256.NewInt(3 * cent)
	p := c.lostDebt(1, func(p *ledger.Payment) { p.PayTo, p.Amount = common.Address{9}, *dear })
	for amount, reason := range map[uint64]string{cent: "payment_owed", 2 * cent: "invalid_exact_evm_payload_authorization_value"} {
		a := c.ask(0, http.MethodGet, "/x", "", headerSignature, c.signFor(0, 1, "", uint256.NewInt(amount)), headerOwed, p.ID)
		if a.status != http.StatusPaymentRequired || !strings.Contains(a.body, reason) {
			t.Errorf("%d: %d %s", amount, a.status, a.body)
		}
	}
	if a := c.ask(0, http.MethodGet, "/x", "", headerSignature, c.signFor(0, 2, "", dear), headerOwed, p.ID); a.status != http.StatusPaymentRequired {
		t.Errorf("another's debt: %d %s", a.status, a.body)
	}
	c.saw(0, 0)
	c.madeGood("the debt itself", c.ask(0, http.MethodGet, "/x", "", headerSignature, c.signFor(0, 1, "", dear), headerOwed, p.ID), p.ID)
	c.saw(0, 3*cent)
}

// A repayment whose outcome was unknown for a while makes good all the same, whether its payer sends it again or signs anew; it is
// charged once.
func TestRepaymentResumes(t *testing.T) {
	for name, anew := range map[string]bool{"the same again": false, "signed anew": true} {
		t.Run(name, func(t *testing.T) {
			c := newFlowCluster(t, ledger.FlowDeferred, 1, Settings{SettleTimeout: time.Second, ReconcileEvery: 50 * time.Millisecond}, nil)
			p := c.lostDebt(1)
			header := c.sign(0, 1, "")
			ask := func() reply { return c.ask(0, http.MethodPost, "/x", "", headerSignature, header, headerOwed, p.ID) }
			c.chain.Stall()
			var id string
			for sent := false; !sent; { // on a busy machine that may take longer than one request waits
				a := ask()
				if !isProblem(a, http.StatusServiceUnavailable, codePending) {
					t.Fatalf("stalled: %d %s", a.status, a.body)
				}
				id = a.header.Get(headerPaymentID)
				sent = c.payment(id).Settlement == ledger.Settling
			}
			c.chain.Resume()
			waitUntil(t, "the settlement", func() bool { return c.payment(id).Settlement == ledger.Settled })
			if anew {
				header = c.sign(0, 1, "")
			}
			c.madeGood(name, ask(), p.ID)
			if got := c.payment(p.ID).ServedBy; got != id {
				t.Errorf("it was made good by %q, want %q", got, id)
			}
			c.saw(0, cent)
			if a := ask(); anew && a.status != http.StatusPaymentRequired || !anew && a.status != http.StatusOK {
				t.Errorf("once more: %d %s", a.status, a.body)
			}
			c.saw(0, cent)
		})
	}
}

// A repayment whose request died before anything was sent is in nobody's way.
func TestRepaymentThatWasNeverSent(t *testing.T) {
	c := newFlowCluster(t, ledger.FlowDeferred, 1, Settings{ReconcileEvery: time.Hour}, nil)
	p := c.lostDebt(1)
	dead := c.claimed(t, 1, "")
	if _, err := c.instances[0].store.Reserve(t.Context(), ledger.Reservation{Key: digest("repaid", p.ID), Payment: dead.ID}, "", time.Hour); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the end of its hold", func() bool { return !dead.Held(c.instances[0].store.Now()) })
	c.madeGood("the next one", c.ask(0, http.MethodGet, "/x", "", headerSignature, c.sign(0, 1, ""), headerOwed, p.ID), p.ID)
	if got := c.payment(dead.ID); got.Settlement != ledger.Void {
		t.Errorf("the first one is %s", got.Settlement)
	}
	c.saw(0, cent)
}

// Who owes is told what, and what to do.
func TestWhoOwesIsTold(t *testing.T) {
	c := newFlowCluster(t, ledger.FlowDeferred, 1, Settings{ReconcileEvery: time.Hour}, nil)
	p := c.lostDebt(1)
	a := c.ask(0, http.MethodGet, "/x", "", headerSignature, c.sign(0, 1, ""))
	var r x402.SettlementResponse
	if err := x402.DecodeHeader(a.header.Get(headerResponse), 1<<16, &r); err != nil {
		t.Fatalf("%v: %d %v %s", err, a.status, a.header, a.body)
	}
	if a.status != http.StatusPaymentRequired || a.header.Get(headerPaymentID) != p.ID || a.header.Get(headerPaymentStatus) != statusOwed ||
		r.Success || r.ErrorReason != ReasonOwed || !strings.Contains(r.ErrorMessage, headerOwed+": "+p.ID) || !strings.Contains(r.ErrorMessage, "10000") {
		t.Errorf("%d %v %+v", a.status, a.header, r)
	}
	c.saw(0, 0)
}
