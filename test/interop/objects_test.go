//go:build interop

package interop

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/holiman/uint256"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/x402"
)

// object is a JSON object before anybody has encoded it.
type object = map[string]any

// Texts that codecs like to get wrong; the rest is any text, short or long.
var oddTexts = []string{
	"", " ", "null", "\x00", "\u007f\u0080\u00ff", "\"\\/\b\f\n\r\t", "<script>&amp;'", "\u2028\u2029", "\ufeff", "\ufffd", "\ue000",
	"e\u0301 \u00e9", "\u4ef7\u683c", "\u0627\u0644\u0633\u0639\u0631", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0010ffff", "???>>>~~~", "%2F", "=", "__proto__",
}

func anyText() *rapid.Generator[string] {
	long := rapid.Custom(func(t *rapid.T) string {
		return rapid.StringN(0, 700, 2000).Draw(t, "long")
	})
	return rapid.OneOf(rapid.SampledFrom(oddTexts), rapid.String(), long)
}

// notEmpty is for members that the schemas want to say something.
func notEmpty() *rapid.Generator[string] {
	return anyText().Filter(func(s string) bool { return s != "" })
}

func anyAddress(t *rapid.T, label string) common.Address {
	return common.Address(rapid.SliceOfN(rapid.Byte(), common.AddressLength, common.AddressLength).Draw(t, label))
}

func anyHash(t *rapid.T, label string) common.Hash {
	return common.Hash(rapid.SliceOfN(rapid.Byte(), common.HashLength, common.HashLength).Draw(t, label))
}

// anyNumber has any length up to 256 bits.
func anyNumber(t *rapid.T, label string) uint256.Int {
	return *new(uint256.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 32).Draw(t, label))
}

// some puts value at key, or leaves it out.
func some(t *rapid.T, o object, key string, value func() any) {
	if rapid.Bool().Draw(t, "has "+key) {
		o[key] = value()
	}
}

func anyResource(t *rapid.T) object {
	ascii := rapid.StringMatching(`[ -~]{1,32}`)
	o := object{"url": notEmpty().Draw(t, "url")}
	some(t, o, "description", func() any { return anyText().Draw(t, "description") })
	some(t, o, "mimeType", func() any { return anyText().Draw(t, "mimeType") })
	some(t, o, "serviceName", func() any { return ascii.Draw(t, "serviceName") })
	some(t, o, "tags", func() any { return rapid.SliceOfN(ascii, 1, 5).Draw(t, "tags") })
	some(t, o, "iconUrl", func() any { return notEmpty().Draw(t, "iconUrl") })
	some(t, o, "ours to ignore", func() any { return object{"x": []any{nil, true, anyText().Draw(t, "x")}} })
	return o
}

func anyRequirements(t *rapid.T) object {
	amount := anyNumber(t, "amount")
	o := object{
		"scheme": "exact", "network": "eip155:" + rapid.StringMatching(`[1-9][0-9]{0,15}`).Draw(t, "chain"),
		"amount": amount.Dec(), "asset": anyAddress(t, "asset").Hex(), "payTo": anyAddress(t, "payTo").Hex(),
		"maxTimeoutSeconds": rapid.IntRange(1, 1<<31-1).Draw(t, "maxTimeoutSeconds"),
	}
	some(t, o, "extra", func() any {
		e := object{"name": anyText().Draw(t, "name"), "version": anyText().Draw(t, "version")}
		some(t, e, "paymentFlow", func() any { return "upfront" })
		some(t, e, "plan", func() any { return notEmpty().Draw(t, "plan") })
		some(t, e, "ours to ignore", func() any { return 1.5 })
		return e
	})
	some(t, o, "ours to ignore", func() any { return anyText().Draw(t, "ignored") })
	return o
}

func anyExtensions(t *rapid.T) object {
	o := object{}
	for _, id := range rapid.SliceOfNDistinct(notEmpty(), 0, 3, rapid.ID).Draw(t, "extensions") {
		o[id] = object{"info": object{"key": anyText().Draw(t, "info")}, "schema": object{"type": "object"}}
	}
	return o
}

// exactPayload is the scheme's part of a payment, with the authorization that it says.
func exactPayload(t *rapid.T) (object, x402.Authorization, []byte) {
	a := x402.Authorization{
		From: anyAddress(t, "from"), To: anyAddress(t, "to"), Value: anyNumber(t, "value"),
		ValidAfter: anyNumber(t, "validAfter"), ValidBefore: anyNumber(t, "validBefore"), Nonce: anyHash(t, "nonce"),
	}
	sig := rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(t, "signature")
	return object{
		"signature": hexutil.Encode(sig),
		"authorization": object{
			"from": a.From.Hex(), "to": a.To.Hex(), "value": a.Value.Dec(),
			"validAfter": a.ValidAfter.Dec(), "validBefore": a.ValidBefore.Dec(), "nonce": a.Nonce.Hex(),
		},
	}, a, sig
}

func anyResponse(t *rapid.T) object {
	o := object{
		"success": rapid.Bool().Draw(t, "success"), "transaction": anyText().Draw(t, "transaction"), "network": anyText().Draw(t, "network"),
	}
	for _, key := range []string{"errorReason", "errorMessage", "payer", "amount"} {
		some(t, o, key, func() any { return notEmpty().Draw(t, key) })
	}
	some(t, o, "extra", func() any { return object{"x": anyText().Draw(t, "extra")} })
	if e := anyExtensions(t); len(e) > 0 {
		o["extensions"] = e
	}
	return o
}

// same reports how two values differ as JSON; raw JSON counts as what it says.
func same(got, want any) error {
	g, err := plain(got)
	if err != nil {
		return err
	}
	w, err := plain(want)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(g, w) {
		return fmt.Errorf("got  %+q\nwant %+q", g, w)
	}
	return nil
}

// plain is v as a decoder of JSON gives it, numbers as they are written.
func plain(v any) (p any, err error) {
	raw, ok := v.([]byte)
	if !ok {
		if raw, err = json.Marshal(v); err != nil {
			return nil, err
		}
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&p); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	return p, nil
}

func must(t rapid.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
