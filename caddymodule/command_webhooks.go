package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

// maxWebhookBody is more than any delivery has.
const maxWebhookBody = 1 << 20

// webhookSecret is where a command finds the secret to verify with: never on the command line, which others can read.
type webhookSecret struct{ env, file string }

func (s *webhookSecret) define(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&s.env, "secret-env", "X402_WEBHOOK_SECRET", "environment variable that holds the secret, whsec_…")
	fs.StringVar(&s.file, "secret-file", "", "file that holds the secret instead")
}

// read gives the secret; empty: there is none.
func (s *webhookSecret) read() (string, error) {
	text := os.Getenv(s.env)
	if s.file != "" {
		b, err := os.ReadFile(s.file)
		if err != nil {
			return "", invalidRequest("the file of the secret can't be read: %v", errors.Unwrap(err))
		}
		text = string(b)
	}
	if text = strings.TrimSpace(text); text == "" {
		return "", nil
	}
	if err := webhooks.CheckSecret(text); err != nil {
		return "", invalidRequest("%v", err)
	}
	return text, nil
}

func newWebhooksCommand(pi payIO) *cobra.Command {
	return group("webhooks", "Looks after the endpoints of webhooks, and helps those who write receivers",
		"Makes endpoints of webhooks and shows what they were told; receives webhooks and verifies single ones, for those who write receivers. What is sent is "+
			"described in docs/webhooks.md.",
		append(newWebhooksManage(pi), newWebhooksListen(pi), newWebhooksVerify(pi))...)
}

// webhooksVerify are the flags of "caddy x402 webhooks verify".
type webhooksVerify struct {
	secret                       webhookSecret
	id, timestamp, signature, at string
	json                         bool
}

func newWebhooksVerify(pi payIO) *cobra.Command {
	var f webhooksVerify
	cmd := quiet(&cobra.Command{
		Use:   "verify [<file>] --id … --timestamp … --signature … [flags]",
		Short: "Says whether a webhook is to be believed",
		Long: `Verifies a webhook as a receiver must: by its three headers and the bytes of its body, which are those of the file or, without one, of the
standard input. The secret comes from the environment or a file. A timestamp that is more than five minutes from now is refused; --at says
what time it was when an older one arrived.

The result has a stable code: webhook.secret_missing, webhook.signature_missing, webhook.signature_malformed, webhook.timestamp_missing,
webhook.timestamp_invalid, webhook.timestamp_outside_window or webhook.signature_mismatch.

Exit codes: 0 it is to be believed, 2 the command is not well formed, 5 it is not to be believed.`,
		Args: cobra.MaximumNArgs(1),
	})
	cmd.RunE = pi.operate(&f.json, func(_ context.Context, o *operator, args []string) error { return f.run(cmd.InOrStdin(), o, args) })
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&f.id, "id", "", "the header "+webhooks.HeaderID)
	fs.StringVar(&f.timestamp, "timestamp", "", "the header "+webhooks.HeaderTimestamp)
	fs.StringVar(&f.signature, "signature", "", "the header "+webhooks.HeaderSignature)
	fs.StringVar(&f.at, "at", "", "when it arrived, such as 2026-11-22T10:00:00Z (default: now)")
	f.secret.define(cmd)
	fs.BoolVar(&f.json, "json", false, "print JSON, also on a terminal")
	return cmd
}

// verified is what verify prints.
type verified struct {
	Verified bool   `json:"verified"`
	Code     string `json:"code,omitempty"`
	Detail   string `json:"detail,omitempty"`
}

func (f *webhooksVerify) run(in io.Reader, o *operator, args []string) error {
	now := time.Now()
	if f.at != "" {
		var err error
		if now, err = time.Parse(time.RFC3339, f.at); err != nil {
			return invalidRequest("--at %q is not a time; write one such as 2026-11-22T10:00:00Z", f.at)
		}
	}
	secret, err := f.secret.read()
	if err != nil {
		return err
	}
	body, err := readWebhook(in, args)
	if err != nil {
		return err
	}
	h := http.Header{}
	h.Set(webhooks.HeaderID, f.id)
	h.Set(webhooks.HeaderTimestamp, f.timestamp)
	h.Set(webhooks.HeaderSignature, f.signature)
	result := judgeWebhook(secret, h, body, now)
	switch {
	case o.asJSON:
		err = o.print(result)
	case result.Verified:
		_, err = fmt.Fprintln(o.out, "it is to be believed")
	default:
		_, err = fmt.Fprintf(o.out, "it is not to be believed: %s (%s)\n", result.Detail, result.Code)
	}
	if err == nil && !result.Verified {
		return errTold
	}
	return err
}

func judgeWebhook(secret string, h http.Header, body []byte, now time.Time) verified {
	err := webhooks.Verify(secret, h, body, now)
	if e, ok := errors.AsType[*webhooks.VerifyError](err); ok {
		return verified{Code: string(e.Code), Detail: e.Error()}
	}
	return verified{Verified: true}
}

func readWebhook(in io.Reader, args []string) ([]byte, error) {
	if len(args) == 1 && args[0] != "-" {
		f, err := os.Open(args[0])
		if err != nil {
			return nil, invalidRequest("the body can't be read: %v", err)
		}
		defer f.Close()
		in = f
	}
	body, err := io.ReadAll(io.LimitReader(in, maxWebhookBody+1))
	if err != nil {
		return nil, invalidRequest("the body can't be read: %v", err)
	}
	if len(body) > maxWebhookBody {
		return nil, invalidRequest("the body is longer than %d bytes: it is none of a webhook", maxWebhookBody)
	}
	return body, nil
}
