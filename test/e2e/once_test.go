package e2e

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

const cent = 10_000 // atomic units of a token with 6 decimals

// Of 100 copies of one signed request, one is paid for, reaches the upstream and is answered 200; the others say that a
// copy was first, and that nobody must sign anew.
func TestHundredCopiesOfOneRequest(t *testing.T) {
	r := rig.New(t, rig.Options{BlockTime: time.Second})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/copies")
	header := b.Sign(b.Offer(url), 0)

	answers := make([]rig.Answer, 100)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = b.Get(url, x402.HeaderSignature, header) })
	}
	wg.Wait()

	count := map[int]int{}
	for i, a := range answers {
		if a.Err != nil {
			t.Fatalf("copy %d: %v", i, a.Err)
		}
		count[a.Status]++
		if a.Status == http.StatusServiceUnavailable && (a.Header.Get("Retry-After") == "" || !strings.Contains(a.Body, `"payment_pending"`)) {
			t.Errorf("copy %d: a 503 without what to do: %v %s", i, a.Header, a.Body)
		}
	}
	if count[200] != 1 || count[200]+count[402]+count[503] != 100 {
		t.Errorf("answers by status: %v", count)
	}
	if r.Upstream.Calls() != 1 || r.Earned() != cent {
		t.Errorf("upstream calls %d, earned %d", r.Upstream.Calls(), r.Earned())
	}
}

// 200 payers at once make 200 transfers and get 200 answers, and the balances are exact.
func TestTwoHundredPayers(t *testing.T) {
	r := rig.New(t, rig.Options{BlockTime: time.Second})
	const payers = 200
	answers := make([]rig.Answer, payers)
	before := make([]uint64, payers)
	var wg sync.WaitGroup
	for i := range payers {
		b := rig.NewBuyer(t, i)
		before[i] = r.Balance(b.Account.Address).Uint64()
		wg.Go(func() { answers[i], _ = b.Buy(r.URL("/many")) })
	}
	wg.Wait()
	for i, a := range answers {
		if a.Status != http.StatusOK {
			t.Errorf("payer %d: %d %v %s", i, a.Status, a.Err, a.Body)
		}
		if after := r.Balance(devnet.Payer(i).Address).Uint64(); before[i]-after != cent {
			t.Errorf("payer %d paid %d", i, before[i]-after)
		}
	}
	if r.Upstream.Calls() != payers || r.Earned() != payers*cent {
		t.Errorf("upstream calls %d, earned %d", r.Upstream.Calls(), r.Earned())
	}
}

// A client that leaves while the chain is slow is settled all the same, and gets what it paid for when it sends the same
// header again: exactly once.
func TestSameHeaderAfterLostConnection(t *testing.T) {
	r := rig.New(t, rig.Options{})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/lost")
	header := b.Sign(b.Offer(url), 0)
	r.Chain.Stall()
	leave(t, r, b, http.MethodGet, url, "", x402.HeaderSignature, header)
	if r.Upstream.Calls() != 0 {
		t.Fatal("the upstream was called before the payment was settled")
	}
	r.Chain.Resume()
	answer := b.Get(url, x402.HeaderSignature, header)
	if answer.Status != http.StatusOK {
		t.Fatalf("the same header: %d %s", answer.Status, answer.Body)
	}
	if again := b.Get(url, x402.HeaderSignature, header); again.Status != http.StatusPaymentRequired {
		t.Errorf("the same header once more: %d", again.Status)
	}
	if r.Upstream.Calls() != 1 || r.Earned() != cent {
		t.Errorf("upstream calls %d, earned %d", r.Upstream.Calls(), r.Earned())
	}
}

// leave sends a paid request and hangs up once its transaction is on its way. The chain is stalled.
func leave(t *testing.T, r *rig.Rig, b *rig.Buyer, method, url, body string, header ...string) {
	t.Helper()
	before := r.Chain.Pending()
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	answer := make(chan rig.Answer, 1)
	go func() { answer <- b.Do(ctx, method, url, body, header...) }()
	waitFor(t, func() bool { return r.Chain.Pending() > before })
	hangUp()
	if a := <-answer; a.Err == nil {
		t.Fatalf("the request was answered: %d %s", a.Status, a.Body)
	}
}

