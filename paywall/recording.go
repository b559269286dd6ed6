package paywall

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// storedAnswer is what was answered to a request with an idempotency key.
type storedAnswer struct {
	Status int `json:"status,omitempty"`
	// Values are the header's, which need not be UTF-8.
	Values map[string][][]byte `json:"header,omitempty"`
	// Missing says why the answer is not here, though it was given.
	Missing string `json:"missing,omitempty"`
	// See is the key under which the answer is stored: a request may have several, and its answer is stored once.
	See common.Hash `json:"see,omitzero"`

	body []byte
}

// encode writes a line of JSON, and the body as it is.
func (s *storedAnswer) encode() ([]byte, error) {
	head, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encoding an answer: %w", err)
	}
	return append(append(head, '\n'), s.body...), nil
}

var errAnswerForm = errors.New("paywall: this is no stored answer")

func decodeAnswer(raw []byte) (*storedAnswer, error) {
	head, body, ok := bytes.Cut(raw, []byte{'\n'})
	s := &storedAnswer{body: body}
	if err := json.Unmarshal(head, s); err != nil || !ok {
		return nil, errors.Join(errAnswerForm, err)
	}
	if s.Missing == "" && s.See == (common.Hash{}) && (s.Status < http.StatusOK || s.Status > 999) {
		return nil, errAnswerForm
	}
	return s, nil
}

func (s *storedAnswer) header() http.Header {
	h := make(http.Header, len(s.Values))
	for name, values := range s.Values {
		for _, v := range values {
			h[name] = append(h[name], string(v))
		}
	}
	return h
}

// hasBody reports whether the answer to a request of this method, with this status, has a body (RFC 9110, section 6.4.1).
func hasBody(method string, status int) bool {
	return method != http.MethodHead && status >= http.StatusOK && status != http.StatusNoContent && status != http.StatusNotModified
}

// Why an answer is not stored.
const (
	missingTooLong  = "it was too long"
	missingUpgraded = "the connection was taken over"
	missingAborted  = "it was cut off"
	missingTrailers = "it had trailers"
)

// recording keeps a copy of an answer while that streams to its client.
type recording struct {
	http.ResponseWriter
	request *http.Request
	most    int
	// stopped is called when the copy is given up, possibly long before the answer's end; may be nil.
	stopped func(missing *storedAnswer)

	answer storedAnswer
}

// WriteHeader notes the final status.
func (c *recording) WriteHeader(status int) {
	c.ResponseWriter.WriteHeader(status)
	if c.answer.Status != 0 || informational(status) {
		return
	}
	c.answer.Status = status
	c.answer.Values = storedHeader(c.Header())
	switch {
	case status < http.StatusOK:
		c.stop(missingUpgraded)
	case len(c.Header()["Trailer"]) > 0:
		c.stop(missingTrailers)
	}
}

func (c *recording) begin() {
	if c.answer.Status == 0 {
		c.WriteHeader(http.StatusOK)
	}
}

// whole reports whether the copy is whole so far.
func (c *recording) whole() bool { return c.answer.Missing == "" }

func (c *recording) stop(why string) {
	if !c.whole() {
		return
	}
	c.answer.Missing, c.answer.body, c.answer.Values = why, nil, nil
	if c.stopped != nil {
		c.stopped(&storedAnswer{Missing: why})
	}
}

func (c *recording) Write(b []byte) (int, error) {
	c.begin()
	n, err := c.ResponseWriter.Write(b)
	if !c.whole() {
		return n, err
	}
	switch {
	case err == nil:
	case clientGone(err):
		n, err = len(b), nil // the answer is for when it comes back
	default:
		c.stop(missingAborted)
		return n, err
	}
	c.add(b[:n])
	return n, err
}

// clientGone reports whether a write failed because of the connection.
func clientGone(err error) bool {
	for _, own := range []error{errDiscarded, http.ErrBodyNotAllowed, http.ErrContentLength, http.ErrHijacked, http.ErrNotSupported} {
		if errors.Is(err, own) {
			return false
		}
	}
	return true
}

// gaveUp reports whether there is no answer: none, or the status that Caddy's reverse_proxy writes, for the access log, when its client
// has left before the upstream answered.
func (c *recording) gaveUp() bool { return c.answer.Status == 0 || c.answer.Status == statusClientGone }

func (c *recording) add(b []byte) {
	if !hasBody(c.request.Method, c.answer.Status) {
		return
	}
	if len(c.answer.body)+len(b) > c.most {
		c.stop(missingTooLong)
		return
	}
	c.answer.body = append(c.answer.body, b...)
}

