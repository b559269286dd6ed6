package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// server is an HTTP server on a free port of the loopback interface.
type server struct {
	http     *http.Server
	listener net.Listener
	done     chan error
}

func serve(ctx context.Context, h http.Handler) (*server, error) {
	l, err := listen(ctx)
	if err != nil {
		return nil, err
	}
	s := &server{
		http:     &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)},
		listener: l, done: make(chan error, 1),
	}
	go func() { s.done <- s.http.Serve(l) }()
	return s, nil
}

func (s *server) addr() string { return s.listener.Addr().String() }

func (s *server) url() string { return "http://" + s.addr() }

func (s *server) close() error {
	err := s.http.Close()
	if served := <-s.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	if err != nil {
		return fmt.Errorf("closing a server: %w", err)
	}
	return nil
}

// seen is a request as it reached the upstream.
type seen struct {
	Method  string      `json:"method"`
	URI     string      `json:"uri"`
	Headers http.Header `json:"headers"`
}

// upstream is the seller's API. It knows nothing of payments: it answers with what it was sent.
type upstream struct {
	*server
	mu   sync.Mutex
	seen []seen
}

func newUpstream(ctx context.Context) (u *upstream, err error) {
	u = new(upstream)
	u.server, err = serve(ctx, u)
	return u, err
}

// ServeHTTP implements http.Handler.
func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	it := seen{Method: r.Method, URI: r.RequestURI, Headers: r.Header.Clone()}
	u.mu.Lock()
	u.seen = append(u.seen, it)
	u.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(it)
}

// calls is how many requests reached it.
func (u *upstream) calls() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.seen)
}

// wire is Caddy's way to the chain, which can be cut.
type wire struct {
	*server
	cut atomic.Bool
}

func newWire(ctx context.Context, chain string) (*wire, error) {
	target, err := url.Parse(chain)
	if err != nil {
		return nil, fmt.Errorf("the chain's address: %w", err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	w := new(wire)
	w.server, err = serve(ctx, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if w.cut.Load() {
			http.Error(rw, "the wire is cut", http.StatusBadGateway)
			return
		}
		proxy.ServeHTTP(rw, r)
	}))
	return w, err
}
