package e2e

import (
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// What these tests show, and what they can't.
//
// The paywall has no path matcher of its own: what is paid is what Caddy's matchers match, and they compare the decoded
// path, with repeated slashes merged and dot segments resolved, without regard to case. A request that an upstream
// normalises in the usual way (RFC 3986, section 6) to something under the paid path is therefore paid, whatever its
// spelling. Where the matcher's own meaning decides:
//
//   - /paid/* is not /paid, but Caddy takes /paid/. and /paid/x/.. for /paid, and upstreams take them for /paid/. The
//     paywall's own matchers (`x402 /paid/*`, `match`) cover that; one that stands outside of it (`handle /paid/*`, a named
//     matcher) does not: write `path /paid /paid/*` there.
//   - An upstream that decodes twice, takes a backslash for a slash, or cuts off path parameters (;x) before it resolves
//     dot segments, sees paths that no matcher before it can foresee. Before such an upstream, and in doubt, stands a
//     block without a matcher: then every spelling is paid, or denied.
//   - Who prices methods apart and has an upstream that obeys X-HTTP-Method-Override or _method sells the dear method at the
//     price of the cheap one; such an upstream must not be let to, or everything must have one price.

// seenPaths is an upstream that notes what reached it and whether somebody had paid for it.
type seenPaths struct {
	mu   sync.Mutex
	free []string // request lines that reached it unpaid
	all  int
}

func (s *seenPaths) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all++
	if r.Header.Get("X-Payment-Id") == "" {
		s.free = append(s.free, r.Method+" "+r.RequestURI)
	}
}

// take gives what was noted, and forgets it.
func (s *seenPaths) take() (free []string, all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	free, all = s.free, s.all
	s.free, s.all = nil, 0
	return free, all
}

// served is what a normal upstream takes a request line's target for: decoded once, dot segments resolved, slashes merged,
// case as it may be on a file system that does not tell it apart.
func served(t *testing.T, requestLine string) string {
	t.Helper()
	_, target, _ := strings.Cut(requestLine, " ")
	u, err := url.ParseRequestURI(target)
	if err != nil {
		t.Fatalf("the upstream got %q: %v", requestLine, err)
	}
	p := u.Path
	clean := path.Clean("/" + p)
	last := path.Base(p)
	if clean != "/" && (strings.HasSuffix(p, "/") || last == "." || last == "..") {
		clean += "/"
	}
	return strings.ToLower(clean)
}

// spellings of a path under /paid/, as a client would send them.
var spellings = []string{
	"/paid/x", "/paid/", "/paid/x/", "/paid//x", "//paid/x", "///paid///x", "/./paid/x", "/paid/./x", "/paid/x/.", "/.//paid/x",
	"/free/../paid/x", "/free/..//paid/x", "/a/b/../../paid/x", "/../paid/x", "/paid/x/..", "/paid/x/../", "/paid/.", "/paid/./",
	"/paid/../paid/x", "/free/%2e%2e/paid/x", "/free/%2E%2e/paid/x", "/free/.%2e/paid/x", "/%2e/paid/x", "/%2e%2e/paid/x",
	"/paid/%2e/x", "/paid/x%2f", "/paid%2fx", "/paid%2Fx", "/%2fpaid/x", "/%2Fpaid%2Fx", "/%2f%2fpaid/x", "/free/..%2fpaid/x",
	"/free%2f..%2fpaid%2fx", "/free/%2e%2e%2fpaid/x", "/%70aid/x", "/p%61id/x", "/%50%41%49%44/x", "/PAID/x", "/Paid/X", "/pAiD//x",
	"/paid/x?a=/free", "/paid/x?/../free", "/paid/x%3f", "/paid/x%23", "/paid/%00", "/paid/x%0a", "/paid/x%20", "/paid/;x", "/paid/x;y=1",
	"/paid/x?_method=OPTIONS", "/paid/x%3Fx402=free", "/paid/é", "/paid/%C3%A9", "/paid/%c0%af", "/paid/%ff", "/paid/x%5c", "/paid/x\\",
	"/paid/..%5cfree", "/paid/%252e%252e/free", "/paid/.well-known/jwks.json", "/paid/health", "/paid/x402/payments/pay_1",
	// These may be free: no normal upstream takes them for something under /paid/.
	"/free", "/paid/../free", "/paid/%2e%2e/free", "/paid/..%2ffree", "/paid//../free", "/paidx", "/xpaid/x", "/free?/paid/x", "/free#/paid/x",
	"/free/paid/x", "/free%3f/paid/x", "/paid%252fx", "/%252e%252e/paid", "\\paid\\x", "/paid;/x", "/;/paid/x", "/free/..;/paid/x",
	"/%2e%2e%5cpaid/x", "/paid%5cx", "/.paid/x", "/paid%20/x", "/paid%00/x", "*",
}

