package doctor

import (
	"context"
	"slices"
	"time"

	"github.com/caddy-x402/caddy-x402/x402"
)

func refundItems() []Item {
	return []Item{
		{
			ID: "refund.on", Title: "What can't be delivered is paid back by itself",
			Why: "Without refunds, whoever paid for an answer that never came must ask for the money.",
			Do:  "Write `refund {env.REFUND_WALLET_PRIVATE_KEY}`, or take `flow authorization`, which charges what was delivered alone.",
			look: func(_ context.Context, s *Subject) Verdict {
				upfront := slices.ContainsFunc(s.Handlers, func(h Handler) bool { return h.Upfront })
				switch {
				case s.Refunds.On:
					return good("they are on, every %s", s.Refunds.Interval)
				case len(s.Handlers) > 0 && !upfront:
					return good("nothing is charged before it is delivered")
				}
				return bad("refunds are off")
			},
		},
		{
			ID: "refund.min_age", Title: "min_age leaves time to deliver, and does not keep payers waiting",
			Why:  "A payment that goes back while it is still being delivered is paid by you; one that goes back after a day has lost you the payer.",
			Do:   "Set `min_age` above settle_timeout and above the time that issuers take with all their tries; 5m does for most.",
			look: lookMinAge,
		},
		{
			ID: "refund.wallet", Title: "The refund wallet has what may have to go back", Depth: Live,
			Why:  "An empty wallet pays nobody back: payments stay REFUND_PENDING until somebody fills it.",
			Do:   "Send it as much of the asset as may have to go back in a day, and the dearest price at least. It needs no ether: the gas wallets send its transfers.",
			look: lookRefundWallet,
		},
		{
			ID: "refund.states", Title: "No refund has failed, and none piles up", Depth: Live,
			Why:  "REFUND_FAILED goes on by no means but yours; many REFUND_PENDING say that deliveries or refunds fail.",
			Do:   "`caddy x402 payments list --state REFUND_FAILED` shows them, `caddy x402 refunds retry ID` begins one again. See refunds.md.",
			look: lookStates,
		},
	}
}

const (
	leastMinAge = time.Minute
	mostMinAge  = 24 * time.Hour
)

func lookMinAge(_ context.Context, s *Subject) Verdict {
	age := s.Refunds.MinAge
	switch {
	case age < leastMinAge:
		return bad("min_age is %s, less than %s", age, leastMinAge)
	case age <= s.SettleTimeout:
		return bad("min_age is %s, and a request may wait %s for its settlement", age, s.SettleTimeout)
	case age <= s.Issuers:
		return bad("min_age is %s, and an issuer may take %s", age, s.Issuers)
	case age > mostMinAge:
		return bad("min_age is %s, more than a day", age)
	}
	return good("%s", age)
}

func lookRefundWallet(ctx context.Context, s *Subject) Verdict {
	switch {
	case !s.Refunds.On:
		return skip("refunds are off")
	case !s.Refunds.Known:
		return warn("its address is not known here: its key is kept elsewhere")
	}
	w := s.Refunds.Wallet
	for i := range s.Networks {
		n := &s.Networks[i]
		have, err := s.Live.Chains[n.ID].Balance(ctx, w)
		if err != nil {
			return bad("%s on %s: %v", w, n.ID, err)
		}
		if have.IsZero() || have.Lt(&n.Dearest) {
			return bad("%s on %s has %s %s, less than the dearest price, %s", w, n.ID, x402.FormatAmount(&have, n.Asset.Decimals), n.Asset.Symbol,
				x402.FormatAmount(&n.Dearest, n.Asset.Decimals))
		}
	}
	return good("it has as much as the dearest price on every network")
}

// mostPending is how many refunds may wait without anybody looking. The alert X402RefundsPilingUp takes fewer: it sees whether they become fewer.
const mostPending = 50

func lookStates(ctx context.Context, s *Subject) Verdict {
	if s.Live.Instance == nil {
		return bad("no Caddy answers at the admin endpoint")
	}
	states, err := s.Live.Instance.States(ctx)
	switch {
	case err != nil:
		return bad("%v", err)
	case states["REFUND_FAILED"] > 0:
		return bad("payments that are REFUND_FAILED: %d", states["REFUND_FAILED"])
	case states["REFUND_PENDING"] > mostPending:
		return bad("payments that are REFUND_PENDING: %d", states["REFUND_PENDING"])
	}
	return good("REFUND_FAILED: 0, REFUND_PENDING: %d", states["REFUND_PENDING"])
}
