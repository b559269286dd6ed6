package flows

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// The upstream is asked before anything is charged, and its answer goes out after it.
func TestServedThenPaid(t *testing.T) {
	s := open(t, rig.Options{Site: heldSite})
	b := rig.NewBuyer(t, 1)
	for i, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
		t.Run(method, func(t *testing.T) {
			var before uint64
			s.serve(func(w http.ResponseWriter, r *http.Request) {
				before = s.Earned()
				w.Header().Set("X-Told", "["+r.Header.Get("X-Payment-Transaction")+"] "+r.Header.Get("X-Payment-Payer"))
				body, _ := io.ReadAll(r.Body)
				_, _ = fmt.Fprintf(w, "answer to %s %s", r.Method, body)
			})
			offer := b.Offer(s.URL("/x"))
			if flow := offer.Accepts[0].Extra.PaymentFlow; flow != "" {
				t.Errorf("the offer announces the flow %q", flow)
			}
			sent := ""
			if method == http.MethodPost {
				sent = "tea"
			}
			a, signed := s.pay(b, method, "/x", sent)
			s.paid("the first", b, a)
			want := "answer to " + method + " " + sent
			if method == http.MethodHead {
				want = ""
			}
			if a.Body != want || a.Header.Get("X-Told") != "[] "+b.Account.Address.Hex() || a.Header.Get("Cache-Control") != "private" {
				t.Errorf("%v %q", a.Header, a.Body)
			}
			if before != uint64(i)*cent {
				t.Errorf("when the upstream was asked, %d was earned", before)
			}
			if a := s.again(b, method, "/x", sent, signed); a.Status != http.StatusPaymentRequired {
				t.Errorf("a replay was answered %d", a.Status)
			}
			s.saw(method, i+1, uint64(i+1)*cent)
		})
	}
}

// What the upstream refuses costs nothing, and comes through as it is.
func TestErrorsCostNothing(t *testing.T) {
	s := open(t, rig.Options{Site: heldSite})
	b := rig.NewBuyer(t, 1)
	calls := 0
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		for _, status := range []int{400, 402, 404, 429, 500, 503} {
			s.serve(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Why", "because")
				w.Header().Set("Payment-Response", "forged")
				w.WriteHeader(status)
				_, _ = io.WriteString(w, strings.Repeat("sorry ", 20_000)) // more than is held back
			})
			a, signed := s.pay(b, method, "/x", "")
			what := fmt.Sprint(method, " ", status)
			s.free(what, b, a, status)
			if a.Body != strings.Repeat("sorry ", 20_000) || a.Header.Get("X-Why") != "because" {
				t.Errorf("%s: %v %.50s", what, a.Header, a.Body)
			}
			if again := s.again(b, method, "/x", "", signed); again.Status != http.StatusPaymentRequired || !contains(again.Body, "upstream_status_"+strconv.Itoa(status)) {
				t.Errorf("%s, the same header: %d %.200s", what, again.Status, again.Body)
			}
			calls++
		}
	}
	s.saw("errors", calls, 0)
	s.serve(rig.Echo)
	a, _ := s.pay(b, http.MethodGet, "/x", "")
	s.paid("afterwards", b, a)
	s.saw("afterwards", calls+1, cent)
}

