package x402_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/x402"
)

var resource = x402.ResourceInfo{URL: "https://api.example.com/weather?at=a&b", Description: `Weather <"now">`, MimeType: "application/json"}

// The wire, member by member: what clients of version 2 read.
func TestOfferHeader(t *testing.T) {
	offer := x402.NewOffer([]x402.Requirements{requirements(10_000, ""), requirements(1_000_000, "day")}, resource, nil, "Payment required", resumeKey)
	h, err := offer.Header()
	if err != nil {
		t.Fatal(err)
	}
	want := `{"x402Version":2,"error":"Payment required",` +
		`"resource":{"url":"https://api.example.com/weather?at=a&b","description":"Weather <\"now\">","mimeType":"application/json"},` +
		`"accepts":[` +
		`{"scheme":"exact","network":"eip155:84532","amount":"10000","asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e",` +
		`"payTo":"0x209693Bc6afc0C5328bA36FaF03C514EF312287C","maxTimeoutSeconds":120,` +
		`"extra":{"name":"USDC","version":"2","paymentFlow":"upfront"}},` +
		`{"scheme":"exact","network":"eip155:84532","amount":"1000000","asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e",` +
		`"payTo":"0x209693Bc6afc0C5328bA36FaF03C514EF312287C","maxTimeoutSeconds":120,` +
		`"extra":{"name":"USDC","version":"2","paymentFlow":"upfront","plan":"day"}}],` +
		`"extensions":{"resume":{"info":{"key":"AAECAwQFBgcICQoLDA0ODw"},` +
		`"schema":{"type":"object","properties":{"key":{"type":"string"}},"required":["key"]}}}}`
	if got := decode(h); got != want {
		t.Errorf("header\n%s\nwant\n%s", got, want)
	}
}

// What clients of version 1 read: the price of a request only, every string there, nothing null.
func TestOfferBody(t *testing.T) {
	accepts := []x402.Requirements{
		requirements(10_000, ""),
		x402.NewRequirements(mustLookup("eip155:42161"), seller, uint256.NewInt(10_000), 0, "", ""), // no name in version 1
		requirements(1_000_000, "day"),
		x402.NewRequirements(base, seller, uint256.NewInt(20_000), 0, "", ""),
	}
	offer := x402.NewOffer(accepts, x402.ResourceInfo{URL: "https://api.example.com/"}, nil, "", "")
	body, err := offer.Body()
	if err != nil {
		t.Fatal(err)
	}
	want := `{"x402Version":1,"error":"","accepts":[` +
		`{"scheme":"exact","network":"base-sepolia","maxAmountRequired":"10000","resource":"https://api.example.com/",` +
		`"description":"","mimeType":"","payTo":"0x209693Bc6afc0C5328bA36FaF03C514EF312287C","maxTimeoutSeconds":120,` +
		`"asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e","extra":{"name":"USDC","version":"2"}},` +
		`{"scheme":"exact","network":"base","maxAmountRequired":"20000","resource":"https://api.example.com/",` +
		`"description":"","mimeType":"","payTo":"0x209693Bc6afc0C5328bA36FaF03C514EF312287C","maxTimeoutSeconds":0,` +
		`"asset":"0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913","extra":{"name":"USD Coin","version":"2"}}]}`
	if string(body) != want {
		t.Errorf("body\n%s\nwant\n%s", body, want)
	}
}

func mustLookup(id string) x402.Network {
	n, ok := x402.LookupNetwork(id)
	if !ok {
		panic(id)
	}
	return n
}

// What a version 1 client is offered is what its payment then selects.
func TestOfferV1SelectsItself(t *testing.T) {
	list := slices.Concat(offers()[2:], offers()[:2], []x402.Requirements{requirements(5, "")})
	offer := x402.NewOffer(list, resource, nil, "", "")
	if len(offer.V1.Accepts) != 2 {
		t.Fatalf("%d offers in version 1, want one per network", len(offer.V1.Accepts))
	}
	for _, r := range offer.V1.Accepts {
		i, err := x402.Select(list, &x402.Payload{Version: 1, Scheme: r.Scheme, Network: r.Network})
		if err != nil || list[i].Amount != r.MaxAmountRequired || list[i].Asset != r.Asset || list[i].PayTo != r.PayTo {
			t.Errorf("%s: selected %d, %v", r.Network, i, err)
		}
	}
}

