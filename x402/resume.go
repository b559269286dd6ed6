package x402

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
)

// ExtensionResume is the id of the extension that lets a client come back for what it paid for. Each
// offer carries a random key in it, which clients echo in their payment header. A signature becomes public
// when it is broadcast, and a header could be rebuilt from it; with the echo inside it can't, so the
// header, byte for byte, proves who sent the first one.
const ExtensionResume = "resume"

const (
	resumeKeyBytes = 16
	resumeSchema   = `{"type":"object","properties":{"key":{"type":"string"}},"required":["key"]}`
)

// resumeEncoding is strict, so that a key has one spelling.
var resumeEncoding = base64.RawURLEncoding.Strict()

// NewResumeKey makes the key of one offer: 22 characters for 16 bytes of random.
func NewResumeKey(random io.Reader) (string, error) {
	var key [resumeKeyBytes]byte
	if _, err := io.ReadFull(random, key[:]); err != nil {
		return "", fmt.Errorf("x402: making a resume key: %w", err)
	}
	return resumeEncoding.EncodeToString(key[:]), nil
}

// ResumeExtension is the entry of the offer's extensions for key.
func ResumeExtension(key string) json.RawMessage {
	return append(appendResume(nil, key), '}')
}

// appendResume writes the entry but for its last brace.
func appendResume(dst []byte, key string) []byte {
	dst = append(dst, `{"info":{"key":`...)
	dst = appendString(dst, key, false)
	dst = append(dst, `},"schema":`...)
	return append(dst, resumeSchema...)
}

// ResumeKey is the key that the client echoed; false unless it is well-formed. Version 1 has none.
func (p *Payload) ResumeKey() (string, bool) {
	entry := p.Extensions[ExtensionResume]
	if !isObject(entry) {
		return "", false
	}
	var info, key json.RawMessage
	for name, value := range members(entry) {
		if string(name) == "info" {
			info = value
		}
	}
	if !isObject(info) {
		return "", false
	}
	for name, value := range members(info) {
		if string(name) == "key" {
			key = value
		}
	}
	s, _ := text(key)
	var raw [resumeKeyBytes]byte
	if len(s) != resumeEncoding.EncodedLen(len(raw)) {
		return "", false
	}
	if n, err := resumeEncoding.Decode(raw[:], []byte(s)); err != nil || n != len(raw) {
		return "", false
	}
	return s, true
}
