package e2e

import (
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// folded is a header's name as CGI and its kin read it.
func folded(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
}

// recorder is an upstream that keeps what it got, trailers too.
type recorder struct {
	mu       sync.Mutex
	header   http.Header
	trailer  http.Header
	answered func(http.ResponseWriter)
}

func (c *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	c.mu.Lock()
	c.header, c.trailer = r.Header.Clone(), r.Trailer.Clone()
	answer := c.answered
	c.mu.Unlock()
	if answer != nil {
		answer(w)
	}
}

func (c *recorder) got() (header, trailer http.Header) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.header, c.trailer
}

// liars are headers by which a client would tell the upstream who paid.
var liars = []string{
	"X-Payment-Token", "X-Payment-Id", "X-Payment-Payer", "X-Payment-Amount", "X-Payment-Asset", "X-Payment-Network",
	"X-Payment-Transaction", "X-Payment-Plan", "X-Payment-Anything", "x-payment-payer", "X_Payment_Payer", "x-payment_id",
	"X_PAYMENT-PLAN", "x_payment", "X-Payment-Response", "Payment_Signature", "PAYMENT-REQUIRED", "Payment-Response",
	"payment_response", "X.Payment.Payer", "X-Payment.Payer", "X~Payment~Id",
}

// onlyOurs checks that all that an upstream could take for our word is our word.
func onlyOurs(t *testing.T, what string, h http.Header, payer string) {
	t.Helper()
	for name, values := range h {
		f := folded(name)
		about := strings.HasPrefix(f, "x-payment") || strings.HasPrefix(f, "payment-")
		if about && (name != http.CanonicalHeaderKey(f) || len(values) != 1 || strings.Contains(values[0], "liar")) {
			t.Errorf("%s: the upstream got %s: %q", what, name, values)
		}
	}
	for _, secret := range []string{"Payment-Signature", "X-Payment", "Payment-Required", "Payment-Response"} {
		if h.Get(secret) != "" {
			t.Errorf("%s: the upstream got %s", what, secret)
		}
	}
	if h.Get("X-Payment-Payer") != payer {
		t.Errorf("%s: the upstream was told that %q paid, want %q", what, h.Get("X-Payment-Payer"), payer)
	}
}

// Whatever a client says about who paid, in whatever spelling, in headers or trailers, on a request that is paid for, on
// one that need not be, and by the holder of a token: the upstream hears our word only.
func TestSpoofedHeaders(t *testing.T) {
	rec := new(recorder)
	r := rig.New(t, rig.Options{Upstream: rec.ServeHTTP, Site: `
	x402 {
		price $0.01 {
			match {
				path /paid/*
			}
		}
		plan day $0.10 {
			ttl 24h
		}
		exempt {
			path /paid/exempt/*
		}
		unpriced free
	}
	reverse_proxy {upstream}
`})
	b := rig.NewBuyer(t, 1)
	me := b.Account.Address.Hex()
	var lies []string
	for _, name := range liars {
		lies = append(lies, name, "liar")
	}
	hop := []string{
		"Connection", "X-Payment-Token, X-Payment-Payer", "Connection", "Authorization, x-payment-id, close",
		"Proxy-Connection", "X-Payment-Amount",
	}
	token, _, _ := buyPlan(t, b, r.URL("/paid/x"), "day")
	for name, c := range map[string]struct {
		path, payer string
		proof       []string
	}{
		"paid":   {"/paid/x", me, nil},
		"token":  {"/paid/x", me, bearer(token)},
		"exempt": {"/paid/exempt/x", "", nil},
		"free":   {"/free", "", nil},
	} {
		who := b
		if name == "paid" { // whoever holds a plan would be served under it
			who = rig.NewBuyer(t, 2)
			c.payer = who.Account.Address.Hex()
			c.proof = []string{x402.HeaderSignature, who.Sign(who.Offer(r.URL(c.path)), 0)}
		}
		a := who.Get(r.URL(c.path), slices.Concat(lies, hop, c.proof)...)
		if a.Status != http.StatusOK {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
			continue
		}
		h, _ := rec.got()
		onlyOurs(t, name, h, c.payer)
		if c.payer == "" {
			continue
		}
		for _, must := range []string{"X-Payment-Token", "X-Payment-Id", "X-Payment-Amount", "X-Payment-Asset", "X-Payment-Network", "X-Payment-Transaction"} {
			if h.Get(must) == "" {
				t.Errorf("%s: the client had %s removed on its way", name, must)
			}
		}
		if h.Get("Authorization") != "Bearer "+h.Get("X-Payment-Token") {
			t.Errorf("%s: the upstream got the authorization %q", name, h.Get("Authorization"))
		}
	}
	trailers(t, r, rec)
}

