//go:build interop

package interop

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/interop/bed"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// The 402 of a running Caddy passes the schemas of both versions, header and body, whatever the operator wrote, and both
// parts say the same.
func TestOffersOfCaddyPassTheirSchemas(t *testing.T) {
	core := newCore(t)
	chain := bed.Devnet(t, devnet.Options{})
	long := strings.Repeat("alle Wetter, 天気, ☂ & <mehr> ", 20)
	tests := []struct {
		name, site, description, mime string
		amounts                       []string
	}{
		{"one line", `x402 $0.01`, "", "", []string{"10000"}},
		{"the smallest price", `x402 $0.000001`, "", "", []string{"1"}},
		{"a large price", `x402 $123456789.12`, "", "", []string{"123456789120000"}},
		{
			"described", "x402 $0.01 {\n description `" + long + "\"quoted\"`\n mime_type \"application/json; charset=utf-8\"\n}",
			long + `"quoted"`, "application/json; charset=utf-8",
			[]string{"10000"},
		},
		{"plans beside", "x402 $0.01 {\n plan week $5 {\n ttl 168h\n }\n plan day $1 {\n ttl 24h\n }\n}", "", "", []string{"10000", "1000000", "5000000"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			shop := bed.Open(t, chain, rig.Options{Site: "\t" + test.site + "\n\treverse_proxy {upstream}\n"})
			const path = `/a%20b/%E2%98%82?q=%22&r=<>`
			answer := rig.NewBuyer(t, 1).Get(shop.Rig.URL(path))
			if answer.Err != nil || answer.Status != http.StatusPaymentRequired {
				t.Fatalf("%d %v", answer.Status, answer.Err)
			}
			var raw json.RawMessage
			must(t, "their decoder", core.Ask("decodeRequired", answer.Header.Get(x402.HeaderRequired), &raw))
			var v2 x402.PaymentRequired
			must(t, "their schema of version 2", core.Ask("validateRequired", raw, &v2))
			var v1 x402.RequiredV1
			must(t, "their schema of version 1", core.Ask("validateRequired", json.RawMessage(answer.Body), &v1))

			if v2.X402Version != 2 || v1.X402Version != 1 || len(v2.Accepts) != len(test.amounts) || len(v1.Accepts) != 1 {
				t.Fatalf("the offers are %+v and %+v", v2, v1)
			}
			for i, amount := range test.amounts {
				if a := v2.Accepts[i]; a.Amount != amount || a.Network != network || a.PayTo != rig.PayTo.Hex() {
					t.Errorf("requirement %d is %+v", i, a)
				}
			}
			url := shop.Rig.URL(path)
			if r := v2.Resource; r.URL != url || r.Description != test.description || r.MimeType != test.mime {
				t.Errorf("the resource is %+v", r)
			}
			a := v1.Accepts[0]
			if a.MaxAmountRequired != test.amounts[0] || a.Network != "base-sepolia" || a.PayTo != rig.PayTo.Hex() ||
				a.Resource != url || a.Description != test.description || a.MimeType != test.mime {
				t.Errorf("the requirement of version 1 is %+v", a)
			}
		})
	}
}
