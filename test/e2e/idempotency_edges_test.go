package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Keys that are none are refused before anything is charged, and what may be a key is one in either spelling.
func TestMalformedKeys(t *testing.T) {
	r := rig.New(t, rig.Options{Upstream: counting()})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/keys")
	w := watch(r)
	offer := b.Offer(url)
	for name, headers := range map[string][]string{
		"twice":            {"Idempotency-Key", "a", "Idempotency-Key", "a"},
		"joined":           {"Idempotency-Key", "a, b"},
		"empty":            {"Idempotency-Key", `""`},
		"too long":         {"Idempotency-Key", strings.Repeat("k", 256)},
		"not closed":       {"Idempotency-Key", `"abc`},
		"with a parameter": {"Idempotency-Key", `"abc";d=e`},
		"no ASCII":         {"Idempotency-Key", "schl\xc3\xbcssel"},
	} {
		a := b.Get(url, append(headers, x402.HeaderSignature, b.Sign(offer, 0))...)
		if a.Status != http.StatusBadRequest || code(a) != "idempotency.key_invalid" {
			t.Errorf("%s: %d %v %s", name, a.Status, a.Err, a.Body)
		}
	}
	for name, id := range map[string]string{"short": "fifteen-letters", "long": strings.Repeat("i", 129), "odd": "sixteen.letters.", "empty": ""} {
		a := b.Get(url, x402.HeaderSignature, b.Sign(withIdentifier(t, offer, id), 0))
		if a.Status != http.StatusBadRequest || code(a) != "idempotency.key_invalid" {
			t.Errorf("identifier, %s: %d %v %s", name, a.Status, a.Err, a.Body)
		}
	}
	w.nothing(t, "malformed")
	first := b.Get(url, "Idempotency-Key", `"a key"`, x402.HeaderSignature, b.Sign(withIdentifier(t, offer, strings.Repeat("i", 128)), 0))
	if first.Body != "answer 1" {
		t.Fatalf("%d %s", first.Status, first.Body)
	}
	// Either of two keys finds the payment, and so does a third one that came with one of them.
	fresh := func(id string, headers ...string) rig.Answer {
		o := b.Offer(url)
		if id != "" {
			o = withIdentifier(t, o, id)
		}
		return b.Get(url, append(headers, x402.HeaderSignature, b.Sign(o, 0))...)
	}
	replayed(t, "by the header", first, fresh("", "Idempotency-Key", `"a key"`))
	replayed(t, "by the identifier", first, fresh(strings.Repeat("i", 128)))
	replayed(t, "by the identifier, beside a new header", first, fresh(strings.Repeat("i", 128), "Idempotency-Key", "third"))
	replayed(t, "by the new header", first, fresh("", "Idempotency-Key", `"third"`))
	w.seen(t, "well-formed", 1, cent)
}

// Where a key is required, one of either kind will do; where keys are off, nobody hears of them.
func TestKeyRequiredAndOff(t *testing.T) {
	site := func(mode string) string {
		return "x402 $0.01 {\nidempotency " + mode + "\n}\nreverse_proxy {upstream}"
	}
	r := rig.New(t, rig.Options{Upstream: counting(), Site: site("required")})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/x")
	w := watch(r)
	offer := b.Offer(url)
	if !strings.Contains(string(offer.Extensions[identifierExtension]), `"required":true`) {
		t.Errorf("the offer announces %s", offer.Extensions[identifierExtension])
	}
	for name, headers := range map[string][]string{
		"version 2": {x402.HeaderSignature, b.Sign(offer, 0)}, "version 1": {x402.HeaderPaymentV1, b.SignV1(offer)},
	} {
		if a := b.Get(url, headers...); a.Status != http.StatusBadRequest || code(a) != "idempotency.key_required" {
			t.Errorf("%s without a key: %d %s", name, a.Status, a.Body)
		}
	}
	w.nothing(t, "without a key")
	v1 := b.Get(url, x402.HeaderPaymentV1, b.SignV1(offer), "Idempotency-Key", "k")
	if v1.Body != "answer 1" {
		t.Errorf("version 1 with a key: %d %s", v1.Status, v1.Body)
	}
	again := b.Get(url, x402.HeaderPaymentV1, b.SignV1(offer), "Idempotency-Key", "k")
	if again.Body != v1.Body || again.Header.Get(x402.HeaderResponseV1) != v1.Header.Get(x402.HeaderResponseV1) || v1.Header.Get(x402.HeaderResponseV1) == "" {
		t.Errorf("version 1 again: %d %v %s", again.Status, again.Header, again.Body)
	}
	if a := b.Get(url, x402.HeaderSignature, b.Sign(withIdentifier(t, offer, "sixteen-letters_"), 0)); a.Body != "answer 2" {
		t.Errorf("with an identifier: %d %s", a.Status, a.Body)
	}
	w.seen(t, "with keys", 2, 2*cent)

	r.Load(rig.Options{Upstream: counting(), Site: site("off")})
	waitFor(t, func() bool { return b.Get(url).Err == nil })
	offer = b.Offer(url)
	if offer.Extensions[identifierExtension] != nil {
		t.Errorf("the offer announces %s", offer.Extensions[identifierExtension])
	}
	for range 2 {
		if a := b.Get(url, x402.HeaderSignature, b.Sign(offer, 0), "Idempotency-Key", "a", "Idempotency-Key", "b"); a.Status != http.StatusOK {
			t.Errorf("off: %d %s", a.Status, a.Body)
		}
	}
	w.seen(t, "off", 2, 2*cent)
}

