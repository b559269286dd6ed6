package e2e

import (
	"bufio"
	"context"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// A client that leaves while the upstream works has got nothing: the payment is not delivered, whatever the proxy writes for
// the access log, and both the same header and a fresh signature get what was paid for.
func TestClientLeavesWhileUpstreamWorks(t *testing.T) {
	var fast atomic.Bool
	r := rig.New(t, rig.Options{Upstream: func(w http.ResponseWriter, req *http.Request) {
		if !fast.Load() {
			<-req.Context().Done()
			return
		}
		rig.Echo(w, req)
	}})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/slow")
	for name, again := range map[string]func(header string) string{
		"the same header":   func(header string) string { return header },
		"a fresh signature": func(string) string { return b.Sign(b.Offer(url), 0) },
	} {
		w := watch(r)
		fast.Store(false)
		header := b.Sign(b.Offer(url), 0)
		ctx, hangUp := context.WithCancel(t.Context())
		left := make(chan rig.Answer)
		go func() { left <- b.Do(ctx, http.MethodGet, url, "", x402.HeaderSignature, header) }()
		waitFor(t, func() bool { return r.Upstream.Calls() == w.calls+1 })
		hangUp()
		if a := <-left; a.Err == nil {
			t.Fatalf("%s: the client that left was answered %d", name, a.Status)
		}
		fast.Store(true)
		var a rig.Answer
		waitFor(t, func() bool {
			a = b.Get(url, x402.HeaderSignature, again(header))
			return a.Status != http.StatusServiceUnavailable
		})
		if a.Status != http.StatusOK {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
		w.seen(t, name, 2, cent)
	}
}

// A change that has an effect is paid for even if its client does not wait for the end: what was done is not taken back.
func TestClientLeavesWhileUpstreamChanges(t *testing.T) {
	finish := make(chan struct{})
	r := rig.New(t, rig.Options{Upstream: func(w http.ResponseWriter, req *http.Request) {
		select {
		case <-finish:
			rig.Echo(w, req)
		case <-req.Context().Done():
		}
	}})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/change")
	for _, header := range [][]string{nil, {"Upgrade", "nothing", "Connection", "Upgrade"}} {
		w := watch(r)
		signed := b.Sign(b.Offer(url), 0)
		ctx, hangUp := context.WithCancel(t.Context())
		left := make(chan rig.Answer)
		go func() { left <- b.Do(ctx, http.MethodPost, url, "x", append(header, x402.HeaderSignature, signed)...) }()
		waitFor(t, func() bool { return r.Upstream.Calls() == w.calls+1 })
		hangUp()
		if a := <-left; a.Err == nil {
			t.Fatalf("the client that left was answered %d", a.Status)
		}
		time.Sleep(200 * time.Millisecond) // its leaving is noticed
		finish <- struct{}{}
		var a rig.Answer
		waitFor(t, func() bool {
			a = b.Do(t.Context(), http.MethodPost, url, "x", append(header, x402.HeaderSignature, signed)...)
			return a.Status != http.StatusServiceUnavailable
		})
		refused(t, "the same header", a, x402.ReasonNonceUsed)
		w.seen(t, "a change", 1, cent)
	}
}

// paidAndLeft buys url and hangs up before the payment is settled, so that it waits, paid and unserved.
func paidAndLeft(t *testing.T, r *rig.Rig, b *rig.Buyer, method, url, body string) (header string) {
	t.Helper()
	w := watch(r)
	header = b.Sign(b.Offer(url), 0)
	r.Chain.Stall()
	leave(t, r, b, method, url, body, x402.HeaderSignature, header)
	r.Chain.Resume()
	waitFor(t, func() bool { return r.Earned() > w.earned })
	return header
}

// A client that sends a body and hangs up during the settlement is missed as well: it signs anew, and pays once.
func TestClientWithBodyLeaves(t *testing.T) {
	r := rig.New(t, rig.Options{App: "settle_timeout 5s"})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/body")
	body := strings.Repeat("x", 100_000)
	paidAndLeft(t, r, b, http.MethodPost, url, body)
	var a rig.Answer
	waitFor(t, func() bool {
		a = b.Do(t.Context(), http.MethodPost, url, body, x402.HeaderSignature, b.Sign(b.Offer(url), 0))
		return a.Status != http.StatusServiceUnavailable
	})
	if a.Status != http.StatusOK || r.Upstream.Calls() != 1 || r.Earned() != cent {
		t.Errorf("%d %s, upstream calls %d, earned %d", a.Status, a.Body, r.Upstream.Calls(), r.Earned())
	}
	if n := r.Upstream.Last().ContentLength; n != int64(len(body)) {
		t.Errorf("the upstream got %d bytes", n)
	}
}

// A body that ends before its length is refused before anything is charged.
func TestBodyCutOff(t *testing.T) {
	r := rig.New(t, rig.Options{})
	b := rig.NewBuyer(t, 1)
	header := b.Sign(b.Offer(r.URL("/cut")), 0)
	c, err := net.Dial("tcp", r.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "POST /cut HTTP/1.1\r\nHost: "+r.Addr+"\r\nContent-Length: 10\r\n"+x402.HeaderSignature+": "+header+"\r\n\r\nhalf")
	_ = c.(*net.TCPConn).CloseWrite()
	if a := readAnswer(bufio.NewReader(c), http.MethodPost); a.Status == http.StatusOK {
		t.Errorf("answered %d %s", a.Status, a.Body)
	}
	if r.Upstream.Calls() != 0 || r.Earned() != 0 {
		t.Errorf("upstream calls %d, earned %d", r.Upstream.Calls(), r.Earned())
	}
}

// Of a pass nobody wants two: a payer that asks with several signatures at once buys one, and every request is served.
func TestPlanBoughtByManyRequestsAtOnce(t *testing.T) {
	r := rig.New(t, rig.Options{BlockTime: 500 * time.Millisecond, Site: shop})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/plans/x")
	headers := make([]string, 10)
	for i := range headers {
		headers[i] = b.Sign(b.Offer(url), 0)
	}
	answers := make([]rig.Answer, len(headers))
	var wg sync.WaitGroup
	for i := range headers {
		wg.Go(func() { answers[i] = b.Get(url, x402.HeaderSignature, headers[i]) })
	}
	wg.Wait()
	for i, a := range answers {
		if a.Status != http.StatusOK || a.Header.Get("X-Access-Token") == "" {
			t.Errorf("request %d: %d %v %s", i, a.Status, a.Err, a.Body)
		}
	}
	if r.Upstream.Calls() != len(headers) || r.Earned() != 10*cent {
		t.Errorf("upstream calls %d, earned %d", r.Upstream.Calls(), r.Earned())
	}
}

// openLedger opens the rig's ledger as another process would.
func openLedger(t *testing.T, r *rig.Rig) ledger.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), filepath.Join(r.Dir, "ledger.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// A payer that has spent its last money gets what it has paid for. The void authorization that proved it is looked for from a
// block of its own time on: a search of the whole chain, again and again, would starve everybody else's payments.
func TestSpentPayerIsServed(t *testing.T) {
	r := rig.New(t, rig.Options{App: "settle_timeout 5s"})
	b := rig.NewBuyer(t, 5000)
	if err := r.Chain.Mint(t.Context(), b.Account.Address, uint256.NewInt(cent)); err != nil {
		t.Fatal(err)
	}
	url := r.URL("/spent")
	paidAndLeft(t, r, b, http.MethodGet, url, "")
	signed := b.Offer(url)
	auth, sig := b.Authorize(signed.Accepts[0])
	if a := b.Get(url, x402.HeaderSignature, rig.Encode(t, signed.Pay(signed.Accepts[0], &auth, sig))); a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	p, err := openLedger(t, r).ByAuthorization(t.Context(), auth.ID(devnet.ChainID, devnet.TokenAddress))
	if err != nil || p.Settlement != ledger.Void || p.ClaimBlock == 0 {
		t.Errorf("the new authorization is %s, to be looked for after block %d; %v", p.Settlement, p.ClaimBlock, err)
	}
}

// What an upstream was asked to change, and nobody knows whether it did, is not asked for again, although the payment was
// claimed by a request that could be.
func TestLostChangeIsNotRepeated(t *testing.T) {
	r := rig.New(t, rig.Options{App: "settle_timeout 5s"})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/lost-change")
	paidAndLeft(t, r, b, http.MethodGet, url, "")
	s := openLedger(t, r)
	waitFor(t, func() bool { // a process takes it for a change, and dies
		list, err := s.List(t.Context(), ledger.Query{Payer: b.Account.Address, Limit: 1})
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		p := list[0]
		p, err = s.Update(t.Context(), p.ID, p.Version, ledger.Change{Event: ledger.EventTake, Hold: time.Millisecond})
		if err == nil {
			_, err = s.Update(t.Context(), p.ID, p.Version, ledger.Change{
				Event: ledger.EventDeliver, Fence: p.Hold.Fence, Hold: time.Millisecond,
			})
		}
		return err == nil
	})
	a := b.Do(t.Context(), http.MethodPost, url, "x", x402.HeaderSignature, b.Sign(b.Offer(url), 0))
	if a.Status != http.StatusOK || r.Upstream.Calls() != 1 || r.Earned() != 2*cent {
		t.Errorf("%d %s, upstream calls %d, earned %d", a.Status, a.Body, r.Upstream.Calls(), r.Earned())
	}
}

// What is paid and not collected is held for refund in time, whether or not the chain answers just then.
func TestHeldForRefundWithoutTheChain(t *testing.T) {
	r := rig.New(t, rig.Options{})
	rpc := newGatedRPC(t, r.Chain.URL())
	r.Load(rig.Options{RPC: rpc.server.URL, App: "min_age 4s"})
	b := rig.NewBuyer(t, 1)
	paidAndLeft(t, r, b, http.MethodGet, r.URL("/held"), "")
	s := openLedger(t, r)
	state := func() ledger.State {
		counts, err := s.Counts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for state := range counts {
			return state
		}
		return ""
	}
	waitFor(t, func() bool { return state() == ledger.StatePaid })
	rpc.down.Store(true)
	waitFor(t, func() bool { return state() == ledger.StateRefundPending })
}

// A chain that did not answer at the start is asked again at the first payment. Clients that hang up at once don't keep the
// others from the answer.
func TestHangingUpDoesNotKeepTheChainUnverified(t *testing.T) {
	r := rig.New(t, rig.Options{})
	rpc := newGatedRPC(t, r.Chain.URL())
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		time.Sleep(200 * time.Millisecond)
		rpc.server.Config.Handler.ServeHTTP(w, req)
	}))
	t.Cleanup(slow.Close)
	rpc.down.Store(true)
	r.Load(rig.Options{RPC: slow.URL})
	rpc.down.Store(false)

	b := rig.NewBuyer(t, 1)
	url := r.URL("/verified")
	stop := make(chan struct{})
	var vandals sync.WaitGroup
	for i := range 8 {
		v := rig.NewBuyer(t, 10+i)
		header := v.Sign(v.Offer(url), 0)
		vandals.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
				v.Do(ctx, http.MethodGet, r.URL("/other"), "", x402.HeaderSignature, header)
				cancel()
			}
		})
	}
	defer vandals.Wait()
	defer close(stop)
	header := b.Sign(b.Offer(url), 0)
	waitFor(t, func() bool {
		time.Sleep(250 * time.Millisecond) // as patient as the others are not
		return b.Get(url, x402.HeaderSignature, header).Status == http.StatusOK
	})
}

