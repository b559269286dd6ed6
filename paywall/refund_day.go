package paywall

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// spend takes the payment's amount from what may go back today, if that is bounded. What was taken and then not paid, since a process
// died, is lost to that day.
func (r *returning) spend(ctx context.Context) (ok bool, err error) {
	most := &r.y.Refund.PerDay
	if most.IsZero() {
		return true, nil
	}
	day := r.e.store.Now().UTC().Format(time.DateOnly)
	key := digest("refunds", r.y.Network.ID, r.y.Network.Asset.Address.Hex(), day)
	for range 20 {
		had, err := r.e.store.Reservation(ctx, key)
		if err != nil && !errors.Is(err, ledger.ErrNotFound) {
			return false, fmt.Errorf("reading what was paid back today: %w", err)
		}
		spent, err := parseSpent(had.Payment)
		if err != nil {
			return false, err
		}
		if _, over := spent.AddOverflow(&spent, &r.p.Amount); over || spent.Gt(most) {
			r.waits("day_limit", fmt.Errorf("%s atomic units may go back in a day, and that is reached", most.Dec()))
			return false, nil
		}
		_, err = r.e.store.Reserve(ctx, ledger.Reservation{Key: key, Payment: spentPrefix + spent.Dec()}, had.Payment, 48*time.Hour)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, ledger.ErrExists) {
			return false, fmt.Errorf("writing what is paid back today: %w", err)
		}
	}
	return false, errGivenUp
}

// spentPrefix begins what stands in the place of a payment's id where a reservation counts what was paid back.
const spentPrefix = "spent_"

func parseSpent(s string) (n uint256.Int, err error) {
	if s == "" {
		return n, nil
	}
	digits, ok := strings.CutPrefix(s, spentPrefix)
	if !ok {
		return n, fmt.Errorf("paywall: %q does not say what was paid back", s)
	}
	if err := n.SetFromDecimal(digits); err != nil {
		return n, fmt.Errorf("paywall: %q does not say what was paid back: %w", s, err)
	}
	return n, nil
}
