package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// wire is one connection of a client, kept alive from request to request. It does what the load needs of HTTP/1.1 and no more, so
// that the client costs little beside the servers. It is not safe for concurrent use.
type wire struct {
	addr string
	from net.Addr // where it comes from; nil: wherever the system likes
	conn net.Conn
	r    *bufio.Reader
	used bool        // an answer has come over conn
	free func() bool // lets go of the context that conn ends with
}

// answer is what is read of an answer.
type answer struct {
	status   int
	offer    string // PAYMENT-REQUIRED
	receipt  string // PAYMENT-RESPONSE
	token    string // X-Access-Token
	standing string // X-Payment-Status
	last     bool   // the server closes the connection
	length   int    // of the body
	problem  string // the body of an error, if it is short
	chunked  bool
	received time.Time
}

// maxProblem is how long a body is that is kept.
const maxProblem = 4096

var errAnswer = errors.New("the answer is not HTTP/1.1")

// do sends a request and reads the answer to its end. A connection that the server had closed meanwhile is replaced once.
func (w *wire) do(ctx context.Context, request []byte, deadline time.Time) (a answer, err error) {
	for {
		again := w.used
		if a, err = w.once(ctx, request, deadline); err == nil {
			w.used = true
			if a.last {
				w.close()
			}
			return a, nil
		}
		w.close()
		if again && a.status == 0 && !isTimeout(err) && ctx.Err() == nil {
			continue
		}
		return a, err
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

func (w *wire) once(ctx context.Context, request []byte, deadline time.Time) (a answer, err error) {
	if w.conn == nil {
		if err := w.connect(ctx, deadline); err != nil {
			return a, err
		}
	}
	if err := w.conn.SetDeadline(deadline); err != nil {
		return a, fmt.Errorf("the connection: %w", err)
	}
	if _, err := w.conn.Write(request); err != nil {
		return a, fmt.Errorf("sending: %w", err)
	}
	if err := a.read(w.r); err != nil {
		return a, fmt.Errorf("reading: %w", err)
	}
	a.received = time.Now()
	return a, nil
}

func (w *wire) connect(ctx context.Context, deadline time.Time) error {
	d := net.Dialer{Deadline: deadline, LocalAddr: w.from}
	conn, err := d.DialContext(ctx, "tcp", w.addr)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	if w.r == nil {
		w.r = bufio.NewReaderSize(conn, 16<<10)
	} else {
		w.r.Reset(conn)
	}
	w.conn, w.free = conn, context.AfterFunc(ctx, func() { _ = conn.Close() })
	return nil
}

// close ends the connection; the next request makes another.
func (w *wire) close() {
	if w.conn != nil {
		w.free()
		_ = w.conn.Close()
	}
	w.conn, w.used = nil, false
}

func (a *answer) read(r *bufio.Reader) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if len(line) < 13 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return errAnswer
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return errAnswer
	}
	for {
		if line, err = r.ReadSlice('\n'); err != nil {
			return err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		if err := a.header(line); err != nil {
			return err
		}
	}
	if err := a.body(r, status); err != nil {
		return err
	}
	a.status = status
	return nil
}

// Headers that are read, by their length, which tells most of the others apart.
var (
	headerLength     = []byte("content-length")
	headerEncoding   = []byte("transfer-encoding")
	headerConnection = []byte("connection")
	headerOffer      = []byte("payment-required")
	headerReceipt    = []byte("payment-response")
	headerToken      = []byte("x-access-token")
	headerStanding   = []byte("x-payment-status")
)

func (a *answer) header(line []byte) (err error) {
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return errAnswer
	}
	value = bytes.TrimSpace(value)
	is := func(known []byte) bool { return len(name) == len(known) && bytes.EqualFold(name, known) }
	switch {
	case is(headerLength):
		a.length, err = strconv.Atoi(string(value))
		if a.length < 0 {
			err = errAnswer
		}
	case is(headerEncoding):
		a.chunked = bytes.EqualFold(value, []byte("chunked"))
	case is(headerConnection):
		a.last = bytes.EqualFold(value, []byte("close"))
	case is(headerOffer):
		a.offer = string(value)
	case is(headerReceipt):
		a.receipt = string(value)
	case is(headerToken):
		a.token = string(value)
	case is(headerStanding):
		a.standing = string(value)
	}
	return err
}

// body reads the body, and throws it away unless it may say what went wrong.
func (a *answer) body(r *bufio.Reader, status int) error {
	if status == 204 || status == 304 {
		return nil
	}
	if !a.chunked {
		if status >= 500 && a.length <= maxProblem {
			text := make([]byte, a.length)
			_, err := io.ReadFull(r, text)
			a.problem = string(text)
			return err
		}
		_, err := r.Discard(a.length)
		return err
	}
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		size, err := strconv.ParseUint(string(bytes.TrimRight(line, "\r\n")), 16, 31)
		if err != nil {
			return errAnswer
		}
		if _, err := r.Discard(int(size) + 2); err != nil { // and the line's end
			return err
		}
		if size == 0 {
			return nil
		}
		a.length += int(size)
	}
}
