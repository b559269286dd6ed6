package caddymodule

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/caddy-x402/caddy-x402/token"
)

// keysFlags are the flags of the commands under "caddy x402 keys".
type keysFlags struct {
	adminFlags
	json     bool
	rotation keyRotation
	force    bool
}

const keysHelp = `

Which keys: those of the Caddy that is running, through its admin endpoint; or else, if none is running, those in the storage that
the configuration names. What was taken is said on the standard error. All instances that share the storage follow within
seconds. Private keys are never shown.` + keysExitHelp

const keysExitHelp = `

Exit codes: 0 done, 2 the command is not well formed or was refused, 3 there is no such key, 4 the keys can't be read or written.`

func newKeysCommand(pi payIO) *cobra.Command {
	return group("keys", "Shows and rotates the keys that sign tokens",
		"Shows, rotates and retires the keys that sign access tokens and the assertions for upstreams."+keysHelp,
		newKeysList(pi), newKeysRotate(pi), newKeysRetire(pi))
}

func (f *keysFlags) common(cmd *cobra.Command) {
	f.define(cmd.Flags(), "storage")
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON, also on a terminal")
}

func newKeysList(pi payIO) *cobra.Command {
	var f keysFlags
	cmd := quiet(&cobra.Command{
		Use:   "list [flags]",
		Short: "Lists the keys, and what each is for now",
		Long: `Lists the keys: the one that signs, one that is published and will sign (next), those that still verify what they have signed, and
those that have ended within a day.` + keysHelp,
		Args: cobra.NoArgs,
		RunE: pi.operate(&f.json, func(ctx context.Context, o *operator, _ []string) error {
			return f.run(ctx, o, func(ops keyOperations) (keyList, error) { return ops.list(ctx) })
		}),
	})
	f.common(cmd)
	return cmd
}

func newKeysRotate(pi payIO) *cobra.Command {
	var f keysFlags
	cmd := quiet(&cobra.Command{
		Use:   "rotate [flags]",
		Short: "Adds a key that will sign in place of the one that signs now",
		Long: `Adds a new key. It is published at once, in /.well-known/jwks.json, and signs after --lead, when every instance and every upstream
that looks there knows it. The old key then verifies for --overlap more: as long as the longest token that it may have signed lives,
unless something else is said. Nothing is restarted, and no token that was sold is refused.

In an emergency: caddy x402 keys rotate --lead 10s, and, when the new key signs, caddy x402 keys retire OLD --force.` + keysHelp,
		Args: cobra.NoArgs,
		RunE: pi.operate(&f.json, func(ctx context.Context, o *operator, _ []string) error {
			if _, err := f.rotation.rotation(); err != nil {
				return err
			}
			f.rotation.Force = f.force
			return f.run(ctx, o, func(ops keyOperations) (keyList, error) { return ops.rotate(ctx, f.rotation) })
		}),
	})
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&f.rotation.Lead, "lead", "", "how long the key is shown before it signs (default "+token.DefaultLead.String()+")")
	fs.StringVar(&f.rotation.Overlap, "overlap", "", "how long the old key still verifies then (default: until its last token has expired)")
	fs.StringVar(&f.rotation.Algorithm, "algorithm", "", "EdDSA, ES256 or RS256 (default EdDSA)")
	fs.BoolVar(&f.force, "force", false, "accept an overlap that ends tokens which were sold")
	f.common(cmd)
	return cmd
}

func newKeysRetire(pi payIO) *cobra.Command {
	var f keysFlags
	cmd := quiet(&cobra.Command{
		Use:   "retire <key> [flags]",
		Short: "Ends a key before its time",
		Long: `Ends a key, named by its id or the beginning of it. One that does not sign yet is taken back. One that signs no more ends now, if
that is forced: what it has signed is refused from then on, and whoever bought it gets a new token by sending the request that bought
it once more. The key that signs can't be retired: rotate first. An id that begins with - goes after two of them: retire -- -x1Y…` + keysHelp,
		Args: cobra.ExactArgs(1),
		RunE: pi.operate(&f.json, func(ctx context.Context, o *operator, args []string) error {
			q := keyRetirement{Key: args[0], Force: f.force}
			return f.run(ctx, o, func(ops keyOperations) (keyList, error) { return ops.retire(ctx, q) })
		}),
	})
	cmd.Flags().BoolVar(&f.force, "force", false, "end it though tokens that were sold stop working")
	f.common(cmd)
	return cmd
}

// run finds the ring, does f, and shows what there is then.
func (f *keysFlags) run(ctx context.Context, o *operator, do func(keyOperations) (keyList, error)) error {
	ops, done, err := f.find(ctx, o.say)
	if err != nil {
		return err
	}
	defer done()
	list, err := do(ops)
	if err != nil {
		return err
	}
	if o.asJSON {
		return o.print(list)
	}
	return showKeys(o.out, &list)
}