// trailers sends the lies behind the body, announced and not.
func trailers(t *testing.T, r *rig.Rig, rec *recorder) {
	t.Helper()
	b := rig.NewBuyer(t, 3)
	for _, announced := range []bool{true, false} {
		request := []string{
			"POST /paid/x HTTP/1.1", "Host: " + r.Addr, "Transfer-Encoding: chunked", "Connection: close", "TE: trailers",
			"Payment-Signature: " + b.Sign(b.Offer(r.URL("/paid/x")), 0),
		}
		if announced {
			request = append(request, "Trailer: "+strings.Join(liars, ", ")+", Checksum")
		}
		request = append(request, "", "2", "hi", "0")
		for _, name := range liars {
			request = append(request, name+": liar")
		}
		a := sendRaw(t, r.Addr, http.MethodPost, append(request, "Checksum: 1")...)
		if a.Status != http.StatusOK {
			t.Fatalf("with trailers: %d %v %s", a.Status, a.Err, a.Body)
		}
		h, trailer := rec.got()
		onlyOurs(t, "with trailers", h, b.Account.Address.Hex())
		for name := range trailer {
			if f := folded(name); strings.HasPrefix(f, "x-payment") || strings.HasPrefix(f, "payment-") {
				t.Errorf("announced %v: the upstream got the trailer %s: %q", announced, name, trailer[name])
			}
		}
	}
}

// An upstream can't say what only the paywall may say, and what was paid for stays out of shared caches.
func TestAnswerHeaders(t *testing.T) {
	rec := new(recorder)
	r := rig.New(t, rig.Options{Upstream: rec.ServeHTTP, Site: `
	x402 {
		price $0.01
		plan day $0.10 {
			ttl 24h
		}
	}
	reverse_proxy {upstream}
`})
	holder := rig.NewBuyer(t, 1)
	token, _, _ := buyPlan(t, holder, r.URL("/x"), "day")
	b := rig.NewBuyer(t, 2)
	for name, c := range map[string]struct {
		cache []string // what the upstream says, one line each
		want  string
	}{
		"nothing":            {nil, "private"},
		"public":             {[]string{"public, max-age=60"}, "max-age=60, private"},
		"shared age":         {[]string{"public, s-maxage=600, max-age=60"}, "max-age=60, private"},
		"shared age, quoted": {[]string{`max-age=60, S-MaxAge="600"`}, "max-age=60, private"},
		"private":            {[]string{"private, max-age=5"}, "max-age=5, private"},
		"no-store":           {[]string{"no-store"}, "no-store"},
		"no-store in a list": {[]string{"max-age=0, No-Store"}, "max-age=0, No-Store"},
		"two lines":          {[]string{"public", "s-maxage=600"}, "private"},
		"no-store second":    {[]string{"max-age=60", "no-store"}, "max-age=60, no-store"},
		"no-store first":     {[]string{"no-store", "public, s-maxage=600"}, "no-store"},
	} {
		rec.mu.Lock()
		rec.answered = func(w http.ResponseWriter) {
			h := w.Header()
			for _, v := range c.cache {
				h.Add("Cache-Control", v)
			}
			h.Set("Cdn-Cache-Control", "public, max-age=600")
			h.Set("Surrogate-Control", "max-age=600")
			for _, lie := range []string{"PAYMENT-REQUIRED", "PAYMENT-RESPONSE", "X-PAYMENT-RESPONSE", "X-Access-Token", "X-Payment-Status", "X-Payment-Id", "PAYMENT-SIGNATURE"} {
				h.Set(lie, "liar")
			}
			w.WriteHeader(http.StatusOK)
		}
		rec.mu.Unlock()
		paid, _ := b.Buy(r.URL("/x"))
		for how, a := range map[string]rig.Answer{"paid": paid, "token": b.Get(r.URL("/x"), bearer(token)...)} {
			what := how + ", " + name
			if a.Status != http.StatusOK {
				t.Fatalf("%s: %d %s", what, a.Status, a.Body)
			}
			if got := strings.Join(a.Header["Cache-Control"], ", "); normalCache(got) != normalCache(c.want) {
				t.Errorf("%s: Cache-Control: %s, want %s", what, got, c.want)
			}
			for lie, values := range a.Header {
				if slices.Contains(values, "liar") {
					t.Errorf("%s: the client got the upstream's %s", what, lie)
				}
			}
			if a.Header.Get("Cdn-Cache-Control") != "" || a.Header.Get("Surrogate-Control") != "" {
				t.Errorf("%s: shared caches are told to keep it: %v", what, a.Header)
			}
			if got := a.Header.Get(x402.HeaderResponse) != ""; got != (how == "paid") {
				t.Errorf("%s: a receipt: %v", what, got)
			}
		}
	}
	a := b.Get(r.URL("/x"))
	if a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("402: Cache-Control: %s", a.Header.Get("Cache-Control"))
	}
	if a = b.Get(r.URL("/x"), x402.HeaderSignature, "?"); a.Status != http.StatusBadRequest || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("400: %d %v", a.Status, a.Header)
	}
}

// normalCache sorts directives; no-store needs no private beside it.
func normalCache(v string) string {
	set := map[string]bool{}
	for d := range strings.SplitSeq(strings.ToLower(v), ",") {
		set[strings.TrimSpace(d)] = true
	}
	if set["no-store"] {
		return "no-store"
	}
	return strings.Join(slices.Sorted(maps.Keys(set)), ", ")
}