// An upstream that gives no answer, or half of one, costs nothing either.
func TestBrokenAnswersCostNothing(t *testing.T) {
	s := open(t, rig.Options{Site: heldSite})
	b := rig.NewBuyer(t, 1)
	s.serve(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	a, _ := s.pay(b, http.MethodPost, "/x", "")
	s.free("no answer", b, a, http.StatusBadGateway)
	s.serve(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		w.Header().Set("Set-Cookie", "secret=1")
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	a, _ = s.pay(b, http.MethodPost, "/x", "")
	if a.Err == nil && (a.Status < 500 || contains(a.Body, "half") || a.Header.Get("Set-Cookie") != "") {
		t.Errorf("half an answer: %d %v %s", a.Status, a.Header, a.Body)
	}
	s.saw("broken answers", 2, 0)
}

// A payment that fails after the upstream has answered: the payer is told why, and gets nothing of the answer.
func TestPaymentFailsAfterTheAnswer(t *testing.T) {
	s := open(t, rig.Options{Site: heldSite})
	for i, method := range []string{http.MethodGet, http.MethodPost} {
		b := rig.NewBuyer(t, i)
		s.serve(func(w http.ResponseWriter, _ *http.Request) {
			if err := s.Chain.Blacklist(context.WithoutCancel(t.Context()), b.Account.Address); err != nil {
				t.Error(err)
			}
			w.Header().Set("Set-Cookie", "secret=1")
			_, _ = io.WriteString(w, "the secret")
		})
		a, _ := s.pay(b, method, "/x", "")
		r := receipt(t, a)
		if a.Status != http.StatusPaymentRequired || r == nil || r.Success || r.ErrorReason == "" || contains(a.Body, "secret") || a.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %d %v %s", method, a.Status, a.Header, a.Body)
		}
		if got := s.state(b, a.Header.Get("X-Payment-Id")); got != "FAILED" {
			t.Errorf("%s: the payment is %s", method, got)
		}
	}
	s.saw("failed", 2, 0)
}

// While nobody knows whether the payment went through, the answer is kept from its payer, who is told to come back. Then a GET is
// asked again; a POST, which is not done twice, goes back.
func TestOutcomeUnknown(t *testing.T) {
	s := open(t, rig.Options{Site: heldSite, App: "settle_timeout 4s\n interval 200ms\n hold_ttl 2s"})
	for i, method := range []string{http.MethodGet, http.MethodPost} {
		b := rig.NewBuyer(t, i)
		s.serve(func(w http.ResponseWriter, _ *http.Request) {
			s.Chain.Stall()
			_, _ = io.WriteString(w, "the secret")
		})
		a, signed := s.pay(b, method, "/x", "")
		if a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || contains(a.Body, "secret") {
			t.Fatalf("%s: %d %v %s", method, a.Status, a.Header, a.Body)
		}
		id, calls := a.Header.Get("X-Payment-Id"), s.Upstream.Calls()
		if got := s.state(b, id); got != "SETTLING" {
			t.Errorf("%s: the payment is %s", method, got)
		}
		s.serve(rig.Echo)
		s.Chain.Resume()
		a = s.insist(b, method, "/x", "", signed)
		if method == http.MethodGet {
			s.paid("a GET that comes back", b, a)
			s.saw("a GET that comes back", calls+1, cent)
			continue
		}
		if a.Status != http.StatusPaymentRequired || a.Header.Get("X-Payment-Status") != "refund_pending" {
			t.Errorf("a POST that comes back: %d %v %s", a.Status, a.Header, a.Body)
		}
		s.saw("a POST that comes back", calls, 2*cent)
	}
}

// An answer that is longer than what is held back is paid for while the upstream waits, and then streams.
func TestLongAnswers(t *testing.T) {
	s := open(t, rig.Options{Site: heldSite})
	b := rig.NewBuyer(t, 1)
	long := strings.Repeat("0123456789abcdef", 3<<16) // 3 MiB
	s.serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		if r.URL.Path == "/short" {
			_, _ = io.WriteString(w, "short")
		} else {
			_, _ = io.WriteString(w, long)
		}
		w.Header().Set("X-Sum", "42")
	})
	for i, path := range []string{"/long", "/short"} {
		header := b.Sign(b.Offer(s.URL(path)), 0)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL(path), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(x402.HeaderSignature, header)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if earned := s.Earned(); earned != uint64(i+1)*cent {
			t.Errorf("%s: %d was earned when the answer began", path, earned)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if want := map[string]string{"/long": long, "/short": "short"}[path]; err != nil || string(body) != want {
			t.Errorf("%s: %d bytes, %v", path, len(body), err)
		}
		if res.Trailer.Get("X-Sum") != "42" {
			t.Errorf("%s: the trailer is %v", path, res.Trailer)
		}
	}
}

