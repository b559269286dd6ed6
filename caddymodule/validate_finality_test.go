package caddymodule_test

import (
	"strings"
	"testing"
)

func TestFinalityInConfigurations(t *testing.T) {
	const (
		usual  = "\nfinality latest\nfinality 3 above $1\nfinality safe above $100\n"
		thrown = "so it would be thrown away: sell it with flow upfront, or demand less finality"
		held   = " {\nflow authorization\n}"
	)
	refusals(t, map[string]struct{ app, site, want string }{
		"by price":                      {app: app() + usual},
		"in atomic units":               {app: app() + "finality 2 above 0.000001"},
		"beyond them":                   {app: app() + "finality 2 above 0.0000001", want: "network base: finality 2 above: amount \"0.0000001\": 7 decimals, but the asset has 6"},
		"answer held back for safe":     {app: app() + usual, site: "x402 $100.01" + held, want: "the answer for $100.01 back until its payment is final, which with safe takes about 2m0s on eip155:8453"},
		"answer held back, bound":       {app: app() + usual, site: "x402 $100" + held},
		"answer held back for long":     {app: app() + "finality 30", site: "x402 $1" + held, want: thrown},
		"answer held back, more time":   {app: app() + "finality 30\nsettle_timeout 70s", site: "x402 $1" + held},
		"answer held back locally":      {app: local("wallet "+gasKey) + "finality safe", site: "x402 $1" + held},
		"one of two prices held back":   {app: app() + usual, site: "x402 {\nprice $200 {\nmatch {\npath /dear/*\n}\nflow authorization\n}\nprice $1\n}", want: thrown},
		"safe, and paid before":         {app: app() + usual, site: "x402 $1000"},
		"safe, and served before":       {app: app("credit $500 $5000") + usual, site: "x402 $200 {\nflow deferred\n}"},
		"safe on a chain that is quick": {app: app("network avalanche") + "finality safe", site: "x402 $1" + held},
	})
}

// Whoever demands what no request can wait for is told.
func TestFinalityWarnings(t *testing.T) {
	setSecrets(t)
	for text, warns := range map[string]bool{
		app() + "finality safe above $100":                          true,
		app() + "finality 23 above $100":                            true,
		app() + "finality 22 above $100":                            false,
		app() + "finality 30\nsettle_timeout 60s":                   false,
		local("wallet "+gasKey) + "finality safe":                   false,
		app("network avalanche") + "finality safe":                  false,
		app("network ethereum") + "finality 4":                      true,
		app("network ethereum", "settle_timeout 1m") + "finality 4": false,
	} {
		adapted, err := adapt(config(text, ""))
		if err != nil {
			t.Fatal(err)
		}
		logs, err := provision(t, adapted)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if got := strings.Contains(logs, "payments take longer to be as final as demanded than requests wait"); got != warns {
			t.Errorf("%s: warned %t, want %t\n%s", text, got, warns, logs)
		}
	}
}

// What JSON can say and a Caddyfile can't is refused as clearly.
func TestFinalityInJSON(t *testing.T) {
	setSecrets(t)
	for list, want := range map[string]string{
		`[]`:                                ``,
		`[{"block":"safe","above":"1.00"}]`: ``,
		`[null]`:                            `finality: one of them is null`,
		`[{}]`:                              `finality "" is neither latest nor safe nor a number of blocks from 1 to 1000`,
		`[{"block":"+3"}]`:                  `finality "+3" is neither`,
		`[{"block":"03"}]`:                  `finality "03" is neither`,
		`[{"block":"3","above":"1e6"}]`:     `finality 3 above: amount "1e6": not a plain decimal number`,
		`[{"block":"3"},{"block":"3"}]`:     "are about the same payments",
		`[{"blocks":3}]`:                    `blocks`,
	} {
		refused(t, []byte(`{"apps":{"x402":{"refund":"off","networks":[{"network":"base","pay_to":"`+payTo+`","rpc":["https://rpc.example.com"],`+
			`"finality":`+list+`,"settler":{"settler":"wallet","keys":["{env.T_GAS}"]}}]}}}`), want)
	}
}
