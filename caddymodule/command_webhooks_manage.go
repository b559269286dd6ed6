package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/caddy-x402/caddy-x402/client"
	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

// hooksFlags are the flags of the commands that look after endpoints of webhooks.
type hooksFlags struct {
	apiKeysFlags
	events      []string
	description string
	status      string
}

const hooksHelp = `

Which endpoints: those of the Caddy that is running, through its admin endpoint, which only this machine reaches. An endpoint is told of real money
(--mode live) or of test networks (--mode test); the mode need not be said where the configuration has networks of one kind.

Exit codes: 0 done, 2 the command is not well formed or was refused, 3 there is no such endpoint or delivery, 4 Caddy can't be asked.`

// newWebhooksManage are the commands that look after endpoints.
func newWebhooksManage(pi payIO) []*cobra.Command {
	return []*cobra.Command{
		newHooksCommand(pi, &cobra.Command{
			Use: "list [flags]", Short: "Lists the endpoints", Long: "Lists the endpoints, those of the configuration too." + hooksHelp, Args: cobra.NoArgs,
		}, (*hooksFlags).listHooks, nil),
		newHooksCommand(pi, &cobra.Command{
			Use: "add <url> [flags]", Short: "Makes an endpoint, and shows its secret once",
			Long: "Makes an endpoint, which is told what happens from now on. What its deliveries are signed with is shown once." + secretHelp + hooksHelp, Args: cobra.ExactArgs(1),
		}, (*hooksFlags).addHook, func(f *hooksFlags, cmd *cobra.Command) {
			cmd.Flags().StringSliceVar(&f.events, "events", nil, "what it is told of, such as payment.settled or payment.* (default: all)")
			cmd.Flags().StringVar(&f.description, "description", "", "what it is for")
		}),
		newHooksCommand(pi, &cobra.Command{
			Use: "remove <endpoint> [flags]", Short: "Removes an endpoint", Long: "Removes an endpoint. What is still to be told to it is dead." + hooksHelp, Args: cobra.ExactArgs(1),
		}, (*hooksFlags).removeHook, nil),
		newHooksCommand(pi, &cobra.Command{
			Use: "rotate <endpoint> [flags]", Short: "Gives an endpoint a new secret, and shows it once",
			Long: `Gives an endpoint a new secret. For --overlap, a day if nothing is said, deliveries are signed with both. With --leaked the old one ends at
once.` + secretHelp + hooksHelp, Args: cobra.ExactArgs(1),
		}, (*hooksFlags).rotateHook, func(f *hooksFlags, cmd *cobra.Command) {
			cmd.Flags().StringVar(&f.overlap, "overlap", "", "how long the old secret still signs, up to 30d (default 1d)")
			cmd.Flags().BoolVar(&f.leaked, "leaked", false, "end the old secret at once")
		}),
		newHooksCommand(pi, &cobra.Command{
			Use: "deliveries <endpoint> [flags]", Short: "Lists what an endpoint was told, and is to be told",
			Long: "Lists the newest deliveries of an endpoint." + hooksHelp, Args: cobra.ExactArgs(1),
		}, (*hooksFlags).listDeliveries, func(f *hooksFlags, cmd *cobra.Command) {
			cmd.Flags().StringVar(&f.status, "status", "", "only those that are pending, failed, delivered or dead")
		}),
		newHooksCommand(pi, &cobra.Command{
			Use: "redeliver <endpoint> <delivery> [flags]", Short: "Delivers again what has arrived or was given up",
			Long: "Delivers an event again, under the same id, with the whole schedule before it." + hooksHelp, Args: cobra.ExactArgs(2),
		}, (*hooksFlags).redeliver, nil),
		newHooksCommand(pi, &cobra.Command{
			Use: "test <endpoint> [flags]", Short: "Sends an endpoint the event webhook.test",
			Long: "Sends an endpoint the event webhook.test, as if something had happened: signed, logged and tried again." + hooksHelp, Args: cobra.ExactArgs(1),
		}, (*hooksFlags).testHook, nil),
	}
}

