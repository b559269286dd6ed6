package caddymodule_test

import (
	"strings"
	"testing"
)

const (
	hookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwHsYb1Pd6Kyo="
	hookKey    = "n2Vb8XqLw5RtZc7HsYd1Pk6MfJg4UeWo"
)

func TestWebhooksInConfigurations(t *testing.T) {
	t.Setenv("T_HOOK", hookSecret)
	t.Setenv("T_HOOK_2", strings.Replace(hookSecret, "MfKQ", "NfKQ", 1))
	t.Setenv("T_HOOK_KEY", hookKey)
	t.Setenv("T_HOOK_URL", "https://me:word@hooks.example.com")
	t.Setenv("T_HOOK_BAD", hookSecret[6:])
	t.Setenv("T_HOOK_WEAK", "whsec_AAAA")
	const sound = "secret {env.T_HOOK}"
	hook := func(body string) string { return "webhook https://hooks.example.com/x402 {\n" + body + "\n}" }
	at := func(url string) string { return "webhook " + url + " {\n" + sound + "\n}" }
	more := func(text string) string { return soundApp + text }
	const literal = "a secret must not stand in the configuration"
	refusals(t, map[string]struct{ app, site, want string }{
		"sound":                    {app: more(hook(sound))},
		"all of it":                {app: more(hook("secret {env.T_HOOK_2} {env.T_HOOK}\nevents payment.settled apikey.*\nmode live\ndescription books\ncompatibility") + "\nwebhooks {\nkey {env.T_HOOK_KEY} {env.T_TOKEN}\nallow_private 10.0.0.0/8\ntimeout 5s\nkeep 24h\n}")},
		"several":                  {app: more(hook(sound) + "\n" + at("https://hooks.example.com/2"))},
		"only the API's":           {app: more("webhooks {\nkey {env.T_HOOK_KEY}\n}")},
		"of a test network":        {app: local("webhook http://hooks.example.com/x402 {\nsecret {env.T_HOOK}\n}")},
		"literal, local":           {app: local("webhook http://127.0.0.1:1/ {\nsecret " + hookSecret + "\n}\nwebhooks {\nallow_private\n}")},
		"literal":                  {app: more(hook("secret " + hookSecret)), want: literal},
		"a literal key":            {app: more("webhooks {\nkey " + hookKey + "\n}"), want: literal},
		"no secret":                {app: more(hook("")), want: "webhook number 1: the webhook has no secret to sign with"},
		"a secret that is not set": {app: more(hook("secret {env.T_NOT_SET}")), want: "its secret: the placeholder {env.T_NOT_SET} gives nothing"},
		"a secret without whsec":   {app: more(hook("secret {env.T_HOOK_BAD}")), want: "a webhook's secret begins with whsec_"},
		"a weak secret":            {app: more(hook("secret {env.T_HOOK_WEAK}")), want: "a webhook's secret has 24 to 64 bytes, and this one has 3"},
		"a short key":              {app: more("webhooks {\nkey {env.T_PAY_TO_SHORT}\n}"), want: "the placeholder {env.T_PAY_TO_SHORT} gives nothing"},
		"no https":                 {app: more(at("http://hooks.example.com/")), want: "the webhook's URL must be https: it is told of real money"},
		"a password":               {app: more(at("{env.T_HOOK_URL}")), want: "the webhook's URL must hold no name or password"},
		"an address inside":        {app: more(at("https://10.0.0.7/hook")), want: "leads to an address that is not a public one"},
		"allowed":                  {app: more(at("https://10.0.0.7/hook") + "\nwebhooks {\nallow_private 10.0.0.0/24\n}")},
		"another is allowed":       {app: more(at("https://10.0.0.7/hook") + "\nwebhooks {\nallow_private 10.1.0.0/24\n}"), want: "leads to an address that is not a public one"},
		"no range":                 {app: more("webhooks {\nallow_private 10.0.0.1\n}"), want: `allow_private "10.0.0.1" is not a range of addresses`},
		"twice":                    {app: more(hook(sound) + "\n" + hook(sound)), want: "the same URL is there twice"},
		"no such event":            {app: more(hook(sound + "\nevents payment.paid")), want: `there is no event "payment.paid"; there are payment.settled`},
		"no such mode":             {app: more(hook(sound + "\nmode both")), want: `mode "both" is neither live nor test`},
	})
}
