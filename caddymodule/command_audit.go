package caddymodule

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/ethereum/go-ethereum/common"
	"github.com/spf13/cobra"

	"github.com/caddy-x402/caddy-x402/client"
	"github.com/caddy-x402/caddy-x402/ledger"
)

// auditFlags are the flags of the commands under "caddy x402 audit".
type auditFlags struct {
	ledgerFlags
	json              bool
	output, file      string
	after             uint64
	expect, keptSince string
}

func newAuditCommand(pi payIO) *cobra.Command {
	return group("audit", "Exports and verifies the audit trail of a ledger", auditHelp+ledgerHelp+exitHelp, newAuditExport(pi), newAuditVerify(pi))
}

const auditHelp = `Each step of a payment is an entry of its audit trail, and carries the hash of the entry before it. Anchors, each
with the hash of the one before, fix the entries of all payments up to a time. Whoever keeps the hash of an anchor outside
of the ledger can find that anything up to it was changed, removed or reordered since.`

func newAuditExport(pi payIO) *cobra.Command {
	var f auditFlags
	cmd := quiet(&cobra.Command{
		Use:   "export [flags]",
		Short: "Writes the audit trail of all payments as JSON lines",
		Long: `Writes the payments, their audit trails and the anchors as JSON lines, which caddy x402 audit verify --file can check
without the ledger.` + "\n\n" + auditHelp + ledgerHelp + exitHelp,
		Args: cobra.NoArgs,
		RunE: pi.operate(&f.json, func(ctx context.Context, o *operator, _ []string) error { return f.export(ctx, o) }),
	})
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVarP(&f.output, "output", "o", "-", "the file to write; it appears when it is whole. - is the standard output")
	fs.Uint64Var(&f.after, "after-anchor", 0, "only the anchors after this one, with their entries: go on where an older export ended")
	f.define(fs)
	return cmd
}

func newAuditVerify(pi payIO) *cobra.Command {
	var f auditFlags
	cmd := quiet(&cobra.Command{
		Use:   "verify [flags]",
		Short: "Checks that nothing in a ledger was changed, removed or reordered",
		Long: `Checks a ledger, or a file that was exported: that each payment is where its audit trail leads, that the trails are
whole, and that they are what the anchors fixed. What is not is listed, and the exit code is 5.` +
			"\n\n" + auditHelp + ledgerHelp + exitHelp,
		Args: cobra.NoArgs,
		RunE: pi.operate(&f.json, func(ctx context.Context, o *operator, _ []string) error { return f.verify(ctx, o) }),
	})
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&f.file, "file", "", "verify this exported file instead of a ledger; - is the standard input")
	fs.StringVar(&f.expect, "expect", "", "the hash of an anchor that was kept elsewhere: it must be there")
	fs.StringVar(&f.keptSince, "kept-since", "", "the ledger has forgotten closed payments that were last changed before this time (Redis with a retention; known where the configuration is)")
	f.define(fs)
	fs.BoolVar(&f.json, "json", false, "print JSON, also on a terminal")
	return cmd
}

func (f *auditFlags) export(ctx context.Context, o *operator) (err error) {
	o.asJSON = false // what is printed is the export
	ops, done, err := f.find(ctx, o.say)
	if err != nil {
		return err
	}
	defer done()
	out, keep := o.out, func() error { return nil }
	if f.output != "-" {
		var drop func()
		if out, keep, drop, err = fileWhenWhole(f.output); err != nil {
			return err
		}
		defer drop()
	}
	p := o.newProgress(o.pretty && f.output == "-")
	if o.live { // a bar tells the speed
		p.set("exporting lines", 0, 0)
	}
	summary, err := ops.export(ctx, out, f.after, func(lines int64) { p.set("exporting lines", lines, 0) })
	p.stop(err == nil)
	if err != nil {
		return err
	}
	if err := keep(); err != nil {
		return err
	}
	o.say("exported payments: %d, entries: %d, anchors: %d", summary.Payments, summary.Entries, summary.Anchors)
	if summary.LastAnchor > 0 {
		o.say("the next export can go on with --after-anchor %d", summary.LastAnchor)
	}
	return nil
}

