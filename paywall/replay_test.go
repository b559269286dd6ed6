package paywall

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

// weighed counts what is stored of answers, and how often one is read.
type weighed struct {
	ledger.Store
	bytes, read atomic.Int64
}

func (w *weighed) Reservation(ctx context.Context, key common.Hash) (ledger.Reservation, error) {
	r, err := w.Store.Reservation(ctx, key)
	if len(r.Answer) > 0 {
		w.read.Add(1)
	}
	return r, err
}

func (w *weighed) Reserve(ctx context.Context, r ledger.Reservation, over string, ttl time.Duration) (ledger.Reservation, error) {
	w.bytes.Add(int64(len(r.Answer)))
	return w.Store.Reserve(ctx, r, over, ttl)
}

// identified is a payment header with an id of the extension payment-identifier.
func identified(t *testing.T, header, id string) string {
	t.Helper()
	var payload map[string]any
	if err := x402.DecodeHeader(header, 1<<20, &payload); err != nil {
		t.Fatal(err)
	}
	payload["extensions"].(map[string]any)[extensionIdentifier] = map[string]any{"info": map[string]any{"required": false, "id": id}}
	header, err := x402.EncodeHeader(payload)
	if err != nil {
		t.Fatal(err)
	}
	return header
}

// Further keys for an answer that is stored already cost nobody anything: so they take next to nothing of the ledger, and there are
// not many of them.
func TestKeysOfOneAnswer(t *testing.T) {
	var store *weighed
	c := newCluster(t, 1, Settings{}, func(_ int, s ledger.Store) ledger.Store {
		store = &weighed{Store: s}
		return store
	})
	answer := bytes.Repeat([]byte("x"), 1<<16)
	c.serve = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(answer) }
	header := identified(t, c.sign(0, 1, ""), "identifier-of-one")
	ask := func(pairs ...string) reply { return c.ask(0, http.MethodPost, "/x", "b", pairs...) }
	if a := ask(headerSignature, header); a.status != http.StatusOK || a.header.Get(headerReplayed) != "" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := ask(headerSignature, header, headerIdempotencyKey, "first"); a.header.Get(headerReplayed) != "true" || a.body != string(answer) {
		t.Errorf("%d %.200s", a.status, a.body)
	}
	// What is bound is found by that key alone, and by a key that comes with it.
	for _, h := range []string{header, c.sign(0, 1, ""), identified(t, c.sign(0, 1, ""), "identifier-of-one"), identified(t, c.sign(0, 1, ""), "identifier-of-two")} {
		if a := ask(headerSignature, h, headerIdempotencyKey, "first"); a.header.Get(headerReplayed) != "true" || a.body != string(answer) {
			t.Errorf("%d %.200s", a.status, a.body)
		}
	}
	if a := ask(headerSignature, c.sign(0, 2, ""), headerIdempotencyKey, "first"); a.header.Get(headerReplayed) != "" {
		t.Error("another payer's key gives this one's answer")
	}
	store.bytes.Store(0)
	bound, limited := 0, 0
	for i := range 48 {
		switch a := ask(headerSignature, header, headerIdempotencyKey, fmt.Sprintf("k%d", i)); {
		case a.status == http.StatusOK && a.header.Get(headerReplayed) == "true" && a.body == string(answer):
			bound++
		case isProblem(a, http.StatusTooManyRequests, codeLimited):
			limited++
		default:
			t.Fatalf("%d: %d %.200s", i, a.status, a.body)
		}
	}
	if bound < 2 || limited == 0 {
		t.Errorf("%d keys were bound to an answer, and %d refused", bound, limited)
	}
	if n := store.bytes.Load(); n > int64(bound)*256 {
		t.Errorf("%d more keys of an answer of %d bytes took %d bytes", bound, len(answer), n)
	}
	c.saw(2, 2*cent)
}

// A client that leaves in the middle of an answer, which counts as delivered, gets it whole when it comes back with its key: of a GET
// as well, though the upstream could be asked again for nothing before the answer began.
func TestAnswerToWhoLeftInItsMiddle(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		t.Run(method, func(t *testing.T) {
			c := newCluster(t, 1, Settings{}, nil)
			left := make(chan struct{})
			c.serve = func(w http.ResponseWriter, r *http.Request) {
				_, _ = w.Write([]byte("first "))
				_ = http.NewResponseController(w).Flush()
				<-left
				select {
				case <-r.Context().Done():
					panic(http.ErrAbortHandler)
				case <-time.After(50 * time.Millisecond):
				}
				_, _ = w.Write([]byte("second"))
			}
			header := c.sign(0, 1, "")
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			r, err := http.NewRequestWithContext(ctx, method, c.instances[0].server.URL+"/x", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set(headerSignature, header)
			r.Header.Set(headerIdempotencyKey, "k")
			res, err := c.instances[0].server.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := bufio.NewReader(res.Body).Peek(5); err != nil {
				t.Fatal(err)
			}
			leave()
			_ = res.Body.Close()
			time.AfterFunc(50*time.Millisecond, func() { close(left) })
			for _, h := range []string{header, c.sign(0, 1, "")} {
				a := c.ask(0, method, "/x", "", headerSignature, h, headerIdempotencyKey, "k")
				if a.status != http.StatusOK || a.body != "first second" || a.header.Get(headerReplayed) != "true" {
					t.Errorf("%d %s", a.status, a.body)
				}
			}
			c.saw(1, cent)
		})
	}
}

// Answers that are given again cost their client nothing: each is read once, and one address gets so many and then is slowed down.
func TestReplaysAreCounted(t *testing.T) {
	var store *weighed
	c := newCluster(t, 1, Settings{}, func(_ int, s ledger.Store) ledger.Store {
		store = &weighed{Store: s}
		return store
	})
	header := c.sign(0, 1, "")
	ask := func() reply {
		return c.ask(0, http.MethodPost, "/x", "b", headerSignature, header, headerIdempotencyKey, "k")
	}
	if a := ask(); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	given, limited := int64(0), 0
	const most = allowance / replayUnits
	for range 2*most + 100 {
		switch a := ask(); {
		case a.status == http.StatusOK && a.header.Get(headerReplayed) == "true":
			given++
		case isProblem(a, http.StatusTooManyRequests, codeLimited):
			limited++
			if limited == 1 && store.read.Load() != given+1 {
				t.Errorf("%d answers were given again, and one not: answers were read %d times", given, store.read.Load())
			}
		default:
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if given < most || limited == 0 {
		t.Errorf("%d answers were given again, and %d not", given, limited)
	}
	c.saw(1, cent)
}
