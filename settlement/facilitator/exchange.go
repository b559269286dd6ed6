package facilitator

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"
)

const (
	// maxAnswer bounds the body of an answer: receipts are short, and a facilitator's appetite for memory is not ours.
	maxAnswer = 256 << 10
	// maxSupported is for those that list all the networks of this world.
	maxSupported = 2 << 20
	// maxHops bounds how often one request is sent on.
	maxHops = 3
)

var (
	// errNotSent: nobody got anything of the request.
	errNotSent  = errors.New("it can't be reached")
	errTooLarge = errors.New("its answer is too large")
	errRedirect = errors.New("it sends us elsewhere; configure the address that it means")
)

func newHTTPClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    5 * time.Second,
			ForceAttemptHTTP2:      true,
			MaxIdleConns:           128,
			MaxIdleConnsPerHost:    64,
			IdleConnTimeout:        60 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true, // what is small on the wire stays small
		},
		// See exchange.do.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// answer is a response that was read whole.
type answer struct {
	status     int
	body       []byte
	retryAfter string
}

// do sends one request to r. An error that is errNotSent says that nothing left this machine; after any other one, what was
// asked for may have been done.
//
// It follows a redirect only where that keeps the method and the body (307, 308) and the origin: anything else would turn a
// settlement into a look at a page, or hand the payer's signature and our credentials to somebody whom nobody configured.
func (r *remote) do(ctx context.Context, method, path string, body []byte, most int64) (answer, error) {
	conf := r.set()
	at, err := url.Parse(r.base + path)
	if err != nil {
		return answer{}, errAddress
	}
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }})
	for range maxHops {
		a, next, err := r.hop(ctx, conf, method, at, body, most)
		switch {
		case err != nil && !sent.Load():
			return answer{}, fmt.Errorf("%w: %w", errNotSent, err)
		case err != nil:
			return answer{}, err
		case next == nil:
			return a, nil
		case next.Scheme != at.Scheme || next.Host != at.Host || next.User != nil:
			return answer{}, errRedirect
		}
		at = next
	}
	return answer{}, errRedirect
}

// hop sends the request to one address; next is where that sends it on to.
func (r *remote) hop(ctx context.Context, conf Facilitator, method string, at *url.URL, body []byte, most int64) (a answer, next *url.URL, err error) {
	req, err := http.NewRequestWithContext(ctx, method, at.String(), bytes.NewReader(body))
	if err != nil {
		return answer{}, nil, errAddress
	}
	for name, values := range conf.Header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	req.Header.Set("Accept", "application/json")
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	if conf.Authorizer != nil {
		if err := conf.Authorizer.Authorize(req); err != nil {
			return answer{}, nil, fmt.Errorf("signing the request: %w", err)
		}
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return answer{}, nil, r.redact(err)
	}
	defer func() { _ = resp.Body.Close() }()
	a = answer{status: resp.StatusCode, retryAfter: resp.Header.Get("Retry-After")}
	if a.body, err = io.ReadAll(io.LimitReader(resp.Body, most+1)); err != nil {
		return answer{}, nil, r.redact(err)
	}
	if int64(len(a.body)) > most {
		return answer{}, nil, errTooLarge
	}
	if a.status == http.StatusTemporaryRedirect || a.status == http.StatusPermanentRedirect {
		if next, err = resp.Location(); err != nil {
			return answer{}, nil, errRedirect
		}
	}
	return a, next, nil
}

// transportError is a transport's error without the address, which net/http likes to repeat.
type transportError struct {
	text string
	kind error
}

func (e *transportError) Error() string { return e.text }
func (e *transportError) Unwrap() error { return e.kind }

func (r *remote) redact(err error) error {
	out := &transportError{}
	for _, kind := range []error{context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, kind) {
			out.kind = kind
		}
	}
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	out.text = r.clean(err.Error(), r.base)
	return out
}
