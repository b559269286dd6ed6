package x402_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/x402"
)

func TestNewResumeKey(t *testing.T) {
	key, err := x402.NewResumeKey(bytes.NewReader([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f")))
	if err != nil || key != resumeKey {
		t.Errorf("key %q, %v; want %q", key, err, resumeKey)
	}
	if key, err := x402.NewResumeKey(strings.NewReader("15 bytes only!!")); err == nil {
		t.Errorf("key %q of too little randomness", key)
	}
}

func TestResumeKey(t *testing.T) {
	tests := []struct {
		name  string
		entry string
		ok    bool
	}{
		{"as offered", string(x402.ResumeExtension(resumeKey)), true},
		{"with additions", `{"info":{"more":1,"key":"` + resumeKey + `"},"schema":{},"x":[]}`, true},
		{"all bits set", `{"info":{"key":"_____________________w"}}`, true},
		{"absent", ``, false},
		{"null", `null`, false},
		{"a string", `"` + resumeKey + `"`, false},
		{"no info", `{"key":"` + resumeKey + `"}`, false},
		{"info a string", `{"info":"` + resumeKey + `"}`, false},
		{"no key", `{"info":{}}`, false},
		{"key a number", `{"info":{"key":1}}`, false},
		{"key null", `{"info":{"key":null}}`, false},
		{"empty", `{"info":{"key":""}}`, false},
		{"15 bytes", `{"info":{"key":"AAECAwQFBgcICQoLDA0O"}}`, false},
		{"17 bytes", `{"info":{"key":"AAECAwQFBgcICQoLDA0ODxA"}}`, false},
		{"padded", `{"info":{"key":"` + resumeKey + `=="}}`, false},
		{"standard alphabet", `{"info":{"key":"/////////////////////w"}}`, false},
		{"dirty last bits", `{"info":{"key":"_____________________x"}}`, false},
		{"a line break", `{"info":{"key":"AAECAwQFBgcICQoLDA0OD\n"}}`, false},
		{"line breaks between", `{"info":{"key":"AAECAwQFBgcICQoLDA0O\r\n"}}`, false},
	}
	for _, tt := range tests {
		p := &x402.Payload{Version: 2}
		if tt.entry != "" {
			p.Extensions = map[string]json.RawMessage{x402.ExtensionResume: json.RawMessage(tt.entry)}
		}
		if key, ok := p.ResumeKey(); ok != tt.ok || (ok && len(key) != 22) || (!ok && key != "") {
			t.Errorf("%s: %q, %t; want %t", tt.name, key, ok, tt.ok)
		}
	}
}

// What an offer has its clients echo beside the key comes back as it was said; an offer without it is the same as before.
func TestQuote(t *testing.T) {
	template, err := x402.NewOfferTemplate([]x402.Requirements{}, x402.ResourceInfo{}, map[string]json.RawMessage{"a": json.RawMessage(`{}`), "z": json.RawMessage(`{}`)})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := template.AppendQuoted(nil, "https://x/", "e", resumeKey, ""), template.AppendHeader(nil, "https://x/", "e", resumeKey); !bytes.Equal(got, want) {
		t.Errorf("%s, want %s", got, want)
	}
	long := strings.Repeat("q", x402.MaxQuoteBytes)
	for quote, ok := range map[string]bool{"AQ_-": true, long: true, long + "q": false} {
		var o x402.PaymentRequired
		if err := x402.DecodeHeader(string(template.AppendQuoted([]byte(nil), "https://x/", "e", resumeKey, quote)), 1<<16, &o); err != nil {
			t.Fatal(err)
		}
		p := x402.Payload{Extensions: o.Extensions}
		key, hasKey := p.ResumeKey()
		got, has := p.Quote()
		if !hasKey || key != resumeKey || has != ok || ok && got != quote || len(o.Extensions) != 3 {
			t.Errorf("%.20q comes back as %.20q %v, the key as %q; %d extensions", quote, got, has, key, len(o.Extensions))
		}
	}
	for _, entry := range []string{``, `null`, `"x"`, `{}`, `{"info":[]}`, `{"info":{"quote":1}}`, `{"info":{"quote":null}}`, `{"info":{"quote":""}}`, string(x402.ResumeExtension(resumeKey))} {
		p := x402.Payload{Extensions: map[string]json.RawMessage{x402.ExtensionResume: json.RawMessage(entry)}}
		if q, ok := p.Quote(); ok {
			t.Errorf("%s gives %q", entry, q)
		}
	}
}