// fileWhenWhole makes a file that has its name only when keep was called: half an export must not look like one.
func fileWhenWhole(path string) (w io.Writer, keep func() error, drop func(), err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return nil, nil, nil, invalidRequest("opening --output: %v", err)
	}
	keep = func() error {
		if err := errors.Join(f.Sync(), f.Close(), os.Rename(f.Name(), path)); err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
		return nil
	}
	drop = func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}
	return f, keep, drop, nil
}

func (f *auditFlags) verify(ctx context.Context, o *operator) error {
	opts := ledger.VerifyOptions{}
	var err error
	if opts.Expect, err = parseExpect(f.expect); err != nil {
		return err
	}
	if opts.KeptSince, err = parseKeptSince(f.keptSince); err != nil {
		return err
	}
	verify, done, err := f.verifier(ctx, o)
	if err != nil {
		return err
	}
	defer done()
	p := o.newProgress(false)
	opts.Progress = func(payments int64) { p.set("verifying payments", payments, 0) }
	if o.live {
		opts.Progress(0)
	}
	report, err := verify(ctx, opts)
	p.stop(err == nil)
	if err != nil {
		return err
	}
	if o.asJSON {
		if err := o.print(report); err != nil {
			return err
		}
	}
	o.tellReport(&report, opts.Expect)
	if report.Found > 0 {
		return errTold
	}
	return nil
}

// verifier gives what verifies: a file, or a ledger.
func (f *auditFlags) verifier(ctx context.Context, o *operator) (
	verify func(context.Context, ledger.VerifyOptions) (ledger.Report, error), done func(), err error,
) {
	if f.file == "" {
		ops, done, err := f.find(ctx, o.say)
		if err != nil {
			return nil, nil, err
		}
		return ops.verify, done, nil
	}
	if f.ledgerFlags != (ledgerFlags{}) {
		return nil, nil, invalidRequest("--file names what is verified; leave out --store, --address, --config and --adapter")
	}
	in := os.Stdin
	if f.file != "-" {
		if in, err = os.Open(f.file); err != nil {
			return nil, nil, &operatorError{0, codeNoLedger, "opening the exported file: " + err.Error(), err}
		}
	}
	o.say("verifying the file %s", f.file)
	return func(ctx context.Context, opts ledger.VerifyOptions) (ledger.Report, error) {
		return ledger.VerifyExport(ctx, bufio.NewReaderSize(in, 1<<16), opts)
	}, func() { _ = in.Close() }, nil
}

// tellReport says in words what a verification saw: on the standard output for people, beside JSON on the standard error.
func (o *operator) tellReport(r *ledger.Report, expected common.Hash) {
	w := o.out
	if o.asJSON {
		w = o.err
	}
	line := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	line("payments: %d, audit entries: %d, anchors: %d", r.Payments, r.Entries, r.Anchors)
	if r.Forgotten > 0 {
		line("anchored and forgotten since, as the retention allows: %d entries", r.Forgotten)
	}
	o.tellProblems(w, r)
	if r.Found > 0 {
		return
	}
	if r.Payments == 0 && r.Anchors == 0 {
		line("empty: nothing is in this ledger; is it the one you mean?")
		return
	}
	line("whole: nothing that is there was changed or reordered, and nothing that was anchored is missing")
	if r.Unanchored > 0 && r.LastAnchor != (common.Hash{}) {
		line("younger than the last anchor, so that nobody could see it if one were removed: %d entries", r.Unanchored)
	}
	switch {
	case r.LastAnchor == (common.Hash{}):
		line("there is no anchor yet: that an entry was removed could not be seen")
	case expected == (common.Hash{}):
		line("the last anchor is %s; keep it elsewhere, and give it to the next verification with --expect", r.LastAnchor.Hex())
	default:
		line("the expected anchor is there; the last one is %s", r.LastAnchor.Hex())
	}
}

func (o *operator) tellProblems(w io.Writer, r *ledger.Report) {
	for _, p := range r.Problems {
		fmt.Fprintf(w, "%s: %s\n", p.Kind, client.Printable(p.Message, 1000))
	}
	if more := r.Found - int64(len(r.Problems)); more > 0 {
		fmt.Fprintf(w, "and %d more\n", more)
	}
	if r.Found > 0 {
		fmt.Fprintf(w, "NOT WHOLE: problems found: %d\n", r.Found)
	}
}
