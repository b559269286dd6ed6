package caddymodule

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-x402/caddy-x402/paywall"
)

// called is a request that a client has asked for by its route's id. It goes through the whole server, as if it had come in at the route's
// own address: what is asked of a visitor there is asked of it, and its price is what the matchers say. The handler whose price it comes to
// must be the one that the catalogue names, or it is refused.
type called struct {
	entry  entry
	access *paywall.Access

	held *atomic.Int64

	taken   bool   // by the handler that the entry belongs to
	outcome string // of its gate
	wrong   bool   // it came to another price than the catalogue says
	err     error  // why there is no answer of the upstream
}

type calledKey struct{}

func calledOf(r *http.Request) *called {
	c, _ := r.Context().Value(calledKey{}).(*called)
	return c
}

// reached hears that the request has come to a handler which has this price for it; none is an outcome of its own. c may be nil.
func (c *called) reached(h *Handler, p *Price, outcome string) error {
	switch {
	case c == nil:
		return nil
	case p == nil && (c.entry.handler != h || c.entry.price == nil && outcome != outcomeDenied):
		c.taken = c.taken || c.entry.handler == h
		c.outcome = outcome
		return nil
	case p != nil && c.entry.handler == h && c.entry.price == p:
		c.taken = true
		return nil
	}
	c.wrong = true
	return caddyhttp.Error(http.StatusConflict, fmt.Errorf("route %s comes to another price than the catalogue says", c.entry.ID))
}

// serve is the gate's part. The upstream's answer is read to its end before the gate hears of it: one that can't be handed on as a
// whole was not delivered, and is not paid for.
func (c *called) serve(w http.ResponseWriter, r *http.Request, p *Price, next caddyhttp.Handler, t *told) error {
	q := c.entry.handler.request(r, p.routeFor(r.Method))
	q.Access = c.access
	err := c.entry.handler.gate.Serve(w, r, q, func(w http.ResponseWriter, r *http.Request) error {
		held := &heldAnswer{header: w.Header(), most: mostCalled, held: c.held}
		defer held.letGo()
		if c.err = held.read(next, r); c.err != nil {
			return c.err
		}
		return held.send(w)
	})
	c.outcome = t.status
	return err
}

// served reports whether what came back is the upstream's answer, and not a refusal of somebody before it.
func (c *called) served() bool {
	return c.taken && slices.Contains([]string{"paid", "token", "replayed", "owed", "void", outcomeFree, outcomeExempt}, c.outcome)
}

// mostCalled is how long an answer may be that is wrapped into another. Longer ones are called at their own address, where they stream.
const mostCalled = 8 << 20

var errCalledLong = errors.New("the answer is too long to be wrapped into another; call the route at its own address")

// Answers that are held take no more of memory than this, all together. From heldEnough on no call begins, so that few that were paid for
// come to the end of it.
const (
	heldEnough = 64 << 20
	heldMost   = 4 * heldEnough
)

// heldAnswer takes an answer as a whole.
type heldAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
	most   int
	held   *atomic.Int64 // by all answers
	over   bool
}

func (a *heldAnswer) Header() http.Header { return a.header }

func (a *heldAnswer) WriteHeader(status int) {
	if a.status == 0 && status >= http.StatusOK {
		a.status = status
	}
}

func (a *heldAnswer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if a.over = a.over || a.body.Len()+len(b) > a.most || a.held.Load()+int64(len(b)) > heldMost; a.over {
		return 0, errCalledLong
	}
	a.held.Add(int64(len(b)))
	return a.body.Write(b)
}

// letGo gives back what it takes of memory.
func (a *heldAnswer) letGo() {
	a.held.Add(-int64(a.body.Len()))
	a.body.Reset()
}

// Flush does nothing: all of it comes at once.
func (a *heldAnswer) Flush() {}

// SetReadDeadline, SetWriteDeadline and EnableFullDuplex are for the connection that the call came by, and stay as they are.
func (a *heldAnswer) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (a *heldAnswer) SetWriteDeadline(time.Time) error { return nil }

// EnableFullDuplex does nothing.
func (a *heldAnswer) EnableFullDuplex() error { return nil }

// read takes what h answers. An answer that breaks off is none.
func (a *heldAnswer) read(h caddyhttp.Handler, r *http.Request) (err error) {
	defer func() {
		switch v := recover(); {
		case v == http.ErrAbortHandler: //nolint:errorlint // what is panicked is this very value
			err = caddyhttp.Error(http.StatusBadGateway, errors.New("the answer broke off"))
		case v != nil:
			panic(v) //nolint:forbidigo // not ours to judge
		}
	}()
	err = h.ServeHTTP(a, r)
	if a.over {
		return caddyhttp.Error(http.StatusBadGateway, errCalledLong)
	}
	return err
}

func (a *heldAnswer) send(w http.ResponseWriter) error {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	w.WriteHeader(a.status)
	if _, err := w.Write(a.body.Bytes()); err != nil {
		return fmt.Errorf("handing on an answer: %w", err)
	}
	return nil
}

// call makes the request that r asks for, and gives its answer.
func (c *called) call(r *http.Request, to *url.URL, body []byte, mime string) (*heldAnswer, error) {
	server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return &heldAnswer{held: c.held}, errors.New("there is no server to call the route on")
	}
	inner := r.Clone(context.WithValue(r.Context(), calledKey{}, c))
	inner.Method, inner.URL, inner.RequestURI = c.entry.Method, to, to.RequestURI()
	inner.Body, inner.ContentLength = http.NoBody, 0
	inner.TransferEncoding, inner.Trailer, inner.Form, inner.PostForm, inner.MultipartForm = nil, nil, nil, nil, nil
	for name := range inner.Header {
		if slices.Contains(ofTheCall, name) || strings.HasPrefix(name, "If-") || strings.HasPrefix(name, "Content-") {
			inner.Header.Del(name)
		}
	}
	inner.Header.Set("Accept-Encoding", "identity")
	if len(body) > 0 {
		inner.Body, inner.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		inner.Header.Set("Content-Type", mime)
	}
	a := &heldAnswer{header: http.Header{}, most: 2 * mostCalled, held: c.held}
	err := a.read(caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		server.ServeHTTP(w, r)
		return nil
	}), inner)
	return a, err
}

// ofTheCall are the headers that are about the call itself, and not about what is called.
var ofTheCall = []string{
	"Accept", "Accept-Encoding", "Connection", "Expect", "Keep-Alive", "Origin", "Proxy-Connection", "Range", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade", "X-A2a-Extensions", "X-Http-Method", "X-Http-Method-Override", "X-Method-Override",
}
