package caddymodule

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caddy-x402/caddy-x402/ledger"
)

func newLedgerCommand(pi payIO) *cobra.Command {
	return group("ledger", "Moves a ledger", "Moves a ledger from one store to another."+exitHelp, newLedgerCopy(pi))
}

// copyFlags are the flags of "caddy x402 ledger copy".
type copyFlags struct {
	from, to, migrate, keptSince string
	page                         int
	json                         bool
}

const copyHelp = `Copies a ledger into an empty store: payments with their audit trails and transactions, wallets with their nonces,
reservations, revocations, and anchors. Stop every Caddy that uses either of them first.

A copy that was interrupted goes on where it was when the same command is given again. Until it is complete nothing can be
claimed in the new ledger. At the end every payment is read back and compared, and the audit trails are verified against the
anchors; only then is the new ledger ready.

A ledger is written kind:address: sqlite:/path, postgres://user@host/database, redis://host:port/0, redis+cluster://…,
redis+sentinel://…. Placeholders are replaced, so that a password need not stand in the command line.` + exitHelp

func newLedgerCopy(pi payIO) *cobra.Command {
	var f copyFlags
	cmd := quiet(&cobra.Command{
		Use:     "copy --from <kind:address> --to <kind:address>",
		Short:   "Copies a ledger into another store, and verifies the copy",
		Long:    copyHelp,
		Example: "  caddy x402 ledger copy --from sqlite:/var/lib/caddy/.local/share/caddy/x402/ledger.db --to '{env.LEDGER_URL}'",
		Args:    cobra.NoArgs,
		RunE:    pi.operate(&f.json, func(ctx context.Context, o *operator, _ []string) error { return f.copy(ctx, o) }),
	})
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&f.from, "from", "", "the ledger to copy")
	fs.StringVar(&f.to, "to", "", "where to; it must be empty, or the begun copy of the same ledger")
	fs.StringVar(&f.migrate, "migrate-url", "", "how the owner of the new tables connects, if it is another role (PostgreSQL; see the store's migrate_url)")
	fs.StringVar(&f.keptSince, "kept-since", "", "the ledger to copy has forgotten closed payments that were last changed before this time (Redis with a retention)")
	fs.IntVar(&f.page, "page-size", 0, "how many payments are read and written at once (default 500)")
	fs.BoolVar(&f.json, "json", false, "print JSON, also on a terminal")
	return cmd
}

func (f *copyFlags) copy(ctx context.Context, o *operator) error {
	if f.from == "" || f.to == "" {
		return invalidRequest("--from and --to name the ledgers, such as --from sqlite:/path/to/ledger.db --to '{env.LEDGER_URL}'")
	}
	if f.page < 0 {
		return invalidRequest("--page-size must not be negative")
	}
	since, err := parseKeptSince(f.keptSince)
	if err != nil {
		return err
	}
	from, err := openAddress(ctx, f.from, mustExist)
	if err != nil {
		return err
	}
	defer from.close()
	to, err := openAddress(ctx, f.to, mayMake, "migrate_url", f.migrate)
	if err != nil {
		return err
	}
	defer to.close()
	if from.key == to.key {
		return invalidRequest("--from and --to are the same ledger")
	}
	o.say("copying the ledger %s to %s", from.shown, to.shown)
	p := o.newProgress(false)
	report, err := ledger.Copy(ctx, from.store, to.store, ledger.CopyOptions{
		PageSize: f.page, KeptSince: since,
		Progress: func(at ledger.CopyProgress) { p.set(copySteps[at.Step], at.Done, at.Total) },
	})
	p.stop(err == nil)
	if err != nil {
		return f.failed(o, &report, err, from, to)
	}
	if o.asJSON {
		if err := o.print(report); err != nil {
			return err
		}
	}
	return o.tellCopy(&report, to)
}

// copySteps are the words for what is being done.
var copySteps = map[ledger.CopyStep]string{
	ledger.CopyPayments: "copying payments", ledger.CopyWallets: "copying wallets", ledger.CopyReservations: "copying reservations",
	ledger.CopyRevocations: "copying revocations", ledger.CopyAllowances: "copying allowances", ledger.CopyObjects: "copying objects",
	ledger.CopyAnchors: "copying anchors", ledger.CopyCompare: "comparing payments", ledger.CopyVerify: "verifying entries",
}

// failed says what an error of a copy means.
func (f *copyFlags) failed(o *operator, r *ledger.CopyReport, err error, from, to *openedStore) error {
	told := func(code, format string, args ...any) error {
		return &operatorError{0, code, fmt.Sprintf(format, args...), err}
	}
	again := "; give the same command again, and it goes on"
	switch {
	case errors.Is(err, ledger.ErrExists):
		return told(codeInUse, "the ledger %s is in use: a copy needs an empty one", to.shown)
	case errors.Is(err, ledger.ErrConflict):
		return told(codeInUse, "the ledger %s was written to meanwhile, or %s holds the copy of another one: stop every Caddy that uses "+
			"them, and begin with an empty one: %v", from.shown, to.shown, scrub(err.Error(), f.from+" "+f.to+" "+f.migrate))
	case errors.Is(err, ledger.ErrAudit):
		if !o.asJSON {
			_ = o.tellCopy(r, to)
		}
		return told(codeBroken, "what was copied does not verify: verify %s with caddy x402 audit verify; the copy is not complete: %v", from.shown, err)
	case errors.Is(err, context.Canceled):
		return told(codeUnavailable, "interrupted%s", again)
	}
	return told(codeUnavailable, "the copy is not complete: %s%s", scrub(err.Error(), f.from+" "+f.to+" "+f.migrate), again)
}

// tellCopy says in words what a copy did.
func (o *operator) tellCopy(r *ledger.CopyReport, to *openedStore) error {
	w := o.out
	if o.asJSON {
		w = o.err
	}
	fmt.Fprintf(w, "payments: %d (copied now: %d), wallets: %d, reservations: %d, revocations: %d, allowances: %d, objects: %d, anchors: %d\n",
		r.Payments, r.Copied, r.Wallets, r.Reservations, r.Revocations, r.Allowances, r.Objects, r.Anchors)
	o.tellProblems(w, &r.Audit)
	if r.Audit.Found > 0 {
		return errTold
	}
	fmt.Fprintf(w, "complete: every payment in %s was read back and is equal, and its audit trail verifies: %d entries\n", to.shown, r.Audit.Entries)
	return nil
}
