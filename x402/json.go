package x402

import (
	"bytes"
	"encoding/json"
	"iter"
	"unicode/utf8"
)

// Strangers' objects are not read with encoding/json into structs: that folds the case of member names
// and merges repeated members, while the JavaScript of most facilitators takes names as they are and
// the last of two. Where we and a facilitator read one payload, both must read the same.

// members walks the members of an object, in order, repeated ones included. raw must be valid JSON
// (json.Valid) and an object. Keys are unescaped; values are parts of raw.
func members(raw []byte) iter.Seq2[[]byte, json.RawMessage] {
	return func(yield func([]byte, json.RawMessage) bool) {
		i := skipSpace(raw, skipSpace(raw, 0)+1)
		for i < len(raw) && raw[i] == '"' {
			end := skipValue(raw, i)
			key := unquote(raw[i:end])
			start := skipSpace(raw, skipSpace(raw, end)+1)
			end = skipValue(raw, start)
			if !yield(key, raw[start:end:end]) {
				return
			}
			if i = skipSpace(raw, end); i < len(raw) && raw[i] == ',' {
				i = skipSpace(raw, i+1)
			}
		}
	}
}

// isObject reports whether valid JSON is an object.
func isObject(raw []byte) bool {
	i := skipSpace(raw, 0)
	return i < len(raw) && raw[i] == '{'
}

// isNull reports whether a member is absent or null, which mean the same here.
func isNull(raw json.RawMessage) bool {
	return len(raw) == 0 || bytes.Equal(raw, []byte("null"))
}

func skipSpace(raw []byte, i int) int {
	for i < len(raw) && (raw[i] == ' ' || raw[i] == '\t' || raw[i] == '\n' || raw[i] == '\r') {
		i++
	}
	return i
}

// skipValue gives the end of the value that begins at i. It counts brackets instead of recursing, so that
// depth costs nothing.
func skipValue(raw []byte, i int) int {
	for depth := 0; i < len(raw); {
		switch raw[i] {
		case '"':
			i = skipString(raw, i)
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\t', '\n', '\r':
			i++ // inside an object or array; outside, the value has ended below
		default:
			i = skipScalar(raw, i)
		}
		if depth == 0 {
			return i
		}
	}
	return i
}

func skipString(raw []byte, i int) int {
	for i++; i < len(raw); i++ {
		switch raw[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(raw)
}

// skipScalar skips a number, true, false or null.
func skipScalar(raw []byte, i int) int {
	for i < len(raw) {
		switch raw[i] {
		case ',', ':', ' ', '\t', '\n', '\r', '}', ']':
			return i
		}
		i++
	}
	return i
}

// unquote gives the text of a valid JSON string; what needs no unescaping is not copied.
func unquote(raw []byte) []byte {
	text := raw[1 : len(raw)-1]
	if bytes.IndexByte(text, '\\') < 0 && utf8.Valid(text) {
		return text
	}
	var s string
	_ = json.Unmarshal(raw, &s) // valid, as members demands
	return []byte(s)
}

// text gives the text of a member, if it is a string.
func text(raw json.RawMessage) (string, bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	return string(unquote(raw)), true
}