func newHooksCommand(pi payIO, cmd *cobra.Command, run func(*hooksFlags, context.Context, *operator, *adminClient, []string) error,
	more func(*hooksFlags, *cobra.Command),
) *cobra.Command {
	f := new(hooksFlags)
	cmd.RunE = pi.operate(&f.json, func(ctx context.Context, o *operator, args []string) error {
		c, err := f.findHooks(o)
		if err != nil {
			return err
		}
		defer c.close()
		return run(f, ctx, o, c, args)
	})
	fs := quiet(cmd).Flags()
	fs.SortFlags = false
	if more != nil {
		more(f, cmd)
	}
	fs.StringVar(&f.mode, "mode", "", "test or live")
	f.common(cmd)
	return cmd
}

func (f *hooksFlags) findHooks(o *operator) (*adminClient, error) {
	network := map[string]string{"": "", modeTest: management.Testnet, modeLive: management.Mainnet}
	n, known := network[f.mode]
	if !known {
		return nil, invalidRequest("--mode %q is neither test nor live", f.mode)
	}
	c, err := f.find(o)
	if err == nil {
		c.network = n
	}
	return c, err
}

// hookPath is the path of an operation on an endpoint. What is no id would lead elsewhere.
func hookPath(id, operation string) (string, error) {
	if !isManagedID(id) {
		return "", &operatorError{http.StatusNotFound, webhooks.CodeNotFound, "there is no endpoint with this id; see caddy x402 webhooks list", nil}
	}
	return "webhooks/" + id + operation, nil
}

