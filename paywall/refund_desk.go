package paywall

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/refund"
	"github.com/caddy-x402/caddy-x402/x402"
)

// RefundPlan says what would go back now. Nothing was signed or sent to find it out.
type RefundPlan struct {
	// Wallets are what refunds are paid from, one for each asset that is taken, or of which something is pending.
	Wallets []RefundWallet `json:"wallets"`
	// Refunds are those that are pending, newest first.
	Refunds []PlannedRefund `json:"refunds"`
	// More: there are more of them.
	More bool `json:"more"`
}

// RefundWallet is the refund wallet's account of one asset.
type RefundWallet struct {
	Network string         `json:"network"`
	Asset   common.Address `json:"asset"`
	// Wallet is its address; nil where refunds are not paid, or its key can't be opened now: see Problem.
	Wallet *common.Address `json:"wallet,omitempty"`
	// Balance is what it has, and Needed what of the listed refunds would be paid, in atomic units. Balance is empty where that can't be
	// asked for now.
	Balance string `json:"balance,omitempty"`
	Needed  string `json:"needed"`
	// The same in the asset's own units, where it is known, and the asset's symbol.
	BalanceDecimal string `json:"balance_decimal,omitempty"`
	NeededDecimal  string `json:"needed_decimal,omitempty"`
	Symbol         string `json:"symbol,omitempty"`
	Problem        string `json:"problem,omitempty"`
}

// PlannedRefund is a refund that is pending.
type PlannedRefund struct {
	Payment string         `json:"payment"`
	Payer   common.Address `json:"payer"`
	Network string         `json:"network"`
	Asset   common.Address `json:"asset"`
	Amount  string         `json:"amount"` // atomic units
	// AmountDecimal is Amount in the asset's own units, and Symbol the asset's; empty where it is not configured.
	AmountDecimal string `json:"amount_decimal,omitempty"`
	Symbol        string `json:"symbol,omitempty"`
	// Action is "pay", "wait", "fail" (for the operator to decide), or "sent": its transfer is on its way, or made and not safe yet.
	Action string `json:"action"`
	// Reason is why it is not "pay".
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"` // its settlement
	// Transaction is the one of what was sent.
	Transaction *common.Hash `json:"transaction,omitempty"`
}

// coin is an asset of a chain.
type coin struct {
	chainID uint64
	asset   common.Address
}

// PlanRefunds says what would go back, of the limit payments that wait for it and are the newest.
func (e *Engine) PlanRefunds(ctx context.Context, limit int) (RefundPlan, error) {
	list, err := e.store.List(ctx, ledger.Query{State: ledger.StateRefundPending, Limit: limit + 1})
	if err != nil {
		return RefundPlan{}, fmt.Errorf("listing refunds: %w", err)
	}
	plan := RefundPlan{Wallets: []RefundWallet{}, Refunds: []PlannedRefund{}}
	if len(list) > limit {
		list, plan.More = list[:limit], true
	}
	needed := make(map[coin]*uint256.Int)
	var kinds []coin
	if s := e.current(); s.Refunds != nil {
		for _, y := range s.Payees {
			kind := coin{y.Network.ChainID, y.Network.Asset.Address}
			if needed[kind] == nil {
				needed[kind] = new(uint256.Int)
				kinds = append(kinds, kind)
			}
		}
	}
	for i := range list {
		r, err := e.planRefund(ctx, &list[i])
		if err != nil {
			return RefundPlan{}, err
		}
		plan.Refunds = append(plan.Refunds, r)
		kind := coin{list[i].ChainID, list[i].Asset}
		if needed[kind] == nil {
			needed[kind] = new(uint256.Int)
			kinds = append(kinds, kind)
		}
		if r.Action == "pay" {
			needed[kind].Add(needed[kind], &list[i].Amount)
		}
	}
	for _, kind := range kinds {
		plan.Wallets = append(plan.Wallets, e.refundWallet(ctx, kind, needed[kind]))
	}
	return plan, nil
}

