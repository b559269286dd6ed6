package chain_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
)

// An endpoint that fails is left alone for a while, the next one answers, and later it gets another chance.
func TestFailover(t *testing.T) {
	dev := startChain(t, devnet.Options{})
	faults := map[string]settlementtest.Fault{
		"HTTP status":   {Status: http.StatusInternalServerError},
		"rate limit":    {Code: -32005, Message: "limit exceeded"},
		"lost answer":   {DropAnswer: true},
		"slow endpoint": {Delay: time.Minute},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			p, urls := proxies(t, dev, 2)
			patience := time.Minute
			if fault.Delay > 0 { // that is waited for
				patience = 2 * time.Second
			}
			c := newClient(t, chain.Config{Endpoints: urls, CallTimeout: patience})
			p[0].SetFault(func([]string) settlementtest.Fault { return fault })
			for range 5 {
				if id, err := c.ChainID(t.Context()); err != nil || id != devnet.ChainID {
					t.Fatalf("got %d, %v", id, err)
				}
			}
			if n := p[0].Requests(); n != 1 {
				t.Errorf("the failing endpoint was asked %d times, want 1", n)
			}
			p[0].SetFault(nil)
			c.clock.advance(2 * time.Second)
			before := p[1].Requests()
			if _, err := c.ChainID(t.Context()); err != nil {
				t.Fatal(err)
			}
			if p[0].Requests() != 2 || p[1].Requests() != before {
				t.Errorf("the recovered endpoint was not preferred again: %d and %d requests", p[0].Requests(), p[1].Requests())
			}
		})
	}
}

// With all endpoints down the error says so in terms that callers act on, and within the context.
func TestAllDown(t *testing.T) {
	dev := startChain(t, devnet.Options{})
	p, urls := proxies(t, dev, 2)
	c := newClient(t, chain.Config{Endpoints: urls})
	p[0].FailAll(http.StatusBadGateway)
	p[1].SetFault(func([]string) settlementtest.Fault { return settlementtest.Fault{Delay: time.Minute} })
	start := time.Now()
	_, err := c.Head(ctxFor(t, 200*time.Millisecond))
	if !errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	if d := time.Since(start); d > 30*time.Second {
		t.Errorf("the context was not kept: %s", d)
	}
}

// Once a block was seen, an endpoint that has not got that far is not believed.
func TestLaggingEndpoint(t *testing.T) {
	dev := startChain(t, devnet.Options{Heartbeat: -1})
	p, urls := proxies(t, dev, 2)
	c := newClient(t, chain.Config{Endpoints: urls})
	payer := devnet.Payer(0).Address
	old, err := c.Head(t.Context())
	check(t, err)
	mint(t, dev, payer, 1) // moves the head on
	now, err := c.Head(t.Context())
	check(t, err)
	if now.Number <= old.Number {
		t.Fatalf("the head did not move: %d", now.Number)
	}
	p[0].Freeze(old.Number)
	for range 3 {
		h, err := c.Head(t.Context())
		check(t, err)
		if h.Number != now.Number {
			t.Fatalf("head %d came from the endpoint that lags, want %d", h.Number, now.Number)
		}
	}
	p[1].FailAll(http.StatusBadGateway)
	if _, err := c.Head(ctxFor(t, 250*time.Millisecond)); !errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("the lagging endpoint answered alone: %v", err)
	}
	// After a while the chain itself must have gone back.
	c.clock.advance(2 * time.Minute)
	h, err := c.Head(t.Context())
	if err != nil || h.Number != old.Number {
		t.Errorf("got %d, %v; want %d after the patience ended", h.Number, err, old.Number)
	}
}