// What is no payment header is answered as what it is, and costs nobody anything.
func TestGarbage(t *testing.T) {
	r := rig.New(t, rig.Options{Site: shop})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/cheap/x")
	w := watch(r)
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	o := b.Offer(url)
	a, sig := b.Authorize(o.Accepts[0])
	whole := rig.Encode(t, o.Pay(o.Accepts[0], &a, sig))
	const tooLarge = http.StatusRequestHeaderFieldsTooLarge
	for name, c := range map[string]struct {
		header string
		status []int
	}{
		"not base64":        {"{}", []int{400}},
		"empty object":      {b64("{}"), []int{400, 402}},
		"array":             {b64("[]"), []int{400}},
		"null":              {b64("null"), []int{400}},
		"cut off":           {whole[:len(whole)/2], []int{400}},
		"two of them":       {whole + whole, []int{400}},
		"deep arrays":       {b64(strings.Repeat("[", 9000)), []int{400, tooLarge}},
		"deep objects":      {b64(strings.Repeat(`{"a":`, 1800) + "1" + strings.Repeat("}", 1800)), []int{400, 402, tooLarge}},
		"deep and whole":    {b64(`{"x402Version":2,"accepted":` + strings.Repeat("[", 4000) + strings.Repeat("]", 4000) + "}"), []int{400, 402, tooLarge}},
		"12 KiB":            {strings.Repeat("A", 12<<10), []int{400, tooLarge}},
		"20 KiB":            {strings.Repeat("A", 20<<10), []int{400, tooLarge}},
		"20 KiB behind it":  {whole + strings.Repeat("=", 20<<10), []int{400, tooLarge}},
		"1 MB":              {strings.Repeat("A", 1<<20), []int{400, tooLarge}},
		"version 3":         {b64(`{"x402Version":3}`), []int{402}},
		"version as text":   {b64(`{"x402Version":"2"}`), []int{402}},
		"version of 1e0":    {b64(`{"x402Version":1e0}`), []int{400, 402}},
		"a huge number":     {b64(`{"x402Version":2e999999999}`), []int{400, 402}},
		"bad UTF-8":         {b64("{\"x402Version\":2,\"accepted\":{\"scheme\":\"\xff\xfe\"}}"), []int{400, 402}},
		"wrong header of 2": {rig.Encode(t, map[string]any{"x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": x402.ExactPayload{Signature: sig, Authorization: a}}), []int{402}},
	} {
		for _, key := range []string{x402.HeaderSignature, x402.HeaderPaymentV1} {
			if name == "wrong header of 2" && key == x402.HeaderPaymentV1 {
				continue // there it is right
			}
			got := b.Get(url, key, c.header)
			if got.Err != nil && len(c.header) > 1<<19 {
				continue // the server hung up in the middle of it
			}
			if !slices.Contains(c.status, got.Status) {
				t.Errorf("%s in %s: %d %v %.200s", name, key, got.Status, got.Err, got.Body)
			}
		}
		w.nothing(t, name)
	}
	if got := b.Get(url, x402.HeaderSignature, whole); got.Status != http.StatusOK {
		t.Errorf("afterwards, the whole one: %d %s", got.Status, got.Body)
	}
}

// There is one way to write an amount.
func TestSpelledAmounts(t *testing.T) {
	r := rig.New(t, rig.Options{Site: shop})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/cheap/x")
	w := watch(r)
	for _, value := range []string{
		`"0"`, `"-10000"`, `"+10000"`, `"0x2710"`, `"010000"`, `"1e4"`, `"10000.0"`, `" 10000"`, `"10000 "`, `""`, `"１００００"`,
		`10000`, `null`, `["10000"]`, `"10000\u0000"`, `"115792089237316195423570985008687907853269984665640564039457584007913139639936"`,
		`"115792089237316195423570985008687907853269984665640564039457584007913139649936"`,
	} {
		o := b.Offer(url)
		a, sig := b.Authorize(o.Accepts[0]) // a good signature of 10000
		good := string(decodeHeader(t, rig.Encode(t, o.Pay(o.Accepts[0], &a, sig))))
		for field, forged := range map[string]string{
			"value":  strings.Replace(good, `"value":"10000"`, `"value":`+value, 1),
			"amount": strings.Replace(good, `"amount":"10000"`, `"amount":`+value, 1),
		} {
			if forged == good {
				t.Fatalf("%s could not be replaced in %s", field, good)
			}
			got := b.Get(url, x402.HeaderSignature, base64.StdEncoding.EncodeToString([]byte(forged)))
			if got.Status != http.StatusPaymentRequired && got.Status != http.StatusBadRequest {
				t.Errorf("%s %s: %d %v %s", field, value, got.Status, got.Err, got.Body)
			}
			w.nothing(t, fmt.Sprintf("%s %s", field, value))
		}
	}
}

func decodeHeader(t *testing.T, header string) []byte {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(header)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
