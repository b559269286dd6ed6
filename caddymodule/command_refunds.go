package caddymodule

import (
	"context"
	"fmt"

	"github.com/ethereum/go-ethereum/common"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/caddy-x402/caddy-x402/client"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/paywall"
)

// refundsFlags are the flags of the commands under "caddy x402 refunds".
type refundsFlags struct {
	paymentsFlags
	done bool
}

func newRefundsCommand(pi payIO) *cobra.Command {
	return group("refunds", "Shows refunds, and has them tried again",
		"Lists what is to be paid back, says what would be paid now, and has refunds that failed tried again."+ledgerHelp+exitHelp,
		newRefundsList(pi), newRefundsRetry(pi), newRefundsDryRun(pi))
}

func newRefundsList(pi payIO) *cobra.Command {
	var f refundsFlags
	cmd := quiet(&cobra.Command{
		Use:   "list [flags]",
		Short: "Lists refunds, those that failed first",
		Long: `Lists the payments whose refund has failed, and those whose refund is pending: a table on a terminal, else JSON:
{"payments":[…],"page":{}}. The reason says why one has failed; of one that is pending it says why it was not delivered. With --done,
those that were paid back are listed instead.` + ledgerHelp + exitHelp,
		Args: cobra.NoArgs,
		RunE: pi.operate(&f.json, func(ctx context.Context, o *operator, _ []string) error { return f.listRefunds(ctx, o) }),
	})
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.BoolVar(&f.done, "done", false, "list what was paid back")
	fs.StringVar(&f.payer, "payer", "", "only refunds to this address")
	fs.IntVar(&f.limit, "limit", maxPage, "how many of each state at most")
	f.common(cmd)
	return cmd
}

func newRefundsRetry(pi payIO) *cobra.Command {
	var f refundsFlags
	cmd := quiet(&cobra.Command{
		Use:   "retry [<id>...] [flags]",
		Short: "Has refunds that failed tried again",
		Long: `Makes refunds that are REFUND_FAILED pending again, so that the Caddy that is running pays them. It goes on with the transfer that
was begun, so nothing is paid twice. What was found on the chain and not in the ledger (reason quarantine) goes back only if it is
named: find out first whether the payer was served. So does what is more than max_payment: who names it has decided.` + ledgerHelp + exitHelp,
		RunE: pi.operate(&f.json, f.retry),
	})
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.BoolVar(&f.all, "all", false, "all that failed, but for what is in quarantine or more than max_payment")
	f.common(cmd)
	return cmd
}

func newRefundsDryRun(pi payIO) *cobra.Command {
	var f refundsFlags
	cmd := quiet(&cobra.Command{
		Use:   "dry-run [flags]",
		Short: "Says what would be paid back now",
		Long: `Says of the newest refunds that are pending what would become of each now, and whether the refund wallet has enough. Nothing is
signed or sent. Only a Caddy that is running can tell.` + ledgerHelp + exitHelp,
		Args: cobra.NoArgs,
		RunE: pi.operate(&f.json, func(ctx context.Context, o *operator, _ []string) error { return f.dryRun(ctx, o) }),
	})
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.IntVar(&f.limit, "limit", maxPage, "how many refunds at most")
	f.common(cmd)
	return cmd
}

func (f *refundsFlags) listRefunds(ctx context.Context, o *operator) error {
	if f.limit < 1 {
		return invalidRequest("limit must be more than zero")
	}
	payer, err := parsePayer(f.payer)
	if err != nil {
		return err
	}
	ops, done, err := f.find(ctx, o.say)
	if err != nil {
		return err
	}
	defer done()
	states, none := []ledger.State{ledger.StateRefundFailed, ledger.StateRefundPending}, "No refund has failed, and none is pending."
	if f.done {
		states, none = []ledger.State{ledger.StateRefunded}, "Nothing was paid back."
	}
	var pages pagePrinter = &jsonPages{o: o}
	if !o.asJSON {
		pages = newTablePages(o, refundColumns, none)
	}
	for _, state := range states {
		if err := eachOf(ctx, ops, state, payer, f.limit, pages.page); err != nil {
			return err
		}
	}
	return pages.end("")
}

