//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/interop/bed"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// An unmodified @x402/fetch pays through an unmodified facilitator of @x402/core and @x402/evm: our Caddy is in between.
func TestStockFacilitatorSettles(t *testing.T) {
	bed.Install(t, ".")
	for _, kind := range bed.Chains(".") {
		t.Run(kind.Name, func(t *testing.T) {
			chain := kind.Start(t)
			f := bed.Facilitator(t, ".", chain, 5)
			bed.Open(t, chain, rig.Options{Upstream: bed.Echo, Settler: "facilitator " + f}).Sells(t, ".", network)
		})
	}
}

// It settles payments of version 1, after /verify where we ask it, and many at once.
func TestStockFacilitatorVersions(t *testing.T) {
	bed.Install(t, ".")
	chain := bed.Devnet(t, devnet.Options{})
	f := bed.Facilitator(t, ".", chain, 5)
	shop := bed.Open(t, chain, rig.Options{Settler: "facilitator " + f + " {\n verify\n}"})
	b := rig.NewBuyer(t, 1)
	url := shop.Rig.URL("/old")
	if a := b.Get(url, x402.HeaderPaymentV1, b.SignV1(b.Offer(url))); a.Status != http.StatusOK {
		t.Errorf("version 1: %d %s", a.Status, a.Body)
	}
	const payers = 8
	var paying sync.WaitGroup
	for i := range payers {
		b := rig.NewBuyer(t, 2+i)
		paying.Go(func() {
			if a, _ := b.Buy(shop.Rig.URL(fmt.Sprintf("/many/%d", i))); a.Status != http.StatusOK {
				t.Errorf("payer %d: %d %s", i, a.Status, a.Body)
			}
		})
	}
	paying.Wait()
	if n := shop.Upstream.Calls(); n != payers+1 {
		t.Errorf("%d upstream calls", n)
	}
	if earned := shop.Accounts(t, 1); earned.Transfers != payers+1 || earned.Seller != (payers+1)*10_000 {
		t.Errorf("the chain has %+v", earned)
	}
}

// What it says of the payments that it refuses, and of those that it was asked to settle twice, leads to the right answers.
func TestStockFacilitatorRefuses(t *testing.T) {
	bed.Install(t, ".")
	chain := bed.Devnet(t, devnet.Options{Payers: 2})
	f := bed.Facilitator(t, ".", chain, 5)
	shop := bed.Open(t, chain, rig.Options{Settler: "facilitator " + f})
	poor := bed.Buy(t, ".", 2, http.MethodGet, shop.Rig.URL("/"), "")
	if poor.Status != http.StatusPaymentRequired {
		t.Errorf("a payer without money got %+v", poor)
	}
	b := rig.NewBuyer(t, 1)
	answer, header := b.Buy(shop.Rig.URL("/once"))
	if answer.Status != http.StatusOK {
		t.Fatalf("%d %s", answer.Status, answer.Body)
	}
	again := b.Get(shop.Rig.URL("/once"), x402.HeaderSignature, header)
	var receipt x402.SettlementResponse
	if err := x402.DecodeHeader(answer.Header.Get(x402.HeaderResponse), 1<<16, &receipt); err != nil || !receipt.Success {
		t.Errorf("receipt %+v, %v", receipt, err)
	}
	if again.Status != http.StatusPaymentRequired || shop.Upstream.Calls() != 1 {
		t.Errorf("the second time: %d %s", again.Status, again.Body)
	}
	// We are not needed for that: it refuses by itself what is used.
	p, err := x402.DecodePayload(header)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(map[string]any{"x402Version": 2, "paymentPayload": json.RawMessage(p.Raw), "paymentRequirements": p.Accepted})
	if err != nil {
		t.Fatal(err)
	}
	said := b.Do(t.Context(), http.MethodPost, f+"/settle", string(body), "Content-Type", "application/json")
	var verdict x402.SettlementResponse
	if err := json.Unmarshal([]byte(said.Body), &verdict); err != nil || verdict.Success || verdict.ErrorReason == "" {
		t.Errorf("settled twice: %d %s", said.Status, said.Body)
	}
}
