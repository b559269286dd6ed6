package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

const identifierExtension = "payment-identifier"

// withIdentifier is what a client does of the specification: it echoes the extension, and appends its id.
func withIdentifier(t *testing.T, o x402.PaymentRequired, id string) x402.PaymentRequired {
	t.Helper()
	var entry map[string]any
	if err := json.Unmarshal(o.Extensions[identifierExtension], &entry); err != nil {
		t.Fatalf("the offer does not announce %s: %v", identifierExtension, err)
	}
	entry["info"].(map[string]any)["id"] = id
	raw, err := json.Marshal(entry)
	if err != nil {
		t.Fatal(err)
	}
	extensions := map[string]json.RawMessage{}
	maps.Copy(extensions, o.Extensions)
	extensions[identifierExtension] = raw
	o.Extensions = extensions
	return o
}

// naming is one of the two ways to give a key.
type naming struct {
	name     string
	key      string
	conflict int
	// sign gives the headers of a request that is paid with option i of an offer, under a key.
	sign func(t *testing.T, b *rig.Buyer, o x402.PaymentRequired, i int, key string) []string
}

var namings = []naming{
	{"identifier", "pay_7d5d747be160e280504c099d984bcfe0", http.StatusConflict, func(t *testing.T, b *rig.Buyer, o x402.PaymentRequired, i int, key string) []string {
		return []string{x402.HeaderSignature, b.Sign(withIdentifier(t, o, key), i)}
	}},
	{"header", "8e03978e-40d5-43dd-bc93-6894a57f9324", http.StatusUnprocessableEntity, func(_ *testing.T, b *rig.Buyer, o x402.PaymentRequired, i int, key string) []string {
		return []string{x402.HeaderSignature, b.Sign(o, i), "Idempotency-Key", key}
	}},
}

// counting answers with the number of the call, so that two answers of the upstream are never equal.
func counting() http.HandlerFunc {
	var n atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Set-Cookie", "session=secret")
		w.Header().Set("Cache-Control", "public, max-age=60")
		w.Header().Set("X-Odd", "caf\xe9")
		if strings.HasPrefix(r.URL.Path, "/created") {
			w.WriteHeader(http.StatusCreated)
		}
		_, _ = fmt.Fprintf(w, "answer %d", n.Add(1))
	}
}

// code is the stable code of a problem.
func code(a rig.Answer) string {
	var p struct{ Code string }
	_ = json.Unmarshal([]byte(a.Body), &p)
	return p.Code
}

// replayed checks that again is the answer first, given again.
func replayed(t *testing.T, what string, first, again rig.Answer) {
	t.Helper()
	if again.Err != nil || again.Status != first.Status || again.Body != first.Body || again.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("%s: %d %v %v %q, want %d %q again", what, again.Status, again.Err, again.Header, again.Body, first.Status, first.Body)
		return
	}
	for _, name := range []string{x402.HeaderResponse, "X-Payment-Id", "X-Payment-Status", "Content-Type", "Cache-Control", "X-Odd"} {
		if again.Header.Get(name) != first.Header.Get(name) {
			t.Errorf("%s: %s is %q, was %q", what, name, again.Header.Get(name), first.Header.Get(name))
		}
	}
	if first.Header.Get("Idempotency-Replayed") != "" || again.Header.Get("Set-Cookie") != "" {
		t.Errorf("%s: first %v, again %v", what, first.Header, again.Header)
	}
}

