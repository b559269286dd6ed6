package e2e

import (
	"compress/gzip"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// paidUnderAKey makes a request under a key that is paid for, and whose client has left before it was served.
func paidUnderAKey(t *testing.T, r *rig.Rig, b *rig.Buyer, url, body string, key ...string) {
	t.Helper()
	header := b.Sign(b.Offer(url), 0)
	r.Chain.Stall()
	leave(t, r, b, http.MethodPost, url, body, append(key, x402.HeaderSignature, header)...)
	r.Chain.Resume()
	waitFor(t, func() bool { return r.Earned() == cent })
}

// Who names its requests by keys pays for each, and gets each: what one of them has paid and left behind serves no other one, but
// waits for it.
func TestTwoKeysAreTwoRequests(t *testing.T) {
	var mu sync.Mutex
	var served []string
	r := rig.New(t, rig.Options{App: "settle_timeout 5s", Upstream: func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		served = append(served, req.URL.Path)
		_, _ = io.WriteString(w, req.URL.Path)
	}})
	b := rig.NewBuyer(t, 1)
	paidUnderAKey(t, r, b, r.URL("/one"), "x", "Idempotency-Key", "one")
	for _, path := range []string{"/two", "/one"} {
		url := r.URL(path)
		a := b.Do(t.Context(), http.MethodPost, url, "x", x402.HeaderSignature, b.Sign(b.Offer(url), 0), "Idempotency-Key", path[1:])
		if a.Status != http.StatusOK || a.Body != path || a.Header.Get("Idempotency-Replayed") != "" {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(served, []string{"/two", "/one"}) || r.Earned() != 2*cent {
		t.Errorf("served: %v, earned %d", served, r.Earned())
	}
}

// Another part, or another condition, is another request.
func TestKeyCoversRangesAndConditions(t *testing.T) {
	r := rig.New(t, rig.Options{Upstream: counting()})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/part")
	ask := func(headers ...string) rig.Answer {
		return b.Get(url, append(headers, x402.HeaderSignature, b.Sign(b.Offer(url), 0), "Idempotency-Key", "k")...)
	}
	first := ask("Range", "bytes=0-1", "User-Agent", "a")
	if first.Status != http.StatusOK {
		t.Fatalf("%d %s", first.Status, first.Body)
	}
	replayed(t, "the same part", first, ask("Range", "bytes=0-1", "User-Agent", "b"))
	w := watch(r)
	date := time.Now().UTC().Format(http.TimeFormat)
	for name, headers := range map[string][]string{
		"no part": nil, "another part": {"Range", "bytes=2-3"},
		"If-Range":            {"Range", "bytes=0-1", "If-Range", `"e"`},
		"If-Match":            {"Range", "bytes=0-1", "If-Match", `"e"`},
		"If-None-Match":       {"Range", "bytes=0-1", "If-None-Match", `"e"`},
		"If-Modified-Since":   {"Range", "bytes=0-1", "If-Modified-Since", date},
		"If-Unmodified-Since": {"Range", "bytes=0-1", "If-Unmodified-Since", date},
	} {
		if a := ask(headers...); a.Status != http.StatusUnprocessableEntity || code(a) != "idempotency.conflict" {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	w.nothing(t, "under the key")
}

// What is stored does for every client, however the first one wanted it encoded. Caddy's encode works all the same where it stands in
// front of the paywall, and is left out where it stands behind.
func TestStoredAnswersAreNotEncoded(t *testing.T) {
	text := strings.Repeat("a long answer ", 200)
	upstream := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, text)
			_ = z.Close()
			return
		}
		_, _ = io.WriteString(w, text)
	}
	for name, site := range map[string]string{
		"none":   "x402 $0.01\nreverse_proxy {upstream}",
		"behind": "encode gzip\nx402 $0.01\nreverse_proxy {upstream}",
		"before": "route {\nencode gzip\nx402 $0.01\nreverse_proxy {upstream}\n}",
	} {
		t.Run(name, func(t *testing.T) {
			r := rig.New(t, rig.Options{Site: site, Upstream: upstream})
			b := rig.NewBuyer(t, 1)
			url := r.URL("/text")
			for i, encoding := range []string{"gzip", "identity", "gzip"} {
				a := b.Get(url, "Accept-Encoding", encoding, x402.HeaderSignature, b.Sign(b.Offer(url), 0), "Idempotency-Key", "k")
				encoded := a.Header.Get("Content-Encoding") == "gzip"
				if encoded {
					z, err := gzip.NewReader(strings.NewReader(a.Body))
					if err != nil {
						t.Fatal(err)
					}
					plain, err := io.ReadAll(z)
					if err != nil {
						t.Fatal(err)
					}
					a.Body = string(plain)
				}
				if a.Status != http.StatusOK || a.Body != text || encoded != (name == "before" && encoding == "gzip") ||
					(a.Header.Get("Idempotency-Replayed") == "true") != (i > 0) {
					t.Errorf("%d: %d %v %.100q", i, a.Status, a.Header, a.Body)
				}
			}
			if a := b.Get(url, "Accept-Encoding", "gzip", x402.HeaderSignature, b.Sign(b.Offer(url), 0)); a.Header.Get("Content-Encoding") != "gzip" {
				t.Errorf("without a key: %d %v", a.Status, a.Header)
			}
		})
	}
}

// Which page may read an answer is said anew each time it is given.
func TestReplayForAnotherPage(t *testing.T) {
	r := rig.New(t, rig.Options{
		Site:     "x402 $0.01 {\ncors https://a.example https://b.example\n}\nreverse_proxy {upstream}",
		Upstream: counting(),
	})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/page")
	for _, page := range []string{"https://a.example", "https://b.example", "https://c.example", "https://a.example"} {
		a := b.Get(url, "Origin", page, x402.HeaderSignature, b.Sign(b.Offer(url), 0), "Idempotency-Key", "k")
		want := page
		if page == "https://c.example" {
			want = ""
		}
		if a.Body != "answer 1" || a.Header.Get("Access-Control-Allow-Origin") != want ||
			want != "" && len(a.Header["Access-Control-Expose-Headers"]) != 1 {
			t.Errorf("%s: %d %v %s", page, a.Status, a.Header, a.Body)
		}
	}
}
