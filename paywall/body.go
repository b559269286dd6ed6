package paywall

import (
	"bytes"
	"io"
	"net/http"
)

// smallBody is how long a request's body may be to be read before its payment is claimed, and keyedBody if the request has an
// idempotency key.
const (
	smallBody = 256 << 10
	keyedBody = 1 << 20
)

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
	body, err := io.ReadAll(io.LimitReader(a.r.Body, keyedBody+1))
	switch {
	case err != nil:
		return a.brokenBody(err)
	case len(body) > keyedBody:
		return bodyTooLong()
	}
	a.body = body
	a.takeBody(body)
	return nil
}

func (a *attempt) takeBody(body []byte) {
	a.bodyRead = true
	a.r.Body = bodyAgain{bytes.NewReader(body), a.r.Body}
}

func (a *attempt) brokenBody(err error) error {
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
