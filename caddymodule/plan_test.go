package caddymodule_test

import (
	"strings"
	"testing"
)

// What is sold as a plan is sound, or refused in words that help.
func TestPlansAreChecked(t *testing.T) {
	refusals(t, map[string]struct{ app, site, want string }{
		"a time":         {site: "x402 {\nplan a $1 {\nttl 24h\n}\n}"},
		"requests":       {site: "x402 {\nplan a $1 {\nrequests 10\n}\n}"},
		"credit":         {site: "x402 $0.01 {\nplan a $1 {\ncredit $1.20\nttl 24h\nrequests 1000\n}\n}"},
		"a free plan":    {site: "x402 {\nplan a free {\nrequests 10\n}\n}"},
		"a tier":         {site: "x402 {\nprice $0.01 {\ntier gold\n}\nplan a $1 {\nttl 24h\ntier gold\nmethods GET post\n}\n}"},
		"a cookie":       {site: "x402 {\ncookie\nplan a $1 {\nttl 24h\n}\n}"},
		"a free tier":    {site: "x402 $0.01 {\nfree_tier 10 24h\n}"},
		"one by key":     {site: "x402 {\nprice $0.01 {\nfree_tier 10 1h {http.auth.user.id}\n}\n}"},
		"a free price":   {site: "x402 {\nprice free {\nmatch {\npath /x\n}\n}\nprice $0.01\n}"},
		"credit for all": {site: "x402 {\nplan a $1 {\ncredit $1\n}\n}", want: "no price to draw it down by"},
		"no tier":        {site: "x402 {\nprice $0.01 {\ntier gold\n}\nplan a $1 {\nttl 24h\n}\n}", want: "no plan is of the tier gold"},
		"odd credit":     {site: "x402 $0.01 {\nplan a $1 {\ncredit 1e3\n}\n}", want: "not a plain decimal number"},
		"no method":      {site: "x402 $0.01 {\nplan a $1 {\nttl 24h\nmethods G=T\n}\n}", want: "is no method"},
		"for ever":       {site: "x402 $0.01 {\nplan a $1 {\nttl 99999d\n}\n}", want: "more than a hundred years"},
		"a short window": {site: "x402 $0.01 {\nfree_tier 10 1ms\n}", want: "a second or more"},
		"all is free":    {site: "x402 {\nprice free\n}", want: "not a plain decimal number"},
		"other terms": {
			site: "x402 /a $0.01 {\nname x\nplan a $1 {\nrequests 10\n}\n}\nx402 /b $0.01 {\nname x\nplan a $1 {\nrequests 20\n}\n}",
			want: "on different terms",
		},
	})
}

// What can't be read says in which line, and what to write.
func TestPlansAreRead(t *testing.T) {
	for text, want := range map[string]string{
		"plan a $1":                              "needs a ttl, requests or credit",
		"plan a $1 {\nrequests 0\n}":             "is not a number of requests",
		"plan a $1 {\nrequests -1\n}":            "is not a number of requests",
		"plan a $1 {\nrequests 1 2\n}":           "wrong argument count",
		"plan a $1 {\nttl 1h\nmethods\n}":        "which methods",
		"plan a $1 {\nrequests 1\nrequests 2\n}": "requests is there twice",
		"free_tier 10":                           "how many requests are free",
		"free_tier many 1h":                      "is not a number of requests",
		"free_tier 10 soon":                      "is not a duration",
		"free_tier 10 1h a b":                    "wrong argument count",
		"cookie yes":                             "wrong argument count",
	} {
		_, err := adapt(config("", "x402 $0.01 {\n"+text+"\n}"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