// ReadFrom keeps the server's fast path for what is too long to be stored.
func (c *recording) ReadFrom(r io.Reader) (int64, error) {
	c.begin()
	if !c.whole() {
		return readFrom(c.ResponseWriter, r)
	}
	room := int64(c.most-len(c.answer.body)) + 1
	n, err := io.Copy(struct{ io.Writer }{c}, io.LimitReader(r, room))
	if err != nil || n < room {
		return n, err
	}
	rest, err := readFrom(c.ResponseWriter, r)
	return n + rest, err
}

// FlushError writes the header by itself, so it is noted before.
func (c *recording) FlushError() error {
	c.begin()
	err := http.NewResponseController(c.ResponseWriter).Flush()
	if err != nil && c.whole() && clientGone(err) {
		return nil
	}
	return err
}

// Flush is FlushError for those who only know http.Flusher.
func (c *recording) Flush() { _ = c.FlushError() }

// Hijack ends the recording: what follows is no answer.
func (c *recording) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(c.ResponseWriter).Hijack()
	if err == nil {
		c.stop(missingUpgraded)
	}
	return conn, rw, err
}

// Unwrap lets http.ResponseController reach what this writer does not change.
func (c *recording) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// end gives what is to be stored when the handler has returned err; other is the status that whoever answers in its place will
// write, without a body that we see.
func (c *recording) end(err error, other func(error) int) *storedAnswer {
	switch {
	case c.answer.Status == 0 && err != nil && c.whole():
		c.answer.Status = other(err)
		return &c.answer
	case err != nil:
		c.stop(missingAborted)
	case c.answer.Status == 0 && c.whole():
		c.answer.Status, c.answer.Values = http.StatusOK, storedHeader(c.Header())
	}
	c.checkEnd()
	return &c.answer
}

// checkEnd refuses an answer that is not what its header says.
func (c *recording) checkEnd() {
	for name := range c.Header() {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			c.stop(missingTrailers)
		}
	}
	length := c.Header().Get("Content-Length")
	if length != "" && length != strconv.Itoa(len(c.answer.body)) && hasBody(c.request.Method, c.answer.Status) {
		c.stop(missingAborted)
	}
}

// storedHeader leaves out what is secret, what belongs to a connection or to the web page that asked, and what we say ourselves.
func storedHeader(h http.Header) map[string][][]byte {
	hop := map[string]bool{}
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			hop[textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name))] = true
		}
	}
	out := make(map[string][][]byte, len(h))
	for name, values := range h {
		if hop[name] || unstored[name] || ours(name) || strings.HasPrefix(name, http.TrailerPrefix) || strings.HasPrefix(name, "Access-Control-") {
			continue
		}
		for _, v := range values {
			out[name] = append(out[name], []byte(v))
		}
	}
	return out
}

var unstored = map[string]bool{
	"Set-Cookie": true, "Set-Cookie2": true, "Authorization": true, "Authentication-Info": true, "Proxy-Authentication-Info": true,
	"Proxy-Authorization": true, "Proxy-Authenticate": true, headerAccessToken: true, headerReplayed: true,
	"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Te": true, "Trailer": true, "Transfer-Encoding": true,
	"Upgrade": true, "Date": true,
}

// record makes what keeps a copy of the answer that is written to w. If that is given up, follow is called, and whoever comes
// with the key learns of it at once, however long the answer goes on.
func (a *attempt) record(w http.ResponseWriter, payment string, follow func()) *recording {
	stopped := func(missing *storedAnswer) {
		follow()
		if d, ok := w.(*deliveryWriter); ok && d.discarded {
			return // it is no answer: whoever makes an end of the payment gives one
		}
		a.engine.background.Go(func() { a.keep(payment, missing) })
	}
	return &recording{ResponseWriter: w, request: a.r, most: a.Idempotency.MaxAnswer, stopped: stopped}
}

// keep stores the answer if it was given under a key: the upstream's handler has ended with err.
func (d *deliveryWriter) keep(err error) {
	given := d.payment.Delivery == ledger.Delivered || d.payment.Delivery == ledger.Undelivered && !d.lost
	if d.copied == nil || d.discarded || !given {
		return
	}
	if s := d.copied.end(err, d.attempt.ErrorStatus); d.copied.whole() {
		d.attempt.keep(d.payment.ID, s)
	}
}