// Keys in URLs stay out of errors and logs, whatever the endpoint does with them.
func TestNoSecretsInErrorsAndLogs(t *testing.T) {
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, pass, _ := r.BasicAuth()
		switch {
		case strings.HasPrefix(r.URL.Path, "/rpc"):
			fmt.Fprintf(w, `[{"jsonrpc":"2.0","id":1,"error":{"code":-32600,"message":"bad key %s %s %s %s"}}]`, r.URL, r.URL.Query().Get("key"), user, pass)
		case strings.HasPrefix(r.URL.Path, "/redirect"):
			http.Redirect(w, r, "http://elsewhere.invalid"+r.URL.String(), http.StatusTemporaryRedirect)
		default:
			http.Error(w, "forbidden: "+r.URL.String(), http.StatusForbidden)
		}
	}))
	defer echo.Close()
	host := strings.TrimPrefix(echo.URL, "http://")
	const key = "s3cr3t-k3y"
	urls := []string{
		"http://" + host + "/v2/" + key,
		"http://user-" + key + ":pass-" + key + "@" + host + "/rpc/" + key + "?key=" + key,
		"http://" + host + "/redirect/" + key,
		"http://127.0.0.1:1/" + key,
		"http://no-such-host.invalid/" + key + "?" + key + "=" + key,
	}
	for _, u := range urls {
		c := newClient(t, chain.Config{Endpoints: []string{u}, CallTimeout: 2 * time.Second})
		_, err := c.Head(t.Context())
		_, sendErr := c.SendRaw(t.Context(), []byte{2})
		_, logErr := c.Logs(t.Context(), chain.Filter{From: 1, To: 2})
		check(t, c.Close())
		for _, text := range []string{err.Error(), sendErr.Error(), logErr.Error(), c.log.String()} {
			if strings.Contains(text, key) {
				t.Errorf("the key shows: %s", text)
			}
		}
	}
	for _, bad := range []string{"ftp://h/" + key, "http://%zz/" + key, key, "http://[::1/" + key, "ws://h/" + key} {
		if _, err := chain.New(chain.Config{Endpoints: []string{bad}}); err == nil || strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// An endless answer ends at the cap.
func TestBodyCap(t *testing.T) {
	var wrote int
	var mu sync.Mutex
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `[{"jsonrpc":"2.0","id":1,"result":"`)
		chunk := []byte(strings.Repeat("0", 64<<10))
		for {
			n, err := w.Write(chunk)
			mu.Lock()
			wrote += n
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}))
	defer s.Close()
	c := newClient(t, chain.Config{Endpoints: []string{s.URL}, MaxBody: 1 << 20, CallTimeout: time.Minute})
	_, err := c.Head(t.Context())
	if !errors.Is(err, settlement.ErrUnavailable) || !strings.Contains(err.Error(), "too large") {
		t.Errorf("got %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if wrote > 64<<20 {
		t.Errorf("%d bytes were taken", wrote)
	}
}

// Endpoints change while calls are under way, and none of the calls fails.
func TestReconfigureInFlight(t *testing.T) {
	dev := startChain(t, devnet.Options{})
	_, urls := proxies(t, dev, 3)
	c := newClient(t, chain.Config{Endpoints: urls[:1]})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if _, err := c.Head(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 30 {
		check(t, c.Reconfigure(urls[i%3:i%3+1]))
	}
	wg.Wait()
	if err := c.Reconfigure(nil); err == nil {
		t.Error("no endpoint at all was accepted")
	}
	if err := c.Reconfigure([]string{"nonsense"}); err == nil {
		t.Error("nonsense was accepted")
	}
	if _, err := c.Head(t.Context()); err != nil {
		t.Errorf("a refused reconfiguration changed something: %v", err)
	}
}

// An endpoint of another chain is never believed, wherever it stands in the list.
func TestForeignChain(t *testing.T) {
	dev := startChain(t, devnet.Options{})
	foreign := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var queries []struct{ ID int }
		check(t, json.NewDecoder(r.Body).Decode(&queries))
		fmt.Fprintf(w, `[{"jsonrpc":"2.0","id":%d,"result":"0x1"}]`, queries[0].ID)
	}))
	defer foreign.Close()
	c := newClient(t, chain.Config{Endpoints: []string{foreign.URL, dev.URL()}, ChainID: devnet.ChainID})
	if _, err := c.Head(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := c.Verify(t.Context(), devnet.Network())
	if m, ok := errors.AsType[*chain.MismatchError](err); !ok || m.What != "chain id" || m.Chain != "1" {
		t.Errorf("got %v, want a mismatch of the chain id", err)
	}
}

// After Close everything answers at once that nothing can be asked.
func TestClosed(t *testing.T) {
	dev := startChain(t, devnet.Options{})
	c := newClient(t, chain.Config{Endpoints: []string{dev.URL()}})
	waiting := make(chan error)
	go func() {
		_, err := c.AwaitReceipt(t.Context(), [32]byte{1})
		waiting <- err
	}()
	time.Sleep(50 * time.Millisecond)
	check(t, c.Close())
	if err := <-waiting; !errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("who waited got %v", err)
	}
	_, err := c.Head(t.Context())
	_, sendErr := c.SendRaw(t.Context(), nil)
	_, awaitErr := c.AwaitReceipt(t.Context(), [32]byte{1})
	for _, err := range []error{err, sendErr, awaitErr} {
		if !errors.Is(err, chain.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	}
}

// A hundred calls that fail at once are one failure, and the endpoint is soon tried again.
func TestFailuresAtOnce(t *testing.T) {
	dev := startChain(t, devnet.Options{})
	p, urls := proxies(t, dev, 1)
	c := newClient(t, chain.Config{Endpoints: append(urls, dev.URL()), ChainID: devnet.ChainID, CallTimeout: time.Minute})
	p[0].SetFault(func([]string) settlementtest.Fault {
		return settlementtest.Fault{Delay: 300 * time.Millisecond, Status: http.StatusBadGateway}
	})
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, err := c.Head(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := strings.Count(c.log.String(), "put aside"); n != 1 {
		t.Errorf("put aside %d times", n)
	}
	p[0].SetFault(nil)
	c.clock.advance(1100 * time.Millisecond)
	before := p[0].Requests()
	if _, err := c.Head(t.Context()); err != nil || p[0].Requests() == before {
		t.Errorf("it was not tried again after a second: %v", err)
	}
}
