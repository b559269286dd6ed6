package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-x402/caddy-x402/client"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

// webhooksListen are the flags of "caddy x402 webhooks listen".
type webhooksListen struct {
	secret webhookSecret
	listen string
	status int
	count  int
	json   bool
}

func newWebhooksListen(pi payIO) *cobra.Command {
	var f webhooksListen
	cmd := quiet(&cobra.Command{
		Use:   "listen [flags]",
		Short: "Receives webhooks and shows them",
		Long: `Receives webhooks, verifies each and shows it, until it is interrupted. What can't be verified is answered 401. Without a secret one is made
and shown, with what to write into the configuration. On a terminal each webhook is a line, else a line of JSON.

With --status it answers something else than 204, to see how it is tried again.` + exitWebhooks,
		Args: cobra.NoArgs,
		RunE: pi.operate(&f.json, func(ctx context.Context, o *operator, _ []string) error { return f.run(ctx, o) }),
	})
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&f.listen, "listen", "127.0.0.1:4402", "where to listen")
	fs.IntVar(&f.status, "status", http.StatusNoContent, "the status of answers to webhooks that are to be believed")
	fs.IntVar(&f.count, "count", 0, "end after so many that are to be believed (default: never)")
	f.secret.define(cmd)
	fs.BoolVar(&f.json, "json", false, "print JSON, also on a terminal")
	return cmd
}

const exitWebhooks = `

Exit codes: 0 it was interrupted or has its --count, 2 the command is not well formed, 4 the address can't be listened at.`

func (f *webhooksListen) run(ctx context.Context, o *operator) error {
	if f.status < 200 || f.status > 599 {
		return invalidRequest("--status must be from 200 to 599")
	}
	secret, err := f.secret.read()
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", f.listen)
	if err != nil {
		return &operatorError{http.StatusServiceUnavailable, codeUnavailable, "it can't listen: " + err.Error(), err}
	}
	o.say(listening, l.Addr())
	if secret == "" {
		secret = webhooks.NewSecret()
		o.say(listeningNew, secret, l.Addr())
	}
	ctx, done := context.WithCancel(ctx)
	defer done()
	r := &webhookReceiver{secret: secret, status: f.status, left: f.count, o: o, done: done, seen: make(map[string]int)}
	server := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, MaxHeaderBytes: 32 << 10}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err = <-ended:
		return &operatorError{http.StatusServiceUnavailable, codeUnavailable, "it can't listen any more: " + err.Error(), err}
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		_ = server.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("ending: %w", err)
	}
	return nil
}

// What listen says at first, with its address; and what else without a secret, with a new one.
const (
	listening = `listening; what Caddy tells must be allowed to come here, and for an endpoint of the configuration it must be named:

	x402 {
		webhook http://%s/ {
			secret {env.X402_WEBHOOK_SECRET}
		}
		webhooks {
			allow_private
		}
	}
`
	listeningNew = `this secret is new; start the Caddy with it in its environment, as X402_WEBHOOK_SECRET:
%s

A Caddy that is running and has x402_management makes an endpoint with another secret, without a restart. Then listen with that:

	export X402_WEBHOOK_SECRET=$(caddy x402 webhooks add http://%s/)
	caddy x402 webhooks listen
`
)

// webhookReceiver shows what comes.
type webhookReceiver struct {
	secret string
	status int
	o      *operator
	done   func()

	mu   sync.Mutex
	left int            // how many are still wanted; 0: all
	seen map[string]int // how often each id has come
}

// received is what listen prints.
type received struct {
	verified
	At        time.Time       `json:"at"`
	ID        string          `json:"id,omitempty"`
	Times     int             `json:"times,omitempty"` // how often this id has come
	Timestamp string          `json:"timestamp,omitempty"`
	Signature string          `json:"signature,omitempty"`
	Body      json.RawMessage `json:"body,omitempty"`
}

// ServeHTTP implements http.Handler.
func (r *webhookReceiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if q.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "webhooks are sent by POST", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, q.Body, maxWebhookBody))
	if err != nil {
		http.Error(w, "the body can't be read", http.StatusBadRequest)
		return
	}
	now := time.Now()
	got := received{
		verified: judgeWebhook(r.secret, q.Header, body, now), At: now.UTC(),
		ID: q.Header.Get(webhooks.HeaderID), Timestamp: q.Header.Get(webhooks.HeaderTimestamp), Signature: q.Header.Get(webhooks.HeaderSignature),
	}
	if !got.Verified {
		r.show(&got)
		http.Error(w, got.Code, http.StatusUnauthorized)
		return
	}
	if json.Valid(body) {
		got.Body = body
	}
	w.WriteHeader(r.status)
	r.show(&got)
}

// show prints one webhook, and ends the command if it was the last one wanted.
func (r *webhookReceiver) show(got *received) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if got.Verified {
		r.seen[got.ID]++
		got.Times = r.seen[got.ID]
	}
	if o := r.o; o.asJSON {
		_ = o.print(got)
	} else {
		_, _ = fmt.Fprintln(o.out, got.line())
	}
	if !got.Verified || r.left == 0 {
		return
	}
	if r.left--; r.left == 0 {
		r.done()
	}
}

// line is got for people.
func (g *received) line() string {
	at := g.At.Local().Format(time.TimeOnly)
	if !g.Verified {
		return fmt.Sprintf("%s  refused: %s (%s)", at, g.Detail, g.Code)
	}
	var body struct {
		Type string `json:"type"`
		Data struct {
			PaymentID string `json:"paymentId"`
			Amount    string `json:"amount"`
			Symbol    string `json:"symbol"`
			Reason    string `json:"reason"`
		} `json:"data"`
	}
	_ = json.Unmarshal(g.Body, &body) // what can't be read is left out
	text := fmt.Sprintf("%s  %-26s %s", at, body.Type, g.ID)
	if g.Times > 1 {
		text += fmt.Sprintf("  (for the %d. time)", g.Times)
	}
	if d := body.Data; d.PaymentID != "" {
		text += fmt.Sprintf("  %s atomic units of %s", d.Amount, d.Symbol)
	}
	if body.Data.Reason != "" {
		text += "  " + body.Data.Reason
	}
	return client.Printable(text, 4000)
}
