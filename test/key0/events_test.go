package key0

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func init() { caddy.RegisterModule(broken{}) }

// broken is a subscriber that fails, in each way that there is, in turn.
type broken struct{}

var heard struct {
	sync.Mutex
	of []map[string]any
}

func (broken) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.x402_key0_broken", New: func() caddy.Module { return new(broken) }}
}

func (*broken) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

func (*broken) Handle(_ context.Context, e caddy.Event) error {
	heard.Lock()
	defer heard.Unlock()
	heard.of = append(heard.of, e.Data)
	if len(heard.of)%2 == 0 {
		panic("a subscriber that breaks")
	}
	return errors.New("a subscriber that fails")
}

// brokenSubscriber: where Key0's hook throws, the buyer's answer breaks after the payment (W39). Here nobody waits for subscribers.
func brokenSubscriber(t *testing.T, s *shop) {
	o := s.options
	o.Global = "events {\non payment_received x402_key0_broken\n}"
	s.load(t, o)
	heard.Lock()
	heard.of = nil
	heard.Unlock()
	grants := map[string]grant{}
	for range 3 {
		b := s.payer(t)
		grants[b.Account.Address.Hex()], _ = s.wantGrant(t, b, body{"planId": "basic", "requestId": name()})
	}
	eventually(t, "three events", func() bool {
		heard.Lock()
		defer heard.Unlock()
		return len(heard.of) == 3
	})
	heard.Lock()
	defer heard.Unlock()
	for _, data := range heard.of {
		who, _ := data["walletAddress"].(string)
		if g := grants[who]; g.TxHash == "" || data["txHash"] != g.TxHash || data["planId"] != "basic" || data["challengeId"] == "" {
			t.Errorf("told %v of %+v", data, g)
		}
	}
}