// The same payer with the same key and the same request gets the same answer, whatever it signs, and pays once. Anything else
// under that key is refused; another payer's is another key.
func TestSameKey(t *testing.T) {
	for _, n := range namings {
		t.Run(n.name, func(t *testing.T) {
			r := rig.New(t, rig.Options{Upstream: counting()})
			b := rig.NewBuyer(t, 1)
			url := r.URL("/created?x=1")
			ask := func(b *rig.Buyer, method, url, body, contentType string, key string) rig.Answer {
				h := n.sign(t, b, b.Offer(url), 0, key)
				return b.Do(t.Context(), method, url, body, append(h, "Content-Type", contentType)...)
			}
			w := watch(r)
			headers := n.sign(t, b, b.Offer(url), 0, n.key)
			headers = append(headers, "Content-Type", "text/plain")
			first := b.Do(t.Context(), http.MethodPost, url, "body", headers...)
			if first.Status != http.StatusCreated || first.Body != "answer 1" || first.Header.Get("Set-Cookie") == "" {
				t.Fatalf("%d %v %v %s", first.Status, first.Err, first.Header, first.Body)
			}
			w.seen(t, "the first", 1, cent)
			replayed(t, "the same header", first, b.Do(t.Context(), http.MethodPost, url, "body", headers...))
			for range 2 {
				replayed(t, "a new signature", first, ask(b, http.MethodPost, url, "body", "text/plain", n.key))
			}
			for what, a := range map[string]rig.Answer{
				"another body":   ask(b, http.MethodPost, url, "other", "text/plain", n.key),
				"no body":        ask(b, http.MethodPost, url, "", "text/plain", n.key),
				"another type":   ask(b, http.MethodPost, url, "body", "text/html", n.key),
				"another method": ask(b, http.MethodPut, url, "body", "text/plain", n.key),
				"another query":  ask(b, http.MethodPost, r.URL("/created?x=2"), "body", "text/plain", n.key),
				"another path":   ask(b, http.MethodPost, r.URL("/other?x=1"), "body", "text/plain", n.key),
			} {
				if a.Status != n.conflict || code(a) != "idempotency.conflict" {
					t.Errorf("%s: %d %v %s", what, a.Status, a.Err, a.Body)
				}
			}
			if n.name == "identifier" { // the header that paid, with another body
				a := b.Do(t.Context(), http.MethodPost, url, "other", headers...)
				if a.Status != n.conflict {
					t.Errorf("the same header with another body: %d %s", a.Status, a.Body)
				}
			}
			w.nothing(t, "under the key")
			other := ask(rig.NewBuyer(t, 2), http.MethodPost, url, "body", "text/plain", n.key)
			if other.Status != http.StatusCreated || other.Body != "answer 2" || other.Header.Get("Idempotency-Replayed") != "" {
				t.Errorf("another payer: %d %s", other.Status, other.Body)
			}
			w.seen(t, "another payer", 1, cent)
			if a := ask(b, http.MethodPost, url, "body", "text/plain", n.key+"-another-one"); a.Body != "answer 3" {
				t.Errorf("another key: %d %s", a.Status, a.Body)
			}
			w.seen(t, "another key", 1, cent)
		})
	}
}

// Who has the key and not the payer's signature has nothing: without a payment there is the offer, with a used one that
// somebody read from the chain a refusal.
func TestHolderOfTheKey(t *testing.T) {
	for _, n := range namings {
		t.Run(n.name, func(t *testing.T) {
			r := rig.New(t, rig.Options{Upstream: counting()})
			b := rig.NewBuyer(t, 1)
			url := r.URL("/secret")
			offer := withIdentifier(t, b.Offer(url), "an-id-of-16-chars")
			a, sig := b.Authorize(offer.Accepts[0])
			first := b.Get(url, x402.HeaderSignature, rig.Encode(t, offer.Pay(offer.Accepts[0], &a, sig)), "Idempotency-Key", n.key)
			if first.Status != http.StatusOK {
				t.Fatalf("%d %s", first.Status, first.Body)
			}
			w := watch(r)
			thief := rig.NewBuyer(t, 2)
			refused(t, "no payment", thief.Get(url, "Idempotency-Key", n.key), "Payment required")
			rebuilt := withIdentifier(t, thief.Offer(url), "an-id-of-16-chars") // with an echo of the thief's own
			for what, header := range map[string]string{
				"another echo": rig.Encode(t, rebuilt.Pay(rebuilt.Accepts[0], &a, sig)),
				"no echo":      rig.Encode(t, (&x402.PaymentRequired{Resource: offer.Resource, Extensions: map[string]json.RawMessage{identifierExtension: offer.Extensions[identifierExtension]}}).Pay(offer.Accepts[0], &a, sig)),
			} {
				refused(t, what, thief.Get(url, x402.HeaderSignature, header, "Idempotency-Key", n.key), x402.ReasonNonceUsed)
			}
			forged, _ := thief.Authorize(rebuilt.Accepts[0], func(f *x402.Authorization) { f.From = b.Account.Address })
			_, wrong := thief.Authorize(rebuilt.Accepts[0])
			got := thief.Get(url, x402.HeaderSignature, rig.Encode(t, rebuilt.Pay(rebuilt.Accepts[0], &forged, wrong)), "Idempotency-Key", n.key)
			if got.Status != http.StatusPaymentRequired {
				t.Errorf("somebody else's name: %d %s", got.Status, got.Body)
			}
			w.nothing(t, "by the thief")
		})
	}
}

