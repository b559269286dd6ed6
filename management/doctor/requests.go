package doctor

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/x402"
)

func requestItems() []Item {
	return []Item{
		{
			ID: "prices.sane", Title: "Prices are meant for real money",
			Why:  "A price out of a trial gives things away, and one with a zero too many sells nothing.",
			Do:   "Go through all prices and plans; what is below $0.001 costs more to settle than it brings.",
			look: lookPrices,
		},
		{
			ID: "idempotency.on", Title: "A request that is sent again is not charged again",
			Why:  "Clients repeat what they got no answer to. Without keys each time is a payment of its own.",
			Do:   "Leave `idempotency` out, or write `idempotency optional`; give `idempotency_ttl` of x402_management a day.",
			look: lookIdempotency,
		},
		{
			ID: "limits.on", Title: "Requests are limited, and whoever sends too many is told when to come back",
			Why:  "Verifying costs time and calls to your RPC provider, for who guesses keys or sends bad signatures too.",
			Do:   "Write `rate_limit payer 100 1m`, or another of limits.md, into each set of priced routes. A request that is refused with 429 is never charged.",
			look: lookLimited,
		},
		{
			ID: "limits.told", Title: "Answers say how many requests are left", Depth: Live,
			Why:  "A client that is told slows down before it is refused; and what is in front must not drop what Caddy says.",
			Do:   "Let what is in front pass RateLimit, RateLimit-Policy and Retry-After.",
			look: lookLimits,
		},
		{
			ID: "apikeys.rotation", Title: "The management API is there, and tells which keys are old",
			Why:  "A key that nobody ever replaces is known to everybody who ever worked with it.",
			Do:   "Write `x402_management` with `key_max_age 90d` on a site of your own.",
			look: lookRotation,
		},
		{
			ID: "apikeys.live", Title: "There is an API key of the right mode", Depth: Live,
			Why:  "With a test key nothing of the live shop can be seen or done; X-Network must be the key's.",
			Do:   "`caddy x402 apikeys create --label …` on the machine, and then into the secret manager with it; `caddy x402 apikeys revoke ID` for those of the other mode.",
			look: lookAPIKeys,
		},
		{
			ID: "apikeys.age", Title: "No key is older than it should be", Depth: Live,
			Why:  "The older a key, the more places it has been to.",
			Do:   "`caddy x402 apikeys rotate ID` makes a successor, and both are good for seven days; `caddy x402 keys rotate` does it for tokens.",
			look: lookAges,
		},
	}
}

func lookLimited(_ context.Context, s *Subject) Verdict {
	for _, h := range s.Handlers {
		if !slices.ContainsFunc(h.Limits, func(by string) bool { return by != "refused" }) {
			return bad("nothing limits the requests of %s", h.Name)
		}
	}
	if s.Management != nil && s.Management.Unlimited {
		return bad("nothing limits x402_management, nor who guesses its keys")
	}
	return good("all %d sets of routes", len(s.Handlers))
}

func lookLimits(ctx context.Context, s *Subject) Verdict {
	address, err := s.paid(ctx)
	if err != nil {
		return bad("%v", err)
	}
	res, _, err := s.ask(ctx, http.MethodGet, address)
	switch {
	case err != nil:
		return bad("%v", err)
	case res.StatusCode == http.StatusTooManyRequests:
		if n, err := strconv.Atoi(res.Header.Get("Retry-After")); err != nil || n < 1 {
			return bad("a 429 has no Retry-After in whole seconds")
		}
		return good("a 429 says when to come back")
	case res.Header.Get("RateLimit-Policy") == "" && slices.ContainsFunc(s.Handlers, func(h Handler) bool { return !slices.Contains(h.Limits, "client") }):
		return skip("who does not pay is not counted everywhere, and so not told")
	case res.Header.Get("RateLimit-Policy") == "":
		return bad("an answer with status %d has no RateLimit-Policy", res.StatusCode)
	}
	return good("RateLimit-Policy: %.100q", res.Header.Get("RateLimit-Policy"))
}

// The prices between which nobody has to be asked, in dollars.
const (
	leastPrice = "0.001"
	mostPrice  = "1000"
)