// eachOf gives the payments of a state and, if it is not zero, of a payer, newest first and at most limit (0: all), page by page.
func eachOf(ctx context.Context, ops operations, state ledger.State, payer common.Address, limit int, f func([]operatorPayment) error) error {
	q := paymentQuery{State: state, Payer: payer}
	for left := limit; ; {
		q.Limit = maxPage
		if limit > 0 {
			q.Limit = min(left, maxPage)
		}
		page, err := ops.list(ctx, q)
		if err == nil {
			err = f(page.Payments)
		}
		if err != nil {
			return err
		}
		left -= len(page.Payments)
		if q.Cursor = page.Page.Next; q.Cursor == "" || limit > 0 && left <= 0 {
			return nil
		}
	}
}

func (f *refundsFlags) retry(ctx context.Context, o *operator, ids []string) error {
	if f.all == (len(ids) > 0) {
		return invalidRequest("name the payments whose refund is to be tried again, or write --all")
	}
	for _, id := range ids {
		if err := checkPaymentID(id); err != nil {
			return err
		}
	}
	ops, done, err := f.find(ctx, o.say)
	if err != nil {
		return err
	}
	defer done()
	if f.all {
		err := eachOf(ctx, ops, ledger.StateRefundFailed, common.Address{}, 0, func(page []operatorPayment) error {
			for i := range page {
				if why := page[i].Reason; why != ledger.ReasonQuarantine && why != paywall.ReasonRefundTooDear {
					ids = append(ids, page[i].ID)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	pending := []string{}
	for _, id := range ids {
		p, err := ops.retry(ctx, id)
		if err != nil {
			return err
		}
		pending = append(pending, p.Payment)
		if !o.asJSON {
			o.say("%s is pending again", client.Printable(p.Payment, 64))
		}
	}
	if o.asJSON {
		return o.print(map[string]any{"pending": pending})
	}
	if len(pending) != 1 {
		o.say("%d refunds are tried again", len(pending))
	}
	return nil
}

func (f *refundsFlags) dryRun(ctx context.Context, o *operator) error {
	if f.limit < 1 || f.limit > maxPage {
		return invalidRequest("limit must be a number from 1 to %d", maxPage)
	}
	ops, done, err := f.find(ctx, o.say)
	if err != nil {
		return err
	}
	defer done()
	plan, err := ops.plan(ctx, f.limit)
	if err != nil {
		return err
	}
	if o.asJSON {
		return o.print(plan)
	}
	return showPlan(o, &plan)
}

// showPlan prints a plan for people.
func showPlan(o *operator, plan *paywall.RefundPlan) error {
	if len(plan.Refunds) == 0 {
		o.say("No refund is pending.")
	} else if err := showPlanned(o, plan.Refunds); err != nil {
		return err
	}
	if len(plan.Wallets) == 0 {
		return nil
	}
	w := newTable("refund wallet", "has", "needs", "network", "problem")
	for i := range plan.Wallets {
		p := &plan.Wallets[i]
		address := ""
		if p.Wallet != nil {
			address = p.Wallet.Hex()
		}
		w.AppendRow(table.Row{
			address, units(p.Balance, p.BalanceDecimal, p.Symbol), units(p.Needed, p.NeededDecimal, p.Symbol), client.Printable(p.Network, 40),
			client.Printable(p.Problem, 300),
		})
	}
	if plan.More {
		o.say("There are more refunds; these are the newest.")
	}
	return writeTable(o.out, w, o.width)
}

// showPlanned prints what would become of refunds.
func showPlanned(o *operator, list []paywall.PlannedRefund) error {
	t := newTable("payment", "action", "amount", "reason", "to", "paid", "network")
	for i := range list {
		r := &list[i]
		t.AppendRow(table.Row{
			client.Printable(r.Payment, 64), client.Printable(r.Action, 20), units(r.Amount, r.AmountDecimal, r.Symbol), client.Printable(r.Reason, 60),
			short(r.Payer.Hex()), rfc3339(r.Since), client.Printable(r.Network, 40),
		})
	}
	if err := writeTable(o.out, t, o.width); err != nil {
		return err
	}
	_, err := fmt.Fprintln(o.out)
	return err
}

// units are an amount as people read it, in its asset's own units where these are known; empty if it is.
func units(atomic, decimal, symbol string) string {
	switch {
	case atomic == "":
		return ""
	case decimal == "":
		return client.Printable(atomic, 80) + " units"
	}
	return client.Printable(decimal, 80) + " " + client.Printable(symbol, 20)
}
