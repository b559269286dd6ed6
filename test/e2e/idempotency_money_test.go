package e2e

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// While nobody knows whether the first payment under a key came through, nothing new is claimed; once it did, it serves the request,
// whatever its payer has signed since.
func TestKeyOfAnUnknownPayment(t *testing.T) {
	for _, n := range namings {
		t.Run(n.name, func(t *testing.T) {
			r := rig.New(t, rig.Options{App: "settle_timeout 2s", Upstream: counting()})
			b := rig.NewBuyer(t, 1)
			url := r.URL("/unknown")
			fresh := func() []string { return n.sign(t, b, b.Offer(url), 0, n.key) }
			post := func(h []string) rig.Answer { return b.Do(t.Context(), http.MethodPost, url, "x", h...) }
			first := fresh()
			r.Chain.Stall()
			putOff(t, post(first))
			for range 2 {
				if a := post(fresh()); a.Status != http.StatusServiceUnavailable && code(a) != "idempotency.in_progress" {
					t.Errorf("a new signature: %d %s", a.Status, a.Body)
				}
			}
			if a := b.Do(t.Context(), http.MethodPost, url, "other", fresh()...); a.Status != n.conflict {
				t.Errorf("another body: %d %s", a.Status, a.Body)
			}
			r.Chain.Resume()
			waitFor(t, func() bool { return r.Earned() == cent })
			var served rig.Answer
			waitFor(t, func() bool { served = post(fresh()); return served.Status == http.StatusOK })
			replayed(t, "the first header", rig.Answer{Status: 200, Body: "answer 1", Header: without(served.Header, "Idempotency-Replayed")}, post(first))
			if r.Upstream.Calls() != 1 || r.Earned() != cent {
				t.Errorf("upstream calls %d, earned %d", r.Upstream.Calls(), r.Earned())
			}
		})
	}
}

func without(h http.Header, name string) http.Header {
	h = h.Clone()
	h.Del(name)
	return h
}

// A payment that failed charged nothing, so its key is free for the next one.
func TestKeyOfAFailedPayment(t *testing.T) {
	for _, n := range namings {
		t.Run(n.name, func(t *testing.T) {
			r := rig.New(t, rig.Options{Upstream: counting()})
			b, stranger := rig.NewBuyer(t, 1), newChainUser(t, r, 5)
			url := r.URL("/failed")
			o := b.Offer(url)
			var nonce [32]byte
			signed := withIdentifier(t, o, "sixteen-letters_")
			a, sig := b.Authorize(o.Accepts[0])
			nonce = a.Nonce
			headers := []string{x402.HeaderSignature, rig.Encode(t, signed.Pay(o.Accepts[0], &a, sig)), "Idempotency-Key", "k"}
			r.Chain.Stall()
			var got rig.Answer
			var wg sync.WaitGroup
			wg.Go(func() { got = b.Get(url, headers...) })
			stranger.pendingCalldata()
			hash := stranger.send(cancelCalldata(t, b.Account, nonce), 100)
			r.Chain.Resume()
			wg.Wait()
			if !stranger.mined(hash) || got.Status != http.StatusPaymentRequired {
				t.Fatalf("the payment did not fail: %d %s", got.Status, got.Body)
			}
			next := b.Get(url, x402.HeaderSignature, b.Sign(withIdentifier(t, b.Offer(url), "sixteen-letters_"), 0), "Idempotency-Key", "k")
			if next.Status != http.StatusOK || next.Header.Get("Idempotency-Replayed") != "" {
				t.Errorf("the next one: %d %s", next.Status, next.Body)
			}
			if n.name == "identifier" {
				replayed(t, "again", next, b.Get(url, x402.HeaderSignature, b.Sign(withIdentifier(t, b.Offer(url), "sixteen-letters_"), 0)))
			} else {
				replayed(t, "again", next, b.Get(url, x402.HeaderSignature, b.Sign(b.Offer(url), 0), "Idempotency-Key", "k"))
			}
			replayed(t, "the failed header", next, b.Get(url, headers...))
			if r.Upstream.Calls() != 1 || r.Earned() != cent {
				t.Errorf("upstream calls %d, earned %d", r.Upstream.Calls(), r.Earned())
			}
		})
	}
}

// A payment whose delivery was lost goes back; its key says so, and nothing is charged under it again.
func TestKeyOfALostDelivery(t *testing.T) {
	r := rig.New(t, rig.Options{Upstream: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }})
	// An upstream behind another handler: only the handler itself can abort without an answer, so the answer is an error of ours.
	b := rig.NewBuyer(t, 1)
	url := r.URL("/lost")
	ask := func() rig.Answer {
		return b.Do(t.Context(), http.MethodPost, url, "x", x402.HeaderSignature, b.Sign(b.Offer(url), 0), "Idempotency-Key", "k")
	}
	first := ask()
	if first.Status != http.StatusBadGateway || first.Header.Get("X-Payment-Status") != "refund_pending" {
		t.Fatalf("%d %v %s", first.Status, first.Header, first.Body)
	}
	calls := r.Upstream.Calls()
	again := ask()
	if again.Status != first.Status || again.Header.Get("X-Payment-Status") != "refund_pending" || again.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("%d %v %s", again.Status, again.Header, again.Body)
	}
	if r.Upstream.Calls() != calls || r.Earned() != cent {
		t.Errorf("upstream calls %d, earned %d", r.Upstream.Calls()-calls, r.Earned())
	}
}

