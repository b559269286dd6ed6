package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/caddy-x402/caddy-x402/x402"
)

// exchange is one call: a request that is sent several times.
type exchange struct {
	c      *Client
	ctx    context.Context // the request's
	origin *http.Request   // the caller's, never changed
	report *Report
	choice *choice

	// method, url and host are those of the request to pay for: redirects may have changed the caller's.
	method string
	url    *url.URL
	host   string
	body   func() (io.ReadCloser, error) // nil without a body
	length int64

	// out counts the connections that the payment was put on; while it is 0, it never left this machine. The
	// transport of net/http may take a second one by itself, when the first was closed before an answer.
	out atomic.Int32
	// uncertain: the payment was sent before, and nobody knows what became of it.
	uncertain bool
}

func (c *Client) newExchange(req *http.Request) *exchange {
	return &exchange{
		c: c, ctx: req.Context(), origin: req, report: &Report{},
		method: req.Method, url: req.URL, host: req.Host,
	}
}

// prepare sees to it that the request can be sent again, and that it pays for nothing yet.
func (x *exchange) prepare() error {
	body := x.origin.Body
	if body == nil || body == http.NoBody {
		return x.refusePaid()
	}
	defer body.Close()
	if err := x.refusePaid(); err != nil {
		return err
	}
	if x.origin.GetBody != nil {
		x.body, x.length = x.origin.GetBody, x.origin.ContentLength
		return nil
	}
	most := or(x.c.MaxBody, DefaultMaxBody)
	kept, err := io.ReadAll(io.LimitReader(body, most+1))
	if err != nil {
		return fail(CodeRequest, err, "the body of the request could not be read")
	}
	if int64(len(kept)) > most {
		return fail(CodeRequest, nil, "the body of the request is longer than %d bytes; give the request a GetBody, so that it can be sent twice", most)
	}
	x.length = int64(len(kept))
	x.body = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(kept)), nil }
	return nil
}

func (x *exchange) refusePaid() error {
	if x.origin.URL == nil || x.origin.URL.Hostname() == "" || !isHTTP(x.origin.URL) {
		return fail(CodeRequest, nil, "the request needs an absolute http or https URL")
	}
	for name := range x.origin.Header {
		switch strings.ToLower(strings.ReplaceAll(name, "_", "-")) {
		case "payment-signature", "x-payment":
			return fail(CodeRequest, nil, "the request carries a payment already; use Resume to send it again")
		}
	}
	return nil
}

func isHTTP(u *url.URL) bool { return u.Scheme == "http" || u.Scheme == "https" }

// request makes the request to send now, with the payment if there is one.
func (x *exchange) request(ctx context.Context) (*http.Request, error) {
	req := x.origin.Clone(ctx)
	req.Method, req.URL, req.Host = x.method, x.url, x.host
	req.Body, req.GetBody, req.ContentLength, req.TransferEncoding = nil, nil, 0, nil
	x.report.Method, x.report.URL = x.method, x.url
	if req.Header == nil {
		req.Header = make(http.Header)
	}
	if x.body == nil && x.method != x.origin.Method {
		req.Header.Del("Content-Type")
	}
	if x.body != nil {
		body, err := x.body()
		if err != nil {
			return nil, fail(CodeRequest, err, "the body of the request could not be read again")
		}
		req.Body, req.GetBody, req.ContentLength = body, x.body, x.length
	}
	if p := x.report.Payment; p != nil {
		req.Header[p.Header] = []string{string(p.Value)}
	}
	return req, nil
}

// http is the caller's HTTP client with our rule for redirects.
func (x *exchange) http() *http.Client {
	var h http.Client
	if x.c.HTTP != nil {
		h = *x.c.HTTP
	}
	switch {
	case x.report.Payment != nil:
		// A payment header goes to the URL that it was made for, and nowhere else.
		h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	case h.CheckRedirect == nil:
		h.CheckRedirect = followAtHome
	}
	return &h
}

func followAtHome(req *http.Request, via []*http.Request) error {
	if !sameHost(via[0].URL, req.URL) {
		return http.ErrUseLastResponse
	}
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	return nil
}

// sameHost allows for the step from http to https, and for no other change.
func sameHost(from, to *url.URL) bool {
	if !strings.EqualFold(from.Hostname(), to.Hostname()) {
		return false
	}
	if from.Scheme == to.Scheme {
		return portOf(from) == portOf(to)
	}
	return from.Scheme == "http" && to.Scheme == "https"
}

func portOf(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}

// send sends the request once and notes the attempt.
func (x *exchange) send() (*http.Response, error) {
	paid := x.report.Payment != nil
	ctx := x.ctx
	if paid {
		// Bytes leave on a connection only: without one, the payment never did.
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { x.out.Add(1) }})
	}
	req, err := x.request(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := x.http().Do(req) //nolint:gosec // the URL is the caller's to choose
	a := Attempt{Paid: paid, Err: err}
	if err == nil {
		a.Status, x.report.Status = resp.StatusCode, resp.StatusCode
	}
	x.report.Attempts = append(x.report.Attempts, a)
	return resp, err
}

// ask sends the request without a payment. It gives the response, or none if an offer was read.
func (x *exchange) ask() (*http.Response, error) {
	resp, err := x.send()
	if err != nil {
		if CodeOf(err) != "" {
			return nil, err
		}
		return nil, fail(CodeTransport, err, "no answer")
	}
	if resp.StatusCode != http.StatusPaymentRequired {
		return resp, nil
	}
	defer drain(resp)
	if final := resp.Request; final != nil {
		if !sameHost(x.url, final.URL) {
			return nil, fail(CodeRedirected, nil, "%s sends on to %s, which asks for money; ask it directly to pay it",
				quote(x.url.Host), quote(final.URL.Host))
		}
		if final.Method != x.method { // a redirect made a GET of it
			x.body, x.length = nil, 0
		}
		x.method, x.url, x.host = final.Method, final.URL, final.Host
	}
	return nil, x.report.readOffer(resp)
}

// drain lets the connection be used again, if that costs little.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	_ = resp.Body.Close()
}

// readGrant takes from an answer what belongs to the payer.
func (x *exchange) readGrant(resp *http.Response) {
	r := x.report
	r.Settlement = nil // an earlier attempt's says nothing about this one
	if v := resp.Header.Get("X-Access-Token"); v != "" {
		r.AccessToken = Secret(v)
	}
	if v := resp.Header.Get("X-Payment-Id"); v != "" {
		r.PaymentID = Printable(v, 128)
	}
	if v := resp.Header.Get("X-Payment-Status"); v != "" {
		r.PaymentStatus = Printable(v, 64)
	}
	name := x402.HeaderResponse
	if resp.Header.Get(name) == "" {
		name = x402.HeaderResponseV1
	}
	var s x402.SettlementResponse
	if err := x402.DecodeHeader(resp.Header.Get(name), maxOfferHeader, &s); err == nil {
		r.readSettlement(&s)
	}
}