// shapes are the ways in which a seller may write that what is under /paid/ is paid.
var shapes = map[string]string{
	"one line": `
	x402 /paid/* $0.01
	reverse_proxy {upstream}`,
	"named matcher": `
	@sold path /paid/*
	x402 @sold $0.01
	reverse_proxy {upstream}`,
	"prices, the rest denied": `
	x402 {
		price $0.01 {
			match {
				path /paid/*
			}
		}
		unpriced deny
	}
	reverse_proxy {upstream}`,
	"prices, the rest free": `
	x402 {
		price $0.01 {
			match {
				path /paid/*
			}
		}
		unpriced free
	}
	reverse_proxy {upstream}`,
	"exempt": `
	x402 $0.01 {
		exempt {
			path /free /free/*
		}
	}
	reverse_proxy {upstream}`,
	"route": `
	route {
		x402 /paid/* $0.01
		reverse_proxy {upstream}
	}`,
	"handle": `
	handle /paid/* {
		x402 $0.01
		reverse_proxy {upstream}
	}
	handle {
		reverse_proxy {upstream}
	}`,
	"overlapping": `
	x402 /paid/* $0.01
	x402 /paid/x* $0.02
	x402 /pa* {
		price $0.03 {
			match {
				path /paid/*
			}
		}
		unpriced free
	}
	reverse_proxy {upstream}`,
	"matcher that says all": `
	@sold path /paid /paid/*
	x402 @sold $0.01
	reverse_proxy {upstream}`,
	"after a rewrite": `
	rewrite /free /paid/rewritten
	x402 /paid/* $0.01
	reverse_proxy {upstream}`,
	"with a service": `
	x402 /paid/* $0.01
	x402_service
	reverse_proxy {upstream}`,
}

// Whatever the spelling, method and form of a request: if it reaches the upstream unpaid, then not for something that the
// upstream would take for paid.
func TestUpstreamIsNeverReachedUnpaid(t *testing.T) {
	seen := new(seenPaths)
	o := rig.Options{Upstream: seen.ServeHTTP}
	r := rig.New(t, o)
	for name, site := range shapes {
		o.Site = site
		r.Load(o)
		waitFor(t, func() bool { return rig.NewBuyer(t, 1).Get(r.URL("/paid/x")).Err == nil }) // a reload may close a connection that was just opened
		for _, target := range spellings {
			for what, request := range requests(r.Addr, target) {
				a := sendRaw(t, r.Addr, request.method, request.lines...)
				free, _ := seen.take()
				for _, line := range free {
					if outside[name] && dotted(line) {
						continue
					}
					if strings.HasPrefix(served(t, line), "/paid/") {
						t.Errorf("%s: %s %s: the upstream was reached unpaid: %q (answer %d)", name, what, target, line, a.Status)
					}
				}
				if a.Status >= 500 {
					t.Errorf("%s: %s %s: %d %v", name, what, target, a.Status, a.Body)
				}
			}
		}
		// The spelling that everybody uses is paid, and can be.
		b := rig.NewBuyer(t, 1)
		if a, _ := b.Buy(r.URL("/paid/x")); a.Status != http.StatusOK {
			t.Errorf("%s: a purchase: %d %s", name, a.Status, a.Body)
		}
		if free, all := seen.take(); len(free) != 0 || all != 1 {
			t.Errorf("%s: a purchase: the upstream was reached %d times, unpaid: %v", name, all, free)
		}
	}
}