// A payment that fails when the answer has turned out long: the rest is not asked for, and nothing goes out.
func TestLongAnswerUnpaid(t *testing.T) {
	s := open(t, rig.Options{Site: heldSite})
	b := rig.NewBuyer(t, 1)
	s.serve(func(w http.ResponseWriter, _ *http.Request) {
		if err := s.Chain.Blacklist(context.WithoutCancel(t.Context()), b.Account.Address); err != nil {
			t.Error(err)
		}
		for range 1 << 10 {
			if _, err := io.WriteString(w, strings.Repeat("secret", 1<<10)); err != nil {
				return
			}
		}
	})
	a, _ := s.pay(b, http.MethodGet, "/x", "")
	if a.Err != nil || a.Status != http.StatusPaymentRequired || contains(a.Body, "secret") {
		t.Errorf("%d %v %.200s", a.Status, a.Err, a.Body)
	}
	s.saw("unpaid", 1, 0)
}

// Who asks for a stream is told that there is none, before it signs and after; an answer that turns out to be one is paid for at
// its beginning, and streams.
func TestStreams(t *testing.T) {
	s := open(t, rig.Options{Site: heldSite})
	b := rig.NewBuyer(t, 1)
	signed := b.Sign(b.Offer(s.URL("/x")), 0)
	for name, header := range map[string][]string{
		"upgrade": {"Connection", "keep-alive, Upgrade", "Upgrade", "websocket", "Sec-Websocket-Version", "13", "Sec-Websocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="},
		"events":  {"Accept", "text/event-stream"},
	} {
		for _, a := range []rig.Answer{b.Get(s.URL("/x"), header...), s.again(b, http.MethodGet, "/x", "", signed, header...)} {
			if a.Status != http.StatusNotAcceptable || code(a) != "stream_not_sold" {
				t.Errorf("%s: %d %v %s", name, a.Status, a.Err, a.Body)
			}
		}
	}
	s.saw("refused", 0, 0)
	next := make(chan struct{})
	s.serve(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for i := range 3 {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL("/x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(x402.HeaderSignature, signed)
	req.Header.Set("Accept", "application/json, text/event-stream")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK || s.Earned() != cent {
		t.Fatalf("%d, earned %d", res.StatusCode, s.Earned())
	}
	lines := bufio.NewReader(res.Body)
	for i := range 3 {
		line, err := lines.ReadString('\n')
		if err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("event %d: %q %v", i, line, err)
		}
		_, _ = lines.ReadString('\n')
		next <- struct{}{}
	}
}

// A client that leaves while the upstream works: a GET costs nothing, and can be asked again with the same header; a POST is done,
// and paid for.
func TestClientLeaves(t *testing.T) {
	s := open(t, rig.Options{Site: heldSite})
	for i, method := range []string{http.MethodGet, http.MethodPost} {
		b := rig.NewBuyer(t, i)
		asked, left := make(chan struct{}), make(chan struct{})
		s.serve(func(w http.ResponseWriter, r *http.Request) {
			close(asked)
			if method == http.MethodGet {
				<-r.Context().Done()
			}
			<-left
			_, _ = io.WriteString(w, "done")
		})
		signed := b.Sign(b.Offer(s.URL("/x")), 0)
		s.leave(b, method, "/x", "", signed, asked)
		close(left)
		if method == http.MethodPost {
			waitFor(t, "the payment of a POST that was done", func() bool { return s.Earned() == 2*cent })
			if a := s.insist(b, method, "/x", "", signed); a.Status != http.StatusPaymentRequired {
				t.Errorf("a POST that comes back: %d %s", a.Status, a.Body)
			}
			s.saw("a POST", 3, 2*cent)
			continue
		}
		s.serve(rig.Echo)
		s.paid("a GET that comes back", b, s.insist(b, method, "/x", "", signed))
		s.saw("a GET", 2, cent)
	}
}

// Of many copies of a request one reaches the upstream, and is charged.
func TestCopies(t *testing.T) {
	s := open(t, rig.Options{Site: heldSite})
	b := rig.NewBuyer(t, 1)
	signed := b.Sign(b.Offer(s.URL("/x")), 0)
	answers := make([]rig.Answer, 40)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = s.again(b, http.MethodPost, "/x", "", signed) })
	}
	wg.Wait()
	count := map[int]int{}
	for _, a := range answers {
		count[a.Status]++
	}
	if count[200] != 1 || count[200]+count[402]+count[503] != len(answers) {
		t.Errorf("answers by status: %v", count)
	}
	s.saw("copies", 1, cent)
}

