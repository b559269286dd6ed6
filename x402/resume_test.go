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
