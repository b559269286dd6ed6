//go:build interop

package webhooks

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/test/stores"
)

// Wherever the sender is killed, each event arrives; and the ledger, the delivery log and the receiver agree.
func TestKilledSender(t *testing.T) {
	t.Setenv("T_SECRET", webhooks.NewSecret())
	for step, store := range map[string]string{"webhooks enqueued": "sqlite", "webhook leased": "postgres", "webhook sent": "redis"} {
		t.Run(step+" in "+store, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			killed(t, step, dir, stores.All[store](t, dir))
		})
	}
}

func killed(t *testing.T, step, dir string, store stores.Store) {
	chain, err := devnet.Start(t.Context(), devnet.Options{Payers: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = chain.Close() })
	r := newReceiver(t, os.Getenv("T_SECRET"))
	addr := rig.FreeAddr(t)
	o := rig.Options{RPC: chain.URL(), Site: site, Store: store.Caddyfile, App: hooked(r, "{env.T_SECRET}")}
	caddy := rig.NewProcess(t, dir, "caddy", addr, rig.Caddyfile(o, dir, addr, rig.NewUpstream(t, nil).Addr()))
	if err := caddy.StartUntil(step); err != nil {
		t.Fatal(err)
	}
	buyer := rig.NewBuyer(t, 1)
	buyer.Buy("http://" + addr + "/thing") // which it may survive or not
	select {
	case <-caddy.Ended():
	case <-time.After(rig.Patience):
		t.Fatal("the process survived")
	}
	if err := caddy.Start(); err != nil {
		t.Fatal(err)
	}
	if a, _ := rig.NewBuyer(t, 2).Buy("http://" + addr + "/another"); a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	agree(t, store, r)
	caddy.Kill()
}

// agree waits until what was told is what the ledger has.
func agree(t *testing.T, store stores.Store, r *receiver) {
	t.Helper()
	var want, got int
	for deadline := time.Now().Add(rig.Patience); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		told := r.told()
		facts, delivered := recorded(t, store)
		want, got = len(facts), 0
		for id := range told {
			if !facts[id] {
				t.Fatalf("%s was told, and the ledger has nothing of it", id)
			}
			got++
		}
		if got == want && delivered == want && want >= 3 {
			return
		}
	}
	t.Errorf("%d of %d events were told", got, want)
}

// recorded is what must be told by the ledger's trail, and how many deliveries its log has as delivered.
func recorded(t *testing.T, s stores.Store) (facts map[string]bool, delivered int) {
	t.Helper()
	store, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	entries, err := store.Entries(context.WithoutCancel(t.Context()), ledger.Mark{}, time.Now().Add(time.Hour), 1000)
	if err != nil {
		t.Fatal(err)
	}
	facts = map[string]bool{}
	for _, e := range entries {
		kinds := map[ledger.Event][]string{
			ledger.EventSettle: {"settled"}, ledger.EventDelivered: {"delivered"}, ledger.EventUndelivered: {"undelivered"}, ledger.EventFail: {"failed"},
		}[e.Event]
		if e.Event == ledger.EventUndelivered && e.Refund == ledger.RefundPending {
			kinds = append(kinds, "refund_pending")
		}
		for _, k := range kinds {
			facts[fmt.Sprintf("evt_%s_%d_%s", e.Payment, e.Version, k)] = true
		}
	}
	log, err := store.Objects(t.Context(), "webhook_delivery", "", "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range log {
		if strings.Contains(string(o.Body), `"status":"delivered"`) {
			delivered++
		}
	}
	return facts, delivered
}
