package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/caddy-x402/caddy-x402/client"
	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/management/apikey"
)

// apiKeysFlags are the flags of the commands under "caddy x402 apikeys".
type apiKeysFlags struct {
	adminFlags
	json             bool
	mode, label      string
	scopes           []string
	expires, overlap string
	leaked           bool
}

const apiKeysHelp = `

Which keys: those of the Caddy that is running, through its admin endpoint, which only this machine reaches. Their secrets are shown once:
Caddy keeps a hash.

Exit codes: 0 done, 2 the command is not well formed or was refused, 3 there is no such key, 4 Caddy can't be asked.`

func newAPIKeysCommand(pi payIO) *cobra.Command {
	return group("apikeys", "Makes, rotates and revokes the keys of the management API",
		"Makes, lists, rotates and revokes the keys with which programs sign in to the management API (x402_management)."+apiKeysHelp,
		newAPIKeysCreate(pi), newAPIKeysList(pi), newAPIKeysRotate(pi), newAPIKeysRevoke(pi))
}

func (f *apiKeysFlags) common(cmd *cobra.Command) {
	f.define(cmd.Flags(), "admin endpoint")
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON, also on a terminal")
}

const secretHelp = `

The secret is all that is printed on the standard output, so that it can go into a pipe or a variable; --json gives all there is.`

func newAPIKeysCreate(pi payIO) *cobra.Command {
	var f apiKeysFlags
	cmd := quiet(&cobra.Command{
		Use:   "create --label <whose it is> [flags]",
		Short: "Makes a key, and shows its secret once",
		Long: `Makes a key of the management API. Without --scopes it may do everything, which the first key must: with it others are made that may
less. Without --mode it is for the network that the running configuration has; where it has test networks and mainnets, say which.` + secretHelp + apiKeysHelp,
		Args: cobra.NoArgs,
		RunE: pi.operate(&f.json, func(ctx context.Context, o *operator, _ []string) error { return f.create(ctx, o) }),
	})
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&f.label, "label", "", "whose it is, and what for")
	fs.StringVar(&f.mode, "mode", "", "test or live")
	fs.StringSliceVar(&f.scopes, "scopes", nil, "what it may do: "+strings.Join(apikey.Names(apikey.Scopes()), ", ")+" (default: all but access)")
	fs.StringVar(&f.expires, "expires", "", "how long it is good, such as 90d (default: until it is revoked)")
	f.common(cmd)
	return cmd
}

func newAPIKeysList(pi payIO) *cobra.Command {
	var f apiKeysFlags
	cmd := quiet(&cobra.Command{
		Use: "list [flags]", Short: "Lists the keys", Long: "Lists the keys of the management API, without their secrets." + apiKeysHelp, Args: cobra.NoArgs,
		RunE: pi.operate(&f.json, func(ctx context.Context, o *operator, _ []string) error { return f.list(ctx, o) }),
	})
	f.common(cmd)
	return cmd
}

func newAPIKeysRotate(pi payIO) *cobra.Command {
	var f apiKeysFlags
	cmd := quiet(&cobra.Command{
		Use: "rotate <key> [flags]", Short: "Makes a successor of a key, and shows its secret once",
		Long: `Makes a successor with the same scopes. Both keys are good for --overlap, 7 days if nothing is said, so that whoever uses the old one has
time to change over. With --leaked the old one ends at once.` + secretHelp + apiKeysHelp,
		Args: cobra.ExactArgs(1),
		RunE: pi.operate(&f.json, f.rotate),
	})
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&f.overlap, "overlap", "", "how long the old key is still good, up to 30d (default 7d)")
	fs.BoolVar(&f.leaked, "leaked", false, "end the old key at once")
	f.common(cmd)
	return cmd
}

func newAPIKeysRevoke(pi payIO) *cobra.Command {
	var f apiKeysFlags
	cmd := quiet(&cobra.Command{
		Use: "revoke <key> [flags]", Short: "Ends a key at once", Long: "Ends a key at once, on every instance. It can't be undone." + apiKeysHelp, Args: cobra.ExactArgs(1),
		RunE: pi.operate(&f.json, f.revoke),
	})
	f.common(cmd)
	return cmd
}

// find finds the admin endpoint that the flags mean.
func (f *apiKeysFlags) find(o *operator) (*adminClient, error) {
	listen := f.address
	if listen == "" {
		c, file, err := loadConfigured(f.config, f.adapter)
		if err != nil {
			return nil, err
		}
		if c.Admin.Disabled {
			return nil, &operatorError{0, codeUnavailable, "the admin endpoint of " + file + " is off; make keys with a key that has keys:manage", nil}
		}
		listen = c.adminListen()
	}
	o.say("asking the Caddy at %s", listen)
	return newAdminClient(listen)
}

// seconds reads a duration as whole seconds.
func seconds(name, text string) (int64, error) {
	d, err := caddy.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, invalidRequest("%s %q is no duration; write one such as 12h or 90d", name, text)
	}
	return int64(d / time.Second), nil
}