// What was paid and not collected in time is held for refund, and its key says so.
func TestKeyOfARefund(t *testing.T) {
	r := rig.New(t, rig.Options{App: "min_age 100ms\ninterval 100ms\nsettle_timeout 2s", Upstream: counting()})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/refund")
	h := []string{x402.HeaderSignature, b.Sign(b.Offer(url), 0), "Idempotency-Key", "k"}
	r.Chain.Stall()
	leave(t, r, b, http.MethodPost, url, "x", h...)
	r.Chain.Resume()
	s := openLedger(t, r)
	waitFor(t, func() bool {
		list, err := s.List(t.Context(), ledger.Query{Payer: b.Account.Address, Limit: 1})
		return err == nil && len(list) == 1 && list[0].Refund == ledger.RefundPending
	})
	for _, headers := range [][]string{h, {x402.HeaderSignature, b.Sign(b.Offer(url), 0), "Idempotency-Key", "k"}} {
		refused(t, "under the key", b.Do(t.Context(), http.MethodPost, url, "x", headers...), "payment_held_for_refund")
	}
	a := b.Do(t.Context(), http.MethodPost, url, "x", x402.HeaderSignature, b.Sign(b.Offer(url), 0), "Idempotency-Key", "k2")
	if a.Status != http.StatusOK || r.Upstream.Calls() != 1 || r.Earned() != 2*cent {
		t.Errorf("under a new key: %d %s, upstream calls %d, earned %d", a.Status, a.Body, r.Upstream.Calls(), r.Earned())
	}
}

// A pass that is bought under a key is bought once. Its token is not stored, and comes with the stored answer all the same.
func TestPlanUnderAKey(t *testing.T) {
	for _, n := range namings {
		t.Run(n.name, func(t *testing.T) {
			r := rig.New(t, rig.Options{Site: passes, Upstream: counting()})
			b := rig.NewBuyer(t, 1)
			url := r.URL("/plans/x")
			ask := func(method string) (rig.Answer, []string) {
				h := n.sign(t, b, b.Offer(url), 2, n.key)
				return b.Do(t.Context(), method, url, "", h...), h
			}
			first, headers := ask(http.MethodPost)
			token := first.Header.Get("X-Access-Token")
			if first.Status != http.StatusOK || token == "" {
				t.Fatalf("%d %v %s", first.Status, first.Header, first.Body)
			}
			again, _ := ask(http.MethodPost)
			resumed := b.Do(t.Context(), http.MethodPost, url, "", headers...)
			for what, a := range map[string]rig.Answer{"a new signature": again, "the same header": resumed} {
				replayed(t, what, first, a)
				if a.Header.Get("X-Access-Token") != token {
					t.Errorf("%s: the token is %q", what, a.Header.Get("X-Access-Token"))
				}
				wantGrant(t, a, token)
			}
			if r.Upstream.Calls() != 1 || r.Earned() != 10*cent {
				t.Errorf("upstream calls %d, earned %d", r.Upstream.Calls(), r.Earned())
			}
			// The ledger holds no token.
			s := openLedger(t, r)
			found := 0
			err := s.EachReservation(t.Context(), func(v ledger.Reservation) error {
				if len(v.Answer) > 0 {
					found++
				}
				if strings.Contains(string(v.Answer), token) || strings.Contains(string(v.Answer), "session=secret") || strings.Contains(string(v.Answer), "X-Access-Token") {
					t.Errorf("stored: %s", v.Answer)
				}
				return nil
			})
			if err != nil || found != 1 {
				t.Errorf("%d answers are stored, %v", found, err)
			}
			// Whoever holds the token needs no key, and none is looked at.
			for range 2 {
				a := b.Do(t.Context(), http.MethodPost, url, "", append(bearer(token), "Idempotency-Key", "k")...)
				if a.Status != http.StatusOK || a.Header.Get("Idempotency-Replayed") != "" {
					t.Errorf("by the token: %d %v", a.Status, a.Header)
				}
			}
			if r.Upstream.Calls() != 3 {
				t.Errorf("by the token, the upstream was called %d times", r.Upstream.Calls()-1)
			}
		})
	}
}

