package e2e

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

const page = "https://app.example.com"

// words are the members of a header that is a list, in lower case.
func words(h http.Header, name string) []string {
	var list []string
	for _, line := range h[name] {
		for word := range strings.SplitSeq(line, ",") {
			list = append(list, strings.ToLower(strings.TrimSpace(word)))
		}
	}
	return list
}

func has(t *testing.T, what string, h http.Header, name string, want ...string) {
	t.Helper()
	list := words(h, name)
	for _, w := range want {
		if !slices.Contains(list, strings.ToLower(w)) {
			t.Errorf("%s: %s lacks %s: %v", what, name, w, list)
		}
	}
}

// exposed are the headers that a paying page must read, of our answers and of the upstream's.
var exposed = []string{
	"PAYMENT-REQUIRED", "PAYMENT-RESPONSE", "X-PAYMENT-RESPONSE", "WWW-Authenticate", "Retry-After", "Link", "X-Access-Token",
}

func readable(t *testing.T, what string, a rig.Answer, origin string) {
	t.Helper()
	if got := a.Header["Access-Control-Allow-Origin"]; !slices.Equal(got, []string{origin}) {
		t.Errorf("%s: pages of %v may read it, want %s", what, got, origin)
	}
	if a.Header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("%s: credentials are allowed", what)
	}
	has(t, what, a.Header, "Access-Control-Expose-Headers", exposed...)
}

func preflight(b *rig.Buyer, url, origin, method string, header ...string) rig.Answer {
	return b.Do(context.Background(), http.MethodOptions, url, "", append([]string{"Origin", origin, "Access-Control-Request-Method", method}, header...)...)
}

// A page can find out the price, pay and read the receipt. Its browser asks first, which costs nothing and reaches nobody.
func TestPagesCanPay(t *testing.T) {
	r := rig.New(t, rig.Options{})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/x")
	w := watch(r)
	// What @x402/fetch sends, access-control-expose-headers as a header of the request included; and a header of the page's own.
	asked := "access-control-expose-headers, payment-signature, content-type, x-api-version"
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
		a := preflight(b, url, page, method, "Access-Control-Request-Headers", asked)
		if a.Status != http.StatusNoContent || a.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Fatalf("a preflight: %d %v %s", a.Status, a.Header, a.Body)
		}
		has(t, "a preflight", a.Header, "Access-Control-Allow-Headers", strings.Split(asked, ", ")...)
		has(t, "a preflight", a.Header, "Access-Control-Allow-Headers", "X-PAYMENT", "Authorization", "Idempotency-Key", "SIGN-IN-WITH-X")
		has(t, "a preflight", a.Header, "Access-Control-Allow-Methods", method)
		if a.Header.Get("Access-Control-Max-Age") == "" || a.Header.Get(x402.HeaderRequired) != "" {
			t.Errorf("a preflight: %v", a.Header)
		}
	}
	evil := preflight(b, url, page, "GET", "Access-Control-Request-Headers", "x-a\x01b, <script>")
	if evil.Err == nil && strings.Contains(evil.Header.Get("Access-Control-Allow-Headers"), "script") {
		t.Errorf("a preflight: what is no header's name came back: %v", evil.Header)
	}
	w.nothing(t, "preflights")

	unpaid := b.Get(url, "Origin", page)
	readable(t, "402", unpaid, "*")
	refused(t, "402", unpaid, "Payment required")
	header := b.Sign(rig.Offered(t, unpaid), 0)
	paid := b.Get(url, "Origin", page, x402.HeaderSignature, header, "Access-Control-Expose-Headers", "PAYMENT-RESPONSE,X-PAYMENT-RESPONSE")
	if paid.Status != http.StatusOK || paid.Header.Get(x402.HeaderResponse) == "" {
		t.Fatalf("paid: %d %v", paid.Status, paid.Header)
	}
	readable(t, "200", paid, "*")
	w.seen(t, "paid", 1, cent)
	readable(t, "a replay", b.Get(url, "Origin", page, x402.HeaderSignature, header), "*")
	readable(t, "400", b.Get(url, "Origin", page, x402.HeaderSignature, "?"), "*")
	if a := b.Get(url); a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("without a page: %v", a.Header)
	}
}

// A page can read why it got nothing for its money: errors that Caddy writes are readable, too, and carry the receipt.
func TestPagesCanReadErrors(t *testing.T) {
	r := rig.New(t, rig.Options{App: "settle_timeout 2s", Site: `
	x402 {
		price $0.01 {
			match {
				path /paid/*
			}
		}
		unpriced deny
	}
	reverse_proxy {upstream}
`, Upstream: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }})
	b := rig.NewBuyer(t, 1)
	readable(t, "403", b.Get(r.URL("/denied"), "Origin", page), "*")
	url := r.URL("/paid/x")
	a := b.Get(url, "Origin", page, x402.HeaderSignature, b.Sign(b.Offer(url), 0))
	if a.Status != http.StatusBadGateway || a.Header.Get(x402.HeaderResponse) == "" {
		t.Errorf("a dead upstream: %d %v", a.Status, a.Header)
	}
	readable(t, "502", a, "*")
	r.Chain.Stall()
	defer r.Chain.Resume()
	a = b.Get(url, "Origin", page, x402.HeaderSignature, b.Sign(b.Offer(url), 0))
	putOff(t, a)
	readable(t, "503", a, "*")
}

