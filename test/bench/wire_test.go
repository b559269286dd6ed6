package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func get(addr, path string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\nHost: " + addr + "\r\n\r\n")
}

// What the client reads of an answer is what net/http says, whichever way the body comes; the connection is used again.
func TestWireReadsAnswers(t *testing.T) {
	var remotes []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		remotes = append(remotes, r.RemoteAddr)
		w.Header().Set("PAYMENT-REQUIRED", "an offer")
		w.Header().Set("Payment-Response", "a receipt")
		w.Header().Set("X-Access-Token", "a token")
		switch r.URL.Path {
		case "/length":
			w.WriteHeader(http.StatusPaymentRequired)
			_, _ = w.Write([]byte("twelve bytes"))
		case "/chunked":
			for range 3 {
				_, _ = fmt.Fprint(w, strings.Repeat("x", 5000))
				w.(http.Flusher).Flush()
			}
		case "/nothing":
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	defer server.Close()
	w := wire{addr: strings.TrimPrefix(server.URL, "http://")}
	defer w.close()
	for _, tc := range []struct {
		path           string
		status, length int
	}{{"/length", 402, 12}, {"/chunked", 200, 15000}, {"/nothing", 204, 0}, {"/length", 402, 12}} {
		a, err := w.do(t.Context(), get(w.addr, tc.path), time.Now().Add(time.Minute))
		if err != nil || a.status != tc.status || a.length != tc.length {
			t.Errorf("%s: %+v, %v", tc.path, a, err)
		}
		if a.offer != "an offer" || a.receipt != "a receipt" || a.token != "a token" {
			t.Errorf("%s: the headers are %+v", tc.path, a)
		}
	}
	for _, remote := range remotes {
		if remote != remotes[0] {
			t.Error("one client came over several connections:", remotes)
		}
	}
}

// A connection that the server has closed meanwhile is replaced; one that closes before it ever answered is an error.
func TestWireConnectsAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		for i := 0; ; i++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1000))
			if i < 2 {
				_, _ = fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
			_ = c.Close()
		}
	}()
	w := wire{addr: l.Addr().String()}
	defer w.close()
	for i := range 2 {
		if a, err := w.do(t.Context(), get(w.addr, "/"), time.Now().Add(time.Minute)); err != nil || a.status != 200 {
			t.Errorf("request %d: %+v, %v", i, a, err)
		}
	}
	if a, err := w.do(t.Context(), get(w.addr, "/"), time.Now().Add(time.Minute)); err == nil {
		t.Errorf("of a server that closes without an answer came %+v", a)
	}
	_ = l.Close()
	<-served
}

// A client stops waiting at its deadline, and when it is told to.
func TestWireStopsWaiting(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	defer close(release)
	w := wire{addr: strings.TrimPrefix(server.URL, "http://")}
	defer w.close()
	if _, err := w.do(t.Context(), get(w.addr, "/"), time.Now().Add(50*time.Millisecond)); !isTimeout(err) {
		t.Error("after the deadline:", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(errors.New("enough")) })
	if _, err := w.do(ctx, get(w.addr, "/"), time.Now().Add(time.Hour)); err == nil {
		t.Error("it went on though it was told to stop")
	}
}

func TestWireRefusesWhatIsNoAnswer(t *testing.T) {
	for _, text := range []string{
		"", "HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\nno header\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfour", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 200 OK\r\n",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan struct{})
		go func() {
			defer close(served)
			if c, err := l.Accept(); err == nil {
				_, _ = c.Read(make([]byte, 1000))
				_, _ = c.Write([]byte(text))
				_ = c.Close()
			}
		}()
		w := wire{addr: l.Addr().String()}
		if a, err := w.do(t.Context(), get(w.addr, "/"), time.Now().Add(time.Minute)); err == nil {
			t.Errorf("%q was read as %+v", text, a)
		}
		w.close()
		_ = l.Close()
		<-served
	}
}
