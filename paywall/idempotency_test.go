package paywall

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/x402"
)

func TestParseKey(t *testing.T) {
	long := strings.Repeat("k", maxKey)
	for _, tc := range []struct {
		values []string
		want   string
		ok     bool
	}{
		{[]string{`8e03978e-40d5-43dd-bc93-6894a57f9324`}, `8e03978e-40d5-43dd-bc93-6894a57f9324`, true},
		{[]string{`"8e03978e"`}, `8e03978e`, true},
		{[]string{`"a b, c;d=1"`}, `a b, c;d=1`, true},
		{[]string{`"a\"b\\c"`}, `a"b\c`, true},
		{[]string{" \t k \t"}, `k`, true},
		{[]string{long}, long, true},
		{[]string{`"` + long + `"`}, long, true},
		{[]string{`a;b=c`}, `a;b=c`, true},
		{[]string{`a\b`}, `a\b`, true},
		{values: []string{""}},
		{values: []string{`""`}},
		{values: []string{"a", "a"}},
		{values: []string{"a", "b"}},
		{values: []string{"a,b"}},
		{values: []string{"a, b"}},
		{values: []string{"a b"}},
		{values: []string{`"a", "b"`}},
		{values: []string{`"a";p=1`}},
		{values: []string{`"a`}},
		{values: []string{`"`}},
		{values: []string{`"a\`}},
		{values: []string{`"a\n"`}},
		{values: []string{`"a"b`}},
		{values: []string{`a"b"`}},
		{values: []string{"\"a\x7f\""}},
		{values: []string{"\"\t\""}},
		{values: []string{"a\x00"}},
		{values: []string{"schl\u00fcssel"}},
		{values: []string{"\"schl\u00fcssel\""}},
		{values: []string{long + "k"}},
		{values: []string{`"` + long + `k"`}},
	} {
		got, err := parseKey(tc.values)
		if got != tc.want || (err == nil) != tc.ok {
			t.Errorf("%q gives %q, %v; want %q", tc.values, got, err, tc.want)
		}
	}
}

func TestIdentifier(t *testing.T) {
	good := strings.Repeat("aZ9_-", 4)
	info := func(s string) string { return `{"info":` + s + `,"schema":{}}` }
	for _, tc := range []struct {
		entry, want string
		err         error
	}{
		{entry: ``},
		{entry: `null`},
		{entry: string(identifierExtension(false))},
		{entry: string(identifierExtension(true))},
		{entry: info(`{"required":false,"id":"` + good + `"}`), want: good},
		{entry: info(`{"required":true,"id":"pay_7d5d747be160e280504c099d984bcfe0"}`), want: "pay_7d5d747be160e280504c099d984bcfe0"},
		{entry: info(`{"id":"\u0061234567890123456","required":true}`), want: "a234567890123456"},
		{entry: info(`{"required":true,"id":"` + strings.Repeat("a", 128) + `"}`), want: strings.Repeat("a", 128)},
		{entry: info(`{"required":true,"id":"short","id":"` + good + `"}`), want: good}, // as JavaScript reads it
		{entry: info(`{"required":false,"ID":"` + good + `"}`)},
		{entry: info(`{"id":"` + good + `"}`), err: errIdentifierShape},
		{entry: info(`{"required":"false","id":"` + good + `"}`), err: errIdentifierShape},
		{entry: info(`{"required":null}`), err: errIdentifierShape},
		{entry: info(`[]`), err: errIdentifierShape},
		{entry: info(`"` + good + `"`), err: errIdentifierShape},
		{entry: info(`null`), err: errIdentifierShape},
		{entry: `{"Info":{"required":false}}`, err: errIdentifierShape},
		{entry: `{}`, err: errIdentifierShape},
		{entry: `[]`, err: errIdentifierShape},
		{entry: `"` + good + `"`, err: errIdentifierShape},
		{entry: info(`{"required":false,"id":null}`), err: errIdentifierForm},
		{entry: info(`{"required":false,"id":7}`), err: errIdentifierForm},
		{entry: info(`{"required":false,"id":""}`), err: errIdentifierForm},
		{entry: info(`{"required":false,"id":"` + strings.Repeat("a", 15) + `"}`), err: errIdentifierForm},
		{entry: info(`{"required":false,"id":"` + strings.Repeat("a", 129) + `"}`), err: errIdentifierForm},
		{entry: info(`{"required":false,"id":"pay.7d5d747be160e280504c"}`), err: errIdentifierForm},
		{entry: info(`{"required":false,"id":"pay 7d5d747be160e280504c"}`), err: errIdentifierForm},
		{entry: info(`{"required":false,"id":"sch\u00fcssel-16-letters"}`), err: errIdentifierForm},
		{entry: info(`{"required":false,"id":"aaaaaaaaaaaaaaaa\n"}`), err: errIdentifierForm},
	} {
		p := &x402.Payload{Extensions: map[string]json.RawMessage{extensionIdentifier: json.RawMessage(tc.entry)}}
		got, err := identifier(p)
		if got != tc.want || err != tc.err { //nolint:errorlint // these are not wrapped
			t.Errorf("%s gives %q, %v; want %q, %v", tc.entry, got, err, tc.want, tc.err)
		}
	}
}

// The announcement is the specification's, and passes its own schema's demands.
func TestIdentifierExtension(t *testing.T) {
	for _, required := range []bool{false, true} {
		var entry struct {
			Info   map[string]any
			Schema map[string]any
		}
		if err := json.Unmarshal(identifierExtension(required), &entry); err != nil {
			t.Fatal(err)
		}
		if len(entry.Info) != 1 || entry.Info["required"] != required {
			t.Errorf("info is %v", entry.Info)
		}
		id := entry.Schema["properties"].(map[string]any)["id"].(map[string]any)
		if id["minLength"] != 16.0 || id["maxLength"] != 128.0 || id["type"] != "string" ||
			entry.Schema["$schema"] != "https://json-schema.org/draft/2020-12/schema" {
			t.Errorf("the schema is %v", entry.Schema)
		}
	}
}

// A key that passes is what it was in one of its two spellings, and never more than it may be.
func FuzzParseKey(f *testing.F) {
	for _, s := range []string{"key", `"key"`, `"a\"b\\c"`, "", `"`, "a,b", "\xff", `"a";b`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		key, err := parseKey([]string{s})
		if err != nil {
			return
		}
		if len(key) == 0 || len(key) > maxKey || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Fatalf("%q gives %q", s, key)
		}
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(key) + `"`
		if again, err := parseKey([]string{quoted}); err != nil || again != key {
			t.Fatalf("%s gives %q, %v; want %q", quoted, again, err, key)
		}
		if trimmed := strings.Trim(s, " \t"); trimmed != key && trimmed[0] != '"' {
			t.Fatalf("%q gives %q", s, key)
		}
	})
}

