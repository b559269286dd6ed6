package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-x402/caddy-x402/client"
	"github.com/caddy-x402/caddy-x402/ledger"
)

// errNotRunning: nobody listens on the admin endpoint.
var errNotRunning = errors.New("no Caddy answers there")

// adminClient asks the admin endpoint of a running Caddy.
type adminClient struct {
	listen     string
	origin     string
	sameOrigin bool
	network    string // the X-Network of what is asked of the management API; empty: none
	http       *http.Client
}

func newAdminClient(listen string) (*adminClient, error) {
	addr, err := caddy.ParseNetworkAddress(listen)
	if err != nil || addr.PortRangeSize() > 1 {
		return nil, invalidRequest("%s is no address of an admin endpoint; write one such as %s", listen, caddy.DefaultAdminListen)
	}
	network, host := addr.Network, addr.JoinHostPort(0)
	c := &adminClient{listen: listen, origin: "http://" + host, sameOrigin: true}
	if addr.IsUnixNetwork() || addr.IsFdNetwork() {
		host, _, _ = strings.Cut(addr.Host, "|") // without the socket's permissions
		c.origin, c.sameOrigin = "http://127.0.0.1", false
	}
	var dialer net.Dialer
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, host)
		},
	}}
	return c, nil
}

func (c *adminClient) close() { c.http.CloseIdleConnections() }

// get asks for a path. The caller closes the answer's body.
func (c *adminClient) get(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.do(ctx, http.MethodGet, path, nil)
}

// do sends body, if there is one, as JSON. The caller closes the answer's body.
func (c *adminClient) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.origin+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("asking the Caddy at %s: %w", c.listen, err)
	}
	if len(body) > 0 {
		r.Header.Set("Content-Type", "application/json")
	}
	return c.send(ctx, r)
}

// send makes a request that must succeed.
func (c *adminClient) send(ctx context.Context, r *http.Request) (*http.Response, error) {
	if c.sameOrigin {
		r.Header.Set("Origin", c.origin) // as Caddy's own commands do: the endpoint may insist on it
	}
	res, err := c.http.Do(r) //nolint:gosec // it goes where the operator says
	if err != nil {
		if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" && ctx.Err() == nil {
			err = errors.Join(errNotRunning, err)
			return nil, &operatorError{0, codeUnavailable, "no Caddy answers at " + c.listen + "; start it, or say where its admin endpoint is: --address, or --config with its Caddyfile", err}
		}
		return nil, &operatorError{0, codeUnavailable, fmt.Sprintf("asking the Caddy at %s: %v", c.listen, err), err}
	}
	if res.StatusCode >= http.StatusOK && res.StatusCode < http.StatusMultipleChoices {
		return res, nil
	}
	defer func() { _ = res.Body.Close() }()
	return nil, c.refused(res)
}

// refused reads the error that an answer tells of.
func (c *adminClient) refused(res *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	if err != nil {
		return &operatorError{0, codeUnavailable, fmt.Sprintf("reading what the Caddy at %s says: %v", c.listen, err), err}
	}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	var p operatorProblem
	if kind == "application/problem+json" && json.Unmarshal(body, &p) == nil && p.Code != "" {
		return &operatorError{p.Status, p.Code, p.Detail, nil}
	}
	if res.StatusCode == http.StatusNotFound {
		return &operatorError{res.StatusCode, codeNoSuchPath, "the Caddy at " + c.listen + " has no x402 module", nil}
	}
	return &operatorError{
		res.StatusCode, codeUnavailable,
		fmt.Sprintf("the Caddy at %s answers %s: %s", c.listen, res.Status, client.Printable(strings.TrimSpace(string(body)), 500)), nil,
	}
}

// ask gets an object.
func ask[T any](ctx context.Context, c *adminClient, path string, query url.Values) (v T, err error) {
	res, err := c.get(ctx, path, query)
	if err != nil {
		return v, err
	}
	defer func() { _ = res.Body.Close() }()
	err = c.read(res.Body, &v)
	return v, err
}

// tell has something done as body says, and gets the object that came of it.
func tell[T any](ctx context.Context, c *adminClient, path string, body any) (v T, err error) {
	text, err := json.Marshal(body)
	if err != nil {
		return v, fmt.Errorf("asking the Caddy at %s: %w", c.listen, err)
	}
	res, err := c.do(ctx, http.MethodPost, path, text)
	if err != nil {
		return v, err
	}
	defer func() { _ = res.Body.Close() }()
	err = c.read(res.Body, &v)
	return v, err
}

// read takes the object out of an answer.
func (c *adminClient) read(body io.Reader, into any) error {
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return &operatorError{0, codeUnavailable, fmt.Sprintf("reading what the Caddy at %s says: %v", c.listen, err), err}
	}
	return nil
}

// hello asks whether there is a ledger, and gives its kind.
func (c *adminClient) hello(ctx context.Context) (string, error) {
	about, err := ask[ledgerInfo](ctx, c, adminBase, nil)
	return client.Printable(about.Store, 40), err
}

func (c *adminClient) list(ctx context.Context, q paymentQuery) (paymentPage, error) {
	return ask[paymentPage](ctx, c, adminPayments, q.values())
}

func (c *adminClient) show(ctx context.Context, id string) (paymentFile, error) {
	return ask[paymentFile](ctx, c, adminPayments+"/"+url.PathEscape(id), nil)
}

func (c *adminClient) states(ctx context.Context) (stateCounts, error) {
	return ask[stateCounts](ctx, c, adminStates, nil)
}

func (c *adminClient) verify(ctx context.Context, o ledger.VerifyOptions) (ledger.Report, error) {
	return ask[ledger.Report](ctx, c, adminVerify, verifyValues(o))
}

// export copies what the endpoint streams. An answer that was cut off is an error, and so is one without its summary.
func (c *adminClient) export(ctx context.Context, w io.Writer, after uint64, progress func(int64)) (s ledger.ExportSummary, err error) {
	query := url.Values{}
	if after > 0 {
		query.Set("after", fmt.Sprint(after))
	}
	res, err := c.get(ctx, adminAudit, query)
	if err != nil {
		return s, err
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(&lineCounter{w: w, progress: progress}, res.Body); err != nil {
		return s, fmt.Errorf("the export is not whole: %w", err)
	}
	if err := json.Unmarshal([]byte(res.Trailer.Get(summaryTrailer)), &s); err != nil {
		return s, &operatorError{0, codeUnavailable, "the export is not whole: the Caddy at " + c.listen + " did not say that it is", err}
	}
	return s, nil
}

// lineCounter tells how many lines went through it.
type lineCounter struct {
	w        io.Writer
	lines    int64
	progress func(int64)
}

// Write implements io.Writer.
func (l *lineCounter) Write(b []byte) (int, error) {
	n, err := l.w.Write(b)
	l.lines += int64(bytes.Count(b[:n], []byte{'\n'}))
	if l.progress != nil {
		l.progress(l.lines)
	}
	return n, err
}