// A route that sells plans only has nothing for version 1, but its body is still a list.
func TestOfferBodyWithoutV1(t *testing.T) {
	offer := x402.NewOffer([]x402.Requirements{requirements(1, "day")}, resource, nil, "x", "")
	body, err := offer.Body()
	if err != nil || !strings.Contains(string(body), `"accepts":[]`) {
		t.Errorf("body %s, %v", body, err)
	}
}

// An offer comes back from the wire as it went, and a client's echo keeps what it did not understand.
func TestOfferEchoIsVerbatim(t *testing.T) {
	accepted := `{"scheme":"exact","network":"eip155:84532","amount":"10000","asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e",` +
		`"payTo":"0x209693Bc6afc0C5328bA36FaF03C514EF312287C","maxTimeoutSeconds":60,"extra":{"name":"USDC","version":"2","new":{"a":[1]}},"future":"<yes>"}`
	sent := `{"x402Version":2,"resource":{"url":"https://a.example/?x&y","hint":7},"accepts":[` + accepted + `],"extensions":{"bazaar":{"info":{"b":1,"a":2}}}}`
	var required x402.PaymentRequired
	if err := x402.DecodeHeader(encode(sent), 10_000, &required); err != nil {
		t.Fatal(err)
	}
	if r := required.Accepts[0]; r.Amount != "10000" || r.Extra.Name != "USDC" || required.Resource.URL != "https://a.example/?x&y" {
		t.Errorf("read %+v", required)
	}
	a := authorization()
	h, err := x402.EncodeHeader(required.Pay(required.Accepts[0], &a, []byte{1}))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{accepted, `{"url":"https://a.example/?x&y","hint":7}`, `{"bazaar":{"info":{"b":1,"a":2}}}`} {
		if !strings.Contains(decode(h), part) {
			t.Errorf("the echo %s lacks %s", decode(h), part)
		}
	}
}

func TestRequirementsRefuseOddTypes(t *testing.T) {
	for _, raw := range []string{`null`, `[]`, `{}`, `{"scheme":1,"network":"n","amount":"1","asset":"a","payTo":"p"}`} {
		var r x402.Requirements
		if err := json.Unmarshal([]byte(raw), &r); err == nil {
			t.Errorf("%s was read as %+v", raw, r)
		}
	}
}

func TestSettlementResponseWire(t *testing.T) {
	tests := []struct {
		response x402.SettlementResponse
		want     string
	}{
		{
			x402.SettlementResponse{Success: true, Payer: "0x01", Transaction: "0x02", Network: "base"},
			`{"success":true,"payer":"0x01","transaction":"0x02","network":"base"}`,
		},
		{
			x402.SettlementResponse{ErrorReason: x402.ReasonNonceUsed, Network: "eip155:8453"},
			`{"success":false,"errorReason":"invalid_exact_evm_nonce_already_used","transaction":"","network":"eip155:8453"}`,
		},
	}
	for _, tt := range tests {
		h, err := x402.EncodeHeader(tt.response)
		if err != nil || decode(h) != tt.want {
			t.Errorf("encoded %s, %v; want %s", decode(h), err, tt.want)
		}
	}
}

func TestAuthorizationWire(t *testing.T) {
	a := authorization()
	raw, err := json.Marshal(a)
	want := `{"from":"` + payer.Hex() + `","to":"` + seller.Hex() + `","value":"10000","validAfter":"0","validBefore":"1800000120",` +
		`"nonce":"0xf3746613c2d920b5fdabc0856f2aeb2d4f88ee6037b8cc5d04a71a4462f13480"}`
	if err != nil || string(raw) != want {
		t.Errorf("encoded %s, %v; want %s", raw, err, want)
	}
	var got x402.Authorization
	if err := json.Unmarshal(raw, &got); err != nil || got != a {
		t.Errorf("decoded %+v, %v; want %+v", got, err, a)
	}
}

// checkTemplate: the template makes, byte for byte, what the plain encoder makes, behind what dst held.
func checkTemplate(t *testing.T, accepts []x402.Requirements, resource x402.ResourceInfo, extensions map[string]json.RawMessage, errorText, key string) {
	t.Helper()
	template, err := x402.NewOfferTemplate(accepts, resource, extensions)
	if err != nil {
		t.Fatal(err)
	}
	offer := x402.NewOffer(accepts, resource, extensions, errorText, key)
	wantHeader, err := offer.Header()
	if err != nil {
		t.Fatal(err)
	}
	wantBody, err := offer.Body()
	if err != nil {
		t.Fatal(err)
	}
	if got := string(template.AppendHeader([]byte("before "), resource.URL, errorText, key)); got != "before "+wantHeader {
		t.Errorf("header\n%s\nwant\n%s", got, wantHeader)
	}
	if got := string(template.AppendBody([]byte("before "), resource.URL, errorText)); got != "before "+string(wantBody) {
		t.Errorf("body\n%s\nwant\n%s", got, wantBody)
	}
	var back x402.PaymentRequired
	if err := x402.DecodeHeader(wantHeader, len(wantHeader), &back); err != nil || len(back.Accepts) != len(accepts) {
		t.Errorf("decoded %+v, %v", back, err)
	}
}

