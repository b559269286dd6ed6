package gateway

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

const cent = 10_000 // atomic units

// shop is another seller, who has no wallet and no Caddy.
var shop = common.HexToAddress("0x5b38da6a701c568545dcfcb03fcb875f56beddc4")

// open is a facilitator that everybody may ask for the shop's payments.
const open = `
	x402_facilitator /facilitator/* {
		keys off
		allow_pay_to 0x5b38da6a701c568545dcfcb03fcb875f56beddc4
		repeat
	}
	x402 $0.01
	x402_service
	reverse_proxy {upstream}
`

// quick lets tests see soon what takes long.
const quick = "settle_timeout 3s\n interval 200ms\n hold_ttl 5s"

// requirements are the shop's for a cent.
func requirements(change ...func(*x402.Requirements)) x402.Requirements {
	r := x402.NewRequirements(devnet.Network(), shop, uint256.NewInt(cent), 60e9, "", "")
	for _, f := range change {
		f(&r)
	}
	return r
}

// order is the body of a request for a payment of b; change may falsify what b signs.
func order(t testing.TB, b *rig.Buyer, r x402.Requirements, change ...func(*x402.Authorization)) string {
	t.Helper()
	a, sig := b.Authorize(r, change...)
	offer := x402.PaymentRequired{X402Version: 2, Resource: x402.ResourceInfo{URL: "https://shop.example.com/tea"}, Accepts: []x402.Requirements{r}}
	return body(t, 2, offer.Pay(r, &a, sig), r)
}

// orderV1 is order for version 1.
func orderV1(t testing.TB, b *rig.Buyer, r x402.Requirements, change ...func(*x402.Authorization)) string {
	t.Helper()
	a, sig := b.Authorize(r, change...)
	v1, ok := r.V1(x402.ResourceInfo{URL: "https://shop.example.com/tea"})
	if !ok {
		t.Fatal("there is no version 1 of the requirements")
	}
	return body(t, 1, v1.Pay(&a, sig), v1)
}

func body(t testing.TB, version int, payload, requirements any) string {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"x402Version": version, "paymentPayload": payload, "paymentRequirements": requirements})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// ask posts a body to an endpoint of the facilitator.
func ask(t testing.TB, r *rig.Rig, b *rig.Buyer, endpoint, body string, header ...string) rig.Answer {
	t.Helper()
	return b.Do(context.WithoutCancel(t.Context()), http.MethodPost, r.URL("/facilitator/"+endpoint), body,
		append([]string{"Content-Type", "application/json"}, header...)...)
}

// verdict is what is said of a payment, by either endpoint.
type verdict struct {
	IsValid       *bool
	InvalidReason string
	Success       *bool
	ErrorReason   string
	Payer         string
	Transaction   string
	Network       string
}

func read(t testing.TB, a rig.Answer) (v verdict) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.Body), &v); a.Err != nil || err != nil {
		t.Fatalf("%d %v %v: %s", a.Status, a.Err, err, a.Body)
	}
	return v
}

// said are the members of an answer.
func said(t testing.TB, a rig.Answer) (m map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.Body), &m); a.Err != nil || err != nil {
		t.Fatalf("%d %v %v: %s", a.Status, a.Err, err, a.Body)
	}
	return m
}

// earned is what the shop has received.
func earned(r *rig.Rig) uint64 { return r.Balance(shop).Uint64() }

// payments reads the ledger from outside, and that its trails hold together.
func payments(t testing.TB, path string) []ledger.Payment {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	store, err := sqlite.Open(ctx, path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	list, err := store.List(ctx, ledger.Query{Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	for i := range list {
		trail, err := store.Audit(ctx, list[i].ID)
		if err != nil {
			t.Fatal(err)
		}
		if err := ledger.VerifyAudit(&list[i], trail[:min(uint64(len(trail)), list[i].Version)]); err != nil {
			t.Error(err)
		}
	}
	return list
}
