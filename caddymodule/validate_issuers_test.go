package caddymodule_test

import "testing"

func TestIssuersInConfigurations(t *testing.T) {
	plan := func(issuer string) string { return "x402 {\nplan a $1 {\nttl 1h\n" + issuer + "\n}\n}" }
	const url = "https://backend.example.com/issue"
	key0 := func(members string) string {
		return "x402 {\nkey0_plans `[{\"planId\":\"b\",\"unitAmount\":\"$1\"," + members + "}]` {\nissuer " + url + "\n}\n}"
	}
	t.Setenv("T_ISSUER", url)
	t.Setenv("T_PLAIN", "http://backend:3001/issue")
	refusals(t, map[string]struct{ app, site, want string }{
		"sound":              {site: plan("issuer " + url)},
		"by the environment": {site: plan("issuer {env.T_ISSUER}")},
		"on this machine":    {site: plan("issuer http://localhost:3001/issue")},
		"all of it":          {site: plan("issuer " + url + " {\nauth bearer {env.T_TOKEN}\ntimeout 1m\nretries 1\nfield product a\n}")},
		"oauth2":             {site: plan("issuer " + url + " {\nauth oauth2 https://login.example.com shop {env.T_TOKEN}\n}")},
		"jwt":                {site: plan("issuer " + url + " {\nauth jwt\n}")},
		"not set":            {site: plan("issuer {env.T_NOT_SET}"), want: "the issuer's address: the placeholder {env.T_NOT_SET} gives nothing"},
		"no https":           {site: plan("issuer {env.T_PLAIN}"), want: "plan a: issuer: the address must be https, since secrets are sent to it"},
		"no address":         {site: plan("issuer backend"), want: "the address is none; write one such as https://backend.example.com/issue"},
		"a password":         {site: plan("issuer https://me:word@backend.example.com"), want: "the address has a name, a password or a fragment"},
		"a literal secret":   {site: plan("issuer " + url + " {\nauth bearer s3cret-in-plain-text\n}"), want: "the issuer's secret: a secret must not stand in the configuration"},
		"an empty secret":    {site: plan("issuer " + url + " {\nauth header X-Key {env.T_EMPTY}\n}"), want: "the issuer's secret: the placeholder {env.T_EMPTY} gives nothing"},
		"no header":          {site: plan("issuer " + url + " {\nauth header \"X Key\" {env.T_TOKEN}\n}"), want: `the issuer's auth header "X Key" is no name of a header`},
		"a literal client":   {site: plan("issuer " + url + " {\nauth oauth2 https://login.example.com shop s3cret-in-plain-text\n}"), want: "the issuer's client_secret: a secret must not stand"},
		"oauth2 by http":     {site: plan("issuer " + url + " {\nauth oauth2 http://login.example.com shop {env.T_TOKEN}\n}"), want: "the OAuth 2 server: the address must be https"},
		"our own member":     {site: plan("issuer " + url + " {\nfield txHash forged\n}"), want: `the member "txHash" is set by us and can't be another's`},
		"too many retries":   {site: plan("issuer " + url + " {\nretries 11\n}"), want: "retries must be between 0 and 10"},
		"slower than refunds": {
			site: plan("issuer " + url + " {\ntimeout 2m\n}"),
			want: "plan a: the issuer may take 6m2s with all its tries, and payments are held for refund after min_age 5m0s, maybe while it is asked",
		},
		"min_age too short": {app: app("min_age 40s"), site: plan("issuer " + url), want: "the issuer may take 47s with all its tries, and payments are held for refund after min_age 40s"},
		"just long enough":  {app: app("min_age 48s"), site: plan("issuer " + url)},
		"of Key0's plans":   {site: key0("\"n\":1,\"text\":\"{none}\"")},
		"Key0's, too slow":  {app: app("min_age 40s"), site: key0("\"n\":1"), want: "plan b: the issuer may take 47s with all its tries, and payments are held for refund after min_age 40s"},
		"Key0's, forged":    {site: key0("\"txHash\":\"0x1\""), want: `plan b: issuer: the member "txHash" is set by us and can't be another's`},
	})
	t.Run("an auth that is none", func(t *testing.T) {
		refused(t, changed(t, plan("issuer "+url), func(c map[string]any) {
			planOf(c)["issuer"].(map[string]any)["auth"] = map[string]any{"type": "basic"}
		}), `the issuer's auth "basic" is neither bearer nor header nor jwt nor oauth2`)
	})
}

// planOf is the first plan of the first handler.
func planOf(c map[string]any) map[string]any {
	return handlerOf(c)["plans"].([]any)[0].(map[string]any)
}

func TestPricersInConfigurations(t *testing.T) {
	price := func(body string) string { return "x402 {\nprice " + body + "\n}" }
	const bounds = "min $0.01\nmax $5\n"
	refusals(t, map[string]struct{ app, site, want string }{
		"by header":            {site: price("{http.request.header.X-Price} {\n" + bounds + "}")},
		"by units":             {site: price("{query.n} {\neach $0.001\n" + bounds + "}")},
		"by an endpoint":       {site: price("{\npricer http https://backend.example.com/price {\ntimeout 2s\ncache 30s\nheader X-Units\n}\n}")},
		"bounded":              {site: price("{\npricer http https://backend.example.com/price\n" + bounds + "}")},
		"no bounds":            {site: price("{http.request.header.X-Price}"), want: "a price that the client has a say in needs min and max; write min, such as `min $0.01`"},
		"no max":               {site: price("{http.request.header.X-Price} {\nmin $0.01\n}"), want: "needs min and max; write max"},
		"in short":             {site: "x402 {http.request.header.X-Price}", want: "needs min and max"},
		"bounds the wrong way": {site: price("{http.request.header.X-Price} {\nmin $2\nmax $1\n}"), want: "max $1 is less than min $2"},
		"too exact a bound":    {site: price("{http.request.header.X-Price} {\nmin $0.0000001\nmax $1\n}"), want: "min: "},
		"bounds of a price":    {site: price("$1 {\n" + bounds + "}"), want: "min and max are for prices that move"},
		"half a placeholder":   {site: price("${http.request.header.X-Price} {\n" + bounds + "}"), want: "is no placeholder; write one such as {http.request.header.X-Units}"},
		"each of nothing":      {site: price("{http.request.header.X-Units} {\neach 0\n" + bounds + "}"), want: "each: "},
		"no https":             {site: price("{\npricer http http://backend/price\n}"), want: "pricer: the address must be https"},
		"too patient":          {site: price("{\npricer http https://backend.example.com {\ntimeout 31s\n}\n}"), want: "pricer: the timeout must be between 1ms and 30s"},
		"a secret header":      {site: price("{\npricer http https://backend.example.com {\nheader x-payment\n}\n}"), want: "the pricer must not be told of X-Payment, which is a secret of the client's"},
		"a literal secret":     {site: price("{\npricer http https://backend.example.com {\nauth bearer s3cret-in-plain-text\n}\n}"), want: "the pricer's secret: a secret must not stand"},
	})
	t.Run("an amount beside it", func(t *testing.T) {
		refused(t, changed(t, price("{\npricer http https://backend.example.com\n}"), func(c map[string]any) {
			handlerOf(c)["prices"].([]any)[0].(map[string]any)["amount"] = "1"
		}), "the price 1 and a pricer contradict each other")
	})
}
