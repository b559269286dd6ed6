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

// Who adds an endpoint of this machine or of a private network is told that it must be allowed.
func TestEndpointLeadsInside(t *testing.T) {
	for address, want := range map[string]bool{
		"http://127.0.0.1:4402/": true, "http://localhost:4402/": true, "https://[::1]/": true, "https://10.1.2.3/x": true,
		"https://shop.example.com/": false, "https://8.8.8.8/": false, "https://localhost.example.com/": false, "::": false,
	} {
		if got := leadsInside(address); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}
