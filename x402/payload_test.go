package x402_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/x402"
)

func TestDecodePayloadV2(t *testing.T) {
	o := with(wireV2(), "unknown", object{"kept": true})
	h := header(o)
	p, err := x402.DecodePayload(h)
	if err != nil {
		t.Fatal(err)
	}
	if p.Version != 2 || p.Scheme != "exact" || p.Network != "eip155:84532" || p.Accepted == nil {
		t.Errorf("version %d, scheme %q, network %q, accepted %v", p.Version, p.Scheme, p.Network, p.Accepted)
	}
	if p.Accepted.Amount != "10000" || p.Accepted.MaxTimeoutSeconds != 120 || p.Accepted.Extra.Name != "USDC" {
		t.Errorf("accepted %+v", p.Accepted)
	}
	a := p.Authorization
	if a.From != payer || a.To != seller || a.Value.Dec() != "10000" || a.ValidBefore.Dec() != "1800000120" ||
		!a.ValidAfter.IsZero() || a.Nonce != common.HexToHash(strings.Repeat("ab", 32)) {
		t.Errorf("authorization %+v", a)
	}
	if len(p.Signature) != 65 || p.Resource == nil || p.Resource.URL != "https://api.example.com/weather" {
		t.Errorf("signature %x, resource %+v", p.Signature, p.Resource)
	}
	if raw, _ := base64.StdEncoding.DecodeString(h); !bytes.Equal(p.Raw, raw) {
		t.Errorf("raw is not the JSON that was sent: %s", p.Raw)
	}
	if key, ok := p.ResumeKey(); !ok || key != resumeKey {
		t.Errorf("resume key %q, %t", key, ok)
	}
}

func TestDecodePayloadV1(t *testing.T) {
	p, err := x402.DecodePayload(header(wireV1()))
	if err != nil {
		t.Fatal(err)
	}
	if p.Version != 1 || p.Scheme != "exact" || p.Network != "base-sepolia" || p.Accepted != nil || p.Authorization.From != payer {
		t.Errorf("payload %+v", p)
	}
	if key, ok := p.ResumeKey(); ok {
		t.Errorf("version 1 has no extensions, but a resume key: %q", key)
	}
}

// A header that our own client writes for an offer is read back as what it wrote, in both versions.
func TestPayRoundTrip(t *testing.T) {
	offer := x402.NewOffer([]x402.Requirements{requirements(10_000, "")},
		x402.ResourceInfo{URL: "https://api.example.com/"}, nil, "", resumeKey)
	a := authorization()
	sig := sign(t, a, payerKey)
	for version, v := range map[int]any{
		1: offer.V1.Accepts[0].Pay(&a, sig),
		2: offer.Required.Pay(offer.Required.Accepts[0], &a, sig),
	} {
		h, err := x402.EncodeHeader(v)
		if err != nil {
			t.Fatal(err)
		}
		p, err := x402.DecodePayload(h)
		if err != nil || p.Version != version || p.Authorization != a || !bytes.Equal(p.Signature, sig) {
			t.Errorf("version %d: %+v, %v", version, p, err)
		}
	}
}

