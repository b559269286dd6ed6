package x402

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"unicode/utf8"
)

// OfferTemplate makes the 402s of one price: what does not change from request to request is encoded
// once. It is read-only, and safe for concurrent use.
type OfferTemplate struct {
	// The header's JSON, around error, URL and extensions.
	afterURL  []byte // the rest of resource, and accepts
	extBefore []byte // entries of extensions whose ids sort before the resume extension's
	extAfter  []byte
	// The body's JSON: one piece before each resource, and the end.
	body [][]byte
}

// NewOfferTemplate prepares NewOffer's result for any URL, error text and resume key. resource.URL is
// ignored.
func NewOfferTemplate(accepts []Requirements, resource ResourceInfo, extensions map[string]json.RawMessage) (*OfferTemplate, error) {
	resource.URL, resource.Raw = "", nil
	rest, err := marshal(resource)
	if err != nil {
		return nil, err
	}
	list, err := marshal(accepts)
	if err != nil {
		return nil, err
	}
	t := &OfferTemplate{}
	t.afterURL = append(bytes.TrimPrefix(rest, []byte(`{"url":""`)), `,"accepts":`...)
	t.afterURL = append(t.afterURL, list...)
	for _, id := range slices.Sorted(maps.Keys(extensions)) {
		if id == ExtensionResume {
			continue
		}
		entry, err := marshal(map[string]json.RawMessage{id: extensions[id]})
		if err != nil {
			return nil, err
		}
		entry = entry[1 : len(entry)-1]
		if id < ExtensionResume {
			t.extBefore = append(append(t.extBefore, entry...), ',')
		} else {
			t.extAfter = append(append(t.extAfter, ','), entry...)
		}
	}
	if err := t.prepareBody(acceptsV1(accepts, resource)); err != nil {
		return nil, err
	}
	return t, nil
}

// prepareBody cuts the body at each place of the URL.
func (t *OfferTemplate) prepareBody(accepts []RequirementsV1) error {
	piece := []byte(`,"accepts":[`)
	for i, r := range accepts {
		if i > 0 {
			piece = append(piece, ',')
		}
		raw, err := json.Marshal(r)
		if err != nil {
			return err
		}
		// No string before resource holds a quote, so the first such place is the member.
		const member = `"resource":`
		before, after, _ := bytes.Cut(raw, []byte(member+`""`))
		piece = append(append(piece, before...), member...)
		t.body = append(t.body, piece)
		piece = bytes.Clone(after)
	}
	t.body = append(t.body, append(piece, `]}`...))
	return nil
}

// AppendHeader appends the value of HeaderRequired to dst. url is absolute; errorText may be empty, and so
// may resumeKey, which leaves that extension out.
func (t *OfferTemplate) AppendHeader(dst []byte, url, errorText, resumeKey string) []byte {
	return t.AppendQuoted(dst, url, errorText, resumeKey, "")
}

// AppendQuoted is AppendHeader for an offer whose price moves: clients echo quote beside the resume key, which must then be there. An
// empty quote leaves it out.
func (t *OfferTemplate) AppendQuoted(dst []byte, url, errorText, resumeKey, quote string) []byte {
	size := len(t.afterURL) + len(t.extBefore) + len(t.extAfter) + len(url) + len(errorText) + len(quote) + 256
	// The JSON is written behind the place of its base64, so one allocation serves both.
	base := len(dst)
	start := base + base64.StdEncoding.EncodedLen(size)
	dst = slices.Grow(dst, start-base+size)
	raw := t.appendRequired(dst[start:start], url, errorText, resumeKey, quote)
	if end := base + base64.StdEncoding.EncodedLen(len(raw)); end > start {
		// Escapes made it longer than was thought: its own memory then.
		return base64.StdEncoding.AppendEncode(dst, bytes.Clone(raw))
	}
	return base64.StdEncoding.AppendEncode(dst, raw)
}

func (t *OfferTemplate) appendRequired(dst []byte, url, errorText, resumeKey, quote string) []byte {
	dst = append(dst, `{"x402Version":2,`...)
	if errorText != "" {
		dst = append(dst, `"error":`...)
		dst = appendString(dst, errorText, false)
		dst = append(dst, ',')
	}
	dst = append(dst, `"resource":{"url":`...)
	dst = appendString(dst, url, false)
	dst = append(dst, t.afterURL...)
	return append(t.appendExtensions(dst, resumeKey, quote), '}')
}

func (t *OfferTemplate) appendExtensions(dst []byte, resumeKey, quote string) []byte {
	const member = `,"extensions":{`
	before, after := t.extBefore, t.extAfter
	if resumeKey != "" {
		dst = append(append(dst, member...), before...)
		dst = append(dst, `"`+ExtensionResume+`":`...)
		dst = append(appendResume(dst, resumeKey, quote), '}')
		return append(append(dst, after...), '}')
	}
	if len(before)+len(after) == 0 {
		return dst
	}
	dst = append(dst, member...)
	both := len(before) > 0 && len(after) > 0
	dst = append(dst, bytes.TrimSuffix(before, []byte(","))...)
	if both {
		return append(append(dst, after...), '}')
	}
	return append(append(dst, bytes.TrimPrefix(after, []byte(","))...), '}')
}

// AppendBody appends the JSON body for clients of version 1 to dst.
func (t *OfferTemplate) AppendBody(dst []byte, url, errorText string) []byte {
	size := len(errorText) + 64
	for _, piece := range t.body {
		size += len(piece) + len(url) + 16
	}
	dst = slices.Grow(dst, size)
	dst = append(dst, `{"x402Version":1,"error":`...)
	dst = appendString(dst, errorText, true)
	last := len(t.body) - 1
	for _, piece := range t.body[:last] {
		dst = append(dst, piece...)
		dst = appendString(dst, url, true)
	}
	return append(dst, t.body[last]...)
}

const hexDigits = "0123456789abcdef"

// appendString writes s as encoding/json does: valid UTF-8 only, and with html also no <, > and &.
func appendString(dst []byte, s string, html bool) []byte {
	dst = append(dst, '"')
	done := 0
	for i := 0; i < len(s); {
		r, size := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
		}
		if plain(r, size, html) {
			i += size
			continue
		}
		dst = append(dst, s[done:i]...)
		dst = appendEscape(dst, r)
		i += size
		done = i
	}
	return append(append(dst, s[done:]...), '"')
}

// plain reports whether a character stands for itself.
func plain(r rune, size int, html bool) bool {
	switch r {
	case '"', '\\', '\u2028', '\u2029':
		return false
	case '<', '>', '&':
		return !html
	case utf8.RuneError:
		return size > 1
	}
	return r >= ' '
}

func appendEscape(dst []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(dst, '\\', byte(r))
	case '\b':
		return append(dst, `\b`...)
	case '\f':
		return append(dst, `\f`...)
	case '\n':
		return append(dst, `\n`...)
	case '\r':
		return append(dst, `\r`...)
	case '\t':
		return append(dst, `\t`...)
	}
	return append(dst, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}
