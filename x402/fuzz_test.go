package x402_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"regexp"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/x402"
)

// The seeds of these are in testdata/fuzz, beside what the fuzzers found worth keeping.

// Kinds of text that FuzzDecodePayload and FuzzDecodeHeader get: a fuzzer that changes base64 would
// hardly ever meet JSON, and one that changes JSON hardly ever two members of the same name.
const (
	kindHeader        = iota // the header
	kindJSON                 // its JSON
	kindMember               // members added to the object of an otherwise sound one,
	kindAccepted             // to accepted,
	kindExact                // to payload,
	kindAuthorization        // to payload.authorization
)

// fuzzHeader makes the header that a fuzzer means; sound is JSON in which the objects are closed where
// the four markers stand.
func fuzzHeader(kind uint8, text, sound string) string {
	markers := []string{"}/*accepted*/", "}/*authorization*/", "}/*payload*/", "}/*all*/"}
	closed := strings.NewReplacer(markers[0], "}", markers[1], "}", markers[2], "}", markers[3], "}")
	splice := func(marker string) string {
		return encode(closed.Replace(strings.Replace(sound, marker, ","+text+"}", 1)))
	}
	switch kind {
	case kindJSON:
		return encode(text)
	case kindMember:
		return splice(markers[3])
	case kindAccepted:
		return splice(markers[0])
	case kindExact:
		return splice(markers[2])
	case kindAuthorization:
		return splice(markers[1])
	}
	return text
}

// markedV2 is wireV2 with the markers of fuzzHeader.
var markedV2 = `{"x402Version":2,"accepted":{"scheme":"exact","network":"eip155:84532","amount":"10000",` +
	`"asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e","payTo":"` + seller.Hex() + `","maxTimeoutSeconds":120}/*accepted*/,` +
	`"payload":{"signature":"0x` + strings.Repeat("11", 65) + `","authorization":{"from":"` + payer.Hex() + `","to":"` + seller.Hex() + `",` +
	`"value":"10000","validAfter":"0","validBefore":"1800000120","nonce":"0x` + strings.Repeat("ab", 32) + `"}/*authorization*/}/*payload*/}/*all*/`

// markedRequired is an offer with the markers of fuzzHeader.
var markedRequired = `{"x402Version":2,"resource":{"url":"https://a.example/"},"accepts":[{"scheme":"exact","network":"eip155:84532",` +
	`"amount":"10000","asset":"a","payTo":"p","maxTimeoutSeconds":60}/*accepted*/],"extensions":{"resume":{"info":{}}}}/*all*/`

// FuzzDecodePayload: what is decoded is what a reader with JavaScript's rules sees in the same bytes, and
// written again it is the same payment.
func FuzzDecodePayload(f *testing.F) {
	if _, err := x402.DecodePayload(fuzzHeader(kindAuthorization, `"x":1`, markedV2)); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, kind uint8, text string) {
		p, err := x402.DecodePayload(fuzzHeader(kind, text, markedV2))
		if err != nil {
			if x402.ReasonOf(err) == "" || p != nil {
				t.Fatalf("no reason in %v, or a payload with it", err)
			}
			return
		}
		if len(p.Signature) == 0 || len(p.Signature) > x402.MaxSignatureBytes || p.Scheme != "exact" || (p.Version == 2) != (p.Accepted != nil) {
			t.Fatalf("unsound payload %+v", p)
		}
		checkAgainstMap(t, p)
		checkWrittenAgain(t, p)
		p.ResumeKey()
		p.Identify(separator)
		if _, err := p.Verify(terms(), x402.Signer{}, now); err != nil && x402.ReasonOf(err) == "" {
			t.Fatalf("no reason in %v", err)
		}
	})
}

