package refunds

import (
	"context"
	"fmt"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func init() { caddy.RegisterModule(subscriber{}) }

// subscriber hears Caddy's events: it remembers them, and writes each to the log, which is what is seen of it in a process of its own.
type subscriber struct{}

// subscription is how a configuration has it told of refunds.
const subscription = `events {
		on payment_refund_pending x402_refunds_subscriber
		on payment_refunded x402_refunds_subscriber
		on payment_refund_failed x402_refunds_subscriber
	}`

var heard struct {
	sync.Mutex
	events []caddy.Event
}

func (subscriber) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.x402_refunds_subscriber", New: func() caddy.Module { return new(subscriber) }}
}

func (*subscriber) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

func (*subscriber) Handle(_ context.Context, e caddy.Event) error {
	caddy.Log().Info(toldOf(e.Name(), fmt.Sprint(e.Data["paymentId"])))
	heard.Lock()
	defer heard.Unlock()
	heard.events = append(heard.events, e)
	return nil
}

// toldOf is the line of an event.
func toldOf(name, payment string) string {
	return "a subscriber heard " + name + " of " + payment + ";"
}

// heardOf gives the last event of a name for a payment, and how many there were.
func heardOf(name, payment string) (last caddy.Event, n int) {
	heard.Lock()
	defer heard.Unlock()
	for _, e := range heard.events {
		if e.Name() == name && e.Data["paymentId"] == payment {
			last, n = e, n+1
		}
	}
	return last, n
}