func (e *Engine) planRefund(ctx context.Context, p *ledger.Payment) (PlannedRefund, error) {
	out := PlannedRefund{
		Payment: p.ID, Payer: p.Payer, Network: networkID(p.ChainID), Asset: p.Asset, Amount: p.Amount.Dec(), Since: p.SettledAt, Action: "wait",
	}
	_, back, err := e.pinned(ctx, p)
	if err != nil {
		return out, err
	}
	s, y := e.current().Refunds, e.payee(p)
	if y != nil {
		out.Symbol, out.AmountDecimal = y.Network.Asset.Symbol, x402.FormatAmount(&p.Amount, y.Network.Asset.Decimals)
	}
	switch {
	case back != nil && (back.Settlement == ledger.Settling || back.Settlement == ledger.Settled):
		out.Action, out.Reason = "sent", string(back.Settlement)
		if back.Transaction != (common.Hash{}) {
			out.Transaction = &back.Transaction
		}
	case s == nil:
		out.Reason = "refunds_off"
	case y == nil:
		out.Reason = "network_not_configured"
	case !p.Final:
		out.Reason = "payment_not_safe"
	case e.store.Now().Sub(p.SettledAt) < s.MinAge:
		out.Reason = "too_young"
	case y.Refund.tooDear(p):
		out.Action, out.Reason = "fail", ReasonRefundTooDear
	case !y.Refund.PerDay.IsZero() && p.Amount.Gt(&y.Refund.PerDay):
		out.Action, out.Reason = "fail", reasonOverDay
	default:
		out.Action = "pay"
	}
	return out, nil
}

func (e *Engine) refundWallet(ctx context.Context, kind coin, needed *uint256.Int) RefundWallet {
	w := RefundWallet{Network: networkID(kind.chainID), Asset: kind.asset, Needed: needed.Dec()}
	s := e.current().Refunds
	y := e.payee(&ledger.Payment{AuthorizationID: x402.AuthorizationID{ChainID: kind.chainID, Asset: kind.asset}})
	if s == nil || y == nil {
		w.Problem = "refunds are not paid from here"
		return w
	}
	asset := &y.Network.Asset
	w.Symbol, w.NeededDecimal = asset.Symbol, x402.FormatAmount(needed, asset.Decimals)
	signer, err := s.Signer(ctx)
	if err != nil {
		w.Problem = "the refund wallet can't be opened: " + err.Error()
		return w
	}
	address := signer.Address()
	w.Wallet = &address
	balance, err := e.refundBalance(ctx, y, signer)
	switch {
	case err != nil:
		w.Problem = "its balance can't be asked for: " + err.Error()
	case balance != nil:
		w.Balance, w.BalanceDecimal = balance.Dec(), x402.FormatAmount(balance, asset.Decimals)
		if balance.Lt(needed) {
			w.Problem = "it has less than is needed"
		}
	}
	return w
}

// refundBalance is what the refund wallet has; nil: this settler can't tell.
func (e *Engine) refundBalance(ctx context.Context, y *Payee, wallet refund.Signer) (*uint256.Int, error) {
	b, ok := y.Settler.(settlement.Balancer)
	if !ok {
		return nil, nil
	}
	n, err := b.TokenBalance(ctx, wallet.Address())
	if err != nil {
		return nil, err
	}
	return &n, nil
}

// refundLoop tells what the refund wallet has, as often as refunds are looked after, until ctx ends.
func (e *Engine) refundLoop(ctx context.Context) {
	for {
		every := time.Minute
		if s := e.current().Refunds; s != nil {
			every = s.Interval
			e.tellBalances(ctx, s)
		}
		t := time.NewTimer(every)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

func (e *Engine) tellBalances(ctx context.Context, s *Refunds) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	wallet, err := s.Signer(ctx)
	if err != nil {
		if ctx.Err() == nil && e.refunds.speaks("signer", s.Interval) {
			e.current().Logger.Error("the refund wallet can't be opened; refunds wait", slog.Any("error", err))
		}
		return
	}
	for _, y := range e.current().Payees {
		if balance, err := e.refundBalance(ctx, y, wallet); err == nil && balance != nil {
			e.current().Observe(Observation{
				Event: "refund_balance", Network: y.Network.ID, Asset: y.Network.Asset.Symbol, Amount: *balance,
			})
		}
	}
}
