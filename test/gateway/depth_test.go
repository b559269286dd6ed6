package gateway

import (
	"net/http"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// three demands three confirmations, on a chain that calls nothing safe soon.
func three(settleTimeout string) rig.Options {
	return rig.Options{
		Site: open, SafeLag: 50,
		App: "finality 3 above $0.009\n interval 100ms\n hold_ttl 2s\n settle_timeout " + settleTimeout,
	}
}

func commit(t *testing.T, r *rig.Rig, n int) {
	t.Helper()
	for range n {
		if err := r.Chain.Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

// What is settled for others must lie as deep as what is our own: before that, and after a reorganization has taken it back, it is
// pending.
func TestConfirmations(t *testing.T) {
	r := rig.New(t, three("1s"))
	b := rig.NewBuyer(t, 1)
	body := order(t, b, requirements())
	r.Chain.Stall()
	t.Cleanup(r.Chain.Resume)
	pending := func(when string) {
		t.Helper()
		if v := read(t, answered(t, r, b, body)); v.Success == nil || *v.Success || v.ErrorReason != string(x402.ReasonSettlementPending) {
			t.Errorf("%s: %+v", when, v)
		}
	}
	pending("sent")
	commit(t, r, 2)
	pending("with two confirmations")
	if err := r.Chain.Reorganize(2, false); err != nil {
		t.Fatal(err)
	}
	pending("taken back")
	commit(t, r, 2)
	pending("with two confirmations again")
	commit(t, r, 1)
	if v := insist(t, r, b, body); v.Success == nil || !*v.Success || earned(r) != cent {
		t.Errorf("with three: %+v, and the shop has %d", v, earned(r))
	}
}

// A reload that takes the facilitator and its finality away lets a request that waits have its answer; once it is there again, it
// still knows.
func TestReloadInTheMiddle(t *testing.T) {
	o := three("20s")
	r := rig.New(t, o)
	b := rig.NewBuyer(t, 1)
	body := order(t, b, requirements())
	r.Chain.Stall()
	t.Cleanup(r.Chain.Resume)
	first := make(chan rig.Answer, 1)
	go func() { first <- ask(t, r, b, "settle", body) }()
	waitFor(t, func() bool { commit(t, r, 1); return earned(r) == cent })
	loaded := make(chan error, 1)
	go func() { loaded <- r.TryLoad(rig.Options{App: "interval 100ms"}) }()
	waitFor(t, func() bool { // it is gone
		b.HTTP.CloseIdleConnections()
		return b.Get(r.URL("/facilitator/supported")).Status == http.StatusPaymentRequired
	})
	select {
	case a := <-first:
		t.Fatalf("with one confirmation it is told %d %v %s", a.Status, a.Err, a.Body)
	default:
	}
	commit(t, r, 2)
	a := <-first
	v := read(t, a)
	if a.Status != http.StatusOK || v.Success == nil || !*v.Success {
		t.Errorf("who waited is told %d %s", a.Status, a.Body)
	}
	if err := <-loaded; err != nil {
		t.Fatal(err)
	}
	r.Load(o)
	b.HTTP.CloseIdleConnections()
	if again := read(t, ask(t, r, b, "settle", body)); again.Success == nil || !*again.Success || again.Transaction != v.Transaction || earned(r) != cent {
		t.Errorf("again: %+v, and the shop has %d", again, earned(r))
	}
}
