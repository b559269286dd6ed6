package management

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// exchange is one request with what is known of it, and its answer.
type exchange struct {
	w       http.ResponseWriter
	r       *http.Request
	id      string // of the request
	rule    *rule
	shop    *Shop
	caller  *caller
	network string // Mainnet or Testnet; empty, for local callers alone: both
	body    []byte // of a request that changes something
	failure error  // what the operation has ended with, instead of what it has written
	answer  recorder
	began   bool // an answer that is streamed has begun
	target  string
}

type exchangeKey struct{}

// exchangeOf finds the exchange of an operation's context.
func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// bodyTimeout is how long a caller may take to send a body: whoever stops sending must not keep the ledger open.
const bodyTimeout = 10 * time.Second

// readBody reads the body, and leaves it to be read again.
func (x *exchange) readBody() error {
	control := http.NewResponseController(x.w)
	deadline := func(at time.Time) error {
		if err := control.SetReadDeadline(at); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return fmt.Errorf("setting a deadline: %w", err)
		}
		return nil
	}
	if err := deadline(time.Now().Add(bodyTimeout)); err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(x.r.Body, maxBody+1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return told(http.StatusRequestTimeout, CodeRequest, "the body did not come in time", err)
	}
	if err != nil {
		return told(http.StatusBadRequest, CodeRequest, "the body can't be read", err)
	}
	if len(body) > maxBody {
		return told(http.StatusRequestEntityTooLarge, CodeTooLarge, "the body is too large", nil)
	}
	x.body, x.r.Body = body, io.NopCloser(bytes.NewReader(body))
	return deadline(time.Time{}) // that of the body must not end the call
}

// maxQuery and maxParameters are more than all that an operation takes come to. For each parameter the framework reads the rest of a query again.
const (
	maxQuery      = 4 << 10
	maxParameters = 32
)

// checkQuery refuses a query of which a part would be passed over: what it asks for would not be what is answered.
func checkQuery(raw string) error {
	if len(raw) > maxQuery || strings.Count(raw, "&") >= maxParameters {
		return invalid("query", "it has more than 4096 bytes or 32 parameters")
	}
	if _, err := url.ParseQuery(raw); err != nil {
		return invalid("query", "a part of it can't be read")
	}
	return nil
}

// recorder keeps an answer until all of it is there.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (w *recorder) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header)
	}
	return w.header
}

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

// Write implements http.ResponseWriter.
func (w *recorder) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}

// send gives the caller what was recorded.
func (w *recorder) send(to http.ResponseWriter, r *http.Request) {
	h := to.Header()
	maps.Copy(h, w.header)
	w.WriteHeader(http.StatusOK)
	if w.status != http.StatusNoContent {
		h.Set("Content-Length", strconv.Itoa(w.body.Len()))
	}
	to.WriteHeader(w.status)
	if r.Method != http.MethodHead {
		_, _ = to.Write(w.body.Bytes())
	}
}

// stallTimeout is how long a caller may take to read what one write sends: whoever stops reading must not keep the ledger open.
const stallTimeout = 30 * time.Second

// stream is the writer of an answer that is too long to be kept. What was recorded of its header goes out first. To HEAD nothing is written.
type stream struct {
	x       *exchange
	control *http.ResponseController
}

func (x *exchange) stream() *stream {
	h := x.w.Header()
	maps.Copy(h, x.answer.header)
	x.began = true
	x.w.WriteHeader(http.StatusOK)
	return &stream{x, http.NewResponseController(x.w)}
}

// Write implements io.Writer.
func (s *stream) Write(b []byte) (int, error) {
	if err := s.control.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, fmt.Errorf("setting a deadline: %w", err)
	}
	return s.x.w.Write(b)
}

// cut ends an answer that has begun so that it does not look whole.
func (s *stream) cut() {
	_ = s.control.Flush()
	_ = s.control.SetWriteDeadline(time.Unix(1, 0))
}
