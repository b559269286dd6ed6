package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management"
)

// paymentsFlags are the flags of the commands under "caddy x402 payments".
type paymentsFlags struct {
	ledgerFlags
	json                 bool
	state, payer, cursor string
	limit                int
	all                  bool
}

func newPaymentsCommand(pi payIO) *cobra.Command {
	return group("payments", "Shows the payments of a ledger, and has them settled or refunded",
		"Lists, counts and shows the payments of a ledger, and has single ones looked after."+ledgerHelp+exitHelp,
		newPaymentsList(pi), newPaymentsShow(pi), newPaymentsStates(pi), newPaymentsSettle(pi), newPaymentsRefund(pi))
}

func newPaymentsList(pi payIO) *cobra.Command {
	var f paymentsFlags
	cmd := quiet(&cobra.Command{
		Use:   "list [flags]",
		Short: "Lists payments, newest first",
		Long: `Lists payments, newest first: a table on a terminal, else JSON: {"payments":[…],"page":{"next":"…"}}. The next of a
page is the --cursor of the one after it; there is none on the last page. With --all, all that match are listed.` + ledgerHelp + exitHelp,
		Args: cobra.NoArgs,
		RunE: pi.operate(&f.json, func(ctx context.Context, o *operator, _ []string) error { return f.list(ctx, o) }),
	})
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&f.state, "state", "", "only payments in this state, such as REFUND_PENDING; see caddy x402 payments states")
	fs.StringVar(&f.payer, "payer", "", "only payments of this address")
	fs.IntVar(&f.limit, "limit", defaultPage, "how many at most")
	fs.StringVar(&f.cursor, "cursor", "", "go on where another list ended")
	fs.BoolVar(&f.all, "all", false, "list all of them")
	f.common(cmd)
	return cmd
}

func newPaymentsShow(pi payIO) *cobra.Command {
	var f paymentsFlags
	cmd := quiet(&cobra.Command{
		Use:   "show <id> [flags]",
		Short: "Shows all there is about a payment",
		Long: `Shows what a payment is for and where it stands, its audit trail, and the transactions that were signed for it. What is
signed by payers is not shown.` + ledgerHelp + exitHelp,
		Args: cobra.ExactArgs(1),
		RunE: pi.operate(&f.json, f.show),
	})
	f.common(cmd)
	return cmd
}

func newPaymentsStates(pi payIO) *cobra.Command {
	var f paymentsFlags
	cmd := quiet(&cobra.Command{
		Use:   "states [flags]",
		Short: "Counts the payments in each state",
		Long:  "Counts the payments in each state. All states are listed, in the order in which a payment meets them." + ledgerHelp + exitHelp,
		Args:  cobra.NoArgs,
		RunE:  pi.operate(&f.json, func(ctx context.Context, o *operator, _ []string) error { return f.states(ctx, o) }),
	})
	f.common(cmd)
	return cmd
}

func (f *paymentsFlags) common(cmd *cobra.Command) {
	f.define(cmd.Flags())
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON, also on a terminal")
}

// list prints payments page by page, so that a long list takes no memory.
func (f *paymentsFlags) list(ctx context.Context, o *operator) error {
	q := paymentQuery{Cursor: f.cursor}
	var err error
	if q.State, err = parseState(f.state); err != nil {
		return err
	}
	if q.Payer, err = parsePayer(f.payer); err != nil {
		return err
	}
	if _, err = management.ParseCursor(f.cursor); err != nil {
		return err
	}
	if f.limit < 1 {
		return invalidRequest("limit must be more than zero")
	}
	ops, done, err := f.find(ctx, o.say)
	if err != nil {
		return err
	}
	defer done()
	var pages pagePrinter = &jsonPages{o: o}
	if !o.asJSON {
		pages = newTablePages(o, columns, "There are no such payments.")
	}
	left := f.limit
	for {
		q.Limit = maxPage
		if !f.all {
			q.Limit = min(left, maxPage)
		}
		page, err := ops.list(ctx, q)
		if err != nil {
			return err
		}
		left -= len(page.Payments)
		q.Cursor = page.Page.Next
		if err := pages.page(page.Payments); err != nil {
			return err
		}
		if q.Cursor == "" || !f.all && left <= 0 {
			return pages.end(q.Cursor)
		}
	}
}

// pagePrinter prints lists.
type pagePrinter interface {
	page([]operatorPayment) error
	// end finishes a list after which another begins at next, if that is not empty.
	end(next string) error
}

// jsonPages prints a list as one object.
type jsonPages struct {
	o     *operator
	begun bool
}

func (j *jsonPages) page(list []operatorPayment) error {
	for i := range list {
		line, err := json.Marshal(&list[i])
		if err != nil {
			return fmt.Errorf("encoding a payment: %w", err)
		}
		before := ",\n"
		if !j.begun {
			before = "{\"payments\":[\n"
		}
		j.begun = true
		if _, err := fmt.Fprintf(j.o.out, "%s%s", before, line); err != nil {
			return fmt.Errorf("writing the list: %w", err)
		}
	}
	return nil
}

func (j *jsonPages) end(next string) error {
	page, err := json.Marshal(management.Page{Next: next})
	if err != nil {
		return fmt.Errorf("encoding the page: %w", err)
	}
	before := ""
	if !j.begun {
		before = "{\"payments\":["
	}
	if _, err := fmt.Fprintf(j.o.out, "%s],\"page\":%s}\n", before, page); err != nil {
		return fmt.Errorf("writing the list: %w", err)
	}
	return nil
}

// checkPaymentID finds no payment by what can be no payment's id: it would lead elsewhere in a URL.
func checkPaymentID(id string) error {
	if _, ok := ledger.ShardOf(id); !ok || strings.ContainsAny(id, "/.%?#") {
		return ledger.ErrNotFound
	}
	return nil
}

func (f *paymentsFlags) show(ctx context.Context, o *operator, args []string) error {
	if err := checkPaymentID(args[0]); err != nil {
		return err
	}
	ops, done, err := f.find(ctx, o.say)
	if err != nil {
		return err
	}
	defer done()
	file, err := ops.show(ctx, args[0])
	if err != nil {
		return err
	}
	if o.asJSON {
		return o.print(file)
	}
	return showPayment(o.out, &file)
}

func (f *paymentsFlags) states(ctx context.Context, o *operator) error {
	ops, done, err := f.find(ctx, o.say)
	if err != nil {
		return err
	}
	defer done()
	counts, err := ops.states(ctx)
	if err != nil {
		return err
	}
	if o.asJSON {
		return o.print(counts)
	}
	return showStates(o.out, &counts)
}
