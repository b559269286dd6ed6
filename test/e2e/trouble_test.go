package e2e

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// gatedRPC is a chain endpoint that can be made to answer nothing.
type gatedRPC struct {
	server *httptest.Server
	down   atomic.Bool
}

func newGatedRPC(t *testing.T, target string) *gatedRPC {
	g := new(gatedRPC)
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	g.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.down.Load() {
			panic(http.ErrAbortHandler)
		}
		out := r.Clone(r.Context())
		out.URL, out.RequestURI, out.Host = u, "", u.Host
		out.Header.Del("Accept-Encoding")
		res, err := http.DefaultTransport.RoundTrip(out)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer func() { _ = res.Body.Close() }()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(res.StatusCode)
		_, _ = io.Copy(w, res.Body)
	}))
	t.Cleanup(g.server.Close)
	return g
}

// putOff checks that an answer is a 503 that tells what to do.
func putOff(t *testing.T, a rig.Answer) {
	t.Helper()
	if a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || !strings.Contains(a.Body, `"retryable":true`) {
		t.Fatalf("%d %v %v %s", a.Status, a.Err, a.Header, a.Body)
	}
}

// While the chain does not answer, nobody is served and nothing is claimed; the same signature is served later.
func TestChainUnreachable(t *testing.T) {
	r := rig.New(t, rig.Options{})
	rpc := newGatedRPC(t, r.Chain.URL())
	o := rig.Options{RPC: rpc.server.URL, App: "settle_timeout 5s"}
	r.Load(o)
	b := rig.NewBuyer(t, 1)
	target := r.URL("/dark")
	header := b.Sign(b.Offer(target), 0)
	rpc.down.Store(true)
	putOff(t, b.Get(target, x402.HeaderSignature, header))
	if r.Upstream.Calls() != 0 {
		t.Fatal("the upstream was called")
	}
	rpc.down.Store(false)
	var a rig.Answer
	waitFor(t, func() bool {
		a = b.Get(target, x402.HeaderSignature, header)
		return a.Status != http.StatusServiceUnavailable
	})
	if a.Status != http.StatusOK || r.Upstream.Calls() != 1 || r.Earned() != cent {
		t.Errorf("%d %s, upstream calls %d, earned %d", a.Status, a.Body, r.Upstream.Calls(), r.Earned())
	}
}

// A configuration whose chain does not answer starts all the same, and fails closed.
func TestChainUnreachableAtStart(t *testing.T) {
	r := rig.New(t, rig.Options{})
	rpc := newGatedRPC(t, r.Chain.URL())
	b := rig.NewBuyer(t, 1)
	header := b.Sign(b.Offer(r.URL("/x")), 0)
	rpc.down.Store(true)
	r.Load(rig.Options{RPC: rpc.server.URL})
	putOff(t, b.Get(r.URL("/x"), x402.HeaderSignature, header))
	if h := b.Get(r.URL("/health")); h.Status != http.StatusServiceUnavailable {
		t.Errorf("health: %d %s", h.Status, h.Body)
	}
	rpc.down.Store(false)
	waitFor(t, func() bool { return b.Get(r.URL("/health")).Status == http.StatusOK })
	if a := b.Get(r.URL("/x"), x402.HeaderSignature, header); a.Status != http.StatusOK {
		t.Errorf("%d %s", a.Status, a.Body)
	}
}

// A chain that stalls after the broadcast leaves the outcome unknown: 503 with the payment's id and where to ask. The
// same signature is served later.
func TestChainStallsAfterBroadcast(t *testing.T) {
	r := rig.New(t, rig.Options{App: "settle_timeout 2s"})
	b := rig.NewBuyer(t, 1)
	target := r.URL("/stalled")
	header := b.Sign(b.Offer(target), 0)
	r.Chain.Stall()
	a := b.Get(target, x402.HeaderSignature, header)
	putOff(t, a)
	if a.Header.Get("X-Payment-Id") == "" || !strings.Contains(a.Body, "/x402/payments/pay_") || r.Upstream.Calls() != 0 {
		t.Fatalf("%v %s", a.Header, a.Body)
	}
	waitFor(t, func() bool { // on a busy machine it may take longer until it is sent than one request waits
		putOff(t, b.Get(target, x402.HeaderSignature, header))
		return strings.Contains(b.Get(r.URL("/x402/payments/"+a.Header.Get("X-Payment-Id"))).Body, `"SETTLING"`)
	})
	r.Chain.Resume()
	waitFor(t, func() bool {
		a = b.Get(target, x402.HeaderSignature, header)
		return a.Status != http.StatusServiceUnavailable
	})
	if a.Status != http.StatusOK || r.Upstream.Calls() != 1 || r.Earned() != cent {
		t.Errorf("%d %s, upstream calls %d, earned %d", a.Status, a.Body, r.Upstream.Calls(), r.Earned())
	}
}