// Answers that can't be given again are not: their requests are told so, with the receipt, and never charged again.
func TestAnswersThatAreNotStored(t *testing.T) {
	r := rig.New(t, rig.Options{
		Site: "x402 $0.01 {\nidempotency optional {\nmax_answer 1KiB\n}\n}\nreverse_proxy {upstream}",
		Upstream: func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/long":
				_, _ = io.Copy(w, strings.NewReader(strings.Repeat("x", 1025)))
			case "/trailers":
				w.Header().Set("Trailer", "X-Sum")
				_, _ = w.Write([]byte("body"))
				w.Header().Set("X-Sum", "1")
			case "/cut":
				w.Header().Set("Content-Length", "100")
				_, _ = w.Write([]byte("half"))
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
		},
	})
	for i, path := range []string{"/long", "/trailers", "/cut"} {
		b := rig.NewBuyer(t, i)
		w := watch(r)
		url := r.URL(path)
		ask := func() rig.Answer {
			return b.Do(t.Context(), http.MethodPost, url, "x", x402.HeaderSignature, b.Sign(b.Offer(url), 0), "Idempotency-Key", "k")
		}
		first := ask()
		if first.Status != http.StatusOK || (path == "/cut") != (first.Err != nil) {
			t.Fatalf("%s: %d %v %s", path, first.Status, first.Err, first.Body)
		}
		var again rig.Answer
		waitFor(t, func() bool { again = ask(); return code(again) != "idempotency.in_progress" })
		if again.Status != http.StatusConflict || code(again) != "idempotency.response_not_stored" || again.Header.Get("Retry-After") != "" ||
			again.Header.Get(x402.HeaderResponse) != first.Header.Get(x402.HeaderResponse) || again.Header.Get(x402.HeaderResponse) == "" {
			t.Errorf("%s again: %d %v %v %s", path, again.Status, again.Err, again.Header, again.Body)
		}
		w.seen(t, path, 1, cent)
	}
}

// What an upstream answered with an error is stored like any other answer: the payment goes back, and the request is not repeated.
func TestStoredFailure(t *testing.T) {
	for _, n := range namings {
		r := rig.New(t, rig.Options{Upstream: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write([]byte("sorry"))
		}})
		b := rig.NewBuyer(t, 1)
		url := r.URL("/fails")
		w := watch(r)
		first := b.Do(t.Context(), http.MethodPost, url, "x", n.sign(t, b, b.Offer(url), 0, n.key)...)
		if first.Status != http.StatusInternalServerError || first.Header.Get("X-Payment-Status") != "refund_pending" {
			t.Fatalf("%s: %d %v %s", n.name, first.Status, first.Header, first.Body)
		}
		replayed(t, n.name, first, b.Do(t.Context(), http.MethodPost, url, "x", n.sign(t, b, b.Offer(url), 0, n.key)...))
		w.seen(t, n.name, 1, cent)
	}
}

// HEAD has no body, and its answer is given again without one.
func TestHeadUnderAKey(t *testing.T) {
	r := rig.New(t, rig.Options{Upstream: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "12345") }})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/head")
	ask := func() rig.Answer {
		return b.Do(t.Context(), http.MethodHead, url, "", x402.HeaderSignature, b.Sign(b.Offer(url), 0), "Idempotency-Key", "k")
	}
	first := ask()
	again := ask()
	replayed(t, "HEAD", first, again)
	if again.Header.Get("Content-Length") != "12345" || r.Upstream.Calls() != 1 || r.Earned() != cent {
		t.Errorf("%v, upstream calls %d, earned %d", again.Header, r.Upstream.Calls(), r.Earned())
	}
}

// endless is a body that never ends.
type endless struct{ read atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.read.Add(int64(len(p)))
	return len(p), nil
}

