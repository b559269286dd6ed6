package management

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management/apikey"
)

const tagRefunds = "Refunds"

func (a *API) addRefunds() {
	add(a, operation{
		rule: rule{id: "listRefunds", method: http.MethodGet, scope: apikey.PaymentsRead}, path: "/v1/refunds", tag: tagRefunds,
		summary:     "Lists the payments that go back, newest first",
		description: "Those whose refund has failed if nothing is said: each is for somebody to decide. A page may be short, as with payments.",
	}, listRefunds)
	add(a, operation{
		rule: rule{id: "planRefunds", method: http.MethodGet, scope: apikey.PaymentsRead}, path: "/v1/refunds/plan", tag: tagRefunds,
		summary: "Says what would be paid back now, and whether the refund wallet has enough",
	}, planRefunds)
	add(a, operation{
		rule: rule{id: "retryRefund", method: http.MethodPost, scope: apikey.PaymentsWrite}, path: "/v1/refunds/{id}/retry", tag: tagRefunds,
		status: http.StatusAccepted, summary: "Lets a refund that has failed be tried again",
		description: "It goes on with the transfer that was begun, so nothing is paid twice. The id is the payment's.",
	}, retryRefund)
}

// RefundPlan says what would go back now. Nothing was signed or sent to find it out.
type RefundPlan struct {
	Wallets []RefundWallet  `json:"wallets"`
	Refunds []PlannedRefund `json:"refunds" doc:"Those that are pending, newest first"`
	More    bool            `json:"more" doc:"There are more of them"`
}

// RefundWallet is the refund wallet's account of one asset.
type RefundWallet struct {
	Network string `json:"network"`
	Asset   string `json:"asset"`
	Wallet  string `json:"wallet,omitempty" doc:"Its address; none where refunds are off, or its key can't be opened now"`
	Balance string `json:"balance,omitempty" doc:"In atomic units; none where it can't be asked for"`
	Needed  string `json:"needed" doc:"What of the listed refunds would be paid, in atomic units"`
	Problem string `json:"problem,omitempty"`
}

// PlannedRefund is a refund that is pending.
type PlannedRefund struct {
	Payment     string    `json:"payment"`
	Payer       string    `json:"payer"`
	Network     string    `json:"network"`
	Asset       string    `json:"asset"`
	Amount      string    `json:"amount" doc:"In atomic units"`
	Action      string    `json:"action" enum:"pay,wait,fail,sent"`
	Reason      string    `json:"reason,omitempty" doc:"Why it is not pay"`
	Since       time.Time `json:"since" doc:"When it was settled"`
	Transaction string    `json:"transaction,omitempty" doc:"Of what was sent"`
}

type refundsInput struct {
	Status string `query:"status" enum:"failed,pending,refunded" default:"failed"`
	PageInput
}

func listRefunds(ctx context.Context, x *exchange, in *refundsInput) (*paymentsOutput, error) {
	states := map[string]ledger.State{
		"failed": ledger.StateRefundFailed, "pending": ledger.StateRefundPending, "refunded": ledger.StateRefunded,
	}
	return listPayments(ctx, x, &paymentsInput{SelectInput{State: string(states[in.Status])}, in.PageInput})
}

type planInput struct {
	Limit int `query:"limit" minimum:"1" maximum:"100" default:"100"`
}

type planOutput struct{ Body RefundPlan }

func planRefunds(ctx context.Context, x *exchange, in *planInput) (*planOutput, error) {
	plan, err := x.shop.PlanRefunds(ctx, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &planOutput{RefundPlan{Wallets: []RefundWallet{}, Refunds: []PlannedRefund{}, More: plan.More}}
	for _, w := range plan.Wallets {
		if x.about(w.Network) {
			out.Body.Wallets = append(out.Body.Wallets, w)
		}
	}
	for _, r := range plan.Refunds {
		if x.about(r.Network) {
			out.Body.Refunds = append(out.Body.Refunds, r)
		}
	}
	return out, nil
}

func retryRefund(ctx context.Context, x *exchange, in *paymentInput) (*paymentOutput, error) {
	return x.view(x.shop.retryRefund(ctx, in.ID, x.network, x.actor()))
}

// RetryRefund lets a refund that has failed be tried again; of a payment in quarantine, that it be paid back at all.
func (s *Shop) RetryRefund(ctx context.Context, id, actor string) (ledger.Payment, error) {
	return s.retryRefund(ctx, id, "", actor)
}

func (s *Shop) retryRefund(ctx context.Context, id, network, actor string) (ledger.Payment, error) {
	return s.change(ctx, id, network, actor, func(p *ledger.Payment) (ledger.Change, error) {
		if p.Refund != ledger.RefundFailed {
			return ledger.Change{}, told(http.StatusConflict, CodeNotFailed,
				fmt.Sprintf("the payment is %s; only a refund that is %s can be tried again", p.State(), ledger.StateRefundFailed), nil)
		}
		return ledger.Change{Event: ledger.EventRefundRetry}, nil
	})
}