func lookPrices(_ context.Context, s *Subject) Verdict {
	const decimals = 18
	least, _ := x402.ParseAmount(leastPrice, decimals)
	most, _ := x402.ParseAmount(mostPrice, decimals)
	seen, trial := 0, ""
	for _, h := range s.Handlers {
		for _, p := range h.Prices {
			n, err := x402.ParseAmount(strings.TrimPrefix(p.Amount, "$"), decimals)
			if err != nil {
				continue // a placeholder; config.sound says what can't be
			}
			seen++
			switch {
			case n.Gt(&most):
				return bad("%s %s costs $%s", h.Name, p.What, dollars(&n))
			case s.real() && n.Lt(&least):
				return bad("%s %s costs $%s", h.Name, p.What, dollars(&n))
			case s.real() && n.Eq(&least):
				trial = h.Name + " " + p.What
			}
		}
	}
	switch {
	case trial != "":
		return warn("%s costs $%s, as in examples", trial, leastPrice)
	case len(s.Handlers) == 0:
		return bad("nothing has a price")
	}
	return good("prices: %d", seen)
}

func dollars(n *uint256.Int) string { return x402.FormatAmount(n, 18) }

func lookIdempotency(_ context.Context, s *Subject) Verdict {
	for _, h := range s.Handlers {
		if h.Idempotency == "off" {
			return bad("it is off for %s", h.Name)
		}
	}
	if m := s.Management; m != nil && m.IdempotencyTTL > 0 && m.IdempotencyTTL < 24*time.Hour {
		return warn("answers of the management API are remembered for %s alone", m.IdempotencyTTL)
	}
	return good("for all %d", len(s.Handlers))
}

func lookRotation(_ context.Context, s *Subject) Verdict {
	switch {
	case s.Management == nil:
		return bad("x402_management is on no site")
	case s.Management.KeyMaxAge == 0:
		return bad("key_max_age is not set, so nobody is told")
	}
	return good("keys are old after %s", s.Management.KeyMaxAge)
}

func lookAPIKeys(ctx context.Context, s *Subject) Verdict {
	keys, v := s.apiKeys(ctx)
	if keys == nil {
		return v
	}
	mode := "test"
	if s.real() {
		mode = "live"
	}
	n := 0
	for _, k := range keys {
		if k.Mode != mode {
			return bad("the key %s is a %s key, and X-Network is locked to the other", k.ID, k.Mode)
		}
		n++
	}
	if n == 0 {
		return bad("there is no %s key", mode)
	}
	return good("%s keys: %d", mode, n)
}

// apiKeys are those that are good, without those of consumers; nil: they can't be had, and the verdict says why.
func (s *Subject) apiKeys(ctx context.Context) ([]APIKey, Verdict) {
	if s.Live.Instance == nil {
		return nil, bad("no Caddy answers at the admin endpoint")
	}
	keys, err := s.Live.Instance.APIKeys(ctx)
	if err != nil {
		return nil, bad("%v", err)
	}
	out := []APIKey{}
	for _, k := range keys {
		if !k.Consumer {
			out = append(out, k)
		}
	}
	return out, Verdict{}
}

// mostTokenKey is how long a key of tokens may sign, as in the alert X402TokenKeyOld.
const mostTokenKey = 180 * 24 * time.Hour

func lookAges(ctx context.Context, s *Subject) Verdict {
	keys, v := s.apiKeys(ctx)
	if keys == nil {
		return v
	}
	most := 90 * 24 * time.Hour
	if s.Management != nil && s.Management.KeyMaxAge > 0 {
		most = s.Management.KeyMaxAge
	}
	for _, k := range keys {
		if age := s.Live.Now().Sub(k.CreatedAt); age > most && !k.Superseded {
			return bad("the key %s is %d days old", k.ID, int(age.Hours()/24))
		}
	}
	age, err := s.Live.Instance.TokenKeyAge(ctx)
	switch {
	case err != nil:
		return bad("the keys of tokens: %v", err)
	case age > mostTokenKey:
		return bad("the key of tokens has been signing for %d days", int(age.Hours()/24))
	}
	return good("none is")
}
