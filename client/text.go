package client

import (
	"strconv"
	"strings"
	"unicode"
)

// Printable is a server's text for people: limit characters of it, on one line, without what could move a
// terminal's cursor or turn its text around.
func Printable(s string, limit int) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n == limit {
			b.WriteString("…")
			break
		}
		if !unicode.IsPrint(r) {
			r = '?'
		}
		b.WriteRune(r)
		n++
	}
	return b.String()
}

func quote(s string) string { return strconv.Quote(Printable(s, 80)) }
