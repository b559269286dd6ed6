package paywall

import (
	"bufio"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// naiveOurs says what ours means, in the plainest way: what a CGI makes of the name begins with a name of ours.
func naiveOurs(name string) bool {
	var folded []byte
	for _, c := range []byte(name) {
		switch {
		case strings.IndexByte("abcdefghijklmnopqrstuvwxyz0123456789", c) >= 0:
			folded = append(folded, c)
		case strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZ", c) >= 0:
			folded = append(folded, c+32)
		default:
			folded = append(folded, '-')
		}
	}
	for _, prefix := range []string{"x-payment", "payment-signature", "payment-required", "payment-response"} {
		if string(folded) == prefix || strings.HasPrefix(string(folded), prefix+"-") {
			return true
		}
	}
	return false
}

// spellings are names of headers, and whether they are ours.
var spellings = map[string]bool{
	"X-Payment": true, "x-payment": true, "X_PAYMENT": true, "X_Payment": true, "x.payment": true, "X-Payment-Payer": true, "X_PAYMENT_PAYER": true,
	"x-payment_payer": true, "X-Payment.Payer": true, "X-PaYmEnT-ToKeN": true, "X-Payment-": true, "X-Payment--": true, "X-Payment-Anything-New": true,
	"Payment-Signature": true, "PAYMENT_SIGNATURE": true, "payment-signature-2": true, "Payment-Required": true, "Payment-Response": true, "payment_response": true,
	"X!Payment": true, "X-Payment~Id": true,
	"": false, "X": false, "X-": false, "X-Paymen": false, "X-Payments": false, "X-Paymentsignature": false, "XPayment": false, "X--Payment": false, "Payment": false,
	"Payment-Id": false, "Payment-Signatures": false, "My-X-Payment": false, "Authorization": false, "X-Access-Token": false, "Idempotency-Key": false,
	"\tX-Payment": false, "Payment-Signature2": false, "Ｘ-Payment": false, "X-\u212Aayment": false,
}

func TestOurs(t *testing.T) {
	for name, want := range spellings {
		if ours(name) != want {
			t.Errorf("%q counts as ours: %v", name, !want)
		}
		if naiveOurs(name) != want {
			t.Errorf("the reference is wrong about %q", name)
		}
	}
}

func FuzzOurs(f *testing.F) {
	for name := range spellings {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if got, want := ours(name), naiveOurs(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	})
}

// exchange sends a request as it stands to a server whose handler is h, and gives the answer's first line.
func exchange(t *testing.T, h http.HandlerFunc, request string) string {
	t.Helper()
	s := httptest.NewServer(h)
	defer s.Close()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// What a client may not tell the upstream is gone: from headers and from trailers, announced or not, in any spelling.
func TestCleanRequest(t *testing.T) {
	request := "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-Payment-Payer\r\nKeep: me\r\nConnection: X-Payment-Token, close\r\n"
	for name, isOurs := range spellings {
		if isOurs {
			request += name + ": forged\r\n"
		}
	}
	request += "\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\nX-Payment-Payer: forged\r\nx_payment_id: forged\r\nPayment-Signature: forged\r\n\r\n"
	line := exchange(t, func(w http.ResponseWriter, r *http.Request) {
		CleanRequest(r)
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != "abc" {
			t.Errorf("the body is %q, %v", body, err)
		}
		for _, h := range []http.Header{r.Header, r.Trailer} {
			for name, values := range h {
				if naiveOurs(name) || slices.Contains(values, "forged") {
					t.Errorf("%s: %v got through", name, values)
				}
			}
		}
		if r.Header.Get("Keep") != "me" || r.Trailer.Get("X-Sum") != "7" || r.Header.Get("Connection") != "close" {
			t.Errorf("what is not ours is gone: %v, %v", r.Header, r.Trailer)
		}
		w.WriteHeader(http.StatusTeapot)
	}, request)
	if !strings.Contains(line, "418") {
		t.Error(line)
	}
}

func TestCleanRequestWithoutAnything(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	body := r.Body
	CleanRequest(r)
	if len(r.Header) != 0 || r.Trailer != nil || r.Body != body {
		t.Errorf("%v, %v", r.Header, r.Trailer)
	}
}

// A client can't have our headers dropped as hop-by-hop ones; what else it says of the connection stays.
func TestCleanConnection(t *testing.T) {
	for value, want := range map[string]string{
		"close":               "close",
		"Upgrade":             "Upgrade",
		"keep-alive, Upgrade": "keep-alive, Upgrade",
		"X-Payment-Id":        "",
		"x_payment_payer":     "",
		"authorization":       "",
		"AUTHORIZATION,close": "close",
		"close, X-Payment-Token ,Authorization, a": "close, a",
		"\tX-Payment\t":                       "",
		"payment-signature, Payment-Response": "",
		"X-Other, Te":                         "X-Other, Te",
	} {
		h := http.Header{"Connection": {value, "close"}}
		cleanConnection(h)
		if h["Connection"][0] != want || h["Connection"][1] != "close" {
			t.Errorf("%q becomes %q, want %q", value, h["Connection"], want)
		}
	}
	cleanConnection(http.Header{})
}

// The upstream can't say what only we may say.
func TestCleanResponse(t *testing.T) {
	h := http.Header{}
	for _, name := range []string{
		"PAYMENT-REQUIRED", "Payment-Response", "X-PAYMENT-RESPONSE", "x-payment-status", "X-Payment-Id", "X-Access-Token", "PAYMENT-SIGNATURE",
	} {
		h.Set(name, "forged")
	}
	h.Set("Content-Type", "text/plain")
	h.Set("X-Payment-Method", "the seller's own")
	cleanResponse(h)
	if len(h) != 2 {
		t.Errorf("what stays is %v", h)
	}
}

// A shared cache never keeps what was paid for, whatever the upstream allows; what it forbids stays forbidden.
func TestMarkPrivate(t *testing.T) {
	for _, tc := range []struct {
		have []string
		want string
	}{
		{nil, "private"},
		{[]string{""}, "private"},
		{[]string{"private"}, "private"},
		{[]string{"public"}, "private"},
		{[]string{"public, max-age=3600"}, "max-age=3600, private"},
		{[]string{"PUBLIC,Max-Age=3600"}, "Max-Age=3600, private"},
		{[]string{"s-maxage=60, max-age=5"}, "max-age=5, private"},
		{[]string{"S-MaxAge=60"}, "private"},
		{[]string{"max-age=60", "public"}, "max-age=60, private"},
		{[]string{"max-age=60", "no-store"}, "max-age=60|no-store"},
		{[]string{"no-store"}, "no-store"},
		{[]string{"No-Store, public"}, "No-Store, public"},
		{[]string{"no-cache"}, "no-cache, private"},
		{[]string{`private="Set-Cookie"`}, "private"},
		{[]string{`no-cache="Set-Cookie, X-A", public`}, `no-cache="Set-Cookie, X-A", private`},
		{[]string{" , ,max-age=1"}, "max-age=1, private"},
		{[]string{"no-storeage"}, "no-storeage, private"},
		{[]string{"immutable, must-revalidate"}, "immutable, must-revalidate, private"},
	} {
		h := http.Header{
			"Surrogate-Control": {"max-age=60"}, "Cdn-Cache-Control": {"max-age=60"}, "Cloudflare-Cdn-Cache-Control": {"max-age=60"},
			"X-Accel-Expires": {"60"}, "Etag": {`"a"`},
		}
		if tc.have != nil {
			h["Cache-Control"] = slices.Clone(tc.have)
		}
		markPrivate(h)
		if got := strings.Join(h["Cache-Control"], "|"); got != tc.want {
			t.Errorf("%q becomes %q, want %q", tc.have, got, tc.want)
		}
		if names := slices.Sorted(maps.Keys(h)); !slices.Equal(names, []string{"Cache-Control", "Etag"}) {
			t.Errorf("the headers are %v", names)
		}
	}
}

func TestBearerToken(t *testing.T) {
	for value, want := range map[string]string{
		"": "", "Bearer": "", "Bearer ": "", "Bearer abc": "abc", "bearer abc": "abc", "BEARER abc": "abc", "Bearer  abc ": "abc",
		"Bearer\tabc": "", "Basic abc": "", "Bearerabc": "", "abc": "", " Bearer abc": "", "Bearer a b": "a b", "DPoP abc": "", "X Bearer abc": "",
	} {
		if got := bearerToken(http.Header{"Authorization": {value}}); got != want {
			t.Errorf("%q gives %q, want %q", value, got, want)
		}
	}
	if got := bearerToken(http.Header{}); got != "" {
		t.Error(got)
	}
}

// The current version's header wins; an empty one is none.
func TestPaymentHeader(t *testing.T) {
	for _, tc := range []struct {
		v2, v1  []string
		value   string
		version int
	}{
		{nil, nil, "", 2},
		{[]string{"a"}, nil, "a", 2},
		{nil, []string{"b"}, "b", 1},
		{[]string{"a"}, []string{"b"}, "a", 2},
		{[]string{""}, []string{"b"}, "b", 1},
		{[]string{"a", "c"}, nil, "a", 2},
		{[]string{""}, []string{""}, "", 2},
	} {
		h := http.Header{}
		if tc.v2 != nil {
			h["Payment-Signature"] = tc.v2
		}
		if tc.v1 != nil {
			h["X-Payment"] = tc.v1
		}
		if value, version := paymentHeader(h); value != tc.value || version != tc.version {
			t.Errorf("%v gives %q of version %d", h, value, version)
		}
	}
}
