package plans

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

const cent = 10_000 // atomic units

const site = `
	x402 /api/* {
		name api
		price $0.01
		plan ten $0.05 {
			requests 10
			ttl 1h
		}
	}
	x402 /other/* $0.05
	x402 /credit/* {
		name credit
		price $0.02 {
			match {
				path /credit/dear/*
			}
		}
		price $0.01 {
			match {
				path /credit/cheap/*
			}
		}
		price free {
			match {
				path /credit/about
			}
		}
		unpriced deny
		plan fund $0.07 {
			credit $0.08
			requests 100
		}
	}
	x402 /tiers/* {
		name tiers
		price $0.05 {
			tier gold
			match {
				path /tiers/gold/*
			}
		}
		price $0.01
		plan plain $0.02 {
			ttl 1h
		}
		plan golden $0.04 {
			ttl 1h
			tier gold
			methods GET
		}
	}
	x402 /web/* {
		name web
		cookie
		exempt path /web/open
		plan day $0.02 {
			ttl 24h
			requests 5
		}
	}
	x402 /fund/* {
		name fund
		price $0.01 {
			match {
				path /fund/cheap
			}
		}
		price $0.10
		plan small $0.05 {
			credit $0.06
		}
	}
	x402 /few/* $0.01 {
		free_tier 20 24h {header.X-Key}
	}
	x402 /trial/* $0.01 {
		plan trial free {
			requests 3
			ttl 1h
		}
	}
	x402_service
	reverse_proxy {upstream}
`

// shop is a Caddy that sells passes, and an upstream that answers with the status that the query says.
type shop struct {
	*rig.Rig
	t *testing.T
	// calls are those that the upstream has answered with less than 500.
	calls atomic.Int64
}

func newShop(t *testing.T) *shop {
	s := &shop{t: t}
	s.Rig = rig.New(t, rig.Options{Site: site, Upstream: func(w http.ResponseWriter, r *http.Request) {
		status, err := strconv.Atoi(r.URL.Query().Get("status"))
		if err != nil {
			status = http.StatusOK
		}
		if status < 500 {
			s.calls.Add(1)
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte("hello"))
	}})
	return s
}

// option is the place of a plan in an offer; that of the price of a request, if plan is empty. -1: it is not offered.
func option(o x402.PaymentRequired, plan string) int {
	for i, a := range o.Accepts {
		if a.Extra.Plan == plan {
			return i
		}
	}
	return -1
}

// sign signs for a plan, or for a single request.
func (s *shop) sign(b *rig.Buyer, path, plan string) string {
	s.t.Helper()
	o := b.Offer(s.URL(path))
	i := option(o, plan)
	if i < 0 {
		s.t.Fatalf("%q is not offered at %s: %+v", plan, path, o.Accepts)
	}
	return b.Sign(o, i)
}

// buy buys a plan with a GET of path, and gives its token and the header that bought it.
func (s *shop) buy(b *rig.Buyer, path, plan string) (token, header string) {
	s.t.Helper()
	header = s.sign(b, path, plan)
	a := b.Get(s.URL(path), x402.HeaderSignature, header)
	token = a.Header.Get("X-Access-Token")
	if a.Status != http.StatusOK || token == "" {
		s.t.Fatalf("buying %s: %d %v %s", plan, a.Status, a.Err, a.Body)
	}
	return token, header
}

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

// want checks the status of an answer and, of a 402, its reason.
func want(t *testing.T, what string, a rig.Answer, status int, reason x402.Reason) {
	t.Helper()
	if a.Status != status {
		t.Errorf("%s: %d %v %s, want %d", what, a.Status, a.Err, a.Body, status)
		return
	}
	if status == http.StatusPaymentRequired {
		if o := rig.Offered(t, a); o.Error != string(reason) || len(o.Accepts) == 0 {
			t.Errorf("%s: the 402 says %q and offers %d ways, want %q", what, o.Error, len(o.Accepts), reason)
		}
	}
}

// left reads from RateLimit how much is left by a policy; -1 if it says nothing.
func left(a rig.Answer, policy string) int {
	for _, v := range a.Header.Values("RateLimit") {
		if rest, ok := strings.CutPrefix(v, `"`+policy+`";r=`); ok {
			n, _, _ := strings.Cut(rest, ";")
			if i, err := strconv.Atoi(n); err == nil {
				return i
			}
		}
	}
	return -1
}
