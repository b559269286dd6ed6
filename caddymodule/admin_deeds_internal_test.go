package caddymodule

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
	"github.com/caddy-x402/caddy-x402/management"
)

// What is changed without the management API, by a command on a ledger or by the admin endpoint's older paths, is in the operators' audit, too.
func TestEveryChangeIsAudited(t *testing.T) {
	store := storetest.NewMemory(func() time.Time { return time.Unix(1_800_000_000, 0).UTC() }, false)
	d := &desk{store: store}
	const nobody = "pay_aaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	for operation, do := range map[string]func(context.Context, string) error{
		"settlePayment": func(ctx context.Context, id string) error { _, err := d.settle(ctx, id); return err },
		"refundPayment": func(ctx context.Context, id string) error { _, err := d.refund(ctx, id); return err },
		"retryRefund":   func(ctx context.Context, id string) error { _, err := d.retry(ctx, id); return err },
		"revokeToken":   func(ctx context.Context, id string) error { _, err := d.revoke(ctx, id); return err },
	} {
		if err := do(t.Context(), nobody); asOperatorError(err).Code != codeNoPayment {
			t.Errorf("%s: %v", operation, err)
		}
		list, err := store.Objects(t.Context(), "operator_audit", "", "", 100)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(list, func(o ledger.Object) bool {
			var deed management.Deed
			err := json.Unmarshal(o.Body, &deed)
			return err == nil && deed.Operation == operation && deed.Actor == "admin" && deed.Target == nobody && deed.Outcome == management.CodePaymentNotFound && deed.RequestID != ""
		}) {
			t.Errorf("%s is not in the audit", operation)
		}
	}
}