// Who buys a pass under a key, and leaves before the answer, is served when it comes back if the upstream may be asked again. It is never
// given what Caddy notes for the access log of who has left.
func TestPassOfWhoLeftUnderAKey(t *testing.T) {
	for method, want := range map[string]int{http.MethodGet: http.StatusOK, http.MethodPost: http.StatusConflict} {
		t.Run(method, func(t *testing.T) {
			first := make(chan struct{}, 1)
			first <- struct{}{}
			r := rig.New(t, rig.Options{Site: passes, Upstream: func(w http.ResponseWriter, r *http.Request) {
				select {
				case <-first:
					<-r.Context().Done()
				default:
					_, _ = w.Write([]byte("answer"))
				}
			}})
			b := rig.NewBuyer(t, 1)
			url := r.URL("/plans/x")
			h := []string{x402.HeaderSignature, b.Sign(b.Offer(url), 2), "Idempotency-Key", "k"}
			ctx, cancel := context.WithCancel(t.Context())
			left := make(chan rig.Answer)
			go func() { left <- b.Do(ctx, method, url, "", h...) }()
			waitFor(t, func() bool { return r.Upstream.Calls() == 1 })
			cancel()
			if a := <-left; a.Err == nil {
				t.Fatalf("%d %s", a.Status, a.Body)
			}
			var a rig.Answer
			waitFor(t, func() bool {
				a = b.Do(t.Context(), method, url, "", h...)
				return a.Status != http.StatusServiceUnavailable && code(a) != "idempotency.in_progress"
			})
			if a.Status != want || want == http.StatusOK && (a.Body != "answer" || a.Header.Get("X-Access-Token") == "") {
				t.Errorf("who came back: %d %s %v", a.Status, a.Body, a.Header)
			}
			if want != http.StatusOK && code(a) != "idempotency.response_not_stored" {
				t.Errorf("who came back: %d %s", a.Status, a.Body)
			}
			if r.Earned() != 10*cent {
				t.Errorf("earned %d", r.Earned())
			}
		})
	}
}

// A gibibyte goes through at flat memory under a key, too: what is too long to be stored is not kept.
func TestGibibyteUnderAKey(t *testing.T) {
	const size, limit = 1 << 30, 64 << 20
	var served atomic.Int64
	r := rig.New(t, rig.Options{Upstream: func(w http.ResponseWriter, _ *http.Request) {
		n, _ := io.CopyN(w, zeros{}, size)
		served.Store(n)
	}})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/down")
	header := b.Sign(b.Offer(url), 0)
	stop := heapGrowth()
	res := open(t.Context(), t, http.DefaultClient, http.MethodGet, url, nil, x402.HeaderSignature, header, "Idempotency-Key", "k") //nolint:bodyclose // open sees to it
	n, err := io.Copy(io.Discard, res.Body)
	if grown := stop(); n != size || err != nil || grown > limit {
		t.Errorf("%d bytes, %v, heap grown by %d MiB", n, err, grown>>20)
	} else {
		t.Logf("heap grown by %d MiB", grown>>20)
	}
	a := b.Get(url, x402.HeaderSignature, b.Sign(b.Offer(url), 0), "Idempotency-Key", "k")
	if a.Status != http.StatusConflict || code(a) != "idempotency.response_not_stored" {
		t.Errorf("again: %d %.200s", a.Status, a.Body)
	}
}

// A connection that is taken over is no answer that could be given again.
func TestUpgradeUnderAKey(t *testing.T) {
	r := rig.New(t, rig.Options{Site: streams, Upstream: echoSockets})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/socket")
	c := dial(t, r.Addr)
	_, _ = io.WriteString(c, strings.Join([]string{
		"GET /socket HTTP/1.1", "Host: " + r.Addr, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Idempotency-Key: k", x402.HeaderSignature + ": " + b.Sign(b.Offer(url), 0),
	}, "\r\n")+"\r\n\r\n")
	from := bufio.NewReader(c)
	if res, err := http.ReadResponse(from, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols { //nolint:bodyclose // the connection is no longer HTTP
		t.Fatalf("%v %v", res, err)
	}
	_, _ = c.Write(frame(opClose, []byte{3, 232}, []byte{1, 2, 3, 4}))
	if opcode, _, err := readFrame(from); err != nil || opcode != opClose {
		t.Errorf("closing: %d %v", opcode, err)
	}
	ask := func() rig.Answer {
		return b.Get(url, x402.HeaderSignature, b.Sign(b.Offer(url), 0), "Idempotency-Key", "k")
	}
	var again rig.Answer
	waitFor(t, func() bool { again = ask(); return code(again) != "idempotency.in_progress" })
	if again.Status != http.StatusConflict || code(again) != "idempotency.response_not_stored" || again.Header.Get(x402.HeaderResponse) == "" {
		t.Errorf("%d %v %s", again.Status, again.Header, again.Body)
	}
	if r.Upstream.Calls() != 1 || r.Earned() != cent {
		t.Errorf("upstream calls %d, earned %d", r.Upstream.Calls(), r.Earned())
	}
}
