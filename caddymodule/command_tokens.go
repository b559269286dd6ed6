package caddymodule

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func newTokensCommand(pi payIO) *cobra.Command {
	return group("tokens", "Lists the tokens of plans, and takes them back", "Lists the access tokens of plans that were sold, and takes them back."+ledgerHelp+exitHelp,
		newTokensList(pi), newTokensRevoke(pi))
}

func newTokensRevoke(pi payIO) *cobra.Command {
	var f paymentsFlags
	cmd := quiet(&cobra.Command{
		Use:   "revoke <payment> [flags]",
		Short: "Takes back the token of the plan that a payment bought",
		Long: `Takes back the token of the plan that a payment bought. Every instance refuses it within a second; one that does not reach the ledger
does so after max_stale. Nothing is paid back. It can't be undone; the buyer may buy the plan again.` + ledgerHelp + exitHelp,
		Args: cobra.ExactArgs(1),
		RunE: pi.operate(&f.json, f.revoke),
	})
	f.common(cmd)
	return cmd
}

func (f *paymentsFlags) revoke(ctx context.Context, o *operator, args []string) error {
	if err := checkPaymentID(args[0]); err != nil {
		return err
	}
	ops, done, err := f.find(ctx, o.say)
	if err != nil {
		return err
	}
	defer done()
	revoked, err := ops.revoke(ctx, args[0])
	if err != nil {
		return err
	}
	if o.asJSON {
		return o.print(revoked)
	}
	if _, err := fmt.Fprintf(o.out, "revoked; the plan would have ended at %s\n", rfc3339(revoked.Until)); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}
