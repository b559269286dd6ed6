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
func ResumeExtension(key string) json.RawMessage { return QuotedExtension(key, "") }

// QuotedExtension is ResumeExtension for an offer whose price moves: clients echo quote beside the key. An empty quote leaves it out.
func QuotedExtension(key, quote string) json.RawMessage {
	return append(appendResume(nil, key, quote), '}')
}

// appendResume writes the entry but for its last brace. quote may be empty.
func appendResume(dst []byte, key, quote string) []byte {
	dst = append(dst, `{"info":{"key":`...)
	dst = appendString(dst, key, false)
	if quote != "" {
		dst = append(dst, `,"quote":`...)
		dst = appendString(dst, quote, false)
	}
	dst = append(dst, `},"schema":`...)
	return append(dst, resumeSchema...)
}

// ResumeKey is the key that the client echoed; false unless it is well-formed. Version 1 has none.
func (p *Payload) ResumeKey() (string, bool) {
	s, _ := p.resumeInfo("key")
	var raw [resumeKeyBytes]byte
	if len(s) != resumeEncoding.EncodedLen(len(raw)) {
		return "", false
	}
	if n, err := resumeEncoding.Decode(raw[:], []byte(s)); err != nil || n != len(raw) {
		return "", false
	}
	return s, true
}

// MaxQuoteBytes bounds what an offer may have its clients echo beside the key.
const MaxQuoteBytes = 256

// Quote is what the client echoed beside the key: what the offer said of its price, if that moves (see OfferTemplate.AppendQuoted).
// False: nothing that could be one. Version 1 has none.
func (p *Payload) Quote() (string, bool) {
	s, ok := p.resumeInfo("quote")
	return s, ok && s != "" && len(s) <= MaxQuoteBytes
}

// resumeInfo gives a text of the extension's info.
func (p *Payload) resumeInfo(member string) (string, bool) {
	info := memberOf(p.Extensions[ExtensionResume], "info")
	return text(memberOf(info, member))
}

// memberOf gives the last member of that name; nil if entry is no object, or has none.
func memberOf(entry json.RawMessage, member string) (found json.RawMessage) {
	if !isObject(entry) {
		return nil
	}
	for name, value := range members(entry) {
		if string(name) == member {
			found = value
		}
	}
	return found
}