// checkAgainstMap reads p.Raw into maps: names as written, the last of two counts.
func checkAgainstMap(t *testing.T, p *x402.Payload) {
	var m object
	if err := json.Unmarshal(p.Raw, &m); err != nil {
		t.Fatalf("took invalid JSON: %v", err)
	}
	if m["x402Version"] != float64(p.Version) {
		t.Fatalf("version %v, read as %d", m["x402Version"], p.Version)
	}
	terms := m
	if p.Version == 2 {
		terms = m["accepted"].(object)
		for name, got := range map[string]string{"amount": p.Accepted.Amount, "asset": p.Accepted.Asset, "payTo": p.Accepted.PayTo} {
			if terms[name] != got {
				t.Fatalf("%s is %v, read as %q", name, terms[name], got)
			}
		}
		if extra, ok := terms["extra"].(object); ok {
			if plan, _ := extra["plan"].(string); plan != p.Accepted.Extra.Plan {
				t.Fatalf("plan is %q, read as %q", plan, p.Accepted.Extra.Plan)
			}
		}
	}
	if terms["scheme"] != p.Scheme || terms["network"] != p.Network {
		t.Fatalf("scheme %v, network %v, read as %q, %q", terms["scheme"], terms["network"], p.Scheme, p.Network)
	}
	exact := m["payload"].(object)
	if common.Bytes2Hex(p.Signature) != strings.ToLower(exact["signature"].(string)[2:]) {
		t.Fatalf("signature is %v, read as %x", exact["signature"], p.Signature)
	}
	got := object{}
	raw, err := json.Marshal(p.Authorization)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	want := exact["authorization"].(object)
	for name, value := range got {
		if text, ok := want[name].(string); !ok || !strings.EqualFold(text, value.(string)) {
			t.Fatalf("%s is %v, read as %v", name, want[name], value)
		}
	}
}

func checkWrittenAgain(t *testing.T, p *x402.Payload) {
	var v any = x402.PayloadV1{
		X402Version: 1, Scheme: p.Scheme, Network: p.Network,
		Payload: x402.ExactPayload{Signature: p.Signature, Authorization: p.Authorization},
	}
	if p.Version == 2 {
		v = x402.PayloadV2{
			X402Version: 2, Resource: p.Resource, Accepted: *p.Accepted, Extensions: p.Extensions,
			Payload: x402.ExactPayload{Signature: p.Signature, Authorization: p.Authorization},
		}
	}
	header, err := x402.EncodeHeader(v)
	if err != nil {
		t.Fatal(err)
	}
	if len(header) > x402.MaxHeaderBytes {
		return
	}
	again, err := x402.DecodePayload(header)
	if err != nil {
		t.Fatalf("written again it is refused: %v", err)
	}
	key, ok := p.ResumeKey()
	keyAgain, okAgain := again.ResumeKey()
	if again.Authorization != p.Authorization || !bytes.Equal(again.Signature, p.Signature) ||
		again.Scheme != p.Scheme || again.Network != p.Network || key != keyAgain || ok != okAgain {
		t.Fatalf("written again %+v, before %+v", again, p)
	}
}

// FuzzDecodeHeader: only what is base64 of the standard alphabet is read, and what was read is written and
// read again as the same.
func FuzzDecodeHeader(f *testing.F) {
	alphabet := regexp.MustCompile(`^[A-Za-z0-9+/]+={0,2}$`)
	if err := x402.DecodeHeader(fuzzHeader(kindAccepted, `"x":1`, markedRequired), x402.MaxHeaderBytes, &x402.PaymentRequired{}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, kind uint8, text string) {
		header := fuzzHeader(kind, text, markedRequired)
		var required x402.PaymentRequired
		err := x402.DecodeHeader(header, x402.MaxHeaderBytes, &required)
		if err != nil {
			if x402.ReasonOf(err) != x402.ReasonUndecodable {
				t.Fatalf("reason of %v", err)
			}
			return
		}
		if !alphabet.MatchString(header) || len(header) > x402.MaxHeaderBytes {
			t.Fatalf("took %q", header)
		}
		first, err := x402.EncodeHeader(required)
		if err != nil {
			t.Fatal(err)
		}
		var again x402.PaymentRequired
		if err := x402.DecodeHeader(first, len(first), &again); err != nil {
			t.Fatalf("written again it is refused: %v", err)
		}
		second, err := x402.EncodeHeader(again)
		if err != nil || first != second {
			t.Fatalf("written again\n%s, before\n%s, %v", decode(second), decode(first), err)
		}
	})
}