// What is taken for an identifier is one, whatever a payment holds.
func FuzzIdentifier(f *testing.F) {
	for _, s := range []string{
		string(identifierExtension(true)), `{"info":{"required":false,"id":"0123456789abcdef"}}`, `{"info":{"required":0}}`, `[`, `null`,
		`{"info":{"required":true,"id":"0123456789abcdef","id":null}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, entry []byte) {
		id, err := identifier(&x402.Payload{Extensions: map[string]json.RawMessage{extensionIdentifier: entry}})
		if err != nil && id != "" || id != "" && !validIdentifier(id) {
			t.Fatalf("%q gives %q, %v", entry, id, err)
		}
	})
}

// Stored answers come back as they were, and nothing else is taken for one.
func FuzzStoredAnswer(f *testing.F) {
	f.Add(200, "Content-Type", "text/plain", []byte("body"), []byte("{}\n"))
	f.Add(599, "X", "\xff\n", []byte("\n\n"), []byte("{\"status\":200}\nx"))
	f.Fuzz(func(t *testing.T, status int, name, value string, body, raw []byte) {
		if s, err := decodeAnswer(raw); err == nil && s.Missing == "" && (s.Status < 200 || s.Status > 999) {
			t.Fatalf("%q is taken for an answer of status %d", raw, s.Status)
		}
		name = strconv.Itoa(len(name))
		s := storedAnswer{Status: 200 + max(status, -status)%800, Values: map[string][][]byte{name: {[]byte(value)}}, body: body}
		encoded, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeAnswer(encoded)
		if err != nil || s.Status > 999 || got.Status != s.Status || !bytes.Equal(got.body, body) || got.header()[name][0] != value {
			t.Fatalf("%+v came back as %+v, %v", s, got, err)
		}
	})
}

// What is hashed is told apart: no two requests or keys that differ have the same hash, and who writes one part in another's
// place gains nothing.
func TestHashesTellApart(t *testing.T) {
	id := x402.AuthorizationID{ChainID: 1, Payer: common.Address{1}}
	other := x402.AuthorizationID{ChainID: 1, Payer: common.Address{2}}
	elsewhere := x402.AuthorizationID{ChainID: 2, Payer: common.Address{1}}
	seen := map[common.Hash]int{}
	for i, h := range []common.Hash{
		requestKey{headerIdempotencyKey, "k"}.hash(id, "h"), requestKey{extensionIdentifier, "k"}.hash(id, "h"),
		requestKey{headerIdempotencyKey, "k"}.hash(other, "h"), requestKey{headerIdempotencyKey, "k"}.hash(elsewhere, "h"),
		requestKey{headerIdempotencyKey, "k"}.hash(id, "h2"), requestKey{headerIdempotencyKey, "hk"}.hash(id, ""),
		requestKey{headerIdempotencyKey, ""}.hash(id, "hk"), digest("a", "b"), digest("ab"), digest("a", "b", ""), digest("", "ab"),
	} {
		if j, ok := seen[h]; ok {
			t.Errorf("number %d and %d are equal", i, j)
		}
		seen[h] = i
	}
}
