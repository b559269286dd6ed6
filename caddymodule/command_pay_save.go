package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-x402/caddy-x402/client"
)

// savedPayment is a payment whose outcome is open, with the request that it was made for. It is a secret.
type savedPayment struct {
	Version     int         `json:"version"`
	SavedAt     time.Time   `json:"savedAt"`
	Method      string      `json:"method"`
	URL         string      `json:"url"`
	Host        string      `json:"host,omitempty"`
	Headers     http.Header `json:"headers,omitempty"`
	Body        []byte      `json:"body,omitempty"`
	Header      string      `json:"paymentHeader"`
	Value       string      `json:"paymentValue"`
	Network     string      `json:"network"`
	Amount      string      `json:"amount"`
	Payer       string      `json:"payer"`
	ValidBefore string      `json:"validBefore"`
}

// stateFile is a place in Caddy's data directory.
func stateFile(kind, name string) string {
	return filepath.Join(caddy.AppDataDir(), "x402", kind, name)
}

// writeSecret makes a file that only its owner can read. It never overwrites one.
func writeSecret(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		_ = os.Remove(path)
	}
	return err
}

func writeState(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return writeSecret(path, content)
}

// onSigned keeps the payment before it leaves: whatever happens to this process then, it can be sent again.
func (p *payer) onSigned(r *client.Report) error {
	until := time.Unix(int64(r.Authorization.ValidBefore.Uint64()), 0)
	p.say("* signed by %s, good until %s", r.Payer, until.Format(time.TimeOnly))
	s := savedPayment{
		Version: 1, SavedAt: p.now().UTC().Truncate(time.Second), Method: r.Method, URL: r.URL.String(),
		Headers: p.req.Header, Header: r.Payment.Header, Value: string(r.Payment.Value),
		Network: r.Network.ID, Amount: r.Amount.Dec(), Payer: r.Payer.Hex(), ValidBefore: r.Authorization.ValidBefore.Dec(),
	}
	if p.req.Host != p.req.URL.Host {
		s.Host = p.req.Host
	}
	if r.Method == p.req.Method { // otherwise a redirect made a GET of it
		s.Body = p.sent
	}
	content, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("saving the payment: %w", err)
	}
	if p.save != "" {
		if err := writeSecret(p.save, content); err != nil {
			return fmt.Errorf("saving the payment: %w", err)
		}
		p.saved = p.save
	} else if path := stateFile("payments", r.Authorization.Nonce.Hex()[2:18]+".json"); writeState(path, content) == nil {
		p.saved = path
	} else {
		p.complain("warning: the payment can't be kept in %s; if its outcome stays unknown, it can't be sent again (see --save-payment)", path)
	}
	p.say("> %s %s with the payment", r.Method, client.Printable(r.URL.Redacted(), 500))
	return nil
}

// forget removes the payment when its outcome is known.
func (p *payer) forget() {
	if p.saved == "" {
		return
	}
	if err := os.Remove(p.saved); err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.complain("warning: the payment is done with, but its file could not be removed: %v", err)
	}
	p.saved = ""
}

// resumePayment sends a saved payment again, with its request.
func (p *payer) resumePayment(ctx context.Context, c *client.Client) int {
	raw, err := os.ReadFile(p.resume)
	if err != nil {
		p.complain("reading the payment: %v", err)
		return exitUsage
	}
	var s savedPayment
	if err := json.Unmarshal(raw, &s); err != nil || s.Version != 1 || s.Header == "" {
		p.complain("%s is no file of --save-payment", p.resume)
		return exitUsage
	}
	var body io.Reader
	if s.Body != nil {
		body = bytes.NewReader(s.Body)
	}
	req, err := http.NewRequestWithContext(ctx, s.Method, s.URL, body)
	if err != nil {
		p.complain("%s holds no request that can be sent", p.resume)
		return exitUsage
	}
	if s.Headers != nil {
		req.Header = s.Headers
	}
	req.Host = s.Host
	p.saved = p.resume
	p.say("> %s %s with the payment of %s", req.Method, client.Printable(req.URL.Redacted(), 500), s.SavedAt.Format(time.DateTime))
	resp, r, err := c.Resume(req, client.Payment{Header: s.Header, Value: client.Secret(s.Value)})
	if client.CodeOf(err) == client.CodeRequest {
		p.saved = "" // nothing was sent: the file stays
	}
	return p.finish(resp, r, err)
}

// keepToken writes the token of a plan to a file: it was paid for, and is no text to print.
func (p *payer) keepToken(r *client.Report, result *payResult) {
	if r.AccessToken == "" {
		return
	}
	kept := stateFile("tokens", fmt.Sprintf("%d-%s.jwt", p.now().Unix(), tokenName(r)))
	path := p.tokenFile
	if path == "" {
		path = kept
	}
	err := writeToken(path, r.AccessToken)
	if err != nil && p.tokenFile != "" {
		p.complain("warning: the access token can't be written to --token-file: %v", err)
		path = kept
		err = writeToken(path, r.AccessToken)
	}
	if err != nil {
		p.complain("warning: the access token could not be kept: %v; the same key gets it again", err)
		return
	}
	result.AccessTokenFile = path
	p.say(`* access token in %s; send it with -H "Authorization: Bearer $(cat %s)"`, path, shellQuote(path))
}

// writeToken replaces what is there: an older token, whose file others might read.
func writeToken(path string, token client.Secret) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return writeState(path, []byte(token))
}

// tokenName tells files of tokens apart.
func tokenName(r *client.Report) string {
	if r.Authorization == nil {
		return "plan"
	}
	return r.Authorization.Nonce.Hex()[2:18]
}
