package caddymodule_test

import (
	"strings"
	"testing"
)

func TestRefundInConfigurations(t *testing.T) {
	block := func(lines ...string) string {
		return app("refund {env.T_REFUND} {\n" + strings.Join(lines, "\n") + "\n}")
	}
	refusals(t, map[string]struct{ app, site, want string }{
		"all of it": {app: block("interval 5s", "min_age 3s", "batch 10", "max_payment $5", "max_day $100")},
		"a signer":  {app: app("refund {\nsigner aws_kms alias/refunds {\nregion eu-central-1\n}\n}")},
		"a key and a signer": {
			app: block("signer aws_kms alias/refunds {\nregion eu-central-1\n}"), want: "refund has a key and a signer; write one of them",
		},
		"the gas wallet":    {app: app("refund {env.T_GAS}"), want: "is a gas wallet of eip155:8453 as well; give refunds a wallet of their own"},
		"too many":          {app: block("batch 1001"), want: "refund: batch is 1001; write a number from 1 to 1000"},
		"too often":         {app: block("interval 100ms"), want: "refund: interval must be a second or more"},
		"nothing goes back": {app: block("max_day $0"), want: "refund: max_day on eip155:8453"},
		"too many decimals": {app: block("max_payment $0.0000001"), want: "refund: max_payment on eip155:8453"},
		"never to be paid":  {app: block("max_payment $5", "max_day $4"), want: "refund: max_payment is more than max_day"},
		"policy of a price": {site: "x402 {\nrefund_on 5xx\nprice $2 {\nmatch path /a\nrefund_on transport 404\n}\nprice $1\n}"},
	})
	for name, c := range map[string]struct{ app, site, want string }{
		"nobody":             {app: app("refund {\nbatch 3\n}"), want: "refund needs the key of the wallet that pays refunds"},
		"off and on":         {app: app() + "refunds off", want: "`refund` and `refunds off` contradict each other"},
		"signer and off":     {app: app("refund {\nsigner aws_kms alias/refunds {\nregion eu-central-1\n}\n}") + "refunds off", want: "contradict each other"},
		"no number":          {app: block("batch many"), want: "batch many: write a whole number from 1"},
		"unknown":            {app: block("retries 3"), want: "unrecognized subdirective 'retries' of refund"},
		"policy":             {site: "x402 $1 {\nrefund_on 5xx 4xx 302\n}", want: "refund_on \"302\" is not known; write some of transport, 5xx, 4xx, or a status such as 404"},
		"policy without any": {site: "x402 $1 {\nrefund_on\n}", want: "wrong argument count or unexpected line ending after 'refund_on'"},
	} {
		if _, err := adapt(config(c.app, c.site)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for text, want := range map[string]string{
		`"refund":"off","refunds":{"batch":3}`:             "refunds are off, which leaves nothing to configure about them",
		`"refunds":{"batch":3}`:                            "the refund wallet is missing",
		`"refund":"{env.T_REFUND}","refunds":{"batch":-1}`: "refund: batch is -1",
	} {
		refused(t, []byte(`{"apps":{"x402":{`+text+`,"networks":[{"network":"base","pay_to":"`+payTo+
			`","rpc":["https://rpc.example.com"],"settler":{"settler":"wallet","keys":["{env.T_GAS}"]}}]}}}`), want)
	}
}
