package caddymodule

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// shop is what the management API looks after: the ledger of this configuration, which is held open until the second result is called.
func (a *App) shop(context.Context) (*management.Shop, func(), error) {
	e, release, err := a.acquire()
	if err != nil {
		return nil, nil, err
	}
	s := &management.Shop{
		Store: e.Store(), Networks: networksOf(a.payees), Plans: a.plansForShow(), Settings: a.settingsForShow(), Revoke: e.Revoke, Update: e.Update,
	}
	s.PlanRefunds = func(ctx context.Context, limit int) (management.RefundPlan, error) {
		plan, err := e.PlanRefunds(ctx, limit)
		return refundPlan(&plan), err
	}
	s.Webhooks, s.TokenKeys = a.engine.value.hooks.service.Load(), shopKeys{a.keyDesk()}
	s.Forgets = forgetsAfter(s.Settings.Store, a.Retention)
	s.Wallets = func(ctx context.Context) ([]management.Wallet, error) { return a.wallets(ctx, e.Store()) }
	told := &factOutbox{feed: paywall.Feed{Store: e.Store(), Lag: feedLag}}
	told.know(a.payees)
	s.Events = told
	return s, release, nil
}

// feedLag is how far back those who listen to events look each time for what came in late. They are people, and miss what is later; webhooks do not.
const feedLag = 5 * time.Second

func refundPlan(plan *paywall.RefundPlan) management.RefundPlan {
	out := management.RefundPlan{More: plan.More}
	for i := range plan.Wallets {
		w := &plan.Wallets[i]
		shown := management.RefundWallet{Network: w.Network, Asset: w.Asset.Hex(), Balance: w.Balance, Needed: w.Needed, Problem: w.Problem}
		if w.Wallet != nil {
			shown.Wallet = w.Wallet.Hex()
		}
		out.Wallets = append(out.Wallets, shown)
	}
	for i := range plan.Refunds {
		r := &plan.Refunds[i]
		shown := management.PlannedRefund{
			Payment: r.Payment, Payer: r.Payer.Hex(), Network: r.Network, Asset: r.Asset.Hex(), Amount: r.Amount, Action: r.Action, Reason: r.Reason, Since: r.Since,
		}
		if r.Transaction != nil {
			shown.Transaction = r.Transaction.Hex()
		}
		out.Refunds = append(out.Refunds, shown)
	}
	return out
}

// plansForShow are the plans that are sold, by the names of their sets of routes and their own.
func (a *App) plansForShow() []management.Plan {
	out := make([]management.Plan, 0, len(a.sold))
	for key, p := range a.sold {
		plan := management.Plan{
			Name: p.Name, Routes: key[0], Description: p.Description, TTLSeconds: int64(p.TTL.Seconds()), Requests: p.Requests, Free: p.Free, Issuer: p.Granter != nil,
		}
		for i := range p.Prices {
			n := &p.Prices[i].Payee.Network
			plan.Prices = append(plan.Prices, management.PlanPrice{
				Network: n.ID, Symbol: n.Asset.Symbol, Amount: p.Prices[i].Amount.Dec(), Decimal: x402.FormatAmount(&p.Prices[i].Amount, n.Asset.Decimals),
			})
		}
		out = append(out, plan)
	}
	slices.SortFunc(out, func(x, y management.Plan) int {
		return cmp.Or(cmp.Compare(x.Routes, y.Routes), cmp.Compare(x.Name, y.Name))
	})
	return out
}

// settingsForShow are those settings that open nothing.
func (a *App) settingsForShow() management.Settings {
	seconds := func(d caddy.Duration) int64 { return int64(time.Duration(d).Seconds()) }
	s := management.Settings{
		PublicURL: a.PublicURL, MaxTimeoutSeconds: seconds(a.MaxTimeout), SettleTimeoutSeconds: seconds(a.SettleTimeout), MinAgeSeconds: seconds(a.MinAge),
		MaxStaleSeconds: seconds(a.MaxStale), RetentionSeconds: seconds(a.Retention), Refunds: management.RefundSettings{On: a.refundWallet != nil},
		Store: moduleName(a.store),
	}
	if r := a.Refunds; r != nil && a.refundWallet != nil {
		s.Refunds.IntervalSeconds, s.Refunds.MinAgeSeconds = seconds(r.Interval), seconds(r.MinAge)
		s.Refunds.Batch, s.Refunds.MaxPayment, s.Refunds.MaxDay = r.Batch, r.MaxPayment, r.MaxDay
	}
	for i, y := range a.payees {
		s.Networks = append(s.Networks, management.NetworkSettings{
			Network: y.Network.ID, Livemode: !y.Network.Testnet, Asset: y.Network.Asset.Address.Hex(), Symbol: y.Network.Asset.Symbol,
			Decimals: y.Network.Asset.Decimals, PayTo: y.PayTo.Hex(), Settler: moduleName(a.Networks[i].settler),
		})
	}
	return s
}

// wallets are those of the operator on every network. What can't be asked for is told of, and the rest shown.
func (a *App) wallets(ctx context.Context, store ledger.Store) ([]management.Wallet, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var out []management.Wallet
	for _, y := range a.payees {
		gas, err := gasWallets(ctx, store, y)
		if err != nil {
			return nil, err
		}
		out = append(append(out, gas...), a.tokenWallets(ctx, y)...)
	}
	return out, nil
}

func gasWallets(ctx context.Context, store ledger.Store, y *paywall.Payee) (out []management.Wallet, err error) {
	teller, ok := y.Settler.(WalletTeller)
	if !ok {
		return nil, nil
	}
	for _, g := range teller.WalletStats().Wallets {
		w := management.Wallet{Network: y.Network.ID, Address: g.Address.Hex(), Role: "gas"}
		if g.Wei == nil {
			w.Problem = "it was not looked at yet"
		} else {
			w.GasWei, w.SeenAt = g.Wei.String(), &g.SeenAt
		}
		w.SpentWei, w.SpentSince = spending.of(y.Network.ID)
		nonce, known, err := store.Nonce(ctx, y.Network.ChainID, g.Address)
		if err != nil {
			return nil, err
		}
		if known {
			w.NextNonce = &nonce
		}
		w.InFlight = &g.InFlight
		out = append(out, w)
	}
	return out, nil
}

// tokenWallets are who is paid, and who pays back, with what they have of the asset.
func (a *App) tokenWallets(ctx context.Context, y *paywall.Payee) []management.Wallet {
	out := []management.Wallet{{Role: "pay_to", Address: y.PayTo.Hex()}}
	if a.refundWallet != nil {
		w := management.Wallet{Role: "refund"}
		if signer, err := a.refundWallet.get(ctx); err != nil {
			w.Problem = "its key can't be opened now"
		} else {
			w.Address = signer.Address().Hex()
		}
		out = append(out, w)
	}
	b, asks := y.Settler.(settlement.Balancer)
	for i := range out {
		w := &out[i]
		w.Network, w.Symbol = y.Network.ID, y.Network.Asset.Symbol
		if !asks || w.Address == "" {
			continue
		}
		n, err := b.TokenBalance(ctx, common.HexToAddress(w.Address))
		if err != nil {
			w.Problem = "its balance can't be asked for now"
			continue
		}
		w.Balance, w.Decimal = n.Dec(), x402.FormatAmount(&n, y.Network.Asset.Decimals)
	}
	return out
}
