package x402_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/x402"
)

// soundOrders are orders in both versions.
func soundOrders(t testing.TB) map[int]string {
	t.Helper()
	r := requirements(10_000, "")
	v1, ok := r.V1(x402.ResourceInfo{URL: "https://shop.example.com/old"})
	if !ok {
		t.Fatal("no version 1")
	}
	orders := map[int]string{}
	for version, o := range map[int]object{
		1: {"x402Version": 1, "paymentPayload": wireV1(), "paymentRequirements": v1},
		2: {"x402Version": 2, "paymentPayload": wireV2(), "paymentRequirements": r},
	} {
		raw, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		orders[version] = string(raw)
	}
	return orders
}

func TestParseOrder(t *testing.T) {
	for version, body := range soundOrders(t) {
		o, from, malformed, err := x402.ParseOrder([]byte(body))
		if err != nil || malformed {
			t.Fatalf("version %d: %v", version, err)
		}
		if o.Version != version || *from != payer || o.PayTo != seller || o.Amount.Dec() != "10000" || o.Hash == (common.Hash{}) {
			t.Errorf("version %d: %+v", version, o)
		}
		if want := map[int]string{1: "https://shop.example.com/old", 2: "https://api.example.com/weather"}[version]; o.Resource != want {
			t.Errorf("version %d is for %q", version, o.Resource)
		}
		n, _ := x402.LookupNetwork("base-sepolia")
		other, _ := x402.LookupNetwork("base")
		if !o.On(n) || o.On(other) {
			t.Errorf("version %d is on another network", version)
		}
		if _, err := o.Verify(x402.Terms{Network: n}, x402.Signer{Proven: true}, time.Unix(1_800_000_000, 0)); err != nil {
			t.Errorf("version %d: %v", version, err)
		}
		// It is the same order with other white space, and another one with other content.
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, []byte(body), "", "  "); err != nil {
			t.Fatal(err)
		}
		same, _, _, err := x402.ParseOrder(pretty.Bytes())
		if err != nil || same.Hash != o.Hash {
			t.Errorf("version %d: with other white space it is another order: %v", version, err)
		}
		for _, change := range []string{`"maxTimeoutSeconds":120`, `"x402Version":`, `"signature":"0x`} {
			i := strings.LastIndex(body, change)
			changed := body[:i] + strings.Replace(change, `":`, `": `, 1) + body[i+len(change):]
			if p, _, _, err := x402.ParseOrder([]byte(changed)); err != nil || p.Hash != o.Hash {
				t.Errorf("version %d, a space after %s: %v", version, change, err)
			}
		}
		if p, _, _, err := x402.ParseOrder([]byte(strings.Replace(body, `"maxTimeoutSeconds":120`, `"maxTimeoutSeconds":121`, 1))); err != nil || p.Hash == o.Hash {
			t.Errorf("version %d: another order has the same hash: %v", version, err)
		}
	}
}

// Members count as JavaScript has them: the last of two, and by their exact names.
func TestParseOrderLikeJavaScript(t *testing.T) {
	body := soundOrders(t)[2]
	end := len(body) - 1
	o, _, _, err := x402.ParseOrder([]byte(body[:end] + `,"PaymentRequirements":{},"x402version":9}`))
	if err != nil || o.PayTo != seller {
		t.Errorf("names of other cases count: %v", err)
	}
	if _, _, malformed, _ := x402.ParseOrder([]byte(body[:end] + `,"paymentRequirements":7}`)); !malformed {
		t.Error("the first of two counts")
	}
}

// Whoever wants to pay is named where that can be read, also in what is refused.
func TestParseOrderNamesThePayer(t *testing.T) {
	body := soundOrders(t)[2]
	_, from, _, err := x402.ParseOrder([]byte(strings.Replace(body, `"signature":"0x`, `"signature":"1x`, 1)))
	if x402.ReasonOf(err) != x402.ReasonSignatureFormat || from == nil || *from != payer {
		t.Errorf("%v, payer %v", err, from)
	}
	_, from, _, err = x402.ParseOrder([]byte(strings.Replace(body, `"from":"0x`, `"from":"1x`, 1)))
	if x402.ReasonOf(err) != x402.ReasonInvalidPayload || from != nil {
		t.Errorf("%v, payer %v", err, from)
	}
}

// Whatever strangers send, it is an order that is whole, or there is a reason.
func FuzzParseOrder(f *testing.F) {
	for _, body := range soundOrders(f) {
		f.Add([]byte(body))
		f.Add([]byte(strings.Replace(body, `"exact"`, `"upto"`, 1)))
	}
	f.Add([]byte(`{"paymentPayload":{},"paymentRequirements":{}}`))
	f.Add([]byte(`{"paymentPayload":{"x402Version":1,"scheme":"exact","network":"base","payload":{"signature":"0x1","authorization":{}}},"paymentRequirements":{}}`))
	n, _ := x402.LookupNetwork("base-sepolia")
	f.Fuzz(func(t *testing.T, body []byte) {
		o, from, malformed, err := x402.ParseOrder(body)
		if err != nil {
			if o != nil || x402.ReasonOf(err) == "" || malformed && from != nil {
				t.Fatalf("%+v, %v, %v", o, from, err)
			}
			return
		}
		if malformed || from == nil || *from != o.Payload.Authorization.From || o.Version != o.Payload.Version || o.Hash == (common.Hash{}) {
			t.Fatalf("%+v", o)
		}
		if !o.On(n) {
			return
		}
		signer := o.Payload.Identify(n.Domain().Separator())
		if _, err := o.Verify(x402.Terms{Network: n}, signer, time.Unix(1_800_000_000, 0)); err == nil &&
			(o.Payload.Authorization.To != o.PayTo || o.Payload.Authorization.Value != o.Amount || o.Asset != n.Asset.Address) {
			t.Fatalf("what was signed is not what is asked for: %+v", o)
		}
	})
}
