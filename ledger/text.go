package ledger

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Text is s as every store can keep it and every export can show it: bytes that are no UTF-8, and zero bytes, are
// percent-encoded. What comes from a request's line may hold any bytes.
func Text(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == 0 || r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&b, "%%%02X", s[i])
			i++
			continue
		}
		b.WriteString(s[i : i+size])
		i += size
	}
	return b.String()
}
