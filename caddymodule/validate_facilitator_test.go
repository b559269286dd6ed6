package caddymodule_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"testing"
)

// facilitated is the sound app with a facilitator instead of a wallet.
func facilitated(lines string) string { return app("wallet") + lines + "\n" }

// facilitatedLocally is the same on a test network of this machine.
func facilitatedLocally(lines string) string { return local("wallet") + lines + "\n" }

func TestFacilitatorsInConfigurations(t *testing.T) {
	const (
		noSecret = "a secret must not stand in the configuration; write a placeholder such as {env.NAME} or {file./path}"
		at       = "facilitator https://pay.example.com"
		inClear  = "its address begins with http://, so everybody on the way could read what shows who you are; use https://"
		address  = "an address must be http://… or https://…, without name, password, query and fragment"
	)
	seed := make([]byte, ed25519.SeedSize)
	t.Setenv("T_CDP_SECRET", base64.StdEncoding.EncodeToString(ed25519.NewKeyFromSeed(seed)))
	t.Setenv("T_FACILITATOR", "https://pay.example.com/"+rpcSecret+"/")
	cdpKey := func(id, secret string) string {
		return facilitated("facilitator cdp {\nkey_id " + id + "\nkey_secret " + secret + "\n}")
	}
	refusals(t, map[string]struct{ app, site, want string }{
		"sound":                      {app: facilitated(at)},
		"several":                    {app: facilitated(at + " http://10.0.0.7:4021 {\nthen cdp {\nkey_id {env.T_PAY_TO}\nkey_secret {env.T_CDP_SECRET}\n}\n}")},
		"from the environment":       {app: facilitated("facilitator {env.T_FACILITATOR}")},
		"not set":                    {app: facilitated("facilitator {env.T_NOT_SET}"), want: "network base: facilitator number 1: the facilitator's address: the placeholder {env.T_NOT_SET} gives nothing"},
		"no address":                 {app: facilitated("facilitator pay.example.com"), want: address},
		"an address with a query":    {app: facilitated(at + "?key=" + rpcSecret), want: address},
		"an address with a password": {app: facilitated("facilitator https://me:" + rpcSecret + "@pay.example.com"), want: address},
		"the same twice":             {app: facilitated(at + " https://pay.example.com/"), want: "pay.example.com is there twice"},
		"bearer":                     {app: facilitated(at + " {\nbearer {env.T_TOKEN}\n}")},
		"bearer, not set":            {app: facilitated(at + " {\nbearer {env.T_NOT_SET}\n}"), want: "bearer: the placeholder {env.T_NOT_SET} gives nothing"},
		"literal bearer":             {app: facilitated(at + " {\nbearer " + longToken + "\n}"), want: "bearer: " + noSecret},
		"literal bearer, local":      {app: facilitatedLocally("facilitator http://127.0.0.1:4021 {\nbearer " + longToken + "\n}")},
		"bearer in the clear":        {app: facilitated("facilitator http://pay.example.com {\nbearer {env.T_TOKEN}\n}"), want: inClear},
		"bearer to this machine":     {app: facilitated("facilitator http://localhost:4021 {\nbearer {env.T_TOKEN}\n}")},
		"header":                     {app: facilitated(at + " {\nheader X-Api-Key {env.T_TOKEN}\nheader X-Shop \"the corner shop\"\n}")},
		"half a placeholder":         {app: facilitated(at + " {\nheader Authorization \"Basic {env.T_TOKEN}\"\n}")},
		"literal key in a header":    {app: facilitated(at + " {\nheader X-Api-Key " + longToken + "\n}"), want: "header X-Api-Key: " + noSecret},
		"no name of a header":        {app: facilitated(at + " {\nheader \"X Shop\" us\n}"), want: `header: "X Shop" is not the name of a header`},
		"header not set":             {app: facilitated(at + " {\nheader X-Shop {env.T_NOT_SET}\n}"), want: "header X-Shop: the placeholder {env.T_NOT_SET} gives nothing"},
		"cdp":                        {app: cdpKey("5f0c-key", "{env.T_CDP_SECRET}")},
		"cdp, literal secret":        {app: cdpKey("5f0c-key", longToken), want: "key_secret: " + noSecret},
		"cdp, no key":                {app: facilitated("facilitator cdp"), want: "facilitator number 1: key_id is missing"},
		"cdp, no secret":             {app: facilitated("facilitator cdp {\nkey_id x\n}"), want: "key_secret is missing"},
		"cdp, another secret":        {app: cdpKey("5f0c-key", "{env.T_TOKEN}"), want: "the key's secret is neither the base64 of an Ed25519 key (64 bytes) nor an EC key of P-256 in PEM"},
	})
}

// What JSON can say and a Caddyfile can't is refused as clearly.
func TestFacilitatorsInJSON(t *testing.T) {
	setSecrets(t)
	for settler, want := range map[string]string{
		`{"settler":"facilitator"}`:                                                                `the address of a facilitator is missing`,
		`{"settler":"facilitator","facilitators":[null]}`:                                          `facilitator number 1 is null`,
		`{"settler":"facilitator","facilitators":[{}]}`:                                            `the facilitator's address is missing`,
		`{"settler":"facilitator","facilitators":[{"url":"https://x.example","timeout":-1}]}`:      `timeout must be more than zero`,
		`{"settler":"facilitator","facilitators":[{"url":"https://x.example","timeout":"20s"}]}`:   ``,
		`{"settler":"facilitator","facilitators":[{"url":"https://x.example","unheard_of":true}]}`: `unheard_of`,
	} {
		refused(t, []byte(`{"apps":{"x402":{"refund":"off","networks":[{"network":"base","pay_to":"`+payTo+`","rpc":["https://rpc.example.com"],"settler":`+settler+`}]}}}`), want)
	}
}