// A stock client signs anew. Its new signature is proof of who it is: it gets what it paid for before, and the new
// authorization is never sent. Both protocol versions.
func TestFreshSignatureConsumesTheUnservedPayment(t *testing.T) {
	for name, sign := range map[string]func(*rig.Buyer, x402.PaymentRequired) (string, string){
		"v2": func(b *rig.Buyer, o x402.PaymentRequired) (string, string) { return x402.HeaderSignature, b.Sign(o, 0) },
		"v1": func(b *rig.Buyer, o x402.PaymentRequired) (string, string) { return x402.HeaderPaymentV1, b.SignV1(o) },
	} {
		t.Run(name, func(t *testing.T) {
			r := rig.New(t, rig.Options{App: "settle_timeout 5s"})
			b := rig.NewBuyer(t, 1)
			url := r.URL("/anew")
			key, first := sign(b, b.Offer(url))
			r.Chain.Stall()
			leave(t, r, b, http.MethodGet, url, "", key, first)
			// While its fate is unknown, nothing new is claimed.
			_, second := sign(b, b.Offer(url))
			if a := b.Get(url, key, second); a.Status != http.StatusServiceUnavailable {
				t.Fatalf("a new signature while the first is unknown: %d %s", a.Status, a.Body)
			}
			r.Chain.Resume()
			waitFor(t, func() bool { return r.Earned() == cent })
			_, third := sign(b, b.Offer(url))
			if a := b.Get(url, key, third); a.Status != http.StatusOK {
				t.Fatalf("a new signature after settlement: %d %s", a.Status, a.Body)
			}
			if r.Upstream.Calls() != 1 || r.Earned() != cent {
				t.Errorf("upstream calls %d, earned %d", r.Upstream.Calls(), r.Earned())
			}
			// The next one is a new purchase.
			_, fourth := sign(b, b.Offer(url))
			if a := b.Get(url, key, fourth); a.Status != http.StatusOK || r.Earned() != 2*cent {
				t.Errorf("a new purchase: %d, earned %d", a.Status, r.Earned())
			}
		})
	}
}

// waitFor polls until ok.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to pass")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Who pays many requests at once gets all of them: one payment does not stand in for another that is being served.
func TestOnePayerManyRequestsAtOnce(t *testing.T) {
	r := rig.New(t, rig.Options{BlockTime: 500 * time.Millisecond})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/parallel")
	headers := make([]string, 20)
	for i := range headers {
		headers[i] = b.Sign(b.Offer(url), 0)
	}
	answers := make([]rig.Answer, len(headers))
	var wg sync.WaitGroup
	for i := range headers {
		wg.Go(func() { answers[i] = b.Get(url, x402.HeaderSignature, headers[i]) })
	}
	wg.Wait()
	for i, a := range answers {
		if a.Status != http.StatusOK {
			t.Errorf("request %d: %d %v %s", i, a.Status, a.Err, a.Body)
		}
	}
	if r.Upstream.Calls() != 20 || r.Earned() != 20*cent {
		t.Errorf("upstream calls %d, earned %d", r.Upstream.Calls(), r.Earned())
	}
}

// A copy of the payment header that somebody rebuilt from calldata resumes nothing: it lacks the random echo.
func TestRebuiltHeaderResumesNothing(t *testing.T) {
	r := rig.New(t, rig.Options{})
	b := rig.NewBuyer(t, 1)
	url := r.URL("/rebuilt")
	offer := b.Offer(url)
	a, sig := b.Authorize(offer.Accepts[0])
	header := rig.Encode(t, offer.Pay(offer.Accepts[0], &a, sig))
	r.Chain.Stall()
	leave(t, r, b, http.MethodGet, url, "", x402.HeaderSignature, header)
	r.Chain.Resume()
	waitFor(t, func() bool { return r.Earned() == cent })

	thief := rig.NewBuyer(t, 2)
	rebuilt := thief.Offer(url) // with an echo of the thief's own
	for name, forged := range map[string]string{
		"another echo": rig.Encode(t, rebuilt.Pay(rebuilt.Accepts[0], &a, sig)),
		"no echo":      rig.Encode(t, (&x402.PaymentRequired{Resource: offer.Resource}).Pay(offer.Accepts[0], &a, sig)),
	} {
		if got := thief.Get(url, x402.HeaderSignature, forged); got.Status == http.StatusOK {
			t.Errorf("%s: %d", name, got.Status)
		}
	}
	v1 := rig.Encode(t, map[string]any{
		"x402Version": 1, "scheme": "exact", "network": "base-sepolia",
		"payload": x402.ExactPayload{Signature: sig, Authorization: a},
	})
	if got := thief.Get(url, x402.HeaderPaymentV1, v1); got.Status == http.StatusOK {
		t.Errorf("as version 1: %d", got.Status)
	}
	if r.Upstream.Calls() != 0 {
		t.Fatal("the thief was served")
	}
	if got := b.Get(url, x402.HeaderSignature, header); got.Status != http.StatusOK || r.Upstream.Calls() != 1 {
		t.Errorf("the payer itself: %d %s", got.Status, got.Body)
	}
}
