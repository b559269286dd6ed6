package caddymodule_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-x402/caddy-x402/test/rig"
)

// permute calls f with every order of lines.
func permute(lines []string, n int, f func([]string)) {
	if n <= 1 {
		f(lines)
		return
	}
	for i := range n {
		permute(lines, n-1, f)
		j := 0
		if n%2 == 0 {
			j = i
		}
		lines[j], lines[n-1] = lines[n-1], lines[j]
	}
}

// No `order` is needed, and it does not matter in which order a site's directives are written.
func TestDirectiveOrder(t *testing.T) {
	lines := []string{
		"forward_auth localhost:9001 {\nuri /auth\n}", "x402_service", "x402 $0.01", "request_header X-Payer {http.x402.payment.payer}",
		"reverse_proxy localhost:9000", "basic_auth {\nme $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}",
	}
	want := ""
	permute(lines, len(lines), func(lines []string) {
		got, err := adapt(string(caddyfile.Format([]byte(":80 {\n" + strings.Join(lines, "\n") + "\n}\n"))))
		if err != nil {
			t.Fatal(err)
		}
		if want == "" {
			want = string(got)
		}
		if string(got) != want {
			t.Fatalf("%s\ngives %s\nwant %s", strings.Join(lines, "\n"), got, want)
		}
	})
	at := 0
	for _, handler := range []string{`"handler":"authentication"`, `"uri":"/auth"`, `"handler":"x402_service"`, `"handler":"x402"`, `"X-Payer"`, "localhost:9000"} {
		i := strings.Index(want[at:], handler)
		if i < 0 {
			t.Fatalf("%s is not behind the others in %s", handler, want)
		}
		at += i
	}
}

// Whom forward_auth sends away is not asked for money, and the service's paths are free of charge whatever is written where.
func TestOrderOfARequest(t *testing.T) {
	auth := rig.NewUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Key") != "sesame" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	r := rig.New(t, rig.Options{Site: `
	reverse_proxy {upstream}
	request_header X-Payer {http.x402.payment.payer}
	x402 $0.01
	x402_service
	forward_auth ` + auth.Addr() + ` {
		uri /auth
	}
	`})
	b := rig.NewBuyer(t, 1)
	if a := b.Get(r.URL("/x")); a.Status != http.StatusUnauthorized || a.Header.Get("Payment-Required") != "" {
		t.Errorf("a stranger is answered %d %v", a.Status, a.Header)
	}
	if a := b.Get(r.URL("/x"), "X-Key", "sesame"); a.Status != http.StatusPaymentRequired {
		t.Errorf("a friend is answered %d", a.Status)
	}
	if a := b.Get(r.URL("/health"), "X-Key", "sesame"); a.Status != http.StatusOK {
		t.Errorf("health is answered %d %s", a.Status, a.Body)
	}
	header := b.Sign(rig.Offered(t, b.Get(r.URL("/x"), "X-Key", "sesame")), 0)
	if a := b.Get(r.URL("/x"), "X-Key", "sesame", "Payment-Signature", header); a.Status != http.StatusOK {
		t.Errorf("a friend who pays is answered %d %s", a.Status, a.Body)
	}
	if got := r.Upstream.Last().Header.Get("X-Payer"); got != b.Account.Address.Hex() {
		t.Errorf("the upstream was told that %q paid", got)
	}
}