// A ledger that can't be opened means no service for payers; the offer is still made, since it needs no ledger.
func TestStoreUnreachable(t *testing.T) {
	r := rig.New(t, rig.Options{})
	b := rig.NewBuyer(t, 1)
	header := b.Sign(b.Offer(r.URL("/x")), 0)
	broken := r.Caddyfile(rig.Options{})
	broken = strings.Replace(broken, r.Dir+"/ledger.db", "/proc/nowhere/ledger.db", 1)
	loadText(t, broken)
	putOff(t, b.Get(r.URL("/x"), x402.HeaderSignature, header))
	if a := b.Get(r.URL("/x")); a.Status != http.StatusPaymentRequired {
		t.Errorf("the offer: %d", a.Status)
	}
	if h := b.Get(r.URL("/health")); h.Status != http.StatusServiceUnavailable || !strings.Contains(h.Body, `"ledger":"unavailable"`) {
		t.Errorf("health: %d %s", h.Status, h.Body)
	}
	if r.Upstream.Calls() != 0 {
		t.Error("the upstream was called")
	}
	r.Load(rig.Options{})
	if a := b.Get(r.URL("/x"), x402.HeaderSignature, header); a.Status != http.StatusOK {
		t.Errorf("later: %d %s", a.Status, a.Body)
	}
}

// An upstream that fails after payment passes its own status through, and the payment is held for refund where everybody
// can see it.
func TestUpstreamFails(t *testing.T) {
	status := atomic.Int32{}
	r := rig.New(t, rig.Options{Upstream: func(w http.ResponseWriter, req *http.Request) {
		if s := int(status.Load()); s != 0 {
			w.WriteHeader(s)
			return
		}
		panic(http.ErrAbortHandler) // no answer at all
	}})
	for i, want := range []struct {
		upstream, client int
		state            string
	}{
		{http.StatusInternalServerError, http.StatusInternalServerError, "REFUND_PENDING"},
		{0, http.StatusBadGateway, "REFUND_PENDING"},
		{http.StatusNotFound, http.StatusNotFound, "DELIVERED"},
	} {
		status.Store(int32(want.upstream))
		b := rig.NewBuyer(t, i)
		a, _ := b.Buy(r.URL("/fails"))
		if a.Status != want.client {
			t.Errorf("upstream %d: the client got %d %s", want.upstream, a.Status, a.Body)
		}
		var s x402.SettlementResponse
		if err := x402.DecodeHeader(a.Header.Get(x402.HeaderResponse), 1<<16, &s); err != nil || !s.Success {
			t.Errorf("upstream %d: PAYMENT-RESPONSE %+v %v", want.upstream, s, err)
		}
		if pending := a.Header.Get("X-Payment-Status") == "refund_pending"; pending != (want.state == "REFUND_PENDING") {
			t.Errorf("upstream %d: X-Payment-Status %q", want.upstream, a.Header.Get("X-Payment-Status"))
		}
		if p := b.Get(r.URL("/x402/payments/" + a.Header.Get("X-Payment-Id"))); !strings.Contains(p.Body, want.state) {
			t.Errorf("upstream %d: %s", want.upstream, p.Body)
		}
	}
	if h := rig.NewBuyer(t, 0).Get(r.URL("/health")); !strings.Contains(h.Body, `"REFUND_PENDING":2`) {
		t.Errorf("health: %s", h.Body)
	}
}

// Who signs what it can't pay, or what is no longer good, is told so in the protocol's words, and is not served.
func TestRefusals(t *testing.T) {
	r := rig.New(t, rig.Options{})
	poor := rig.NewBuyer(t, 5000) // beyond the payers that have money
	a, _ := poor.Buy(r.URL("/x"))
	if a.Status != http.StatusPaymentRequired || rig.Offered(t, a).Error != string(x402.ReasonInsufficientBalance) {
		t.Errorf("no money: %d %s", a.Status, a.Body)
	}
	b := rig.NewBuyer(t, 1)
	for reason, change := range map[x402.Reason]func(*x402.Authorization){
		x402.ReasonValidBefore:   func(a *x402.Authorization) { a.ValidBefore.SetUint64(1) },
		x402.ReasonValidAfter:    func(a *x402.Authorization) { a.ValidAfter = a.ValidBefore },
		x402.ReasonValueMismatch: func(a *x402.Authorization) { a.Value.SetUint64(1) },
	} {
		a := b.Get(r.URL("/x"), x402.HeaderSignature, b.Sign(b.Offer(r.URL("/x")), 0, change))
		if a.Status != http.StatusPaymentRequired || rig.Offered(t, a).Error != string(reason) {
			t.Errorf("%s: %d %s", reason, a.Status, a.Body)
		}
	}
	if a := b.Get(r.URL("/x"), x402.HeaderSignature, "not base64!"); a.Status != http.StatusBadRequest {
		t.Errorf("no header at all: %d %s", a.Status, a.Body)
	}
	if r.Upstream.Calls() != 0 || r.Earned() != 0 {
		t.Errorf("upstream calls %d, earned %d", r.Upstream.Calls(), r.Earned())
	}
}
