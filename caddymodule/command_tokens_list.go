package caddymodule

import (
	"context"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/caddy-x402/caddy-x402/client"
	"github.com/caddy-x402/caddy-x402/management"
)

// tokensFlags are the flags of "caddy x402 tokens list".
type tokensFlags struct {
	paymentsFlags
	status string
}

func newTokensList(pi payIO) *cobra.Command {
	var f tokensFlags
	cmd := quiet(&cobra.Command{
		Use:   "list [flags]",
		Short: "Lists the tokens of plans that were sold, newest first",
		Long: `Lists the tokens of plans that were sold, newest first: a table on a terminal, else JSON: {"data":[…],"page":{"next":"…"}}. Each is named by
the payment that bought it; the tokens themselves are known to their buyers alone.` + ledgerHelp + exitHelp,
		Args: cobra.NoArgs,
		RunE: pi.operate(&f.json, func(ctx context.Context, o *operator, _ []string) error { return f.listTokens(ctx, o) }),
	})
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&f.status, "status", "", "only tokens that are "+strings.Join(tokenStatuses, ", "))
	fs.StringVar(&f.payer, "payer", "", "only tokens of this address")
	fs.IntVar(&f.limit, "limit", defaultPage, "how many at most")
	fs.StringVar(&f.cursor, "cursor", "", "go on where another list ended")
	fs.BoolVar(&f.all, "all", false, "list all of them")
	f.common(cmd)
	return cmd
}

var tokenStatuses = []string{"active", "ended", "revoked"}

func (f *tokensFlags) listTokens(ctx context.Context, o *operator) error {
	q := tokenQuery{Status: f.status, Cursor: f.cursor}
	if q.Status != "" && !slices.Contains(tokenStatuses, q.Status) {
		return invalidRequest("there is no status %q; there are %s", q.Status, strings.Join(tokenStatuses, ", "))
	}
	if f.limit < 1 {
		return invalidRequest("limit must be more than zero")
	}
	var err error
	if q.Payer, err = parsePayer(f.payer); err != nil {
		return err
	}
	if _, err = management.ParseCursor(f.cursor); err != nil {
		return err
	}
	ops, done, err := f.find(ctx, o.say)
	if err != nil {
		return err
	}
	defer done()
	out := tokenPage{Data: []management.Token{}}
	for {
		q.Limit = maxPage
		if !f.all {
			q.Limit = min(f.limit-len(out.Data), maxPage)
		}
		page, err := ops.tokens(ctx, q)
		if err != nil {
			return err
		}
		out.Data, out.Page = append(out.Data, page.Data...), page.Page
		if q.Cursor = page.Page.Next; q.Cursor == "" || !f.all && len(out.Data) >= f.limit {
			break
		}
	}
	if o.asJSON {
		return o.print(out)
	}
	return showTokens(o, &out)
}

// showTokens prints a list for people.
func showTokens(o *operator, page *tokenPage) error {
	if len(page.Data) == 0 {
		o.say("There are no such tokens.")
		return nil
	}
	t := newTable("payment", "status", "plan", "routes", "ends", "payer", "network")
	for i := range page.Data {
		k := &page.Data[i]
		t.AppendRow(table.Row{
			client.Printable(k.Payment, 64), client.Printable(k.Status, 10), client.Printable(k.Plan, 40), client.Printable(k.Routes, 40),
			rfc3339(valueOr(k.ExpiresAt)), short(client.Printable(k.Payer, 42)), client.Printable(k.Network, 40),
		})
	}
	if page.Page.Next != "" {
		o.say("There are more; go on with --cursor %s", client.Printable(page.Page.Next, 100))
	}
	return writeTable(o.out, t, o.width)
}
