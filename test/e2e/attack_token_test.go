package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// buyPlan buys the plan of that name by asking for url, and gives its token, the answer and the header that paid.
func buyPlan(t *testing.T, b *rig.Buyer, url, plan string) (token string, a rig.Answer, header string) {
	t.Helper()
	o := b.Offer(url)
	for i, q := range o.Accepts {
		if q.Extra.Plan != plan {
			continue
		}
		header = b.Sign(o, i)
		a = b.Get(url, x402.HeaderSignature, header)
		if token = a.Header.Get("X-Access-Token"); a.Status != http.StatusOK || token == "" {
			t.Fatalf("buying plan %s: %d %v %s", plan, a.Status, a.Err, a.Body)
		}
		return token, a, header
	}
	t.Fatalf("plan %s is not offered: %+v", plan, o.Accepts)
	return "", a, ""
}

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

// An assertion that the upstream leaks opens nothing: the gate takes tokens of plans only.
func TestAssertionOpensNothing(t *testing.T) {
	r := rig.New(t, rig.Options{Site: shop})
	b := rig.NewBuyer(t, 1)
	var captured []string
	for _, buy := range []func(){
		func() { b.Buy(r.URL("/cheap/x")) },
		func() { buyPlan(t, b, r.URL("/plans/x"), "year") },
	} {
		buy()
		h := r.Upstream.Last().Header
		captured = append(captured, h.Get("X-Payment-Token"), strings.TrimPrefix(h.Get("Authorization"), "Bearer "))
	}
	w := watch(r)
	for i, assertion := range captured {
		if len(strings.Split(assertion, ".")) != 3 {
			t.Fatalf("no assertion: %q", assertion)
		}
		for _, path := range []string{"/cheap/x", "/plans/x"} {
			refused(t, path, b.Get(r.URL(path), bearer(assertion)...), "token_invalid")
			refused(t, path, b.Get(r.URL(path), "X-Payment-Token", assertion), "Payment required")
			refused(t, path, b.Get(r.URL(path), "X-Access-Token", assertion), "Payment required")
		}
		w.nothing(t, "an assertion")
		// Beside a payment of its own it is replaced: the upstream hears of one payer only.
		other := rig.NewBuyer(t, 10+i)
		a := other.Get(r.URL("/cheap/x"), append(bearer(assertion), x402.HeaderSignature, other.Sign(other.Offer(r.URL("/cheap/x")), 0))...)
		h := r.Upstream.Last().Header
		if a.Status != http.StatusOK || h.Get("Authorization") != "Bearer "+h.Get("X-Payment-Token") || h.Get("X-Payment-Token") == assertion {
			t.Errorf("beside a payment: %d, the upstream got %v", a.Status, h)
		}
		w.seen(t, "beside a payment", 1, cent)
	}
}

// The token of a plan is good for what was bought, where it was bought, as long as that is sold there.
func TestTokenOpensItsPlanOnly(t *testing.T) {
	site := strings.Replace(shop, "x402 /twin/* $0.01", `x402 /more/* {
		plan day $0.10 {
			ttl 24h
		}
		plan year $0.10 {
			ttl 24h
		}
	}`, 1)
	r := rig.New(t, rig.Options{Site: site})
	b := rig.NewBuyer(t, 1)
	token, _, _ := buyPlan(t, b, r.URL("/plans/x"), "day")
	_, port := splitAddr(t, r.Addr)
	w := watch(r)
	if a := b.Get(r.URL("/plans/other?way"), bearer(token)...); a.Status != http.StatusOK {
		t.Errorf("the plan itself: %d %s", a.Status, a.Body)
	}
	w.seen(t, "the plan itself", 1, 0)
	refused(t, "a route without plans", b.Get(r.URL("/cheap/x"), bearer(token)...), "token_invalid")
	refused(t, "a dear route", b.Get(r.URL("/dear/x"), bearer(token)...), "token_invalid")
	refused(t, "another set with that plan", b.Get(r.URL("/more/x"), bearer(token)...), "token_invalid")
	refused(t, "another host", b.Get(r.URL("/plans/x"), append(bearer(token), "Host", "localhost:"+port)...), "token_invalid")
	refused(t, "another host's name", b.Get("http://localhost:"+port+"/plans/x", bearer(token)...), "token_invalid")
	w.nothing(t, "elsewhere")

	r.Load(rig.Options{Site: strings.ReplaceAll(site, "plan day", "plan week")})
	waitFor(t, func() bool { return b.Get(r.URL("/plans/x")).Err == nil }) // a reload may close a connection that was just opened
	refused(t, "a plan that is not sold any more", b.Get(r.URL("/plans/x"), bearer(token)...), "token_invalid")
	w.nothing(t, "not sold any more")
}

// One public_url for several hosts does not make one site of them.
func TestTokenOfAnotherHostBehindOnePublicURL(t *testing.T) {
	twoHosts := `
	x402 /plans/* {
		plan day $0.01 {
			ttl 24h
		}
	}
	reverse_proxy {upstream}
}
http://localhost:{rig_port} {
	x402 /plans/* {
		plan day $0.01 {
			ttl 24h
		}
	}
	reverse_proxy {upstream}
`
	r := rig.New(t, rig.Options{Site: twoHosts, App: "public_url https://api.example.com"})
	b := rig.NewBuyer(t, 1)
	token, _, _ := buyPlan(t, b, r.URL("/plans/x"), "day")
	_, port := splitAddr(t, r.Addr)
	w := watch(r)
	if a := b.Get(r.URL("/plans/x"), bearer(token)...); a.Status != http.StatusOK {
		t.Errorf("its own host: %d %s", a.Status, a.Body)
	}
	w.seen(t, "its own host", 1, 0)
	refused(t, "the other host", b.Get("http://localhost:"+port+"/plans/x", bearer(token)...), "token_invalid")
	w.nothing(t, "the other host")
}