// The body of a request with a key is read before anything is charged: what is too long for that is refused, what fits
// comes to the upstream as it was sent.
func TestBodiesUnderAKey(t *testing.T) {
	var got atomic.Pointer[string]
	r := rig.New(t, rig.Options{Upstream: func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		text := fmt.Sprint(r.ContentLength, " ", len(body), " ", strings.Trim(string(body), "y"))
		got.Store(&text)
	}})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/upload")
	ask := func(body io.Reader, length int64) *http.Response {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		t.Cleanup(cancel)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = length
		req.Header.Set(x402.HeaderSignature, b.Sign(b.Offer(url), 0))
		req.Header.Set("Idempotency-Key", "k"+fmt.Sprint(length))
		res, err := b.HTTP.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res
	}
	w := watch(r)
	source := new(endless)
	for name, res := range map[string]*http.Response{
		"endless": ask(source, -1), "announced": ask(io.LimitReader(source, 1<<20+1), 1<<20+1), //nolint:bodyclose // ask closes
	} {
		if res.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %d", name, res.StatusCode)
		}
	}
	if n := source.read.Load(); n > 64<<20 {
		t.Errorf("%d bytes were read", n)
	}
	w.nothing(t, "too long")
	if res := ask(strings.NewReader(strings.Repeat("y", 1<<20)), 1<<20); res.StatusCode != http.StatusOK || *got.Load() != "1048576 1048576 " { //nolint:bodyclose // ask closes
		t.Errorf("a megabyte: %d, the upstream got %s", res.StatusCode, *got.Load())
	}
	if res := ask(struct{ io.Reader }{strings.NewReader("chunked")}, -1); res.StatusCode != http.StatusOK || *got.Load() != "-1 7 chunked" { //nolint:bodyclose // ask closes
		t.Errorf("chunked: %d, the upstream got %s", res.StatusCode, *got.Load())
	}
	w.seen(t, "bodies that fit", 2, 2*cent)
}

// A client that leaves while its POST is under way gets the answer when it comes back with its key, by the same header or a new
// signature: that is what keys are for.
func TestAnswerToWhoLeft(t *testing.T) {
	for _, n := range namings {
		t.Run(n.name, func(t *testing.T) {
			release := make(chan struct{})
			r := rig.New(t, rig.Options{Upstream: func(w http.ResponseWriter, _ *http.Request) {
				<-release
				_, _ = w.Write([]byte("the "))
				_ = http.NewResponseController(w).Flush()
				_, _ = w.Write([]byte("answer"))
			}})
			b := rig.NewBuyer(t, 1)
			url := r.URL("/left")
			headers := n.sign(t, b, b.Offer(url), 0, n.key)
			ctx, cancel := context.WithCancel(t.Context())
			left := make(chan rig.Answer)
			go func() { left <- b.Do(ctx, http.MethodPost, url, "x", headers...) }()
			waitFor(t, func() bool { return r.Upstream.Calls() == 1 })
			cancel()
			if a := <-left; a.Err == nil {
				t.Fatalf("%d %s", a.Status, a.Body)
			}
			close(release)
			for i, h := range [][]string{headers, n.sign(t, b, b.Offer(url), 0, n.key)} {
				a := b.Do(t.Context(), http.MethodPost, url, "x", h...)
				if a.Status != http.StatusOK || a.Body != "the answer" || a.Header.Get("Idempotency-Replayed") != "true" {
					t.Errorf("%d: %d %v %s", i, a.Status, a.Err, a.Body)
				}
			}
			if r.Upstream.Calls() != 1 || r.Earned() != cent {
				t.Errorf("upstream calls %d, earned %d", r.Upstream.Calls(), r.Earned())
			}
		})
	}
}

// Under a key answers stream as without one: the first event arrives while the upstream holds the second back.
func TestStreamUnderAKey(t *testing.T) {
	next := make(chan struct{})
	r := rig.New(t, rig.Options{Upstream: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	}})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/events")
	res := open(t.Context(), t, b.HTTP, http.MethodGet, url, nil, x402.HeaderSignature, b.Sign(b.Offer(url), 0), "Idempotency-Key", "k") //nolint:bodyclose // open sees to it
	lines := bufio.NewReader(res.Body)
	for i := range 3 {
		if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("event %d: %q %v", i, line, err)
		}
		_, _ = lines.ReadString('\n')
		next <- struct{}{}
	}
	if _, err := io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	again := b.Get(url, x402.HeaderSignature, b.Sign(b.Offer(url), 0), "Idempotency-Key", "k")
	if again.Body != "data: 0\n\ndata: 1\n\ndata: 2\n\n" || again.Header.Get("Idempotency-Replayed") != "true" || r.Upstream.Calls() != 1 {
		t.Errorf("%d %v %q, upstream calls %d", again.Status, again.Header, again.Body, r.Upstream.Calls())
	}
}
