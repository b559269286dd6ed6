package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/caddy-x402/caddy-x402/client"
	"github.com/caddy-x402/caddy-x402/management"
)

// Exit codes of the operator's commands. 1 is left to Caddy itself.
const (
	exitNotFound    = 3 // there is no such payment, or no such ledger
	exitUnavailable = 4 // the ledger can't be read, or not now
	exitBroken      = 5 // what was verified does not hold together
)

const exitHelp = `

Exit codes: 0 done, 2 the command is not well formed or was refused, 3 there is no such payment or ledger, 4 the ledger can't be
read, 5 what was verified does not hold together.`

// operator is one run of a command of an operator.
type operator struct {
	name     string // of the command
	out, err io.Writer
	asJSON   bool // the result is JSON
	pretty   bool // out is a terminal
	live     bool // err is a terminal
	width    int  // of out, in columns
}

// operate makes what cobra runs of a command: run does it and gives its error; what is wrong is told, and becomes
// the exit code.
func (pi payIO) operate(asJSON *bool, run func(context.Context, *operator, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		o := pi.newOperator(cmd, *asJSON)
		return exitWith(cmd, o.finish(run(ctx, o, args)))
	}
}

func (pi payIO) newOperator(cmd *cobra.Command, asJSON bool) *operator {
	terminal := pi.terminal
	if terminal == nil {
		terminal = payTerminal
	}
	o := &operator{name: cmd.CommandPath(), out: cmd.OutOrStdout(), err: cmd.ErrOrStderr()}
	o.pretty, o.live = terminal(o.out), terminal(o.err)
	o.asJSON = asJSON || !o.pretty
	if f, ok := o.out.(*os.File); ok && o.pretty {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			o.width = w
		}
	}
	return o
}

// say tells on the standard error what is done.
func (o *operator) say(format string, args ...any) { fmt.Fprintf(o.err, format+"\n", args...) }

// finish tells what went wrong, and gives the exit code.
func (o *operator) finish(err error) int {
	if err == nil {
		return exitOK
	}
	if errors.Is(err, errTold) {
		return exitBroken
	}
	e := asOperatorError(err)
	o.say("%s: %s", o.name, client.Printable(strings.ReplaceAll(e.Detail, "\n", "; "), 4000))
	if o.asJSON {
		_ = o.print(map[string]any{"error": map[string]string{"code": e.Code, "detail": e.Detail}})
	}
	switch e.Code {
	case codeInvalid, codeMethod, codeInUse, codeNotFailed, codeNoEngine, codeKeyWaiting, codeKeySigns, codeKeyCost, codeKeysFixed, codeNoPlan, codePlanOver:
		return exitUsage
	case management.CodeRequest, management.CodeNetworkLocked, management.CodeKeyRotating, management.CodeKeyExpired, management.CodeKeyRevoked:
		return exitUsage
	case management.CodeNotSettleable, management.CodeNotRefundable, management.CodeNetworkRequired, management.CodeHooksOff, management.CodeConflict:
		return exitUsage
	case codeNoPayment, codeNoAnchor, codeNoLedger, codeNotConfigured, codeNoSuchPath, codeNoKey, codeKeysMissing, codeNoApp, management.CodeKeyNotFound:
		return exitNotFound
	case codeBroken:
		return exitBroken
	}
	if strings.HasPrefix(e.Code, "webhook.") && e.Status != http.StatusServiceUnavailable {
		if e.Status == http.StatusNotFound {
			return exitNotFound
		}
		return exitUsage
	}
	return exitUnavailable
}

// errTold: what was verified is not whole, and that was said.
var errTold = errors.New("what was verified does not hold together")

// print writes v as JSON: one line, or for people several.
func (o *operator) print(v any) error {
	enc := json.NewEncoder(o.out)
	enc.SetEscapeHTML(false)
	if o.pretty {
		enc.SetIndent("", "  ")
	}
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}

// group makes a command that only has others under it.
func group(use, short, long string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long}
	cmd.AddCommand(commands...)
	return cmd
}

// quiet makes a command that tells its errors itself.
func quiet(cmd *cobra.Command) *cobra.Command {
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: %v; see %s --help\n", cmd.CommandPath(), err, cmd.CommandPath())
		return exitWith(cmd, exitUsage)
	})
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: %v; see %s --help\n", cmd.CommandPath(), err, cmd.CommandPath())
				return exitWith(cmd, exitUsage)
			}
			return nil
		}
	}
	return cmd
}
