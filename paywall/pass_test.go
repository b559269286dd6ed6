package paywall

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"
)

// served is what a client saw of an answer.
type served struct {
	status int
	header http.Header
	body   string
	hints  int // informational answers
	err    error
}

// ask sends a GET, or what method says.
func ask(t *testing.T, s *httptest.Server, method string, headers ...string) served {
	t.Helper()
	var out served
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(int, textproto.MIMEHeader) error { out.hints++; return nil },
	})
	r, err := http.NewRequestWithContext(ctx, method, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := s.Client().Do(r)
	if err != nil {
		out.err = err
		return out
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	out.status, out.header, out.body, out.err = res.StatusCode, res.Header, string(body), err
	return out
}

// takeOver answers on the bare connection.
func takeOver(t *testing.T, w http.ResponseWriter) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	_, _ = rw.WriteString("HTTP/1.1 299 Mine\r\nContent-Length: 3\r\n\r\nraw")
	_ = rw.Flush()
}

// handlers are the ways in which a handler may answer, with what its client then sees.
func handlers(t *testing.T) map[string]struct {
	handler http.HandlerFunc
	status  int
	body    string
} {
	text := strings.Repeat("long ", 20_000)
	return map[string]struct {
		handler http.HandlerFunc
		status  int
		body    string
	}{
		"header twice": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusAccepted)
			w.WriteHeader(http.StatusOK)
		}, 202, ""},
		"body without header": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }, 200, "hello"},
		"body in pieces": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, "hel")
			_, _ = io.WriteString(w, "lo")
		}, 404, "hello"},
		"flush first": {func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			w.WriteHeader(http.StatusTeapot) // too late
			_, _ = io.WriteString(w, "hello")
		}, 200, "hello"},
		"flush by a controller": {func(w http.ResponseWriter, _ *http.Request) {
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			_, _ = io.WriteString(w, "hello")
		}, 200, "hello"},
		"a copied body": {func(w http.ResponseWriter, _ *http.Request) {
			if n, err := io.Copy(w, strings.NewReader(text)); err != nil || int(n) != len(text) {
				t.Error(n, err)
			}
		}, 200, text},
		"a read body": {func(w http.ResponseWriter, _ *http.Request) {
			if n, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader(text)); err != nil || int(n) != len(text) {
				t.Error(n, err)
			}
		}, 200, text},
		"nothing at all":            {func(http.ResponseWriter, *http.Request) {}, 200, ""},
		"nothing but a status":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, 204, ""},
		"the connection taken over": {func(w http.ResponseWriter, _ *http.Request) { takeOver(t, w) }, 299, "raw"},
		"a header changed too late": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusOK)
			w.Header().Set("X-Late", "1")
		}, 200, ""},
	}
}

// The function is called once, before the header goes out, whatever way the handler answers.
func TestBeforeHeader(t *testing.T) {
	for name, tc := range handlers(t) {
		t.Run(name, func(t *testing.T) {
			calls := 0
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Order", "before")
				tc.handler(BeforeHeader(w, func(h http.Header) {
					calls++
					h.Set("X-Order", h.Get("X-Order")+" added")
				}), r)
			}))
			got := ask(t, s, http.MethodGet)
			s.Close()
			if got.err != nil || got.status != tc.status || got.body != tc.body {
				t.Errorf("%d %.20q %v", got.status, got.body, got.err)
			}
			want := "before added"
			switch name {
			case "nothing at all":
				if calls != 0 {
					t.Errorf("called %d times", calls)
				}
				return
			case "the connection taken over":
				want = ""
			}
			if calls != 1 || got.header.Get("X-Order") != want || got.header.Get("X-Late") != "" {
				t.Errorf("called %d times, the header is %v", calls, got.header)
			}
		})
	}
}

// Hints go out as they come, and are no answer yet.
func TestBeforeHeaderHints(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls := 0
		w = BeforeHeader(w, func(h http.Header) { calls++; h.Set("X-Added", "1") })
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusProcessing)
		if calls != 0 {
			t.Error("a hint is taken for the answer")
		}
		w.WriteHeader(http.StatusCreated)
	}))
	defer s.Close()
	if got := ask(t, s, http.MethodGet); got.status != http.StatusCreated || got.hints != 2 || got.header.Get("X-Added") != "1" {
		t.Errorf("%+v", got)
	}
}

// A switch of protocols is an answer.
func TestInformational(t *testing.T) {
	for status, want := range map[int]bool{100: true, 101: false, 102: true, 103: true, 199: true, 200: false, 99: false, 500: false} {
		if informational(status) != want {
			t.Errorf("%d: %v", status, !want)
		}
	}
}

// Deadlines and full duplex reach the server through our writers.
func TestBeforeHeaderUnwraps(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c := http.NewResponseController(BeforeHeader(w, func(http.Header) {}))
		if err := errors.Join(c.SetWriteDeadline(time.Now().Add(time.Minute)), c.SetReadDeadline(time.Now().Add(time.Minute)), c.EnableFullDuplex()); err != nil {
			t.Error(err)
		}
	}))
	defer s.Close()
	ask(t, s, http.MethodGet)
}

// narrow is a writer that can do nothing but write.
type narrow struct{ http.ResponseWriter }

// A server whose writer can't take over connections, flush or read says so; the header is added all the same.
func TestBeforeHeaderOnANarrowWriter(t *testing.T) {
	record := httptest.NewRecorder()
	w := BeforeHeader(narrow{record}, func(h http.Header) { h.Set("X-Added", "1") })
	if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, http.ErrNotSupported) {
		t.Error(err)
	}
	if err := http.NewResponseController(w).Flush(); !errors.Is(err, http.ErrNotSupported) {
		t.Error(err)
	}
	if n, err := w.(io.ReaderFrom).ReadFrom(bufio.NewReader(strings.NewReader("hello"))); n != 5 || err != nil {
		t.Error(n, err)
	}
	if record.Body.String() != "hello" || record.Header().Get("X-Added") != "1" {
		t.Errorf("%v %s", record.Header(), record.Body)
	}
}

// What a buyer of a plan gets stands on whatever answer it gets: the upstream's, nobody's, or an error's.
func TestPassAddsToEveryAnswer(t *testing.T) {
	broken := errors.New("upstream is down")
	for name, next := range map[string]Handler{
		"an answer": func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("X-Access-Token", "forged")
			w.Header().Set("Cache-Control", "public")
			w.WriteHeader(http.StatusOK)
			return nil
		},
		"no answer": func(http.ResponseWriter, *http.Request) error { return nil },
		"an error":  func(http.ResponseWriter, *http.Request) error { return broken },
	} {
		record := httptest.NewRecorder()
		a := &attempt{Gate: &Gate{}, w: record, r: httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", nil), next: next}
		calls := 0
		err := a.pass("paid", func(h http.Header) {
			calls++
			h.Set("X-Access-Token", "bought")
		})
		if (name == "an error") != errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
		if h := record.Header(); calls != 1 || h.Get("X-Access-Token") != "bought" || h.Get("Cache-Control") != "private" {
			t.Errorf("%s: called %d times, %v", name, calls, h)
		}
	}
}