// outside are the shapes whose matcher stands outside of the paywall.
var outside = map[string]bool{"named matcher": true, "handle": true}

// dotted tells the targets that a matcher of /paid/* does not take for something under it.
func dotted(requestLine string) bool {
	return strings.HasSuffix(requestLine, "/paid/.") || strings.HasSuffix(requestLine, "/paid/x/..")
}

type rawRequest struct {
	method string
	lines  []string
}

// requests are the ways to ask for a target.
func requests(addr, target string) map[string]rawRequest {
	_, port, _ := strings.Cut(addr, ":")
	host := "Host: " + addr
	ask := func(method, version, host string, more ...string) rawRequest {
		lines := slices.Concat([]string{method + " " + target + " " + version}, []string{host, "Connection: close"}, more)
		return rawRequest{method, lines}
	}
	all := map[string]rawRequest{
		"GET":               ask("GET", "HTTP/1.1", host),
		"HEAD":              ask("HEAD", "HTTP/1.1", host),
		"POST":              ask("POST", "HTTP/1.1", host, "Content-Length: 0"),
		"OPTIONS":           ask("OPTIONS", "HTTP/1.1", host),
		"OPTIONS by a page": ask("OPTIONS", "HTTP/1.1", host, "Origin: https://evil.example"),
		"a preflight":       ask("OPTIONS", "HTTP/1.1", host, "Origin: https://evil.example", "Access-Control-Request-Method: GET"),
		"TRACE":             ask("TRACE", "HTTP/1.1", host),
		"CONNECT":           ask("CONNECT", "HTTP/1.1", host),
		"an odd method":     ask("BREW", "HTTP/1.1", host),
		"lower case":        ask("get", "HTTP/1.1", host),
		"method override": ask("POST", "HTTP/1.1", host, "Content-Length: 0", "X-HTTP-Method-Override: OPTIONS",
			"X-HTTP-Method: OPTIONS", "X-Method-Override: OPTIONS"),
		"overridden by preflight": ask("OPTIONS", "HTTP/1.1", host, "Origin: https://evil.example", "Access-Control-Request-Method: GET",
			"X-HTTP-Method-Override: GET", "X-HTTP-Method: GET", "X-Method-Override: GET"),
		"HTTP/1.0":            ask("GET", "HTTP/1.0", host),
		"HTTP/1.0, no host":   ask("GET", "HTTP/1.0", "X-Nothing: at all"),
		"upper case host":     ask("GET", "HTTP/1.1", strings.ToUpper(host)),
		"host with a dot":     ask("GET", "HTTP/1.1", "Host: 127.0.0.1.:"+port),
		"host without port":   ask("GET", "HTTP/1.1", "Host: 127.0.0.1"),
		"another host":        ask("GET", "HTTP/1.1", "Host: evil.example"),
		"rewriting headers":   ask("GET", "HTTP/1.1", host, "X-Original-URL: /free", "X-Rewrite-URL: /free", "X-Forwarded-Prefix: /free", "X-Forwarded-Uri: /free"),
		"an upgrade":          ask("GET", "HTTP/1.1", host, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
		"a forged payment":    ask("GET", "HTTP/1.1", host, "X-Payment-Id: pay_1", "X-Payment-Payer: 0x1", "X-Payment-Token: a.b.c", "Authorization: Bearer a.b.c"),
		"an empty payment":    ask("GET", "HTTP/1.1", host, "Payment-Signature: ", "X-Payment: "),
		"an empty bearer":     ask("GET", "HTTP/1.1", host, "Authorization: Bearer "),
		"forwarded for https": ask("GET", "HTTP/1.1", host, "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.example", "X-Forwarded-For: 127.0.0.1"),
	}
	if strings.HasPrefix(target, "/") {
		for name, form := range map[string]string{
			"absolute form":               "http://" + addr,
			"absolute form, upper case":   "HTTP://" + addr,
			"absolute form, another host": "http://evil.example",
			"absolute form, https":        "https://" + addr,
		} {
			all[name] = rawRequest{"GET", []string{"GET " + form + target + " HTTP/1.1", host, "Connection: close"}}
		}
	}
	return all
}

// A prefix that is stripped before the upstream sees it does not change what is paid.
func TestHandlePath(t *testing.T) {
	seen := new(seenPaths)
	r := rig.New(t, rig.Options{Upstream: seen.ServeHTTP, Site: `
	handle_path /api/* {
		x402 /paid/* $0.01
		reverse_proxy {upstream}
	}
	handle {
		respond 404
	}`})
	for _, target := range spellings {
		sendRaw(t, r.Addr, "GET", "GET /api"+target+" HTTP/1.1", "Host: "+r.Addr, "Connection: close")
		sendRaw(t, r.Addr, "GET", "GET /%61pi/."+target+" HTTP/1.1", "Host: "+r.Addr, "Connection: close")
		free, _ := seen.take()
		for _, line := range free {
			if strings.HasPrefix(served(t, line), "/paid/") {
				t.Errorf("%s: the upstream was reached unpaid: %q", target, line)
			}
		}
	}
	b := rig.NewBuyer(t, 1)
	a, _ := b.Buy(r.URL("/api/paid/x"))
	if a.Status != http.StatusOK || r.Upstream.Last().RequestURI != "/paid/x" {
		t.Errorf("a purchase: %d %s, the upstream got %s", a.Status, a.Body, r.Upstream.Last().RequestURI)
	}
	if got := b.Offer(r.URL("/api/paid/x")).Resource.URL; got != r.URL("/api/paid/x") {
		t.Errorf("the offer is for %s", got)
	}
}

// Handlers whose matchers overlap charge once: the first that has a price for the request.
func TestOverlappingHandlersChargeOnce(t *testing.T) {
	r := rig.New(t, rig.Options{Site: `
	route {
		x402 /paid/* {
			price $0.01 {
				match {
					path /paid/one
				}
			}
			unpriced free
		}
		x402 /paid/* $0.02
		x402 $0.03
		reverse_proxy {upstream}
	}`})
	b := rig.NewBuyer(t, 1)
	for target, price := range map[string]uint64{"/paid/one": 1, "/paid/two": 2, "/other": 3} {
		w := watch(r)
		if o := b.Offer(r.URL(target)); len(o.Accepts) != 1 {
			t.Errorf("%s: %+v", target, o.Accepts)
		}
		if a, _ := b.Buy(r.URL(target)); a.Status != http.StatusOK {
			t.Errorf("%s: %d %s", target, a.Status, a.Body)
		}
		w.seen(t, target, 1, price*cent)
	}
}

// HEAD costs what GET costs, and gets no body.
func TestHeadIsCharged(t *testing.T) {
	r := rig.New(t, rig.Options{})
	b := rig.NewBuyer(t, 1)
	w := watch(r)
	url := r.URL("/x")
	unpaid := b.Do(t.Context(), http.MethodHead, url, "")
	if unpaid.Status != http.StatusPaymentRequired || unpaid.Body != "" {
		t.Fatalf("unpaid: %d %q", unpaid.Status, unpaid.Body)
	}
	w.nothing(t, "unpaid")
	a := b.Do(t.Context(), http.MethodHead, url, "", x402.HeaderSignature, b.Sign(rig.Offered(t, unpaid), 0))
	if a.Status != http.StatusOK || a.Body != "" || a.Header.Get(x402.HeaderResponse) == "" {
		t.Errorf("paid: %d %q %v", a.Status, a.Body, a.Header)
	}
	w.seen(t, "paid", 1, cent)
}
