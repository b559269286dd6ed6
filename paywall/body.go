package paywall

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// smallBody is how long a request's body may be to be read before its payment is claimed, and keyedBody if the request has an
// idempotency key.
const (
	smallBody = 256 << 10
	keyedBody = 1 << 20
)

// heldBodies is how much the bodies of all requests with keys may take of memory: they are read before anything is paid.
const heldBodies = 64 << 20

const codeBody = "incomplete_body"

// readBody reads what must be known of a request's body before anything is charged.
func (a *attempt) readBody() error {
	switch {
	case a.bodyRead || a.r.Body == nil || a.r.Body == http.NoBody:
		return nil
	case a.keyed():
		return a.readKeyedBody()
	}
	return a.readSmallBody()
}

// readSmallBody reads a short body of a request of HTTP/1. Only when a body was read to its end does the server look for
// the connection's end: without that, the client of a POST that has left during the settlement would seem to wait still,
// its payment would be delivered to nobody, and a payer that signs anew would be charged twice. A longer body, or one
// of unknown length, streams: what is missing of it makes the upstream's answer fail.
func (a *attempt) readSmallBody() error {
	r := a.r
	if r.ProtoMajor != 1 || r.ContentLength <= 0 || r.ContentLength > smallBody {
		return nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return a.brokenBody(err)
	}
	a.takeBody(body)
	return nil
}

// readKeyedBody reads the whole body, which is part of what makes two requests under a key the same.
func (a *attempt) readKeyedBody() error {
	inTime := limitBodyTime(a.w, a.r, a.BodyTimeout)
	body, err := io.ReadAll(io.LimitReader(heldReader{a}, keyedBody+1))
	switch {
	case errors.Is(err, errNoRoom):
		return noRoom()
	case err != nil:
		return a.brokenBody(err)
	case len(body) > keyedBody:
		return bodyTooLong()
	}
	inTime()
	a.body = body
	a.takeBody(body)
	return nil
}

// limitBodyTime bounds how long the client may take for the body; done lifts that. A body that was not read to its end keeps its
// deadline: the server would wait for the rest.
func limitBodyTime(w http.ResponseWriter, r *http.Request, most time.Duration) (done func()) {
	s, ok := r.Context().Value(http.ServerContextKey).(*http.Server)
	if ok && s.ReadTimeout > 0 && s.ReadTimeout <= most {
		return func() {} // the server's own is stricter
	}
	c := http.NewResponseController(w)
	if c.SetReadDeadline(time.Now().Add(most)) != nil { // not every server can
		return func() {}
	}
	return func() { _ = c.SetReadDeadline(time.Time{}) }
}

// room is what may be taken of something, by all together. It is safe for concurrent use.
type room struct {
	most  int64
	taken atomic.Int64
}

func (r *room) take(n int) bool {
	if r.taken.Add(int64(n)) <= r.most {
		return true
	}
	r.giveBack(n)
	return false
}

func (r *room) giveBack(n int) { r.taken.Add(-int64(n)) }

var errNoRoom = errors.New("paywall: no room for another body")

// heldReader reads a request's body, and counts what has come of it as held until the request ends.
type heldReader struct{ a *attempt }

func (h heldReader) Read(b []byte) (int, error) {
	n, err := h.a.r.Body.Read(b)
	if !h.a.engine.bodies.take(n) {
		return 0, errNoRoom
	}
	h.a.held += n
	return n, err
}

func (a *attempt) takeBody(body []byte) {
	a.bodyRead = true
	a.r.Body = bodyAgain{bytes.NewReader(body), a.r.Body}
}

func (a *attempt) brokenBody(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &refusal{
			status: http.StatusRequestTimeout, code: codeBody, cause: err,
			detail: "the request's body did not come in time; nothing was charged, send the whole request again",
		}
	}
	if status := a.ErrorStatus(err); status >= http.StatusBadRequest && status < http.StatusInternalServerError {
		return &refusal{status: status, code: codeBody, cause: err, detail: "the request's body can't be taken; nothing was charged"}
	}
	return &refusal{
		status: http.StatusBadRequest, code: codeBody, cause: err,
		detail: "the request's body ended before its length; nothing was charged, send the whole request again",
	}
}

// bodyAgain is a body that was read already; closing it closes what it was read from.
type bodyAgain struct {
	io.Reader
	io.Closer
}