// Two sets of routes that nobody named would share their tokens, and one bought cheap would open the dear one: either
// the configuration is refused, or the tokens differ.
func TestUnnamedSetsOfOneSite(t *testing.T) {
	site := `
	handle /a/* {
		x402 {
			plan day $0.01 {
				ttl 24h
			}
		}
		reverse_proxy {upstream}
	}
	handle /b/* {
		x402 {
			plan day $5.00 {
				ttl 24h
			}
		}
		reverse_proxy {upstream}
	}
`
	r := rig.New(t, rig.Options{})
	if err := r.TryLoad(rig.Options{Site: site}); err != nil {
		if !strings.Contains(err.Error(), "name") {
			t.Errorf("refused without a word about names: %v", err)
		}
		return
	}
	b := rig.NewBuyer(t, 1)
	token, _, _ := buyPlan(t, b, r.URL("/a/x"), "day")
	w := watch(r)
	refused(t, "the dear set", b.Get(r.URL("/b/x"), bearer(token)...), "token_invalid")
	w.nothing(t, "the dear set")
}

// decodePart decodes a part of a token.
func decodePart(t *testing.T, part string) map[string]any {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(part)
	var m map[string]any
	if err == nil {
		err = json.Unmarshal(raw, &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func encodePart(t *testing.T, m map[string]any) string {
	t.Helper()
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

// Who changes a token, or signs one with what everybody may read, has none.
func TestForgedTokens(t *testing.T) {
	r := rig.New(t, rig.Options{Site: shop})
	b := rig.NewBuyer(t, 1)
	token, _, _ := buyPlan(t, b, r.URL("/plans/x"), "day")
	parts := strings.Split(token, ".")
	var jwks struct {
		Keys []struct {
			Kid, X, Kty, Alg string
		}
	}
	if err := json.Unmarshal([]byte(b.Get(r.URL("/.well-known/jwks.json")).Body), &jwks); err != nil || len(jwks.Keys) != 1 {
		t.Fatalf("the public keys: %v %+v", err, jwks)
	}
	public, err := base64.RawURLEncoding.DecodeString(jwks.Keys[0].X)
	if err != nil {
		t.Fatal(err)
	}
	header, claims := decodePart(t, parts[0]), decodePart(t, parts[1])
	with := func(m map[string]any, key string, value any) string {
		c := maps.Clone(m)
		c[key] = value
		return encodePart(t, c)
	}
	hs256 := func(secret []byte, head, body string) string {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(head + "." + body))
		return head + "." + body + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	hs := with(header, "alg", "HS256")
	for name, forged := range map[string]string{
		"no signature":             parts[0] + "." + parts[1] + ".",
		"alg none":                 with(header, "alg", "none") + "." + parts[1] + ".",
		"alg None, old signature":  with(header, "alg", "None") + "." + parts[1] + "." + parts[2],
		"public key as secret":     hs256(public, hs, parts[1]),
		"public key's text":        hs256([]byte(jwks.Keys[0].X), hs, parts[1]),
		"empty secret":             hs256(nil, hs, parts[1]),
		"longer life":              parts[0] + "." + with(claims, "exp", 9_999_999_999) + "." + parts[2],
		"another payer":            parts[0] + "." + with(claims, "sub", rig.PayTo.Hex()) + "." + parts[2],
		"another type":             with(header, "typ", "JWT") + "." + parts[1] + "." + parts[2],
		"type of assertions":       with(header, "typ", "x402-assertion+jwt") + "." + parts[1] + "." + parts[2],
		"another key":              with(header, "kid", "nobody") + "." + parts[1] + "." + parts[2],
		"a key of its own":         with(header, "jwk", map[string]any{"kty": "OKP"}) + "." + parts[1] + "." + parts[2],
		"padding":                  token + "=",
		"a line end":               parts[0] + "." + parts[1] + "." + parts[2][:10] + "\t" + parts[2][10:],
		"four parts":               token + "." + parts[2],
		"nothing":                  "..",
		"a very long one":          parts[0] + "." + strings.Repeat("A", 8<<10) + "." + parts[2],
		"a word that is no token":  "letmein",
		"the public key by itself": jwks.Keys[0].X,
	} {
		w := watch(r)
		a := b.Get(r.URL("/plans/x"), bearer(forged)...)
		if a.Status != http.StatusPaymentRequired {
			t.Errorf("%s: %d %v %s", name, a.Status, a.Err, a.Body)
		}
		w.nothing(t, name)
	}
}

// Tokens count in the Authorization header only: addresses and cookies end up in logs and in other people's hands.
func TestTokenElsewhereIsIgnored(t *testing.T) {
	r := rig.New(t, rig.Options{Site: shop})
	b := rig.NewBuyer(t, 1)
	token, _, _ := buyPlan(t, b, r.URL("/plans/x"), "day")
	w := watch(r)
	refused(t, "in the query", b.Get(r.URL("/plans/x?access_token="+token+"&token="+token+"&bearer="+token)), "Payment required")
	refused(t, "in the path", b.Get(r.URL("/plans/"+token)), "Payment required")
	refused(t, "in a cookie", b.Get(r.URL("/plans/x"), "Cookie", "access_token="+token), "Payment required")
	refused(t, "in our own header", b.Get(r.URL("/plans/x"), "X-Access-Token", token), "Payment required")
	refused(t, "by another scheme", b.Get(r.URL("/plans/x"), "Authorization", "Token "+token), "Payment required")
	refused(t, "in an underscored header", b.Get(r.URL("/plans/x"), "X_Payment_Token", token), "Payment required")
	w.nothing(t, "elsewhere")
}
