//go:build interop

package interop

import (
	"net/http"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/interop/bed"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

// identified is what pay-id.mjs reads: an order under a payment identifier.
type identified struct {
	bed.Order
	ID string `json:"id"`
}

// repeated is what pay-id.mjs prints.
type repeated struct {
	bed.Bought
	Replayed string `json:"replayed"`
}

func buyAs(t *testing.T, payer int, id, method, url, body string) (b repeated) {
	t.Helper()
	key := hexutil.Encode(crypto.FromECDSA(devnet.Payer(payer).Key))
	bed.Run(t, ".", "pay-id.mjs", identified{bed.Order{URL: url, Method: method, Body: body, Key: key}, id}, &b)
	return b
}

// A stock client that names its payment is charged once for it, however often it asks and though it signs anew each time;
// the name is nothing to other payers, and not good for another request.
func TestStockClientWithPaymentIdentifier(t *testing.T) {
	bed.Install(t, ".")
	shop := bed.Open(t, bed.Devnet(t, devnet.Options{}), rig.Options{Upstream: bed.Echo})
	const id, body = "order-2026-03-04-000017", `{"n":17}`
	target := shop.Rig.URL("/orders")
	before, other := shop.Accounts(t, 1), shop.Accounts(t, 2)

	first := buyAs(t, 1, id, http.MethodPost, target, body)
	shop.Receipt(t, first.Bought, 1, network, "10000")
	if first.Replayed != "" {
		t.Error("the first answer claims to be a replay")
	}
	again := buyAs(t, 1, id, http.MethodPost, target, body)
	shop.Receipt(t, again.Bought, 1, network, "10000")
	if again.Replayed != "true" || again.Body != first.Body || again.Settlement.Transaction != first.Settlement.Transaction {
		t.Errorf("the second time it got %+v, the first time %+v", again, first)
	}
	if b := buyAs(t, 1, id, http.MethodPost, target, `{"n":18}`); b.Status != http.StatusConflict || !strings.Contains(b.Body, "idempotency.") {
		t.Errorf("another request under the same name got %+v", b)
	}
	shop.Moved(t, 1, before, 10_000, 1)
	if calls := shop.Upstream.Calls(); calls != 1 {
		t.Errorf("the upstream was called %d times", calls)
	}

	stranger := buyAs(t, 2, id, http.MethodPost, target, body)
	shop.Receipt(t, stranger.Bought, 2, network, "10000")
	if stranger.Replayed != "" {
		t.Error("another payer was given the first one's answer")
	}
	if got := shop.Accounts(t, 2); got.Payer != other.Payer-10_000 {
		t.Errorf("the other payer has %d, had %d", got.Payer, other.Payer)
	}
}
