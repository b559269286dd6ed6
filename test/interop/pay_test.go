//go:build interop

package interop

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/interop/bed"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

const network = "eip155:84532"

// An unmodified @x402/fetch pays for what it asks, each time with an authorization of its own.
func TestStockClientPays(t *testing.T) {
	bed.Install(t, ".")
	for _, kind := range bed.Chains(".") {
		t.Run(kind.Name, func(t *testing.T) {
			bed.Open(t, kind.Start(t), rig.Options{Upstream: bed.Echo}).Sells(t, ".", network)
		})
	}
}

// Where plans are sold beside single requests, a stock client takes the first of the offer, which is the single request.
// Where only plans are sold it takes the cheapest, and asks again under that plan without paying again, though it knows
// nothing of tokens and signs anew.
func TestStockClientBuysThePlanThatIsFirst(t *testing.T) {
	bed.Install(t, ".")
	plans := `plan week $0.60 {
			ttl 168h
		}
		plan day $0.25 {
			ttl 24h
		}`
	tests := []struct {
		name, price, amount string
		charged             uint64 // for two purchases
		transfers           int
		plan                bool
	}{
		{"price and plans", "$0.01", "10000", 20_000, 2, false},
		{"plans alone", "", "250000", 250_000, 1, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			shop := bed.Open(t, bed.Devnet(t, devnet.Options{}), rig.Options{Upstream: bed.Echo, Site: `
	x402 ` + test.price + ` {
		` + plans + `
	}
	reverse_proxy {upstream}
`})
			before := shop.Accounts(t, 1)
			for range 2 {
				b := bed.Buy(t, ".", 1, http.MethodGet, shop.Rig.URL("/news"), "")
				shop.Receipt(t, b, 1, network, test.amount)
				token := b.Settlement.Extensions["access-token"]
				if strings.Contains(string(token), `"plan":"day"`) != test.plan {
					t.Errorf("the receipt's token is %s", token)
				}
			}
			shop.Moved(t, 1, before, test.charged, test.transfers)
			if calls := shop.Upstream.Calls(); calls != 2 {
				t.Errorf("the upstream was called %d times", calls)
			}
		})
	}
}

// A payer without money is told so, is charged nothing, and the stock client says so to its caller.
func TestStockClientWithoutMoney(t *testing.T) {
	bed.Install(t, ".")
	shop := bed.Open(t, bed.Devnet(t, devnet.Options{Payers: 1}), rig.Options{})
	before := shop.Accounts(t, 2)
	b := bed.Buy(t, ".", 2, http.MethodGet, shop.Rig.URL("/"), "")
	if b.Status != http.StatusPaymentRequired || !strings.Contains(b.Body, "invalid_exact_evm_insufficient_balance") {
		t.Errorf("the stock client got %+v", b)
	}
	shop.Moved(t, 2, before, 0, 0)
	if calls := shop.Upstream.Calls(); calls != 0 {
		t.Errorf("the upstream was called %d times", calls)
	}
}

// Where the money moves after the upstream has answered, stock clients notice nothing: they pay as ever. What the upstream refuses
// costs them nothing, and they give it to their caller.
func TestStockClientPaysAfterTheUpstreamHasAnswered(t *testing.T) {
	bed.Install(t, ".")
	site := `
	x402 $0.01 {
		flow authorization
	}
	reverse_proxy {upstream}
`
	t.Run("pays", func(t *testing.T) {
		bed.Open(t, bed.Devnet(t, devnet.Options{}), rig.Options{Upstream: bed.Echo, Site: site}).Sells(t, ".", network)
	})
	t.Run("is refused by the upstream", func(t *testing.T) {
		shop := bed.Open(t, bed.Devnet(t, devnet.Options{}), rig.Options{Site: site, Upstream: func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "there is no such thing", http.StatusNotFound)
		}})
		before := shop.Accounts(t, 1)
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			b := bed.Buy(t, ".", 1, method, shop.Rig.URL("/none"), "")
			if b.Error != "" || b.Status != http.StatusNotFound || b.Settlement != nil || !strings.Contains(b.Body, "no such thing") {
				t.Errorf("%s: the stock client got %+v", method, b)
			}
		}
		shop.Moved(t, 1, before, 0, 0)
		if calls := shop.Upstream.Calls(); calls != 2 {
			t.Errorf("the upstream was called %d times", calls)
		}
	})
}

// A stock client that is served before it pays takes the answer, and a receipt that names no transaction yet.
func TestStockClientIsServedBeforeItPays(t *testing.T) {
	bed.Install(t, ".")
	shop := bed.Open(t, bed.Devnet(t, devnet.Options{}), rig.Options{App: "credit $0.50 $5", Upstream: bed.Echo, Site: `
	x402 $0.01 {
		flow deferred
	}
	reverse_proxy {upstream}
`})
	before := shop.Accounts(t, 1)
	for i, method := range []string{http.MethodGet, http.MethodPost} {
		b := bed.Buy(t, ".", 1, method, shop.Rig.URL("/x"), "")
		if b.Error != "" || b.Status != http.StatusOK || b.Settlement == nil || !b.Settlement.Success || b.Settlement.Transaction != "" {
			t.Errorf("%s: the stock client got %+v", method, b)
		}
		for range 100 {
			if shop.Accounts(t, 1).Transfers == before.Transfers+i+1 {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		shop.Moved(t, 1, before, 10_000*uint64(i+1), i+1)
	}
}
