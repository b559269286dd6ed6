package caddymodule

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caddy-x402/caddy-x402/client"
)

func newPaymentsSettle(pi payIO) *cobra.Command {
	return newPaymentsChange(pi, &cobra.Command{
		Use:   "settle <id> [flags]",
		Short: "Has a payment looked after now whose settlement is not known",
		Long: `Has the Caddy that is running look after a payment now whose settlement is not known: what was signed for it is sent again, and the
chain is asked. Nothing is paid twice. What came of it is seen with caddy x402 payments show.` + ledgerHelp + exitHelp,
	}, operations.settle)
}

func newPaymentsRefund(pi payIO) *cobra.Command {
	return newPaymentsChange(pi, &cobra.Command{
		Use:   "refund <id> [flags]",
		Short: "Gives a payment back that was not delivered",
		Long: `Has a payment given back that was paid and that nobody is being served with, without waiting for min_age; or has a refund that has
failed tried again. What was delivered can't be paid back from here: no payment is ever both.` + ledgerHelp + exitHelp,
	}, operations.refund)
}

// newPaymentsChange makes a command that has one payment changed.
func newPaymentsChange(pi payIO, cmd *cobra.Command, do func(operations, context.Context, string) (paymentChange, error)) *cobra.Command {
	var f paymentsFlags
	cmd.Args = cobra.ExactArgs(1)
	cmd.RunE = pi.operate(&f.json, func(ctx context.Context, o *operator, args []string) error {
		if err := checkPaymentID(args[0]); err != nil {
			return err
		}
		ops, done, err := f.find(ctx, o.say)
		if err != nil {
			return err
		}
		defer done()
		now, err := do(ops, ctx, args[0])
		if err != nil {
			return err
		}
		if o.asJSON {
			return o.print(now)
		}
		if _, err := fmt.Fprintf(o.out, "%s is %s\n", client.Printable(now.Payment, 64), client.Printable(now.State, 40)); err != nil {
			return fmt.Errorf("writing the result: %w", err)
		}
		return nil
	})
	f.common(quiet(cmd))
	return cmd
}
