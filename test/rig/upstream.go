package rig

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// Upstream is the seller's API: it counts what reaches it, and remembers the last request.
type Upstream struct {
	server *httptest.Server

	mu    sync.Mutex
	calls int
	last  *http.Request
}

// NewUpstream starts an upstream that answers with h, or with Echo.
func NewUpstream(t testing.TB, h http.HandlerFunc) *Upstream {
	if h == nil {
		h = Echo
	}
	u := new(Upstream)
	u.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		u.calls++
		u.last = r.Clone(r.Context())
		u.mu.Unlock()
		h(w, r)
	}))
	t.Cleanup(u.server.Close)
	return u
}

// Addr is where it listens.
func (u *Upstream) Addr() string { return strings.TrimPrefix(u.server.URL, "http://") }

// Calls is how many requests have reached it.
func (u *Upstream) Calls() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.calls
}

// Last is the header of the last request that reached it.
func (u *Upstream) Last() *http.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.last
}

// Echo answers with the request as JSON.
func Echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"method": r.Method, "uri": r.RequestURI, "headers": r.Header})
}
