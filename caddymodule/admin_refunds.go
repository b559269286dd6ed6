package caddymodule

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/paywall"
)

// Paths on Caddy's admin endpoint.
const (
	adminRefundPlan  = "/x402/refunds/plan"
	adminRefundRetry = "/x402/refunds/{id}/retry"
)

// The codes of what can go wrong with refunds.
const (
	codeNotFailed = "refund_not_failed"
	codeNoEngine  = "caddy_not_running"
)

// actorOperator makes the changes that a person asked for.
const actorOperator = "operator"

// plan says what would go back now.
func (d *desk) plan(ctx context.Context, limit int) (paywall.RefundPlan, error) {
	if d.engine == nil {
		return paywall.RefundPlan{}, &operatorError{
			http.StatusConflict, codeNoEngine, "what would be paid back is known to the running Caddy alone; leave out --store, or start it", nil,
		}
	}
	return d.engine.PlanRefunds(ctx, limit)
}

// retry lets a refund that has failed be tried again; of a payment in quarantine, that it be paid back at all.
func (d *desk) retry(ctx context.Context, id string) (paymentChange, error) {
	return changedTo(d.retryRefund(ctx, id))
}

func (d *desk) retryRefund(ctx context.Context, id string) (ledger.Payment, error) {
	return audited(ctx, d, deedRetry, id, func(s *management.Shop) (ledger.Payment, error) { return s.RetryRefund(ctx, id, actorOperator) })
}

func serveRefundPlan(w http.ResponseWriter, r *http.Request, d *desk) error {
	v := r.URL.Query()
	if err := onlyParameters(v, "limit"); err != nil {
		return err
	}
	limit, err := parseLimit(v, maxPage)
	if err != nil {
		return err
	}
	plan, err := d.plan(r.Context(), limit)
	if err != nil {
		return err
	}
	return writeJSON(w, r, http.StatusOK, plan)
}

func serveRefundRetry(w http.ResponseWriter, r *http.Request, d *desk) error {
	if _, err := readJSON[struct{}](r); err != nil {
		return err
	}
	p, err := d.retryRefund(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, r, http.StatusOK, newOperatorPayment(&p, d.networks))
}

func (c *adminClient) plan(ctx context.Context, limit int) (paywall.RefundPlan, error) {
	return ask[paywall.RefundPlan](ctx, c, adminRefundPlan, url.Values{"limit": {strconv.Itoa(limit)}})
}