func TestTemplate(t *testing.T) {
	around := map[string]json.RawMessage{
		"bazaar":        json.RawMessage(`{ "info": {"method": "<GET>"} }`),
		"zz-other":      json.RawMessage(`{"info":{}}`),
		"a\"quoted\"id": json.RawMessage(`{}`),
		"resume":        json.RawMessage(`{"info":{"key":"not ours to say"}}`),
	}
	before := map[string]json.RawMessage{"bazaar": json.RawMessage(`{}`)}
	after := map[string]json.RawMessage{"sign-in-with-x": json.RawMessage(`{}`)}
	odd := x402.ResourceInfo{
		URL:         "https://a.example/" + strings.Repeat("\x00\u2028<&>\"\\\xff", 200),
		Description: `"resource":"" {"url":""`, MimeType: "text/\xff", Tags: []string{"a", "b"},
	}
	oddRequirements := requirements(1, "")
	oddRequirements.Scheme = `"resource":""`
	for _, extensions := range []map[string]json.RawMessage{nil, around, before, after} {
		for _, r := range []x402.ResourceInfo{resource, odd, {}} {
			for _, accepts := range [][]x402.Requirements{offers(), offers()[:1], offers()[3:], {oddRequirements}} {
				for _, key := range []string{"", resumeKey, "odd \" key"} {
					for _, text := range []string{"", "Payment required", "\b\f\n\r\t\x7f\u2029é😀\xc3"} {
						checkTemplate(t, accepts, r, extensions, text, key)
					}
				}
			}
		}
	}
}

func TestTemplateRefusesBrokenExtensions(t *testing.T) {
	for _, raw := range []string{`{`, ``, `{} {}`} {
		if _, err := x402.NewOfferTemplate(offers(), resource, map[string]json.RawMessage{"x": json.RawMessage(raw)}); err == nil {
			t.Errorf("took %q", raw)
		}
	}
}

// What AppendHeader gives is the caller's alone, also with room to spare in dst.
func TestTemplateAppendsInPlace(t *testing.T) {
	template, err := x402.NewOfferTemplate(offers(), resource, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The second is much longer in JSON than it looks.
	for _, url := range []string{resource.URL, strings.Repeat("\x00", 10_000)} {
		want := string(template.AppendHeader(nil, url, "", resumeKey))
		for _, room := range []int{0, 1, 100, 1000, 5000, 200_000} {
			dst := append(make([]byte, 0, room+3), "abc"...)
			if got := string(template.AppendHeader(dst, url, "", resumeKey)); got != "abc"+want {
				t.Errorf("room %d: %s", room, got)
			}
		}
	}
}

func TestRequirementsV1(t *testing.T) {
	r := requirements(10_000, "")
	v1, ok := r.V1(resource)
	if !ok || v1.Network != "base-sepolia" || v1.MaxAmountRequired != "10000" || v1.Resource != resource.URL {
		t.Errorf("%+v, %t", v1, ok)
	}
	for _, r := range []x402.Requirements{requirements(1, "day"), {Network: "solana:x"}, {Network: "eip155:42161"}} {
		if v1, ok := r.V1(resource); ok {
			t.Errorf("%s, plan %q: %+v", r.Network, r.Extra.Plan, v1)
		}
	}
}

// The id of an authorization is the payer's and the token's, not the recipient's or the amount's.
func TestAuthorizationID(t *testing.T) {
	a, b := authorization(), authorization()
	b.To, b.Value = stranger, *uint256.NewInt(1)
	if id := a.ID(1, common.Address{1}); id != b.ID(1, common.Address{1}) || id == a.ID(2, common.Address{1}) || id == a.ID(1, common.Address{2}) {
		t.Errorf("id %+v", id)
	}
	b.Nonce[0]++
	if a.ID(1, common.Address{1}) == b.ID(1, common.Address{1}) {
		t.Error("two nonces, one id")
	}
}