// isManagedID reports whether something of the management API can have this id.
func isManagedID(id string) bool {
	return id != "" && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

func (*hooksFlags) listHooks(ctx context.Context, o *operator, c *adminClient, _ []string) error {
	list, err := managedList[management.Webhook](ctx, c, "webhooks")
	if err != nil {
		return err
	}
	if o.asJSON {
		return o.print(map[string]any{"data": list})
	}
	t := newTable("endpoint", "mode", "status", "url", "events", "made")
	for i := range list {
		h := &list[i]
		mode, status, events := modeTest, "active", "all"
		if h.Livemode {
			mode = modeLive
		}
		if !h.Active {
			status = "stopped: " + h.DisabledReason
		}
		if len(h.Events) > 0 {
			events = strings.Join(h.Events, " ")
		}
		if h.Configured {
			status += ", configured"
		}
		t.AppendRow(table.Row{
			client.Printable(h.ID, 64), mode, client.Printable(status, 40), client.Printable(h.URL, 200), client.Printable(events, 100), rfc3339(h.CreatedAt),
		})
	}
	return writeTable(o.out, t, o.width)
}

func (f *hooksFlags) addHook(ctx context.Context, o *operator, c *adminClient, args []string) error {
	f.secretAlone(o)
	ask := map[string]any{"url": args[0]}
	if len(f.events) > 0 {
		ask["events"] = f.events
	}
	if f.description != "" {
		ask["description"] = f.description
	}
	var made management.WebhookWithSecret
	if err := c.manage(ctx, http.MethodPost, "webhooks", ask, &made); err != nil {
		return err
	}
	if leadsInside(made.URL) {
		o.say("Its address is a private one: it is told nothing unless the configuration has webhooks { allow_private } in the global option x402.")
	}
	return showHookSecret(o, &made)
}

// leadsInside reports whether an address is plainly of this machine or of a network of one's own. Names may lead there, too.
func leadsInside(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && (ip.IsLoopback() || ip.IsPrivate())
}

// showHookSecret prints what is to be kept on the standard output, and what it is on the standard error.
func showHookSecret(o *operator, h *management.WebhookWithSecret) error {
	if o.asJSON {
		return o.print(h)
	}
	o.say("endpoint %s of %s: %s", client.Printable(h.ID, 64), client.Printable(h.Network, 10), client.Printable(h.URL, 200))
	if h.OverlapEndsAt != nil {
		o.say("the secret before signs until %s, too", rfc3339(*h.OverlapEndsAt))
	}
	o.say("This is its secret. It is shown this once; put it where the receiver keeps secrets.")
	if h.Secret == nil {
		return errors.New("the answer has no secret")
	}
	if _, err := fmt.Fprintln(o.out, client.Printable(*h.Secret, 200)); err != nil {
		return fmt.Errorf("writing the secret: %w", err)
	}
	return nil
}

func (*hooksFlags) removeHook(ctx context.Context, o *operator, c *adminClient, args []string) error {
	path, err := hookPath(args[0], "")
	if err != nil {
		return err
	}
	if err := c.manage(ctx, http.MethodDelete, path, nil, nil); err != nil {
		return err
	}
	if o.asJSON {
		return o.print(map[string]any{"removed": args[0]})
	}
	o.say("%s is removed", client.Printable(args[0], 64))
	return nil
}

func (f *hooksFlags) rotateHook(ctx context.Context, o *operator, c *adminClient, args []string) error {
	f.secretAlone(o)
	path, err := hookPath(args[0], "/rotate-secret")
	if err != nil {
		return err
	}
	ask, err := f.rotation("secret")
	if err != nil {
		return err
	}
	var turned management.WebhookWithSecret
	if err := c.manage(ctx, http.MethodPost, path, ask, &turned); err != nil {
		return err
	}
	return showHookSecret(o, &turned)
}

func (f *hooksFlags) listDeliveries(ctx context.Context, o *operator, c *adminClient, args []string) error {
	query := "/deliveries?limit=100"
	if f.status != "" {
		query += "&status=" + url.QueryEscape(f.status)
	}
	path, err := hookPath(args[0], query)
	if err != nil {
		return err
	}
	var p struct {
		Data []management.Delivery `json:"data"`
		Page management.Page       `json:"page"`
	}
	if err := c.manage(ctx, http.MethodGet, path, nil, &p); err != nil {
		return err
	}
	if o.asJSON {
		return o.print(p)
	}
	t := newTable("delivery", "status", "event", "attempts", "answer", "reason", "made", "next attempt")
	for i := range p.Data {
		d := &p.Data[i]
		t.AppendRow(table.Row{
			client.Printable(d.ID, 64), client.Printable(d.Status, 10), client.Printable(d.EventType, 40), d.AttemptCount, d.ResponseStatusCode,
			client.Printable(d.Reason, 40), rfc3339(d.CreatedAt), rfc3339(valueOr(d.NextAttemptAt)),
		})
	}
	if p.Page.Next != "" {
		o.say("There are more; these are the newest.")
	}
	return writeTable(o.out, t, o.width)
}

func (*hooksFlags) redeliver(ctx context.Context, o *operator, c *adminClient, args []string) error {
	if !isManagedID(args[1]) {
		return &operatorError{http.StatusNotFound, webhooks.CodeDeliveryNotFound, "there is no delivery with this id; see caddy x402 webhooks deliveries", nil}
	}
	return delivering(ctx, o, c, args[0], "/deliveries/"+args[1]+"/redeliver")
}

func (*hooksFlags) testHook(ctx context.Context, o *operator, c *adminClient, args []string) error {
	return delivering(ctx, o, c, args[0], "/test")
}

// delivering asks for a delivery.
func delivering(ctx context.Context, o *operator, c *adminClient, endpoint, operation string) error {
	path, err := hookPath(endpoint, operation)
	if err != nil {
		return err
	}
	var d management.Delivery
	if err := c.manage(ctx, http.MethodPost, path, struct{}{}, &d); err != nil {
		return err
	}
	if o.asJSON {
		return o.print(d)
	}
	o.say("%s is on its way; see caddy x402 webhooks deliveries %s", client.Printable(d.ID, 64), client.Printable(endpoint, 64))
	return nil
}
