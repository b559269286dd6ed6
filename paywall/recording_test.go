package paywall

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// record lets h write through a recording that keeps 16 bytes, and gives what is to be stored.
func record(method string, h func(http.ResponseWriter) error) (storedAnswer, *httptest.ResponseRecorder) {
	w := httptest.NewRecorder()
	c := &recording{ResponseWriter: w, request: httptest.NewRequest(method, "/", http.NoBody), most: 16}
	return *c.end(h(c), func(error) int { return http.StatusBadGateway }), w
}

func TestRecording(t *testing.T) {
	text := func(s string) func(http.ResponseWriter) error {
		return func(w http.ResponseWriter) error {
			_, err := w.Write([]byte(s))
			return err
		}
	}
	for name, tc := range map[string]struct {
		method  string
		write   func(http.ResponseWriter) error
		status  int
		body    string
		missing string
	}{
		"nothing":       {write: func(http.ResponseWriter) error { return nil }, status: 200},
		"a body":        {write: text("0123456789abcdef"), status: 200, body: "0123456789abcdef"},
		"a long body":   {write: text("0123456789abcdefg"), missing: missingTooLong},
		"HEAD":          {method: http.MethodHead, write: text(strings.Repeat("x", 100)), status: 200},
		"its own error": {write: func(http.ResponseWriter) error { return errors.New("no") }, status: 502},
		"cut off": {write: func(w http.ResponseWriter) error {
			_ = text("half")(w)
			return errors.New("no")
		}, missing: missingAborted},
		"too short for its header": {write: func(w http.ResponseWriter) error {
			w.Header().Set("Content-Length", "5")
			return text("half")(w)
		}, missing: missingAborted},
		"no content": {write: func(w http.ResponseWriter) error {
			w.WriteHeader(http.StatusNoContent)
			return nil
		}, status: 204},
		"an error of the upstream": {write: func(w http.ResponseWriter) error {
			w.WriteHeader(http.StatusServiceUnavailable)
			w.WriteHeader(http.StatusOK)
			return text("sorry")(w)
		}, status: 503, body: "sorry"},
		"a switch of protocols": {write: func(w http.ResponseWriter) error {
			w.WriteHeader(http.StatusSwitchingProtocols)
			return nil
		}, missing: missingUpgraded},
		"announced trailers": {write: func(w http.ResponseWriter) error {
			w.Header().Set("Trailer", "X")
			return text("body")(w)
		}, missing: missingTrailers},
		"trailers": {write: func(w http.ResponseWriter) error {
			err := text("body")(w)
			w.Header().Set(http.TrailerPrefix+"X", "1")
			return err
		}, missing: missingTrailers},
		"a reader": {write: func(w http.ResponseWriter) error {
			_, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("0123456789abcdef"))
			return err
		}, status: 200, body: "0123456789abcdef"},
		"a long reader": {write: func(w http.ResponseWriter) error {
			n, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader(strings.Repeat("x", 100)))
			if n != 100 {
				return errors.New("not all was read")
			}
			return err
		}, missing: missingTooLong},
		"flushed pieces": {write: func(w http.ResponseWriter) error {
			for _, s := range []string{"one ", "two"} {
				if err := errors.Join(text(s)(w), http.NewResponseController(w).Flush()); err != nil {
					return err
				}
			}
			return nil
		}, status: 200, body: "one two"},
	} {
		if tc.method == "" {
			tc.method = http.MethodGet
		}
		got, w := record(tc.method, tc.write)
		if got.Missing != tc.missing || string(got.body) != tc.body || tc.missing == "" && got.Status != tc.status {
			t.Errorf("%s: %+v %q", name, got, got.body)
		}
		if strings.HasPrefix(name, "a long") && w.Body.Len() < 17 {
			t.Errorf("%s: %q went to the client", name, w.Body)
		}
	}
}

// broken is a connection whose client has left.
type broken struct{ http.ResponseWriter }

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
func (broken) FlushError() error         { return io.ErrClosedPipe }

// The answer goes on into the record when its client has left, and no further than that goes.
func TestRecordingOfWhoLeft(t *testing.T) {
	c := &recording{ResponseWriter: broken{httptest.NewRecorder()}, request: httptest.NewRequest(http.MethodPost, "/", http.NoBody), most: 16}
	stopped := false
	c.stopped = func(*storedAnswer) { stopped = true }
	for range 4 {
		if n, err := c.Write([]byte("1234")); n != 4 || err != nil || c.FlushError() != nil {
			t.Fatal(n, err)
		}
	}
	if stopped || string(c.answer.body) != "1234123412341234" {
		t.Errorf("recorded %q", c.answer.body)
	}
	if _, err := c.Write([]byte("5")); err != nil || !stopped {
		t.Errorf("too much: %v, stopped: %t", err, stopped)
	}
	if _, err := c.Write([]byte("6")); err == nil {
		t.Error("there is neither a client nor a record, and the handler was told to go on")
	}
}

// Nothing that is secret, or said for one connection, or by ourselves, is stored.
func TestStoredHeader(t *testing.T) {
	h := http.Header{
		"Content-Type": {"text/plain"}, "X-Two": {"a", "b"}, "Link": {"<x>"}, "Set-Cookie": {"s=1"}, "Authorization": {"Bearer x"},
		"Authentication-Info": {"nextnonce=x"}, "Connection": {"close, X-Hop", "x-other-hop"}, "X-Hop": {"1"}, "X-Other-Hop": {"1"},
		"Transfer-Encoding": {"chunked"}, "Keep-Alive": {"1"}, "Upgrade": {"h2c"}, "Date": {"now"}, "Proxy-Authenticate": {"x"},
		headerAccessToken: {"secret"}, headerResponse: {"x"}, headerResponseV1: {"x"}, headerPaymentID: {"x"}, headerPaymentStatus: {"x"},
		"X-Payment-Token": {"secret"}, headerReplayed: {"true"},
	}
	s := storedAnswer{Values: storedHeader(h)}
	var wire bytes.Buffer
	if err := s.header().Write(&wire); err != nil || wire.String() != "Content-Type: text/plain\r\nLink: <x>\r\nX-Two: a\r\nX-Two: b\r\n" {
		t.Errorf("stored: %s%v", wire.String(), err)
	}
}
