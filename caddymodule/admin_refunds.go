package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/caddy-x402/caddy-x402/ledger"
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
func (d *desk) retry(ctx context.Context, id string) (operatorPayment, error) {
	update := d.store.Update
	if d.engine != nil {
		update = d.engine.Update
	}
	for range 10 {
		p, err := d.store.Payment(ctx, id)
		if err != nil {
			return operatorPayment{}, err
		}
		if p.Refund != ledger.RefundFailed {
			return operatorPayment{}, &operatorError{
				http.StatusConflict, codeNotFailed, fmt.Sprintf("the payment is %s; only a refund that is %s can be tried again", p.State(), ledger.StateRefundFailed), nil,
			}
		}
		p, err = update(ctx, id, p.Version, ledger.Change{Event: ledger.EventRefundRetry, Actor: actorOperator})
		if errors.Is(err, ledger.ErrConflict) || errors.Is(err, ledger.ErrTransition) {
			continue
		}
		if err != nil {
			return operatorPayment{}, err
		}
		return newOperatorPayment(&p, d.networks), nil
	}
	return operatorPayment{}, &operatorError{http.StatusServiceUnavailable, codeUnavailable, "the payment keeps changing; try again", nil}
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
	p, err := d.retry(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, r, http.StatusOK, p)
}

func (c *adminClient) plan(ctx context.Context, limit int) (paywall.RefundPlan, error) {
	return ask[paywall.RefundPlan](ctx, c, adminRefundPlan, url.Values{"limit": {strconv.Itoa(limit)}})
}

func (c *adminClient) retry(ctx context.Context, id string) (operatorPayment, error) {
	return tell[operatorPayment](ctx, c, strings.Replace(adminRefundRetry, "{id}", url.PathEscape(id), 1), struct{}{})
}
