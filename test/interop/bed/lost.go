package bed

import (
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

const (
	lostPayer = 1
	lostPrice = 10_000
)

// LostAnswer breaks the line of a stock client when its payment has settled and the upstream is at work, and lets the
// client ask again. It knows nothing of resuming: it signs a new authorization, and is yet charged only once.
func LostAnswer(t *testing.T, dir, network string) {
	t.Helper()
	working := make(chan struct{}, 1)
	var calls int
	shop := Open(t, Devnet(t, devnet.Options{}), rig.Options{Upstream: func(w http.ResponseWriter, r *http.Request) {
		if calls++; calls == 1 { // one at a time: the next request comes when this one has failed
			working <- struct{}{}
			<-r.Context().Done()
			return
		}
		Echo(w, r)
	}})
	line := NewLine(t, shop)
	before := shop.Accounts(t, lostPayer)

	cut := make(chan struct{})
	go func() {
		defer close(cut)
		<-working
		line.Cut()
	}()
	lost := Buy(t, dir, lostPayer, http.MethodGet, line.URL("/weather"), "")
	select {
	case <-cut:
	case <-time.After(runTimeout):
		t.Fatalf("the upstream was never called; the stock client got %+v", lost)
	}
	if lost.Error == "" {
		t.Fatalf("the line was cut, yet the stock client got %+v", lost)
	}
	shop.Moved(t, lostPayer, before, lostPrice, 1)

	got := buyAtLast(t, dir, http.MethodGet, line.URL("/weather"), "")
	shop.Receipt(t, got, lostPayer, network, strconv.Itoa(lostPrice))
	if got.Body != "GET /weather " {
		t.Errorf("the second request brought %q", got.Body)
	}
	shop.Moved(t, lostPayer, before, lostPrice, 1)
	if n := shop.Upstream.Calls(); n != 2 {
		t.Errorf("the upstream was called %d times; want one call that was broken off, and one more", n)
	}

	shop.Receipt(t, Buy(t, dir, lostPayer, http.MethodGet, line.URL("/weather"), ""), lostPayer, network, strconv.Itoa(lostPrice))
	shop.Moved(t, lostPayer, before, 2*lostPrice, 2)
}

// LostWhileSettling breaks the line of a stock client while its transfer waits for a block. As long as the outcome is
// unknown the payer can't be charged again; then its next request is served by what it has paid for. The upstream,
// which may do more than answer, is called once.
func LostWhileSettling(t *testing.T, dir, network, method, body string) {
	t.Helper()
	chain := Devnet(t, devnet.Options{})
	shop := Open(t, chain, rig.Options{Upstream: Echo, App: "settle_timeout 5s"})
	line := NewLine(t, shop)
	before := shop.Accounts(t, lostPayer)
	sent, err := shop.chain.NonceAt(t.Context(), devnet.Developer(0).Address, nil)
	if err != nil {
		t.Fatal(err)
	}

	chain.Stall()
	broadcast := make(chan error, 1)
	go func() {
		defer line.Cut()
		broadcast <- shop.waitForTransaction(t, sent)
	}()
	lost := Buy(t, dir, lostPayer, method, line.URL("/orders"), body)
	if err := <-broadcast; err != nil || lost.Error == "" {
		t.Fatalf("waiting for the transfer to be sent: %v; the stock client got %+v", err, lost)
	}

	again := Buy(t, dir, lostPayer, method, line.URL("/orders"), body)
	if again.Status != http.StatusServiceUnavailable || again.RetryAfter == "" {
		t.Errorf("while the outcome is unknown, the stock client got %+v", again)
	}
	shop.Moved(t, lostPayer, before, 0, 0)
	chain.Resume()

	got := buyAtLast(t, dir, method, line.URL("/orders"), body)
	shop.Receipt(t, got, lostPayer, network, strconv.Itoa(lostPrice))
	if want := method + " /orders " + body; got.Body != want {
		t.Errorf("the last request brought %q, want %q", got.Body, want)
	}
	shop.Moved(t, lostPayer, before, lostPrice, 1)
	if n := shop.Upstream.Calls(); n != 1 {
		t.Errorf("the upstream was called %d times", n)
	}
}

// waitForTransaction waits until the gas wallet, which has sent so many transactions, has sent another.
func (s *Shop) waitForTransaction(t testing.TB, sent uint64) error {
	wallet := devnet.Developer(0).Address
	deadline := time.After(runTimeout)
	for {
		n, err := s.chain.PendingNonceAt(t.Context(), wallet)
		if err != nil || n > sent {
			return err
		}
		select {
		case <-deadline:
			return fmt.Errorf("none within %s", runTimeout)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// buyAtLast asks again and again, with a new signature each time, while the shop says that it does not know yet.
func buyAtLast(t testing.TB, dir, method, url, body string) Bought {
	t.Helper()
	for deadline := time.Now().Add(runTimeout); ; {
		b := Buy(t, dir, lostPayer, method, url, body)
		if b.Status != http.StatusServiceUnavailable || time.Now().After(deadline) {
			return b
		}
		t.Logf("asked to come back after %s s: %s", b.RetryAfter, b.Body)
	}
}
