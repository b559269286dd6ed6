package caddymodule

import (
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
	"github.com/caddy-x402/caddy-x402/paywall"
)

// Whatever a payer writes into its request, the event of its payment is short enough to be told.
func TestWebhookOfALongRequest(t *testing.T) {
	o := new(factOutbox)
	o.know(nil)
	for _, c := range []string{"&", "<", "\x01", "\u2028", "\"", "é"} {
		long := strings.Repeat(c, 16<<10)
		f := paywall.Fact{Kind: paywall.FactSettled, Payment: ledger.Payment{Binding: ledger.Binding{Method: long, Host: long, URI: long}}}
		ev, err := o.event(&f)
		if err != nil || len(ev.Data) > webhooks.MaxData {
			t.Errorf("%q: %d bytes, %v", c, len(ev.Data), err)
		}
	}
}
