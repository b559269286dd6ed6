package caddymodule_test

import (
	"strings"
	"testing"
)

func TestLimitsInConfigurations(t *testing.T) {
	site := func(lines ...string) string { return "x402 $0.01 {\n" + strings.Join(lines, "\n") + "\n}" }
	refusals(t, map[string]struct{ app, site, want string }{
		"all of it":        {site: site("api_keys required", "rate_limit key 1000 1m", "rate_limit payer 100 1h", "rate_limit client 300 31d", "rate_limit refused 20 1s")},
		"keys alone":       {site: site("api_keys")},
		"keys off":         {site: site("api_keys off", "rate_limit payer 10 1m")},
		"no such kind":     {site: site("rate_limit user 10 1m"), want: `rate_limit "user": requests are counted by key, payer, client, refused`},
		"twice":            {site: site("rate_limit payer 10 1m", "rate_limit payer 20 1h"), want: "rate_limit payer is there twice"},
		"a short window":   {site: site("rate_limit payer 10 500ms"), want: "rate_limit payer: the window must be between 1s and 31 days"},
		"a long window":    {site: site("rate_limit payer 10 32d"), want: "rate_limit payer: the window must be between 1s and 31 days"},
		"keys unseen":      {site: site("rate_limit key 10 1m"), want: "rate_limit key would never count"},
		"keys off, unseen": {site: site("api_keys off", "rate_limit key 10 1m"), want: "rate_limit key would never count"},
		"no such word":     {site: site("api_keys perhaps"), want: `api_keys "perhaps" is neither off nor optional nor required`},
	})
	for line, want := range map[string]string{
		"rate_limit payer 10":        "such as `rate_limit payer 100 1m`",
		"rate_limit payer 10 1m x":   "such as `rate_limit payer 100 1m`",
		"rate_limit payer 0 1m":      "is not a number of requests",
		"rate_limit payer 10 soon":   "is not a duration",
		"api_keys optional required": "wrong argument count",
	} {
		if _, err := adapt(config("", site(line))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", line, err)
		}
	}
}
