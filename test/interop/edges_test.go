//go:build interop

package interop

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/interop/bed"
	"github.com/caddy-x402/caddy-x402/x402"
)

// A payment as a stock client sends it; its base64 needs two characters of padding, and has + and / in it.
const payment = `{"x402Version":2,"resource":{"url":"http://x/???>>>~~~"},"accepted":{"scheme":"exact","network":"eip155:84532",` +
	`"amount":"10000","asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e","payTo":"0x209693Bc6afc0C5328bA36FaF03C514EF312287C",` +
	`"maxTimeoutSeconds":120,"extra":{"name":"USDC","version":"2"}},"payload":{"signature":"0x01","authorization":{` +
	`"from":"0x1111111111111111111111111111111111111111","to":"0x209693Bc6afc0C5328bA36FaF03C514EF312287C","value":"10000",` +
	`"validAfter":"0","validBefore":"1","nonce":"0x2222222222222222222222222222222222222222222222222222222222222222"}}} `

// Headers at the edge: each is read by both or by neither, but for those that say why not. Where both read, they read the
// same.
func TestEdges(t *testing.T) {
	core := newCore(t)
	std := base64.StdEncoding.EncodeToString
	good := std([]byte(payment))
	if !strings.HasSuffix(good, "==") || !strings.Contains(good, "+") || !strings.Contains(good, "/") {
		t.Fatalf("the payment is not as difficult as it should be: %s", good)
	}
	// put replaces one part of the payment.
	put := func(old, replacement string) string {
		if strings.Count(payment, old) != 1 {
			t.Fatalf("%q is not in the payment once", old)
		}
		return std([]byte(strings.Replace(payment, old, replacement, 1)))
	}
	tests := []struct {
		name, header string
		ours, theirs bool
	}{
		{"as it should be", good, true, true},
		{"without padding", strings.TrimRight(good, "="), true, true},
		{"with half of its padding", strings.TrimSuffix(good, "="), false, false},
		{"with too much padding", good + "=", false, false},
		{"padding within", "e30=" + good, false, false},
		{"the alphabet for URLs", base64.URLEncoding.EncodeToString([]byte(payment)), false, false},
		{"empty", "", false, false},
		{"padding alone", "==", false, false},
		{"a space before", " " + good, false, false},
		{"a line break within", good[:76] + "\n" + good[76:], false, false},
		{"plain JSON", payment, false, false},
		{"no JSON", std([]byte("hello")), false, false},
		{"an array", std([]byte("[" + payment + "]")), false, false},
		{"null", std([]byte("null")), false, false},
		{"two objects", std([]byte(payment + payment)), false, false},
		{"cut", std([]byte(payment[:len(payment)-4])), false, false},
		{"version 3", put(`"x402Version":2`, `"x402Version":3`), false, false},
		{"the version as text", put(`"x402Version":2`, `"x402Version":"2"`), false, false},
		{"no version", put(`"x402Version":2,`, ``), false, false},
		{"no choice", put(`"accepted"`, `"rejected"`), false, false},
		{"no payload", put(`"payload"`, `"cargo"`), false, false},
		{"the amount as a number", put(`"amount":"10000"`, `"amount":10000`), false, false},
		{"another letter case", put(`"accepted"`, `"Accepted"`), false, false},
		{"the resource null", put(`{"url":"http://x/???>>>~~~"}`, `null`), true, true},
		{"a member twice, the last counts", put(`"amount":"10000"`, `"amount":"1","amount":"10000"`), true, true},
		{"escapes in names and values", put(`"amount":"10000"`, `"\u0061mount":"1\u00300\u00300"`), true, true},
		{"half a surrogate pair", put(`"version":"2"`, `"version":"2","note":"\ud800"`), true, true},
		{"an extra null", put(`{"name":"USDC","version":"2"}`, `null`), true, true},
		{"unknown members", put(`"payload"`, `"x":[{"__proto__":{}}],"payload"`), true, true},
		{"a timeout with an exponent", put(`120`, `12e1`), true, true},

		// What follows only one of us reads.
		{"bits that nobody needs", strings.TrimRight(good, "=")[:len(good)-3] + "B", false, true}, // one header, one spelling
		{"a byte order mark", std([]byte("\ufeff" + payment)), false, true},                       // JSON forbids it
		{"a timeout of 0", put(`120`, `0`), true, false},                                          // echoed, and never believed
		{"the version as 2.0", put(`"x402Version":2`, `"x402Version":2.0`), false, true},          // JavaScript writes 2
		{"a resource without a URL", put(`"url"`, `"uri"`), true, false},                          // what it says of that is not used
		{"another scheme", put(`"exact"`, `"upto"`), false, true},                                 // theirs knows more schemes
		{"an authorization without a nonce", put(`"nonce"`, `"once"`), false, true},               // theirs looks at it later
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ours, err := x402.DecodePayload(test.header)
			if (err == nil) != test.ours {
				t.Errorf("ours: %v", err)
			}
			var theirs json.RawMessage
			err = core.Ask("decodePayload", test.header, &theirs)
			if err == nil {
				err = core.Ask("validatePayload", theirs, nil)
			}
			if (err == nil) != test.theirs || (err != nil && !errors.Is(err, bed.ErrPeer)) {
				t.Errorf("theirs: %v", err)
			}
			if test.ours && test.theirs && !t.Failed() {
				understoodAlike(t, ours, theirs)
			}
		})
	}
}

// understoodAlike compares what decides about a payment.
func understoodAlike(t *testing.T, ours *x402.Payload, raw []byte) {
	t.Helper()
	var theirs x402.PayloadV2
	must(t, "what they read", json.Unmarshal(raw, &theirs))
	a := theirs.Accepted
	must(t, "what was chosen", same(
		[]any{ours.Version, ours.Scheme, ours.Network, ours.Accepted.Amount, ours.Accepted.Asset, ours.Accepted.PayTo, ours.Accepted.Extra},
		[]any{theirs.X402Version, a.Scheme, a.Network, a.Amount, a.Asset, a.PayTo, a.Extra}))
	if ours.Authorization != theirs.Payload.Authorization {
		t.Errorf("ours %+v, theirs %+v", ours.Authorization, theirs.Payload.Authorization)
	}
}
