package paywall

import (
	"io"
	"net/http"
	"net/textproto"
	"strings"
)

// The headers of the protocol and our own.
const (
	headerSignature     = "Payment-Signature"
	headerSignatureV1   = "X-Payment"
	headerRequired      = "Payment-Required"
	headerResponse      = "Payment-Response"
	headerResponseV1    = "X-Payment-Response"
	headerPaymentID     = "X-Payment-Id"
	headerPaymentStatus = "X-Payment-Status"
	headerAccessToken   = "X-Access-Token"

	statusRefundPending = "refund_pending"
)

// paymentHeader gives the payment that a request carries, and the protocol version of its header. The
// current version's wins.
func paymentHeader(h http.Header) (value string, version int) {
	if v := h.Get(headerSignature); v != "" {
		return v, 2
	}
	if v := h.Get(headerSignatureV1); v != "" {
		return v, 1
	}
	return "", 2
}

// bearerToken gives the token of an Authorization header with the Bearer scheme (RFC 6750), or "".
func bearerToken(h http.Header) string {
	v := h.Get("Authorization")
	if len(v) < 7 || !strings.EqualFold(v[:7], "Bearer ") {
		return ""
	}
	return strings.TrimSpace(v[7:])
}

// ours reports whether a header is one that only we may set on a request to the upstream, or that the
// upstream must not see. Upstreams that speak CGI, FastCGI or WSGI fold "_" to "-", and some all that is neither letter
// nor digit, so they count as equal.
func ours(name string) bool {
	return hasFoldedPrefix(name, "x-payment") || hasFoldedPrefix(name, "payment-signature") ||
		hasFoldedPrefix(name, "payment-required") || hasFoldedPrefix(name, "payment-response")
}

// hasFoldedPrefix reports whether s is prefix, or goes on after it with a new word; without regard to case,
// and with all that is neither letter nor digit as "-".
func hasFoldedPrefix(s, prefix string) bool {
	if len(s) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if fold(s[i]) != prefix[i] {
			return false
		}
	}
	return len(s) == len(prefix) || fold(s[len(prefix)]) == '-'
}

func fold(c byte) byte {
	switch {
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return c
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	}
	return '-'
}

// CleanRequest removes from a request what its client may not tell the upstream: payment headers and forged
// X-Payment-* ones, in any spelling, in headers and trailers. Every request under a paid matcher goes
// through it, paid or not (rule 12).
func CleanRequest(r *http.Request) {
	removeOurs(r.Header)
	removeOurs(r.Trailer)
	if r.Trailer != nil && r.Body != nil {
		r.Body = trailerCleaner{r.Body, r.Trailer}
	}
	cleanConnection(r.Header)
}

func removeOurs(h http.Header) {
	for name := range h {
		if ours(name) {
			delete(h, name)
		}
	}
}

// trailerCleaner is a body whose trailers are clean: the server fills them in when the body has been read to its end,
// and the proxy takes them then.
type trailerCleaner struct {
	io.ReadCloser
	trailer http.Header
}

func (c trailerCleaner) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if err != nil {
		removeOurs(c.trailer)
	}
	return n, err
}

// cleanConnection keeps a client from having our headers dropped as hop-by-hop ones.
func cleanConnection(h http.Header) {
	values := h["Connection"]
	for i, v := range values {
		if !strings.ContainsAny(v, ",xXaA") {
			continue
		}
		var kept []string
		for name := range strings.SplitSeq(v, ",") {
			name = textproto.TrimString(name)
			if !ours(name) && !strings.EqualFold(name, "Authorization") {
				kept = append(kept, name)
			}
		}
		values[i] = strings.Join(kept, ", ")
	}
}

// cleanResponse removes from an upstream's answer what only we may say.
func cleanResponse(h http.Header) {
	for _, name := range [...]string{
		headerRequired, headerResponse, headerResponseV1, headerPaymentStatus, headerPaymentID, headerAccessToken, headerSignature,
	} {
		delete(h, name)
	}
}

// markPrivate keeps shared caches from serving a paid answer to those who did not pay.
func markPrivate(h http.Header) {
	cc := strings.Join(h["Cache-Control"], ", ") // several lines are one list
	switch {
	case cc == "":
		h.Set("Cache-Control", "private")
	case hasDirective(cc, "no-store"):
	default:
		var kept []string
		for d := range strings.SplitSeq(cc, ",") {
			d = textproto.TrimString(d)
			name, _, _ := strings.Cut(d, "=")
			if strings.EqualFold(name, "public") || strings.EqualFold(name, "private") || strings.EqualFold(name, "s-maxage") || d == "" {
				continue
			}
			kept = append(kept, d)
		}
		h.Set("Cache-Control", strings.Join(append(kept, "private"), ", "))
	}
	// Caches of content delivery networks obey these before Cache-Control (RFC 9213), and so does nginx.
	for name := range h {
		if name == "Surrogate-Control" || name == "X-Accel-Expires" || strings.HasSuffix(name, "Cdn-Cache-Control") {
			delete(h, name)
		}
	}
}

func hasDirective(cacheControl, name string) bool {
	for d := range strings.SplitSeq(cacheControl, ",") {
		if strings.EqualFold(textproto.TrimString(d), name) {
			return true
		}
	}
	return false
}