func TestDecodePayloadTolerates(t *testing.T) {
	v2 := header(wireV2())
	tests := map[string]string{
		"missing padding":          strings.TrimRight(header(with(wireV2(), "pad", "x")), "="),
		"other missing padding":    strings.TrimRight(header(with(wireV2(), "pad", "xy")), "="),
		"nulls":                    nulls(`"resource":null,"extensions":null`),
		"nulls in resource":        header(with(wireV2(), "resource.description", json.RawMessage("null"))),
		"white space":              encode(" \n{ \"x402Version\" :\t2 ,\r\n" + inner(v2) + " } \r\n"),
		"repeated members":         encode(`{"x402Version":1,"payload":{"signature":3},"accepted":[],` + inner(v2) + `}`),
		"members in other letters": encode(`{` + inner(v2) + `,"X402VERSION":1,"Payload":7,"ACCEPTED":null}`),
		"escaped names":            encode(strings.Replace(decode(v2), `"x402Version"`, `"x\u003402Version"`, 1)),
		"extra null":               header(with(wireV2(), "accepted.extra", json.RawMessage("null"))),
		"no extra":                 header(with(wireV2(), "accepted.extra", nil)),
		"no timeout":               header(with(wireV2(), "accepted.maxTimeoutSeconds", nil)),
		"a timeout of half":        header(with(wireV2(), "accepted.maxTimeoutSeconds", 60.5)),
		"extra of odd types":       header(with(wireV2(), "accepted.extra", object{"name": 1, "plan": object{}})),
		"lower case addresses":     header(with(wireV2(), "payload.authorization.from", strings.ToLower(payer.Hex()))),
		"a wallet's signature":     header(with(wireV2(), "payload.signature", "0x"+strings.Repeat("ab", x402.MaxSignatureBytes))),
	}
	for name, h := range tests {
		p, err := x402.DecodePayload(h)
		if err != nil || p.Version != 2 || p.Authorization.From != payer {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

func encode(raw string) string { return base64.StdEncoding.EncodeToString([]byte(raw)) }

func decode(h string) string {
	raw, err := base64.StdEncoding.DecodeString(h)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// inner is the object without its braces.
func inner(h string) string {
	raw := decode(h)
	return raw[1 : len(raw)-1]
}

func nulls(members string) string {
	return encode(`{` + members + `,` + inner(header(with(with(wireV2(), "resource", nil), "extensions", nil))) + `}`)
}

// Each header has one thing wrong, or several: the first in the reference's order is what it is refused for.
func TestDecodePayloadRefuses(t *testing.T) {
	v1, v2 := wireV1(), wireV2()
	bad := func(path string, value any) string { return header(with(v2, path, value)) }
	tests := []struct {
		name, header string
		want         x402.Reason
	}{
		{"nothing", "", x402.ReasonUndecodable},
		{"not base64", "{}", x402.ReasonUndecodable},
		{"URL alphabet", base64.URLEncoding.EncodeToString([]byte(`{"a":"~~~???>>>"}`)), x402.ReasonUndecodable},
		{"a line break", header(v2)[:8] + "\n" + header(v2)[8:], x402.ReasonUndecodable},
		{"trailing garbage", header(v2) + "!", x402.ReasonUndecodable},
		{"two headers", encode(`{"a":1}`) + encode(`{"a":1}`) + "=", x402.ReasonUndecodable},
		{"too much padding", encode(`{"a":12}`) + "====", x402.ReasonUndecodable},
		{"padding alone", "==", x402.ReasonUndecodable},
		{"no JSON", encode("hello"), x402.ReasonUndecodable},
		{"no object", encode(`["x402Version"]`), x402.ReasonUndecodable},
		{"null", encode(`null`), x402.ReasonUndecodable},
		{"two objects", encode(decode(header(v2)) + `{}`), x402.ReasonUndecodable},
		{"cut", encode(decode(header(v2))[:100]), x402.ReasonUndecodable},
		{"too long", encode(strings.Repeat(" ", 12287) + decode(header(v2))), x402.ReasonUndecodable},
		{"deep", encode(strings.Repeat("[", 12000)), x402.ReasonUndecodable},
		{"deep and closed", encode(`{"x402Version":2,"accepted":` + strings.Repeat("[", 6000) + strings.Repeat("]", 6000) + `}`), x402.ReasonUndecodable},

		{"no version", bad("x402Version", nil), x402.ReasonInvalidVersion},
		{"version 3", bad("x402Version", 3), x402.ReasonInvalidVersion},
		{"version as text", bad("x402Version", "2"), x402.ReasonInvalidVersion},
		{"version 3 and all else wrong", encode(`{"x402Version":3,"accepted":7}`), x402.ReasonInvalidVersion},

		{"no accepted", bad("accepted", nil), x402.ReasonUndecodable},
		{"accepted null", bad("accepted", json.RawMessage("null")), x402.ReasonUndecodable},
		{"accepted a list", bad("accepted", []any{}), x402.ReasonUndecodable},
		{"amount a number", bad("accepted.amount", 10000), x402.ReasonUndecodable},
		{"no payTo", bad("accepted.payTo", nil), x402.ReasonUndecodable},
		{"resource a string", bad("resource", "https://api.example.com"), x402.ReasonUndecodable},
		{"resource.url a number", bad("resource.url", 1), x402.ReasonUndecodable},
		{"extensions a list", bad("extensions", []any{}), x402.ReasonUndecodable},
		{"v1 without network", header(with(v1, "network", nil)), x402.ReasonUndecodable},

		{"scheme", bad("accepted.scheme", "upto"), x402.ReasonInvalidScheme},
		{"scheme, network and payload", header(with(with(with(v2, "payload", nil), "accepted.scheme", "upto"), "accepted.network", "solana:x")), x402.ReasonInvalidScheme},
		{"v1 scheme", header(with(v1, "scheme", "deferred")), x402.ReasonInvalidScheme},
		{"not an EVM network", bad("accepted.network", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"), x402.ReasonNetworkMismatch},

		{"no payload", bad("payload", nil), x402.ReasonInvalidPayload},
		{"payload a string", bad("payload", "x"), x402.ReasonInvalidPayload},
		{"no signature", bad("payload.signature", nil), x402.ReasonMissingSignature},
		{"signature null", bad("payload.signature", json.RawMessage("null")), x402.ReasonMissingSignature},
		{"empty signature", bad("payload.signature", ""), x402.ReasonMissingSignature},
		{"signature 0x", bad("payload.signature", "0x"), x402.ReasonMissingSignature},
		{"no signature and a wrong value", header(with(with(v2, "payload.signature", nil), "payload.authorization.value", "x")), x402.ReasonMissingSignature},

		{"no authorization", bad("payload.authorization", nil), x402.ReasonInvalidPayload},
		{"permit2", bad("payload.authorization", []any{}), x402.ReasonInvalidPayload},
		{"no from", bad("payload.authorization.from", nil), x402.ReasonInvalidPayload},
		{"from without 0x", bad("payload.authorization.from", payer.Hex()[2:]), x402.ReasonInvalidPayload},
		{"from too long", bad("payload.authorization.from", payer.Hex()+"00"), x402.ReasonInvalidPayload},
		{"to no hex", bad("payload.authorization.to", "0x"+strings.Repeat("zz", 20)), x402.ReasonInvalidPayload},
		{"value a number", bad("payload.authorization.value", 10000), x402.ReasonInvalidPayload},
		{"value negative", bad("payload.authorization.value", "-1"), x402.ReasonInvalidPayload},
		{"value in hex", bad("payload.authorization.value", "0x2710"), x402.ReasonInvalidPayload},
		{"value with zeros", bad("payload.authorization.value", "010000"), x402.ReasonInvalidPayload},
		{"value of 2^256", bad("payload.authorization.value", maxUint256[:77]+"6"), x402.ReasonInvalidPayload},
		{"validAfter empty", bad("payload.authorization.validAfter", ""), x402.ReasonInvalidPayload},
		{"no validBefore", bad("payload.authorization.validBefore", nil), x402.ReasonInvalidPayload},
		{"nonce of 31 bytes", bad("payload.authorization.nonce", "0x"+strings.Repeat("ab", 31)), x402.ReasonInvalidPayload},
		{"integers and signature", header(with(with(v2, "payload.signature", "zz"), "payload.authorization.value", "x")), x402.ReasonInvalidPayload},

		{"signature no hex", bad("payload.signature", "0xzz"), x402.ReasonSignatureFormat},
		{"signature without 0x", bad("payload.signature", strings.Repeat("11", 65)), x402.ReasonSignatureFormat},
		{"odd signature", bad("payload.signature", "0x1"), x402.ReasonSignatureFormat},
		{"signature an object", bad("payload.signature", object{"r": 1}), x402.ReasonSignatureFormat},
		{"signature too long", bad("payload.signature", "0x"+strings.Repeat("ab", x402.MaxSignatureBytes+1)), x402.ReasonSignatureFormat},
		{"ERC-6492", bad("payload.signature", "0x"+strings.Repeat("ab", 96)+strings.Repeat("6492", 16)), x402.ReasonUndeployedWallet},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := x402.DecodePayload(tt.header)
			if x402.ReasonOf(err) != tt.want || p != nil {
				t.Errorf("decoded %+v, %v; want %s", p, err, tt.want)
			}
		})
	}
}

// Two readers of one payload must not see two payments: names are taken as written, the last of two counts.
func TestDecodePayloadReadsAsJavaScriptDoes(t *testing.T) {
	raw := decode(header(with(wireV2(), "payload", nil)))
	exact := decode(header(wireExact()))
	decoy := `{"signature":"0x12","authorization":{"from":"0x00","Nonce":"0x` + strings.Repeat("00", 32) + `"}}`
	shouting := strings.TrimSuffix(exact, "}") + `,"Signature":"0x99","AUTHORIZATION":{"value":"1"}}`
	p, err := x402.DecodePayload(encode(strings.TrimSuffix(raw, "}") + `,"payload":` + decoy + `,"payload":` + shouting + `}`))
	if err != nil {
		t.Fatal(err)
	}
	if p.Authorization.Value.Dec() != "10000" || p.Authorization.Nonce != common.HexToHash(strings.Repeat("ab", 32)) || len(p.Signature) != 65 {
		t.Errorf("authorization %+v, signature %x", p.Authorization, p.Signature)
	}
	// An authorization in two halves is none.
	halves := `{"signature":"0x12","authorization":{"from":"` + payer.Hex() + `","to":"` + seller.Hex() + `","value":"1"},` +
		`"authorization":{"validAfter":"0","validBefore":"1","nonce":"0x` + strings.Repeat("ab", 32) + `"}}`
	if p, err := x402.DecodePayload(encode(strings.TrimSuffix(raw, "}") + `,"payload":` + halves + `}`)); x402.ReasonOf(err) != x402.ReasonInvalidPayload {
		t.Errorf("put together %+v, %v from two halves", p, err)
	}
}

// No error repeats the signature: errors are logged.
func TestErrorsHoldNoSignature(t *testing.T) {
	secret := strings.Repeat("c0ffee", 30)
	for _, value := range []string{"0x" + secret + "zz", secret, "0x" + secret + strings.Repeat("6492", 16)} {
		_, err := x402.DecodePayload(header(with(wireV2(), "payload.signature", value)))
		if err == nil || strings.Contains(err.Error(), "c0ffee") {
			t.Errorf("error %v", err)
		}
	}
}

func TestDecodeHeader(t *testing.T) {
	want := x402.SettlementResponse{Success: true, Payer: payer.Hex(), Transaction: "0x01", Network: "eip155:84532"}
	h, err := x402.EncodeHeader(want)
	if err != nil {
		t.Fatal(err)
	}
	var got x402.SettlementResponse
	if err := x402.DecodeHeader(h, len(h), &got); err != nil || got.Payer != want.Payer || !got.Success {
		t.Errorf("decoded %+v, %v", got, err)
	}
	if err := x402.DecodeHeader(h, len(h)-1, &got); x402.ReasonOf(err) != x402.ReasonUndecodable {
		t.Errorf("over the limit: %v", err)
	}
	if err := x402.DecodeHeader(encode(`{"success":"yes"}`), 1000, &got); x402.ReasonOf(err) != x402.ReasonUndecodable {
		t.Errorf("wrong type: %v", err)
	}
}

// A text has one encoding, but for its padding, which may be missing as a whole.
func TestDecodeHeaderIsStrict(t *testing.T) {
	tests := map[string]bool{
		"e30=": true, "e30": true, // {}
		"eyB9":  true, // { }
		"e30==": false, "e30===": false, "e30=e30=": false, "=e30": false, "e3=0": false,
		"e31=": false, "e33": false, // dirty last bits
		"e30=\n": false, "e3\n0=": false, " e30=": false, "e30= ": false, "e30\x00": false,
		"": false, "=": false, "e": false,
	}
	for h, sound := range tests {
		var v struct{}
		err := x402.DecodeHeader(h, 100, &v)
		if sound != (err == nil) || (!sound && x402.ReasonOf(err) != x402.ReasonUndecodable) {
			t.Errorf("%q: %v; want sound %t", h, err, sound)
		}
	}
}
