package caddymodule_test

import "testing"

func TestManagementInConfigurations(t *testing.T) {
	site := func(lines string) string { return "x402 $0.01\nx402_management {\n" + lines + "\n}" }
	refusals(t, map[string]struct{ app, site, want string }{
		"all of it":        {site: site("path /ops\nkey_max_age 90d\nidempotency_ttl 1h")},
		"its limits":       {site: site("rate_limit key 10 1s\nrate_limit client 20 1s\nrate_limit refused 5 1h")},
		"no limits":        {site: site("rate_limit off")},
		"off and on":       {site: site("rate_limit off\nrate_limit key 10 1m"), want: "x402_management: rate_limit off leaves nothing to limit"},
		"a payer's limit":  {site: site("rate_limit payer 10 1m"), want: `x402_management: rate_limit "payer": requests are counted by key, client, refused`},
		"nothing":          {site: "x402 $0.01\nx402_management"},
		"no path":          {site: site("path ops"), want: `x402_management: "ops" is not the beginning of a path; write one such as /ops`},
		"a path's end":     {site: site("path /ops/"), want: `"/ops/" is not the beginning of a path`},
		"a pattern":        {site: site("path /ops/*"), want: `"/ops/*" is not the beginning of a path`},
		"an age too low":   {site: site("key_max_age 1m"), want: "key_max_age must be an hour or more"},
		"a memory too bad": {site: site("idempotency_ttl 299s"), want: "idempotency_ttl must be 5m0s or more"},
	})
	refused(t, []byte(`{"apps":{"http":{"servers":{"a":{"listen":[":9"],"routes":[{"handle":[{"handler":"x402_management"}]}]}}}}}`),
		"x402_management needs the x402 app; add the global option x402")
}