var maxAmount = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1))

// FuzzParseAmount: exactly the plain decimals with few enough digits are amounts, and their worth is exact.
func FuzzParseAmount(f *testing.F) {
	plain := regexp.MustCompile(`^\$?(0|[1-9][0-9]*)(\.[0-9]+)?$`)
	f.Fuzz(func(t *testing.T, s string, decimals uint8) {
		got, err := x402.ParseAmount(s, decimals)
		want := new(big.Rat)
		sound := plain.MatchString(s)
		if sound {
			_, fraction, _ := strings.Cut(s, ".")
			want.SetString(strings.TrimPrefix(s, "$"))
			unit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(decimals)), nil)
			want.Mul(want, new(big.Rat).SetInt(unit))
			sound = len(fraction) <= int(decimals) && want.Sign() > 0 && want.Num().Cmp(maxAmount) <= 0
		}
		if sound != (err == nil) {
			t.Fatalf("ParseAmount(%q, %d) = %s, %v", s, decimals, got.Dec(), err)
		}
		if !sound {
			return
		}
		if got.ToBig().Cmp(want.Num()) != 0 || !want.IsInt() {
			t.Fatalf("ParseAmount(%q, %d) = %s, want %s", s, decimals, got.Dec(), want)
		}
		if again, err := x402.ParseAmount(x402.FormatAmount(&got, decimals), decimals); err != nil || again != got {
			t.Fatalf("%s is written %q and read %s, %v", got.Dec(), x402.FormatAmount(&got, decimals), again.Dec(), err)
		}
	})
}

// FuzzParseAtomic: every integer has one spelling.
func FuzzParseAtomic(f *testing.F) {
	plain := regexp.MustCompile(`^(0|[1-9][0-9]*)$`)
	f.Fuzz(func(t *testing.T, s string) {
		got, err := x402.ParseAtomic(s)
		sound := plain.MatchString(s)
		if sound {
			want, _ := new(big.Int).SetString(s, 10)
			sound = want.Cmp(maxAmount) <= 0
		}
		if sound != (err == nil) || (sound && got.Dec() != s) {
			t.Fatalf("ParseAtomic(%q) = %s, %v", s, got.Dec(), err)
		}
	})
}

// FuzzRecover: a signature is taken exactly where go-ethereum's own rules for transactions take it, and
// gives the same account.
func FuzzRecover(f *testing.F) {
	f.Fuzz(func(t *testing.T, digest, sig []byte) {
		hash := common.BytesToHash(digest)
		got, err := x402.Recover(hash, sig)
		want, ok := recoverPlainly(hash, sig)
		if ok != (err == nil) || got != want {
			t.Fatalf("Recover(%s, %x) = %s, %v; want %s, %t", hash, sig, got, err, want, ok)
		}
		if err != nil && x402.ReasonOf(err) != x402.ReasonSignature && x402.ReasonOf(err) != x402.ReasonSignatureFormat {
			t.Fatalf("reason of %v", err)
		}
	})
}

func recoverPlainly(digest common.Hash, sig []byte) (common.Address, bool) {
	if len(sig) != 65 {
		return common.Address{}, false
	}
	sig = bytes.Clone(sig)
	if sig[64] >= 27 {
		sig[64] -= 27
	}
	r, s := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:64])
	if !crypto.ValidateSignatureValues(sig[64], r, s, true) {
		return common.Address{}, false
	}
	key, err := crypto.SigToPub(digest[:], sig)
	if err != nil {
		return common.Address{}, false
	}
	return crypto.PubkeyToAddress(*key), true
}