// rotation is what a rotation of a key, or of the secret of an endpoint, is asked with.
func (f *apiKeysFlags) rotation(what string) (map[string]any, error) {
	ask := map[string]any{}
	switch {
	case f.leaked && f.overlap != "":
		return nil, invalidRequest("--leaked ends the old %s at once; leave out --overlap", what)
	case f.leaked:
		ask["overlapSeconds"] = 0
	case f.overlap != "":
		n, err := seconds("--overlap", f.overlap)
		if err != nil {
			return nil, err
		}
		ask["overlapSeconds"] = n
	}
	return ask, nil
}

// secretAlone has a command print the secret alone unless JSON is asked for, also into a pipe, which leads to where it is kept; and there
// nothing at all if something goes wrong.
func (f *apiKeysFlags) secretAlone(o *operator) { o.asJSON = f.json }

func (f *apiKeysFlags) create(ctx context.Context, o *operator) error {
	f.secretAlone(o)
	ask := map[string]any{"label": f.label, "scopes": f.scopes}
	if strings.TrimSpace(f.label) == "" {
		return invalidRequest("--label is missing: whose the key is, and what for")
	}
	if len(f.scopes) == 0 {
		ask["scopes"] = slices.DeleteFunc(apikey.Names(apikey.Scopes()), func(s string) bool { return s == string(apikey.Access) })
	}
	if f.mode != "" {
		ask["mode"] = f.mode
	}
	if f.expires != "" {
		n, err := seconds("--expires", f.expires)
		if err != nil {
			return err
		}
		ask["expiresInSeconds"] = n
	}
	c, err := f.find(o)
	if err != nil {
		return err
	}
	defer c.close()
	var made management.APIKeyWithSecret
	if err := c.manage(ctx, http.MethodPost, "api-keys", ask, &made); err != nil {
		return err
	}
	if o.asJSON {
		return o.print(made)
	}
	return showSecret(o, &made)
}

// showSecret prints a key that was made: what is to be kept on the standard output, and what it is on the standard error.
func showSecret(o *operator, k *management.APIKeyWithSecret) error {
	o.say("%s key %s for %s: %s", k.Mode, k.ID, k.Network, strings.Join(k.Scopes, ", "))
	o.say("This is its secret. It is shown this once; put it where secrets are kept.")
	if k.Secret == nil {
		return errors.New("the answer has no secret")
	}
	if _, err := fmt.Fprintln(o.out, client.Printable(*k.Secret, 100)); err != nil {
		return fmt.Errorf("writing the secret: %w", err)
	}
	return nil
}

func (f *apiKeysFlags) list(ctx context.Context, o *operator) error {
	c, err := f.find(o)
	if err != nil {
		return err
	}
	defer c.close()
	keys, err := managedList[management.APIKey](ctx, c, "api-keys")
	if err != nil {
		return err
	}
	if o.asJSON {
		return o.print(map[string]any{"data": keys})
	}
	t := newTable("key", "begins", "mode", "status", "label", "scopes", "made", "last used", "ends")
	for i := range keys {
		k := &keys[i]
		ends := k.ExpiresAt
		if k.OverlapEndsAt != nil {
			ends = k.OverlapEndsAt
		}
		t.AppendRow(table.Row{
			client.Printable(k.ID, 64), client.Printable(k.Prefix, 20), client.Printable(k.Mode, 8), client.Printable(k.Status, 10), client.Printable(k.Label, 80),
			client.Printable(strings.Join(k.Scopes, " "), 100), rfc3339(k.CreatedAt), rfc3339(valueOr(k.LastUsedAt)), rfc3339(valueOr(ends)),
		})
	}
	return writeTable(o.out, t, o.width)
}

func valueOr(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// keyPath is the path of a key's operation. What is no id would lead elsewhere.
func keyPath(id, operation string) (string, error) {
	if !isManagedID(id) {
		return "", &operatorError{http.StatusNotFound, management.CodeKeyNotFound, "there is no key with this id; see caddy x402 apikeys list", nil}
	}
	return "api-keys/" + id + operation, nil
}

func (f *apiKeysFlags) rotate(ctx context.Context, o *operator, args []string) error {
	f.secretAlone(o)
	path, err := keyPath(args[0], "/rotate")
	if err != nil {
		return err
	}
	ask, err := f.rotation("key")
	if err != nil {
		return err
	}
	c, err := f.find(o)
	if err != nil {
		return err
	}
	defer c.close()
	var turned struct {
		Predecessor   management.APIKey           `json:"predecessor"`
		Successor     management.APIKeyWithSecret `json:"successor"`
		OverlapEndsAt time.Time                   `json:"overlapEndsAt"`
	}
	if err := c.manage(ctx, http.MethodPost, path, ask, &turned); err != nil {
		return err
	}
	if o.asJSON {
		return o.print(turned)
	}
	o.say("%s is good until %s", client.Printable(turned.Predecessor.ID, 64), rfc3339(turned.OverlapEndsAt))
	return showSecret(o, &turned.Successor)
}

func (f *apiKeysFlags) revoke(ctx context.Context, o *operator, args []string) error {
	path, err := keyPath(args[0], "")
	if err != nil {
		return err
	}
	c, err := f.find(o)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.manage(ctx, http.MethodDelete, path, nil, nil); err != nil {
		return err
	}
	if o.asJSON {
		return o.print(map[string]any{"revoked": args[0]})
	}
	o.say("%s is revoked", client.Printable(args[0], 64))
	return nil
}