// Many requests under one key at once, each with a signature of its own, are one: one transfer, one call, one answer for all.
func TestFiftyAtOnceUnderOneKey(t *testing.T) {
	for _, n := range namings {
		t.Run(n.name, func(t *testing.T) {
			r := rig.New(t, rig.Options{Upstream: counting(), BlockTime: 500 * time.Millisecond})
			b := rig.NewBuyer(t, 1)
			url := r.URL("/once")
			headers := make([][]string, 50)
			for i := range headers {
				headers[i] = n.sign(t, b, b.Offer(url), 0, n.key)
			}
			answers := make([]rig.Answer, len(headers))
			var wg sync.WaitGroup
			for i := range headers {
				wg.Go(func() { answers[i] = b.Do(t.Context(), http.MethodPost, url, "x", headers[i]...) })
			}
			wg.Wait()
			count := map[string]int{}
			for i, a := range answers {
				switch {
				case a.Status == http.StatusOK && a.Body == "answer 1":
					count["200 "+a.Header.Get("Idempotency-Replayed")]++
				case a.Status == http.StatusConflict && code(a) == "idempotency.in_progress" && a.Header.Get("Retry-After") != "":
					count["409"]++
				default:
					t.Errorf("request %d: %d %v %s", i, a.Status, a.Err, a.Body)
				}
			}
			t.Log(count)
			if count["200 "] != 1 {
				t.Errorf("answers: %v", count)
			}
			if r.Upstream.Calls() != 1 || r.Earned() != cent {
				t.Errorf("upstream calls %d, earned %d", r.Upstream.Calls(), r.Earned())
			}
		})
	}
}

// A request whose first copy is under way waits for its answer; if that takes too long, it is told to come back.
func TestKeyInProgress(t *testing.T) {
	for _, n := range namings {
		t.Run(n.name, func(t *testing.T) {
			release := make(chan struct{})
			answer := counting()
			r := rig.New(t, rig.Options{App: "settle_timeout 2s", Upstream: func(w http.ResponseWriter, req *http.Request) {
				<-release
				answer(w, req)
			}})
			b := rig.NewBuyer(t, 1)
			url := r.URL("/slow")
			var first, second rig.Answer
			ended := make(chan struct{})
			headers := n.sign(t, b, b.Offer(url), 0, n.key)
			go func() {
				defer close(ended)
				first = b.Do(t.Context(), http.MethodPost, url, "x", headers...)
			}()
			waitFor(t, func() bool { return r.Upstream.Calls() == 1 })
			for _, h := range [][]string{n.sign(t, b, b.Offer(url), 0, n.key), headers} {
				second = b.Do(t.Context(), http.MethodPost, url, "x", h...)
				if second.Status != http.StatusConflict || code(second) != "idempotency.in_progress" || second.Header.Get("Retry-After") == "" {
					t.Errorf("while the first is under way: %d %v %s", second.Status, second.Header, second.Body)
				}
			}
			close(release)
			<-ended
			replayed(t, "after it", first, b.Do(t.Context(), http.MethodPost, url, "x", n.sign(t, b, b.Offer(url), 0, n.key)...))
			if r.Upstream.Calls() != 1 || r.Earned() != cent {
				t.Errorf("upstream calls %d, earned %d", r.Upstream.Calls(), r.Earned())
			}
		})
	}
}
