package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/caddy-x402/caddy-x402/client"
	"github.com/caddy-x402/caddy-x402/management/doctor"
)

// doctorFlags are the flags of "caddy x402 doctor".
type doctorFlags struct {
	config, adapter, address   string
	live, pay, json, list      bool
	url, keyEnv, maxAmount, ca string
	alerts, deployment         string
	instances                  int
	only                       []string
}

func newDoctorCommand(pi payIO) *cobra.Command {
	var f doctorFlags
	cmd := quiet(&cobra.Command{
		Use:   "doctor [--config <file>] [--live] [--pay] [flags]",
		Short: "Says what is missing before real money is taken",
		Long: `Goes through all that must be right before real money is taken, item by item; docs/going-live.md lists the same ones. What fails is told
with the reason why it matters and with what to do.

Without more flags the configuration alone is looked at, with the environment of this command, which should be that of Caddy. With --live the
chain, the ledger, the running Caddy, the public address and the receivers of webhooks are asked, too; nothing is changed by that, and
receivers get one test that they should take and one that they should refuse. The ledger is opened as Caddy opens it, so a doctor of a newer
version than the Caddy that runs brings its tables up to date. With --pay something is bought, with real money if the configuration is for
that: by the account whose key is in X402_PRIVATE_KEY, for --max-amount at most, and to nobody but the configuration's pay_to.

Exit codes: 0 nothing failed, 2 the command is not well formed, 5 something failed.`,
		Args: cobra.NoArgs,
		RunE: pi.operate(&f.json, func(ctx context.Context, o *operator, _ []string) error { return f.run(ctx, o) }),
	})
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVarP(&f.config, "config", "c", "", "configuration file (default: the Caddyfile in the current directory)")
	flags.StringVarP(&f.adapter, "adapter", "a", "", "name of the configuration's adapter")
	flags.BoolVar(&f.live, "live", false, "ask the chain, the ledger, the running Caddy, the site and the receivers of webhooks, too")
	flags.BoolVar(&f.pay, "pay", false, "buy something; implies --live")
	flags.StringVar(&f.url, "url", "", "an address that must be paid for (default: the first of the catalogue)")
	flags.StringVar(&f.keyEnv, "key-env", "X402_PRIVATE_KEY", "environment variable that holds the private key to pay with")
	flags.StringVar(&f.maxAmount, "max-amount", "0.10", "the most to pay, in dollars (units of the asset)")
	flags.StringVar(&f.ca, "cacert", "", "PEM file of certificate authorities to trust for the site")
	flags.StringVar(&f.address, "address", "", "address of the admin endpoint of the running Caddy (default: as the configuration has it)")
	flags.IntVar(&f.instances, "instances", 1, "how many instances share the work")
	flags.StringVar(&f.alerts, "alerts", "", "file with the rules that Prometheus alerts by")
	flags.StringVar(&f.deployment, "deployment", "", "compose file, manifest or Dockerfile that says which image is deployed")
	flags.StringSliceVar(&f.only, "only", nil, "look at these items alone, by their ids")
	flags.BoolVar(&f.list, "list", false, "list the items, and look at nothing")
	flags.BoolVar(&f.json, "json", false, "print JSON, also on a terminal")
	return cmd
}

func (f *doctorFlags) run(ctx context.Context, o *operator) error {
	if f.list {
		return f.listItems(o)
	}
	if err := f.check(); err != nil {
		return err
	}
	p, err := f.patient()
	if err != nil {
		return err
	}
	opts := doctor.Options{Only: f.only}
	if f.live {
		opts.Depth = doctor.Live
	}
	if f.pay {
		opts.Depth = doctor.Pay
	}
	if opts.Depth > doctor.Config {
		done, err := f.ask(ctx, p)
		if err != nil {
			return err
		}
		defer done()
		if o.live {
			opts.Looking = func(i doctor.Item) { o.say("… %s", i.ID) }
		}
	}
	report := doctor.Run(ctx, &p.subject, opts)
	if err := f.tell(o, &report); err != nil {
		return err
	}
	if !report.OK {
		return errTold
	}
	return nil
}

func (f *doctorFlags) check() error {
	if f.instances < 1 {
		return invalidRequest("--instances must be one or more")
	}
	known := map[string]bool{}
	for _, i := range doctor.Items() {
		known[i.ID] = true
	}
	for _, id := range f.only {
		if !known[id] {
			return invalidRequest("--only: there is no item %q; see caddy x402 doctor --list", id)
		}
	}
	return nil
}

// readFlagFile reads a file that a flag names; nil: the flag is not there.
func readFlagFile(flag, file string) (*string, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // there is none, and that is no error
	}
	b, err := os.ReadFile(file)
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return nil, invalidRequest("%s: %s can't be read: %v", flag, file, e.Err)
	} else if err != nil {
		return nil, invalidRequest("%s: %s can't be read", flag, file)
	}
	s := string(b)
	return &s, nil
}

// doctorItem is doctor.Item for who lists them.
type doctorItem struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Why   string `json:"why"`
	Do    string `json:"do"`
	Needs string `json:"needs,omitempty"`
}

func (f *doctorFlags) listItems(o *operator) error {
	var list []doctorItem
	for _, i := range doctor.Items() {
		list = append(list, doctorItem{i.ID, i.Title, i.Why, i.Do, map[doctor.Depth]string{doctor.Live: "--live", doctor.Pay: "--pay"}[i.Depth]})
	}
	if o.asJSON {
		return o.print(map[string]any{"items": list})
	}
	t := newTable("item", "needs", "how it should be")
	for _, i := range list {
		t.AppendRow([]any{i.ID, i.Needs, i.Title})
	}
	return writeTable(o.out, t, o.width)
}

// tell prints a report. What was found may quote strangers.
func (f *doctorFlags) tell(o *operator, r *doctor.Report) error {
	if o.asJSON {
		return o.print(r)
	}
	var b strings.Builder
	width := 100
	if o.width > 40 {
		width = min(width, o.width)
	}
	more := func(word, s string) {
		for i, line := range strings.Split(text.WrapSoft(s, width-12), "\n") {
			if i > 0 {
				word = ""
			}
			fmt.Fprintf(&b, "     %-6s %s\n", word, strings.TrimRight(line, " "))
		}
	}
	for _, i := range r.Items {
		fmt.Fprintf(&b, "%-7s %-20s %s\n", i.Status, i.ID, i.Title)
		if i.Status == doctor.Fail || i.Status == doctor.Warn {
			more("found", client.Printable(i.Found, 1000))
			more("why", i.Why)
			more("do", i.Do)
		}
	}
	fmt.Fprintf(&b, "\n%d ok, %d to think about, %d failed, %d not looked at\n", r.Counts[doctor.OK], r.Counts[doctor.Warn], r.Counts[doctor.Fail], r.Counts[doctor.Skipped])
	if _, err := fmt.Fprint(o.out, b.String()); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}
