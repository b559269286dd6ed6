//go:build interop

package interop

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/interop/bed"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// teaShop is who the Express server sells for.
var teaShop = common.HexToAddress("0x5b38da6a701c568545dcfcb03fcb875f56beddc4")

// teaKey lets the Express server use our facilitator.
const teaKey = "sk-tea-0123456789abcdef"

// tea is an Express server of the reference whose facilitator we are.
func tea(t *testing.T, c bed.Chain, lines string) (r *rig.Rig, shop string) {
	t.Helper()
	s := bed.Open(t, c, rig.Options{Site: "x402_facilitator /facilitator/* {\nkey tea " + teaKey + "\n" + lines + "\n}"})
	return s.Rig, bed.Serve(t, ".", "express.mjs", map[string]string{
		"facilitator": s.Rig.URL("/facilitator"), "key": teaKey, "payTo": teaShop.Hex(),
	})
}

// An unmodified @x402/fetch pays an unmodified @x402/express: our Caddy is the facilitator behind it.
func TestStockServerSettlesThroughUs(t *testing.T) {
	bed.Install(t, ".")
	for _, kind := range bed.Chains(".") {
		t.Run(kind.Name, func(t *testing.T) {
			_, shop := tea(t, kind.Start(t), "allow_pay_to "+teaShop.Hex())
			for i := range 2 {
				got := bed.Buy(t, ".", 1, http.MethodGet, shop+"/tea", "")
				if got.Status != http.StatusOK || got.Body != "a cup of tea" || got.Settlement == nil || !got.Settlement.Success ||
					got.Settlement.Transaction == "" || got.Settlement.Network != network {
					t.Fatalf("purchase %d brought %+v, settled as %+v", i, got, got.Settlement)
				}
			}
		})
	}
}

// What we refuse, it refuses: payers without money, and payees that we don't settle for.
func TestStockServerIsRefused(t *testing.T) {
	bed.Install(t, ".")
	chain := bed.Devnet(t, devnet.Options{Payers: 2})
	_, shop := tea(t, chain, "")
	if poor := bed.Buy(t, ".", 2, http.MethodGet, shop+"/tea", ""); poor.Status != http.StatusPaymentRequired {
		t.Errorf("a payer without money got %+v", poor)
	}
	if got := bed.Buy(t, ".", 1, http.MethodGet, shop+"/tea", ""); got.Status != http.StatusOK {
		t.Errorf("a payer with money got %+v", got)
	}
}

// The reference serves before it settles, so whoever sends one payment many times at once has all of them verified. Where a
// success is told once, one is served; where the same again gets the same answer, all are.
func TestStockServerAndCopies(t *testing.T) {
	bed.Install(t, ".")
	const copies = 5
	for lines, want := range map[string]int{"": 1, "repeat": copies} {
		t.Run(lines, func(t *testing.T) {
			chain := bed.Devnet(t, devnet.Options{})
			_, shop := tea(t, chain, lines)
			b := rig.NewBuyer(t, 1)
			url := fmt.Sprintf("%s/tea?at=once&many=%d", shop, copies)
			header := b.Sign(b.Offer(url), 0)
			served := make(chan int, copies)
			var sending sync.WaitGroup
			for range copies {
				sending.Go(func() { served <- b.Get(url, x402.HeaderSignature, header).Status })
			}
			sending.Wait()
			close(served)
			n := 0
			for status := range served {
				if status == http.StatusOK {
					n++
				} else if status != http.StatusPaymentRequired {
					t.Errorf("answered %d", status)
				}
			}
			paid, err := chain.TokenBalance(t.Context(), teaShop)
			if err != nil || n != want || paid.Uint64() != 10_000 {
				t.Errorf("%d of %d copies were served, want %d; %s was paid: %v", n, copies, want, paid, err)
			}
		})
	}
}
