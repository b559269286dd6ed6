package issuers

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

func init() { caddy.RegisterModule(recorder{}) }

// recorder is a subscriber of Caddy's events.
type recorder struct{}

var heard struct {
	sync.Mutex
	events []caddy.Event
	block  chan struct{} // nil: nobody waits
}

func (recorder) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.x402_test_recorder", New: func() caddy.Module { return new(recorder) }}
}

func (*recorder) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

func (*recorder) Handle(_ context.Context, e caddy.Event) error {
	heard.Lock()
	block := heard.block
	heard.events = append(heard.events, e)
	heard.Unlock()
	if block != nil {
		<-block
	}
	return nil
}

func names() (list []string) {
	heard.Lock()
	defer heard.Unlock()
	for _, e := range heard.events {
		list = append(list, e.Name())
	}
	return list
}

// Subscribers of Caddy's events hear of payments, with what Key0's hook tells and more. However slow they are, nobody waits for them.
func TestEvents(t *testing.T) {
	dead := make(chan struct{})
	r := rig.New(t, rig.Options{Global: `events {
		on payment_received x402_test_recorder
		on payment_delivered x402_test_recorder
		on payment_refund_pending x402_test_recorder
	}`, Upstream: func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-dead:
			w.WriteHeader(http.StatusInternalServerError)
		default:
		}
	}})
	block := make(chan struct{})
	heard.Lock()
	heard.block = block
	heard.Unlock()
	b := rig.NewBuyer(t, 1)
	begun := time.Now()
	var last rig.Answer
	for range 3 {
		if last, _ = b.Buy(r.URL("/x?y=1")); last.Status != http.StatusOK {
			t.Fatalf("%d %s", last.Status, last.Body)
		}
	}
	if took := time.Since(begun); took > 50*time.Second {
		t.Errorf("three payments took %s", took)
	}
	close(dead)
	if a, _ := b.Buy(r.URL("/x?y=1")); a.Status != http.StatusInternalServerError || a.Header.Get("X-Payment-Status") != "refund_pending" {
		t.Fatalf("%d %v", a.Status, a.Header)
	}
	if n := len(names()); n != 1 {
		t.Errorf("%d events were told at once", n)
	}
	close(block)
	waitFor(t, func() bool { return len(names()) == 8 })
	count := map[string]int{}
	for _, name := range names() {
		count[name]++
	}
	if count["payment_received"] != 4 || count["payment_delivered"] != 3 || count["payment_refund_pending"] != 1 {
		t.Errorf("told %v", count)
	}
	heard.Lock()
	defer heard.Unlock()
	e := heard.events[4] // of the third payment
	for name, want := range map[string]any{
		"challengeId": last.Header.Get("X-Payment-Id"), "planId": "", "walletAddress": b.Account.Address.Hex(), "amount": "10000",
		"network": "eip155:84532", "uri": "/x?y=1", "state": "PAID", "payTo": rig.PayTo.Hex(), "method": "GET",
	} {
		if e.Data[name] != want {
			t.Errorf("%s is %v, want %v", name, e.Data[name], want)
		}
	}
	var receipt x402.SettlementResponse
	if err := x402.DecodeHeader(last.Header.Get(x402.HeaderResponse), 1<<16, &receipt); err != nil || e.Data["txHash"] != receipt.Transaction {
		t.Errorf("txHash is %v, want %s (%v)", e.Data["txHash"], receipt.Transaction, err)
	}
	if e.Origin().CaddyModule().ID != "x402" {
		t.Errorf("from %v", e.Origin())
	}
}