// Only pages of the named origins can read answers, and caches are told that answers differ.
func TestRestrictedOrigins(t *testing.T) {
	r := rig.New(t, rig.Options{Site: `
	x402 $0.01 {
		cors ` + page + ` https://other.example.com {
			max_age 1h
		}
	}
	reverse_proxy {upstream}
`})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/x")
	for origin, allowed := range map[string]bool{
		page: true, "https://other.example.com": true, "https://evil.example.com": false, "http://app.example.com": false,
		page + ":8443": false, "https://app.example.com.evil.com": false, "null": false,
	} {
		want := ""
		if allowed {
			want = origin
		}
		paid := b.Get(url, "Origin", origin, x402.HeaderSignature, b.Sign(b.Offer(url), 0))
		if paid.Status != http.StatusOK {
			t.Fatalf("%s: %d %s", origin, paid.Status, paid.Body)
		}
		for what, a := range map[string]rig.Answer{
			"preflight": preflight(b, url, origin, "GET"), "402": b.Get(url, "Origin", origin), "200": paid,
		} {
			if got := a.Header.Get("Access-Control-Allow-Origin"); got != want {
				t.Errorf("%s of %s: %q may read it", what, origin, got)
			}
			has(t, what+" of "+origin, a.Header, "Vary", "Origin")
		}
		if age := preflight(b, url, origin, "GET").Header.Get("Access-Control-Max-Age"); allowed && age != "3600" {
			t.Errorf("%s: remembered for %q", origin, age)
		}
	}
}

// What the upstream says about CORS is kept; an answer that differs for pages says so even to those who are none.
func TestUpstreamsOwnCORS(t *testing.T) {
	r := rig.New(t, rig.Options{Upstream: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://its.own")
		w.Header().Set("Access-Control-Expose-Headers", "X-Its-Own")
		w.Header().Set("Vary", "Accept")
		_, _ = w.Write([]byte("answer"))
	}})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/x")
	a := b.Get(url, "Origin", page, x402.HeaderSignature, b.Sign(b.Offer(url), 0))
	readable(t, "200", a, "https://its.own")
	has(t, "200", a.Header, "Access-Control-Expose-Headers", "X-Its-Own")
	has(t, "200", a.Header, "Vary", "Accept")
}

// With `cors off` preflights are the upstream's to answer, unpaid; nobody gets content by them, whatever the upstream makes
// of the method.
func TestCORSOff(t *testing.T) {
	r := rig.New(t, rig.Options{Site: `
	x402 $0.01 {
		cors off
	}
	reverse_proxy {upstream}
`, Upstream: func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://its.own")
		w.Header().Set("X-Override", req.Header.Get("X-HTTP-Method-Override"))
		_, _ = w.Write([]byte("content"))
	}})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/x")
	a := preflight(b, url, page, "GET", "X-HTTP-Method-Override", "GET", "X-Payment-Payer", "liar")
	if a.Status != http.StatusOK || a.Header.Get("Access-Control-Allow-Origin") != "https://its.own" {
		t.Errorf("a preflight: %d %v %v", a.Status, a.Err, a.Header)
	}
	if a.Body != "" || a.Header.Get("X-Override") != "" || r.Upstream.Last().Header.Get("X-Payment-Payer") != "" {
		t.Errorf("a preflight got %q %v", a.Body, a.Header)
	}
	w := watch(r)
	for what, a := range map[string]rig.Answer{
		"GET":                    b.Get(url, "Origin", page),
		"OPTIONS, no preflight":  b.Do(t.Context(), http.MethodOptions, url, "", "Origin", page),
		"OPTIONS with upgrade":   preflight(b, url, page, "GET", "Connection", "Upgrade", "Upgrade", "websocket"),
		"OPTIONS without origin": b.Do(t.Context(), http.MethodOptions, url, "", "Access-Control-Request-Method", "GET"),
	} {
		if a.Status != http.StatusPaymentRequired || a.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %d %v %v", what, a.Status, a.Err, a.Header)
		}
	}
	w.nothing(t, "no preflights")
	if paid := b.Get(url, "Origin", page, x402.HeaderSignature, b.Sign(b.Offer(url), 0)); paid.Header.Get("Access-Control-Allow-Origin") != "https://its.own" {
		t.Errorf("paid: %d %v", paid.Status, paid.Header)
	}
}
