package chain

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/rpc"
)

// Backoff of an endpoint that fails: doubled at each failure in a row.
const (
	firstBackoff = time.Second
	lastBackoff  = time.Minute
	// lagBackoff is short: an endpoint that is a block behind has caught up soon.
	lagBackoff = 300 * time.Millisecond
)

// maxMessage bounds the text of others that gets into our errors and logs.
const maxMessage = 256

// endpoint is one JSON-RPC server and what is known of its health.
type endpoint struct {
	url     string
	host    string
	secrets []string
	rpc     *rpc.Client

	place   atomic.Int32 // in the configuration, from 1
	rightID atomic.Bool  // it answered the configured chain id
	idMu    sync.Mutex
	asking  *idCheck // nil unless the chain id is being asked for

	mu       sync.Mutex
	failures int
	probing  bool      // one caller tries whether it has recovered
	until    time.Time // put aside until then
}

// idCheck is a question for the chain id that all who need the answer share.
type idCheck struct {
	done chan struct{}
	err  error
}

func newEndpoint(raw string, hc *http.Client) (*endpoint, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("the URL must be http://host… or https://host…") // not the URL itself: it may hold a key
	}
	e := &endpoint{url: raw, host: u.Host, secrets: secretsOf(u)}
	e.rpc, err = rpc.DialOptions(context.Background(), raw, rpc.WithHTTPClient(hc))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.host, e.redact(err))
	}
	return e, nil
}

// secretsOf lists what of u could be a key.
func secretsOf(u *url.URL) []string {
	var all []string
	if p, ok := u.User.Password(); ok {
		all = append(all, p)
	}
	all = append(all, u.User.Username())
	all = append(all, strings.Split(u.Path, "/")...)
	all = append(all, strings.Split(u.EscapedPath(), "/")...)
	for k, vs := range u.Query() {
		all = append(all, k)
		all = append(all, vs...)
	}
	all = append(all, u.RawQuery)
	kept := all[:0]
	for _, s := range all {
		if len(s) >= 6 {
			kept = append(kept, s)
		}
	}
	return kept
}

// redactedError keeps of a transport error its text, without secrets, and whether it was a timeout.
type redactedError struct {
	text string
	kind error
}

func (e *redactedError) Error() string { return e.text }
func (e *redactedError) Unwrap() error { return e.kind }

// redact takes the URL out of an error: net/http and servers like to repeat it.
func (e *endpoint) redact(err error) error {
	out := &redactedError{}
	for _, kind := range []error{context.DeadlineExceeded, context.Canceled, errBodyTooLarge, rpc.ErrMissingBatchResponse} {
		if errors.Is(err, kind) {
			out.kind = kind
		}
	}
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	if he, ok := errors.AsType[rpc.HTTPError](err); ok {
		err = fmt.Errorf("HTTP status %d", he.StatusCode)
	}
	out.text = e.clean(err.Error())
	return out
}

// clean makes a stranger's text fit for logs.
func (e *endpoint) clean(text string) string {
	text = strings.ReplaceAll(text, e.url, e.host)
	for _, s := range e.secrets {
		text = strings.ReplaceAll(text, s, "…")
	}
	return printable(text)
}

func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	return text
}

// failed puts e aside and tells for how long; 0 if it was aside already: many calls fail at once, and that is
// one failure.
func (e *endpoint) failed(now time.Time) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.until.After(now) && !e.probing {
		return 0
	}
	d := lastBackoff
	if e.failures < 6 {
		d = firstBackoff << e.failures
	}
	e.failures++
	e.until, e.probing = now.Add(d), false
	return d
}

func (e *endpoint) lagged(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t := now.Add(lagBackoff); t.After(e.until) {
		e.until = t
	}
}

func (e *endpoint) worked() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failures, e.until, e.probing = 0, time.Time{}, false
}

// healthy reports whether e may be asked first. An endpoint that failed is probed by one caller at
// a time: whoever is told true holds the others off for the time that one call may take.
func (e *endpoint) healthy(now time.Time, probe time.Duration) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.until.After(now) {
		return false
	}
	if e.failures > 0 {
		e.until, e.probing = now.Add(probe), true
	}
	return true
}

func newHTTPClient(maxBody int64) *http.Client {
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    5 * time.Second,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    32,
		IdleConnTimeout:        60 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
	return &http.Client{
		Transport: &cappedTransport{t, maxBody},
		// A redirect would carry the request, and what its URL holds, to a host that nobody configured.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

var errBodyTooLarge = errors.New("the answer is too large")

// cappedTransport cuts answers off: an endpoint's memory appetite is not ours.
type cappedTransport struct {
	*http.Transport
	max int64
}

// RoundTrip does one request.
func (t *cappedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = &cappedBody{ReadCloser: resp.Body, left: t.max}
	return resp, nil
}

type cappedBody struct {
	io.ReadCloser
	left int64
}

// Read fails when more than the cap was read, so that nobody takes a cut answer for a whole one.
func (b *cappedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errBodyTooLarge
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		return n, errBodyTooLarge
	}
	return n, err
}
