package caddymodule_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
)

// What other servers ask is counted by what became of it, and tells nothing of who asked or paid. The answer, and the access log, say
// which payment it was.
func TestMetricsOfAGateway(t *testing.T) {
	at := rig.FreeAddr(t)
	r := rig.New(t, rig.Options{})
	b := rig.NewBuyer(t, 1)
	offer := b.Offer(r.URL("/"))
	header := b.Sign(offer, 0)
	const key = "sk-shop-0123456789abcdef"
	site := "x402_facilitator {\nkey shop " + key + "\nrate_limit 7 1h\nrepeat\n}"
	if err := load(t, r.Caddyfile(rig.Options{Site: site})+"\nhttp://"+at+" {\nmetrics\n}\n"); err != nil {
		t.Fatal(err)
	}
	b.HTTP.CloseIdleConnections()
	before, _ := scrape(t, b, at)
	raw, err := base64.StdEncoding.DecodeString(header)
	if err != nil {
		t.Fatal(err)
	}
	order := fmt.Sprintf(`{"paymentPayload":%s,"paymentRequirements":%s}`, raw, offer.Accepts[0].Raw)
	ask := func(endpoint, body string, header ...string) rig.Answer {
		return b.Do(t.Context(), http.MethodPost, r.URL(endpoint), body, append([]string{"Authorization", "Bearer " + key}, header...)...)
	}
	ask("/verify", order)
	settled := ask("/settle", order)
	if id := settled.Header.Get("X-Payment-Id"); settled.Status != http.StatusOK || !strings.HasPrefix(id, "pay_") {
		t.Errorf("%d %v %s", settled.Status, settled.Header, settled.Body)
	}
	ask("/settle", order)
	ask("/verify", order)
	ask("/settle", strings.ReplaceAll(order, "10000", "20000"))
	ask("/settle", "nonsense")
	ask("/settle", order) // the last one that is allowed
	ask("/settle", order)
	b.Do(t.Context(), http.MethodPost, r.URL("/settle"), order)
	b.Get(r.URL("/supported"))
	after, text := scrape(t, b, at)
	for what, want := range map[[2]string]float64{
		{"verify", "valid"}: 1, {"verify", "invalid"}: 1, {"settle", "settled"}: 3, {"settle", "refused"}: 1, {"settle", "malformed"}: 1,
		{"settle", "limited"}: 1, {"settle", "unauthorized"}: 1, {"supported", "supported"}: 1,
	} {
		name := fmt.Sprintf(`caddy_x402_facilitator_requests_total{endpoint=%q,outcome=%q}`, what[0], what[1])
		if got := after[name] - before[name]; got != want {
			t.Errorf("%s grew by %v, want %v", name, got, want)
		}
	}
	for _, name := range []string{key, "shop", b.Account.Address.Hex(), rig.PayTo.Hex(), settled.Header.Get("X-Payment-Id"), r.Addr} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(name)) {
			t.Errorf("the metrics tell %q", name)
		}
	}
}
