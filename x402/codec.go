package x402

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
)

// MaxHeaderBytes is the length that DecodePayload reads: more than any payment needs, and as much as
// servers take for a header anyway.
const MaxHeaderBytes = 16 << 10

// EncodeHeader writes v for a header: JSON in base64 of the standard alphabet, padded.
func EncodeHeader(v any) (string, error) {
	raw, err := marshal(v)
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(raw), nil
}

// marshal is json.Marshal without the escapes for HTML: a header is no place for HTML, and has no room to waste.
func marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// DecodeHeader reads a header of at most maxBytes into v as encoding/json does. The error is an *Error
// with ReasonUndecodable.
func DecodeHeader(header string, maxBytes int, v any) error {
	raw, err := decodeBase64(header, maxBytes)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return &Error{Reason: ReasonUndecodable, Detail: "the header is base64, but not of the JSON expected", Err: err}
	}
	return nil
}

// decodeBase64 takes the standard alphabet with the padding that belongs there, or with none.
func decodeBase64(header string, maxBytes int) ([]byte, error) {
	if header == "" {
		return nil, Refuse(ReasonUndecodable, "the header is empty")
	}
	if len(header) > maxBytes {
		return nil, Refuse(ReasonUndecodable, "the header has %d bytes; at most %d are read", len(header), maxBytes)
	}
	digits := strings.TrimRight(header, "=")
	padding := len(header) - len(digits)
	// Go's decoder skips line breaks; nobody else does.
	if (padding > 0 && (padding > 2 || len(header)%4 != 0)) || strings.ContainsAny(digits, "\r\n") {
		return nil, Refuse(ReasonUndecodable, notBase64)
	}
	raw, err := base64.RawStdEncoding.Strict().DecodeString(digits)
	if err != nil {
		return nil, &Error{Reason: ReasonUndecodable, Detail: notBase64, Err: err}
	}
	return raw, nil
}

const notBase64 = "the header is not base64; use the standard alphabet (not the URL one), padded"
