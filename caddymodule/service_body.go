package caddymodule

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// answerBody is an upstream's body within JSON: JSON as it is, text as a string, everything else in base64.
func answerBody(mime string, body []byte) (v any, encoding string) {
	kind, _, _ := strings.Cut(mime, ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	switch {
	case len(body) == 0:
		return nil, ""
	case (kind == "application/json" || strings.HasSuffix(kind, "+json")) && json.Valid(body):
		return json.RawMessage(body), ""
	case utf8.Valid(body):
		return string(body), ""
	}
	return base64.StdEncoding.EncodeToString(body), "base64"
}
