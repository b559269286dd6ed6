package caddymodule

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "x402",
		Usage: "<command>",
		Short: "Pays for HTTP requests in USDC, and looks after a seller's payments",
		Long: "What can be done with x402 payments from a command line: pay, as a buyer; see, verify and move the ledger, and look after refunds " +
			"and the keys of tokens, as a seller.",
		CobraFunc: addCommands,
	})
}

// addCommands hangs the tree of commands under "caddy x402".
func addCommands(root *cobra.Command) {
	root.AddCommand(newPayCommand(payIO{}), newPaymentsCommand(payIO{}), newRefundsCommand(payIO{}), newAuditCommand(payIO{}),
		newLedgerCommand(payIO{}), newKeysCommand(payIO{}), newTokensCommand(payIO{}), newAPIKeysCommand(payIO{}), newWebhooksCommand(payIO{}),
		newDoctorCommand(payIO{}))
}

// Exit codes of "caddy x402 pay"; see exitHelp for those of the operator's commands. 1 is left to Caddy itself.
const (
	exitOK        = 0
	exitUsage     = 2
	exitDeclined  = 3
	exitRefused   = 4
	exitUnknown   = 5
	exitBadAnswer = 6
	exitTransport = 7
	exitFree      = 8
)

// exitWith makes the error with which a command ends in code; whoever makes it has said why already.
func exitWith(cmd *cobra.Command, code int) error {
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return code, nil })(cmd, nil)
}
