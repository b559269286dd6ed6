package caddymodule

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/caddy-x402/caddy-x402/client"
)

// payIO is what the pay command talks to; what is nil is the process's own.
type payIO struct {
	terminal func(io.Writer) bool
	now      func() time.Time
}

// payFlags are the flags of the pay command as they were given.
type payFlags struct {
	method, output, cacert                    string
	headers, data, networks, assets           []string
	include, json, verbose, quiet, dryRun     bool
	timeout                                   time.Duration
	keyEnv, keyFile, maxAmount, plan          string
	save, resume, tokenFile                   string
	methodSet, dataSet, keyEnvSet, timeoutSet bool
}

// payer is one run of the pay command.
type payer struct {
	payFlags
	in       io.Reader
	out, err io.Writer
	now      func() time.Time
	asJSON   bool // the result is one JSON object on out
	narrate  bool // the way is told on err
	body     *os.File
	timer    *time.Timer
	saved    string        // where the payment is kept, while its outcome is open
	req      *http.Request // as it was asked for; nil with --resume
	sent     []byte        // its body
}

func newPayCommand(io payIO) *cobra.Command {
	var f payFlags
	cmd := &cobra.Command{
		Use:           "pay [flags] <url>",
		Short:         "Sends a request and pays for it if it has to",
		Long:          payHelp,
		Example:       payExamples,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.methodSet, f.dataSet = cmd.Flags().Changed("request"), cmd.Flags().Changed("data")
			f.keyEnvSet, f.timeoutSet = cmd.Flags().Changed("key-env"), cmd.Flags().Changed("timeout")
			return exitWith(cmd, io.newPayer(cmd, f).run(cmd.Context(), args))
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		fmt.Fprintf(cmd.ErrOrStderr(), "caddy x402 pay: %v; see caddy x402 pay --help\n", err)
		return exitWith(cmd, exitUsage)
	})
	f.define(cmd)
	return cmd
}

func (f *payFlags) define(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVarP(&f.method, "request", "X", "", "method of the request (default GET, or POST with --data)")
	fs.StringArrayVarP(&f.headers, "header", "H", nil, `header of the request, "Name: value"; repeatable`)
	fs.StringArrayVarP(&f.data, "data", "d", nil, "body of the request; @FILE reads a file, @- the standard input; several are joined with &")
	fs.StringVarP(&f.output, "output", "o", "", "write the answer's body to this file; - is the standard output")
	fs.BoolVarP(&f.include, "include", "i", false, "show the answer's status and headers too; payments and tokens in them are left out")
	fs.DurationVar(&f.timeout, "timeout", 3*time.Minute, "how long to wait for the answer, retries included")
	fs.StringVar(&f.cacert, "cacert", "", "PEM file of certificate authorities to trust for this server")

	fs.StringVar(&f.keyEnv, "key-env", "X402_PRIVATE_KEY", "environment variable that holds the payer's private key, in hex")
	fs.StringVar(&f.keyFile, "key-file", "", "file that holds the payer's private key instead; - is the standard input")
	fs.StringVar(&f.maxAmount, "max-amount", "0.10", "the most to pay, in dollars (units of the asset)")
	fs.StringArrayVar(&f.networks, "network", nil, "network to pay on, such as base or eip155:8453; repeatable (default: the known test networks)")
	fs.StringArrayVar(&f.assets, "asset", nil, "token to pay with beside USDC, as NETWORK/ADDRESS/DECIMALS, such as eip155:31337/0x…/6; repeatable")
	fs.StringVar(&f.plan, "plan", "", "buy the plan of this name (default: the first offer that is allowed)")
	fs.BoolVar(&f.dryRun, "dry-run", false, "show the offer and what would be signed; sign and pay nothing")

	fs.StringVar(&f.save, "save-payment", "", "keep the signed payment in this file until its outcome is known (default: a file in Caddy's data directory)")
	fs.StringVar(&f.resume, "resume", "", "send the payment in this file again, with its request; needs no key")
	fs.StringVar(&f.tokenFile, "token-file", "", "write the access token of a bought plan to this file (default: a file in Caddy's data directory)")

	fs.BoolVar(&f.json, "json", false, "print one JSON object, also on a terminal")
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "tell each step on the standard error, also where that is no terminal")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "tell no steps, only errors")
}

func (pi payIO) newPayer(cmd *cobra.Command, f payFlags) *payer {
	terminal, now := pi.terminal, pi.now
	if terminal == nil {
		terminal = payTerminal
	}
	if now == nil {
		now = time.Now
	}
	p := &payer{payFlags: f, in: cmd.InOrStdin(), out: cmd.OutOrStdout(), err: cmd.ErrOrStderr(), now: now}
	p.asJSON = f.json || !terminal(p.out) && f.output != "-"
	p.narrate = !f.quiet && (f.verbose || terminal(p.err))
	return p
}

func payTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// run does what the flags say and gives the exit code.
func (p *payer) run(ctx context.Context, args []string) int {
	// Whoever interrupts a payment on its way must be told how to come back to it.
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// The timeout ends when the answer begins: what was paid for may take its time.
	p.timer = time.AfterFunc(p.timeout, func() { cancel(fmt.Errorf("no answer within %s (--timeout)", p.timeout)) })
	defer p.timer.Stop()
	req, c, err := p.prepare(ctx, args)
	if err != nil {
		p.complain("%v", err)
		return exitUsage
	}
	defer c.HTTP.CloseIdleConnections()
	defer p.closeBody()
	if p.resume != "" {
		return p.resumePayment(ctx, c)
	}
	p.say("> %s %s", req.Method, client.Printable(req.URL.Redacted(), 500))
	do := c.Do
	if p.dryRun {
		do = c.Quote
	}
	resp, r, err := do(req)
	return p.finish(resp, r, err)
}

// finish reports how it ended. resp is nil with an error, and after a dry run.
func (p *payer) finish(resp *http.Response, r *client.Report, err error) int {
	p.timer.Stop()
	if resp != nil {
		defer resp.Body.Close()
	}
	code := exitCodeOf(resp, r, err)
	if code != exitUnknown {
		p.forget()
	}
	result := p.result(resp, r, err)
	p.keepToken(r, result)
	if err != nil {
		p.explain(err, r)
	}
	p.tell(resp, r)
	return p.write(result, resp, r, code)
}

// exitCodeOf judges how a call ended.
func exitCodeOf(resp *http.Response, r *client.Report, err error) int {
	if err != nil {
		switch client.CodeOf(err) {
		case client.CodeRequest:
			return exitUsage
		case client.CodeTransport:
			return exitTransport
		case client.CodeRefused:
			return exitRefused
		case client.CodeUnknown:
			return exitUnknown
		case client.CodeAnswerLost:
			return exitBadAnswer
		}
		return exitDeclined
	}
	switch {
	case resp == nil || resp.StatusCode < http.StatusBadRequest:
		return exitOK
	case r.Paid():
		return exitBadAnswer
	case r.Payment != nil:
		return exitRefused
	}
	return exitFree
}
