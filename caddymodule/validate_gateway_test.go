package caddymodule_test

import (
	"strings"
	"testing"
)

// A facilitator for others says who may ask it, and for whom it settles. Nothing is open by omission.
func TestGatewaysInConfigurations(t *testing.T) {
	const (
		whoMayAsk = "who may ask this facilitator? Write `key <name> {env.SHOP_KEY}` for each who may, or `keys off`"
		relay     = "a facilitator that everybody may ask would move anybody's money to anywhere, and you would pay for it"
		// Caddy itself logs, at debug level, what stands in a site's configuration.
		literalKey = "sk-local-0123456789abcdef"
		noSecret   = "a secret must not stand in the configuration; write a placeholder such as {env.NAME} or {file./path}"
	)
	t.Setenv("T_OTHER", strings.Repeat("other", 4))
	t.Setenv("T_WEE", "fifteen-letters")
	block := func(lines string) string { return "x402_facilitator {\n" + lines + "\n}" }
	const key, allow = "key shop {env.T_TOKEN}\n", "allow_pay_to " + payTo + "\n"
	literal := local("wallet 0x" + gasKey)
	refusals(t, map[string]struct{ app, site, want string }{
		"a key":                    {site: block(key)},
		"two keys":                 {site: block(key + "key farm {env.T_OTHER}")},
		"a key, for some":          {site: block(key + allow)},
		"everybody, for some":      {site: block("keys off\n" + allow)},
		"all of it":                {site: block(key + allow + "name desk\nnetworks base eip155:8453\nmin_amount $0.01\nrate_limit 10 1m\nmax_validity 10m\nrepeat")},
		"nothing":                  {site: "x402_facilitator", want: whoMayAsk},
		"payees alone":             {site: block(allow), want: whoMayAsk},
		"an open relay":            {site: block("keys off"), want: relay},
		"keys, and off":            {site: block("keys off\n" + key + allow), want: "`keys off` and key contradict each other"},
		"a key that is not set":    {site: block("key shop {env.T_NOT_SET}"), want: "key shop: the placeholder {env.T_NOT_SET} gives nothing"},
		"an empty key":             {site: block("key shop {env.T_EMPTY}"), want: "key shop"},
		"a short key":              {site: block("key shop {env.T_WEE}"), want: "key shop is too short to be safe; take at least 16 characters"},
		"a literal key":            {site: block("key shop " + literalKey), want: "key shop: " + noSecret},
		"a literal key, local":     {app: literal, site: block("key shop " + literalKey)},
		"one key for two":          {site: block(key + "key farm {env.T_TOKEN}"), want: "key farm is that of another, too"},
		"two keys of one name":     {site: block(key + "key shop {env.T_OTHER}"), want: "two keys have the name shop"},
		"a payee that is none":     {site: block("keys off\nallow_pay_to me"), want: `allow_pay_to "me" is not an address`},
		"a payee's typing error":   {site: block("keys off\nallow_pay_to 0x209693Bc6afc0C5328bA36FaF03C514EF312287c"), want: "wrong checksum (EIP-55)"},
		"a payee from a secret":    {site: block("keys off\nallow_pay_to {env.T_GAS}"), want: "allow_pay_to {env.T_GAS} is not an address"},
		"another network":          {site: block(key + "networks polygon"), want: "network polygon is none of those of the x402 app"},
		"no amount":                {site: block(key + "min_amount much"), want: `min_amount "much" on eip155:8453`},
		"an amount too fine":       {site: block(key + "min_amount 0.0000001"), want: `min_amount "0.0000001" on eip155:8453`},
		"through a facilitator":    {app: facilitated("facilitator https://pay.example.com"), site: block(key), want: "a facilitator settles from wallets of its own alone: eip155:8453"},
		"a matcher":                {site: "x402_facilitator /f/* {\n" + key + "}"},
		"beside a paywall":         {site: "x402 $0.01\n" + block(key)},
		"in handle_path":           {site: "handle_path /f/* {\n" + block(key) + "\n}"},
		"with a matcher of a name": {site: "@f host f.example.com\nx402_facilitator @f {\n" + key + "}"},
	})
}
