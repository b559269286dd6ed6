package paywall

import (
	"bytes"
	"io"
	"net/http"
)

// smallBody is how long a request's body may be to be read before its payment is claimed.
const smallBody = 256 << 10

const codeBody = "incomplete_body"

// readSmallBody reads a short body of a request of HTTP/1. Only when a body was read to its end does the server look for
// the connection's end: without that, the client of a POST that has left during the settlement would seem to wait still,
// its payment would be delivered to nobody, and a payer that signs anew would be charged twice. A longer body, or one
// of unknown length, streams: what is missing of it makes the upstream's answer fail.
func (a *attempt) readSmallBody() error {
	r := a.r
	if r.ProtoMajor != 1 || r.ContentLength <= 0 || r.ContentLength > smallBody || a.bodyRead {
		return nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		if status := a.ErrorStatus(err); status >= http.StatusBadRequest && status < http.StatusInternalServerError {
			return &refusal{status: status, code: codeBody, cause: err, detail: "the request's body can't be taken; nothing was charged"}
		}
		return &refusal{
			status: http.StatusBadRequest, code: codeBody, cause: err,
			detail: "the request's body ended before its length; nothing was charged, send the whole request again",
		}
	}
	a.bodyRead = true
	r.Body = readBody{bytes.NewReader(body), r.Body}
	return nil
}

// readBody is a body that was read already; closing it closes what it was read from.
type readBody struct {
	io.Reader
	io.Closer
}
