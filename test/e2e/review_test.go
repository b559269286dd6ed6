package e2e

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

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