// Keys keep working: a paid answer is given again; what the upstream refused is asked again, since nothing was charged; what it may
// have done for nothing is not done again under the same key.
func TestKeys(t *testing.T) {
	s := open(t, rig.Options{Site: heldSite})
	b := rig.NewBuyer(t, 1)
	key := func(k string) []string { return []string{"Idempotency-Key", k, "Content-Type", "text/plain"} }

	first, signed := s.pay(b, http.MethodPost, "/x", "tea", key("first")...)
	s.paid("the first", b, first)
	for what, a := range map[string]rig.Answer{
		"the same header": s.again(b, http.MethodPost, "/x", "tea", signed, key("first")...),
		"a new signature": func() rig.Answer { a, _ := s.pay(b, http.MethodPost, "/x", "tea", key("first")...); return a }(),
	} {
		if a.Status != http.StatusOK || a.Body != first.Body || a.Header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("%s: %d %v %s", what, a.Status, a.Header, a.Body)
		}
	}
	s.saw("replays", 1, cent)

	s.serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusConflict) })
	a, _ := s.pay(b, http.MethodPost, "/x", "tea", key("second")...)
	s.free("refused", b, a, http.StatusConflict)
	s.serve(rig.Echo)
	a, _ = s.pay(b, http.MethodPost, "/x", "tea", key("second")...)
	s.paid("asked again", b, a)
	s.saw("asked again", 3, 2*cent)

	s.serve(func(w http.ResponseWriter, _ *http.Request) {
		if err := s.Chain.Blacklist(context.WithoutCancel(t.Context()), b.Account.Address); err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, "done")
	})
	if a, _ = s.pay(b, http.MethodPost, "/x", "tea", key("third")...); a.Status != http.StatusPaymentRequired {
		t.Errorf("unpaid: %d %s", a.Status, a.Body)
	}
	if err := s.Chain.Unblacklist(t.Context(), b.Account.Address); err != nil {
		t.Fatal(err)
	}
	s.serve(rig.Echo)
	if a, _ = s.pay(b, http.MethodPost, "/x", "tea", key("third")...); a.Status != http.StatusConflict || code(a) != "idempotency.response_not_stored" {
		t.Errorf("what may have been done: %d %s", a.Status, a.Body)
	}
	s.saw("what may have been done", 4, 2*cent)
}

// A payment that was given up can still be executed by anybody, until it expires: then the money goes back.
func TestVoidThatIsPaidAllTheSame(t *testing.T) {
	s := open(t, rig.Options{Site: heldSite, App: "interval 100ms"})
	b := rig.NewBuyer(t, 1)
	s.serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	offer := b.Offer(s.URL("/x"))
	auth, sig := b.Authorize(offer.Accepts[0])
	a := s.again(b, http.MethodGet, "/x", "", rig.Encode(t, offer.Pay(offer.Accepts[0], &auth, sig)))
	s.free("not found", b, a, http.StatusNotFound)
	execute(t, s, &auth, sig)
	waitFor(t, "the refund of a void payment", func() bool { return s.state(b, a.Header.Get("X-Payment-Id")) == "REFUND_PENDING" })
}
