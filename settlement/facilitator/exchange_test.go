package facilitator

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func remoteAt(t *testing.T, address string, header http.Header) *remote {
	t.Helper()
	client := newHTTPClient()
	t.Cleanup(client.CloseIdleConnections)
	r, err := newRemote(Facilitator{URL: address, Header: header}, sepolia(t), client)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// Redirects are followed within the origin only, and only those that keep method and body; nobody else gets to see what we send.
func TestRedirects(t *testing.T) {
	var strange atomic.Int32
	stranger := serve(t, func(http.ResponseWriter, *http.Request) { strange.Add(1) })
	var method, body, token string
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/settle/":
			b, _ := io.ReadAll(r.Body)
			method, body, token = r.Method, string(b), r.Header.Get("X-Token")
			_, _ = io.WriteString(w, "{}")
		case "/307/settle":
			http.Redirect(w, r, "/settle/", http.StatusTemporaryRedirect)
		case "/308/settle":
			http.Redirect(w, r, "/settle/", http.StatusPermanentRedirect)
		case "/302/settle":
			http.Redirect(w, r, "/settle/", http.StatusFound)
		case "/away/settle":
			http.Redirect(w, r, stranger.URL+"/settle", http.StatusTemporaryRedirect)
		case "/loop/settle":
			http.Redirect(w, r, "/loop/settle", http.StatusTemporaryRedirect)
		}
	})
	header := http.Header{"X-Token": {"confidential"}}
	for _, path := range []string{"/307", "/308"} {
		method = ""
		a, err := remoteAt(t, s.URL+path, header).do(t.Context(), http.MethodPost, "/settle", []byte("payment"), 100)
		if err != nil || a.status != http.StatusOK || method != http.MethodPost || body != "payment" || token != "confidential" {
			t.Errorf("%s: %+v, %v; %s %q with %q", path, a, err, method, body, token)
		}
	}
	method = ""
	if a, err := remoteAt(t, s.URL+"/302", header).do(t.Context(), http.MethodPost, "/settle", []byte("payment"), 100); err != nil || a.status != http.StatusFound || method != "" {
		t.Errorf("302: %+v, %v, and then %q", a, err, method)
	}
	for _, path := range []string{"/away", "/loop"} {
		_, err := remoteAt(t, s.URL+path, header).do(t.Context(), http.MethodPost, "/settle", []byte("payment"), 100)
		if !errors.Is(err, errRedirect) || errors.Is(err, errNotSent) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if strange.Load() > 0 {
		t.Error("a stranger got the payment")
	}
}

// What certainly did not leave this machine is told apart from what may have arrived.
func TestNotSent(t *testing.T) {
	gone := serve(t, func(http.ResponseWriter, *http.Request) {})
	gone.Close()
	if _, err := remoteAt(t, gone.URL, nil).do(t.Context(), http.MethodPost, "/settle", []byte("x"), 100); !errors.Is(err, errNotSent) {
		t.Errorf("nobody listens: %v", err)
	}
	cut := serve(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if _, err := remoteAt(t, cut.URL, nil).do(t.Context(), http.MethodPost, "/settle", []byte("x"), 100); err == nil || errors.Is(err, errNotSent) {
		t.Errorf("cut off: %v", err)
	}
	release := make(chan struct{})
	slow := serve(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := remoteAt(t, slow.URL, nil).do(ctx, http.MethodPost, "/settle", []byte("x"), 100); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errNotSent) {
		t.Errorf("too slow: %v", err)
	}
}

// An answer without end is cut off.
func TestLargeAnswer(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		for range 1000 {
			if _, err := io.WriteString(w, strings.Repeat(" ", 1000)); err != nil {
				return
			}
		}
	})
	if _, err := remoteAt(t, s.URL, nil).do(t.Context(), http.MethodPost, "/settle", nil, 5000); !errors.Is(err, errTooLarge) {
		t.Errorf("%v", err)
	}
}

// Errors and texts of facilitators hold nothing of what we sent, nor the address, which may hold a key.
func TestNoSecretsInErrors(t *testing.T) {
	gone := serve(t, func(http.ResponseWriter, *http.Request) {})
	gone.Close()
	r := remoteAt(t, gone.URL+"/v1/0123456789abcdef", http.Header{"Authorization": {"Bearer hunter2hunter2"}})
	_, err := r.do(t.Context(), http.MethodPost, "/settle", []byte("x"), 100)
	if err == nil || strings.Contains(err.Error(), "0123456789abcdef") {
		t.Errorf("%v", err)
	}
	said := r.clean("you sent Bearer hunter2hunter2 and deadbeef01\nand 0x"+strings.Repeat("ab", 65), "deadbeef01")
	for _, secret := range []string{"hunter2", "deadbeef", "abab", "\n"} {
		if strings.Contains(said, secret) {
			t.Errorf("the text still holds %q: %s", secret, said)
		}
	}
	for _, address := range []string{"", "facilitator.example.com", "ftp://x", "https://", "https://u:p@x", "https://x?key=1", "https://x#1", "https://x?"} {
		if _, err := newRemote(Facilitator{URL: address}, sepolia(t), nil); !errors.Is(err, errAddress) {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// The first failures are bad luck; then a facilitator is left alone, longer each time, and one at a time tries.
func TestBreakerRules(t *testing.T) {
	var b breaker
	now := time.Unix(1_900_000_000, 0)
	for range mostFailures - 1 {
		if b.failed(now) != 0 || !b.admit(now, time.Second) || !b.closed(now) {
			t.Fatal("it opened too early")
		}
	}
	want := firstBackoff
	for range 10 {
		if d := b.failed(now); d != min(want, lastBackoff) {
			t.Errorf("left alone for %s, want %s", d, want)
		}
		if b.closed(now) || b.admit(now, time.Second) {
			t.Error("it is asked all the same")
		}
		now = now.Add(min(want, lastBackoff))
		if !b.closed(now) || !b.admit(now, time.Second) || b.admit(now, time.Second) {
			t.Error("not one at a time tries")
		}
		want *= 2
	}
	b.worked()
	if !b.closed(now) || !b.admit(now, time.Second) || !b.admit(now, time.Second) {
		t.Error("it works, and is left alone")
	}
}