// A reload that takes a network away takes nothing from those who have paid on it: they are not told to sign anew while the
// fate of their payment is open, and are served if it was settled.
func TestNetworkIsTakenAway(t *testing.T) {
	o := rig.Options{App: "settle_timeout 3s"}
	r := rig.New(t, o)
	b := rig.NewBuyer(t, 1)
	url := r.URL("/away")
	away := func() {
		t.Setenv("GAS_KEY_OF_THE_TEST", hex.EncodeToString(rig.GasKey()))
		loadText(t, strings.NewReplacer(
			"base-sepolia", "polygon", "wallet 0x"+hex.EncodeToString(rig.GasKey()), "wallet {env.GAS_KEY_OF_THE_TEST}",
		).Replace(r.Caddyfile(rig.Options{RPC: "http://127.0.0.1:1"})))
	}
	header := paidAndLeft(t, r, b, http.MethodGet, url, "")
	s := openLedger(t, r)
	waitFor(t, func() bool {
		counts, err := s.Counts(t.Context())
		return err == nil && counts[ledger.StatePaid] == 1
	})
	away()
	if a := b.Get(url, x402.HeaderSignature, header); a.Status != http.StatusOK {
		t.Errorf("settled before: %d %s", a.Status, a.Body)
	}
	r.Load(o)
	header = b.Sign(b.Offer(url), 0)
	r.Chain.Stall()
	leave(t, r, b, http.MethodGet, url, "", x402.HeaderSignature, header)
	away()
	if a := b.Get(url, x402.HeaderSignature, header); a.Status != http.StatusServiceUnavailable {
		t.Errorf("not settled before: %d %s", a.Status, a.Body)
	}
	r.Chain.Resume()
	r.Load(o)
	var a rig.Answer
	waitFor(t, func() bool {
		a = b.Get(url, x402.HeaderSignature, header)
		return a.Status != http.StatusServiceUnavailable
	})
	if a.Status != http.StatusOK || r.Upstream.Calls() != 2 || r.Earned() != 2*cent {
		t.Errorf("back again: %d %s, upstream calls %d, earned %d", a.Status, a.Body, r.Upstream.Calls(), r.Earned())
	}
}
