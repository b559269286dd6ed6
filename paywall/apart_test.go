package paywall

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// later is a ledger whose clock may be put forward.
type later struct {
	ledger.Store
	by atomic.Int64
}

func (l *later) Now() time.Time { return l.Store.Now().Add(time.Duration(l.by.Load())) }

// A request without a key gets what its payer has paid for already, and so does one under another key that is for the same thing;
// the key of that payment then says what became of it, which is not that its request was answered.
func TestPaymentOfAKeyThatServedAnother(t *testing.T) {
	for name, other := range map[string]struct {
		path string
		key  []string
	}{
		"without a key":     {"/two", nil},
		"under another key": {"/one", []string{headerIdempotencyKey, "two"}},
	} {
		t.Run(name, func(t *testing.T) {
			var clock *later
			c := newCluster(t, 1, Settings{}, func(_ int, s ledger.Store) ledger.Store {
				clock = &later{Store: s}
				return clock
			})
			first := c.sign(0, 1, "")
			c.leaveInSettlement("/one", "one", headerSignature, first, headerIdempotencyKey, "one")
			var a reply
			waitUntil(t, "an answer", func() bool {
				a = c.ask(0, http.MethodPost, other.path, "two", append(other.key, headerSignature, c.sign(0, 1, ""))...)
				return a.status != http.StatusServiceUnavailable
			})
			if a.status != http.StatusOK || a.body != "answer 1" {
				t.Fatalf("the other one: %d %s", a.status, a.body)
			}
			clock.by.Store(int64(time.Minute))
			for _, header := range []string{first, c.sign(0, 1, "")} {
				again := c.ask(0, http.MethodPost, "/one", "one", headerSignature, header, headerIdempotencyKey, "one")
				if !isProblem(again, http.StatusConflict, codeNotStored) || again.header.Get(headerResponse) != a.header.Get(headerResponse) ||
					!strings.Contains(again.body, "another request of yours") || strings.Contains(again.body, "and answered") {
					t.Errorf("the first one: %d %s", again.status, again.body)
				}
			}
			c.saw(1, cent)
		})
	}
}

// leaveInSettlement makes a request whose client leaves while its payment is settled.
func (c *cluster) leaveInSettlement(path, body string, header ...string) {
	c.t.Helper()
	c.chain.Stall()
	ctx, leave := context.WithCancel(c.t.Context())
	defer leave()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.instances[0].server.URL+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	left := make(chan error, 1)
	go func() {
		res, err := c.instances[0].server.Client().Do(r)
		if err == nil {
			_ = res.Body.Close()
		}
		left <- err
	}()
	waitUntil(c.t, "its transaction", func() bool { return c.chain.Pending() > 0 })
	leave()
	if err := <-left; err == nil {
		c.t.Fatal("the client that left was answered")
	}
	c.chain.Resume()
	waitUntil(c.t, "the payment", func() bool {
		balance, err := c.chain.TokenBalance(c.t.Context(), seller)
		return err == nil && balance.Uint64() == cent
	})
}