// FuzzParseTransferCalldata: what is read back is built again to the same bytes.
func FuzzParseTransferCalldata(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		a, sig, err := x402.ParseTransferCalldata(data)
		if err != nil {
			return
		}
		if !bytes.Equal(a.TransferCalldataBytes(sig), data) && !bytes.Equal(a.TransferCalldata(sig), data) {
			t.Fatalf("%x gives %+v, %x, which give\n%x", data, a, sig, a.TransferCalldata(sig))
		}
	})
}

// FuzzParseReturn: a contract's answer that is read is read as go-ethereum reads it.
func FuzzParseReturn(f *testing.F) {
	f.Fuzz(func(t *testing.T, ret []byte) {
		if got, err := x402.ParseString(ret); err == nil {
			// Some contracts don't pad what they return; go-ethereum insists.
			want, err := tokenABI.Unpack("name", append(bytes.Clone(ret), make([]byte, 31-(len(ret)+31)%32)...))
			if err != nil || want[0] != got {
				t.Fatalf("string %q; want %v, %v", got, want, err)
			}
		}
		if got, err := x402.ParseBool(ret); err == nil {
			want, err := tokenABI.Unpack("authorizationState", ret)
			if err != nil || want[0] != got {
				t.Fatalf("bool %t; want %v, %v", got, want, err)
			}
		}
		if got, err := x402.ParseUint256(ret); err == nil {
			want, err := tokenABI.Unpack("balanceOf", ret)
			if err != nil || want[0].(*big.Int).Cmp(got.ToBig()) != 0 {
				t.Fatalf("number %s; want %v, %v", got.Dec(), want, err)
			}
		}
	})
}

// FuzzOfferTemplate: whatever the texts, the template makes the bytes of the plain encoder, and those
// decode to the texts.
func FuzzOfferTemplate(f *testing.F) {
	f.Fuzz(func(t *testing.T, url, errorText, key, description, mimeType, plan, extension string) {
		resource := x402.ResourceInfo{URL: url, Description: description, MimeType: mimeType}
		accepts := []x402.Requirements{
			requirements(10_000, ""),
			x402.NewRequirements(base, seller, uint256.NewInt(1), 0, "", plan),
		}
		info, err := json.Marshal(object{"info": object{"text": extension}})
		if err != nil {
			t.Fatal(err)
		}
		extensions := map[string]json.RawMessage{extension: info}
		if !isUTF8(extension) {
			extensions = nil // two ids may become one, or sort otherwise
		}
		checkTemplate(t, accepts, resource, extensions, errorText, key)

		template, err := x402.NewOfferTemplate(accepts, resource, extensions)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := base64.StdEncoding.DecodeString(string(template.AppendHeader(nil, url, errorText, key)))
		if err != nil {
			t.Fatal(err)
		}
		var back x402.PaymentRequired
		if err := json.Unmarshal(raw, &back); err != nil {
			t.Fatal(err)
		}
		if isUTF8(url, errorText, plan) && (back.Resource.URL != url || back.Error != errorText || back.Accepts[1].Extra.Plan != plan) {
			t.Fatalf("%s is not %q, %q, %q", raw, url, errorText, plan)
		}
		var v1 x402.RequiredV1
		if err := json.Unmarshal(template.AppendBody(nil, url, errorText), &v1); err != nil {
			t.Fatal(err)
		}
		if isUTF8(url, errorText) && (v1.Error != errorText || v1.Accepts[0].Resource != url) {
			t.Fatalf("%+v is not %q, %q", v1, url, errorText)
		}
	})
}

func isUTF8(texts ...string) bool {
	for _, s := range texts {
		if s != strings.ToValidUTF8(s, "") {
			return false
		}
	}
	return true
}
