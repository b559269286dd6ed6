package chaos

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// forward is one request that reached the upstream.
type forward struct {
	serial  int
	payment string
	intent  string
	method  string
	payer   string
	at      time.Time
	status  int
}

// answerBody is what the upstream says. Its serial number tells two answers apart.
type answerBody struct {
	Serial int    `json:"serial"`
	Intent string `json:"intent"`
}

// upstream is the seller's API. It knows nothing of chaos: it counts, is slow at times, and fails at times.
type upstream struct {
	server *httptest.Server

	mu       sync.Mutex
	random   *rand.Rand
	forwards []forward
}

func newUpstream(t *testing.T, random *rand.Rand) *upstream {
	u := &upstream{random: random}
	u.server = httptest.NewServer(u)
	t.Cleanup(u.server.Close)
	return u
}

func (u *upstream) addr() string { return strings.TrimPrefix(u.server.URL, "http://") }

// ServeHTTP answers with a serial number. Paths are /<route>/<intent>.
func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, slow := u.note(r)
	select {
	case <-time.After(slow):
	case <-r.Context().Done():
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.status)
	_ = json.NewEncoder(w).Encode(answerBody{Serial: f.serial, Intent: f.intent})
}

func (u *upstream) note(r *http.Request) (forward, time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f := forward{
		serial: len(u.forwards) + 1, payment: r.Header.Get("X-Payment-Id"), payer: r.Header.Get("X-Payment-Payer"),
		intent: r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:], method: r.Method, at: time.Now(), status: http.StatusOK,
	}
	slow := time.Duration(u.random.IntN(60)) * time.Millisecond
	switch n := u.random.IntN(40); {
	case n == 0:
		f.status = http.StatusBadGateway
	case n < 6 && unpaid(r.URL.Path):
		f.status = []int{http.StatusInternalServerError, http.StatusNotImplemented}[n%2]
	case n < 8:
		slow = time.Duration(500+u.random.IntN(3000)) * time.Millisecond
	}
	u.forwards = append(u.forwards, f)
	return f, slow
}

// unpaid reports whether a request may come before it is paid for: such are refused more often.
func unpaid(path string) bool {
	return strings.HasPrefix(path, "/"+ledger.FlowAuthorization+"/") || strings.HasPrefix(path, "/"+ledger.FlowDeferred+"/")
}

// seen is everything that reached the upstream.
func (u *upstream) seen() []forward {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.forwards
}
