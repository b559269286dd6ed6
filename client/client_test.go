package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/x402"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A request that has to be paid is paid, in either version, and the report says everything but the secrets.
func TestPays(t *testing.T) {
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			s := newSeller(t)
			s.versions = version
			c, _ := newClient(t)
			resp, r, err := c.Do(get(t, s.URL+"/x"))
			if err != nil {
				t.Fatal(err)
			}
			if got := text(t, resp); got != "what was paid for" {
				t.Fatalf("answer %q", got)
			}
			payments, _ := s.got()
			if len(payments) != 1 || s.settlements() != 1 {
				t.Fatalf("%d payments came and %d were taken", len(payments), s.settlements())
			}
			if want := headerOf(version) + ": " + string(r.Payment.Value); payments[0] != want {
				t.Errorf("the report has another payment than the server got")
			}
			if !r.Paid() || r.Version != version || r.Status != 200 || len(r.Attempts) != 2 || r.Attempts[0].Paid || !r.Attempts[1].Paid {
				t.Errorf("report: paid %v, version %d, status %d, attempts %v", r.Paid(), r.Version, r.Status, r.Attempts)
			}
			if r.Amount.Dec() != "10000" || r.Network.ID != "eip155:84532" || r.Requirements.Network != "eip155:84532" {
				t.Errorf("report: %s on %s (%s)", r.Amount.Dec(), r.Network.ID, r.Requirements.Network)
			}
			if r.Settlement.Transaction != transaction || r.PaymentID != paymentID {
				t.Errorf("report: transaction %s, payment %s", r.Settlement.Transaction, r.PaymentID)
			}
			if r.Payer != crypto.PubkeyToAddress(c.Key.PublicKey) || r.Authorization.To != common.HexToAddress(payTo) {
				t.Errorf("report: from %s to %s", r.Payer, r.Authorization.To)
			}
			if (r.Offer != nil) != (version == 2) || (r.OfferV1 != nil) != (version == 1) {
				t.Errorf("the offer is of another version")
			}
		})
	}
}

// The authorization is what the design of the protocol wants: good from the start, until the offer's timeout, never
// longer than the client's own cap, under a nonce of its own.
func TestAuthorization(t *testing.T) {
	s := newSeller(t)
	nonces := make(map[common.Hash]bool)
	for _, tc := range []struct {
		timeout int
		cap     time.Duration
		want    time.Duration
	}{
		{60, 0, time.Minute},
		{1 << 40, 0, DefaultMaxValidity},
		{600, 30 * time.Second, 30 * time.Second},
	} {
		s.accepts[0] = price(s.network, 10_000, "")
		s.accepts[0].MaxTimeoutSeconds = tc.timeout
		c, clock := newClient(t)
		c.MaxValidity = tc.cap
		r, err := without(t, c.Quote, get(t, s.URL))
		if err != nil {
			t.Fatal(err)
		}
		a := r.Authorization
		if want := uint64(clock.clock().Add(tc.want).Unix()); a.ValidBefore.Uint64() != want || !a.ValidAfter.IsZero() {
			t.Errorf("timeout %d: good from %s to %s, want 0 to %d", tc.timeout, a.ValidAfter.Dec(), a.ValidBefore.Dec(), want)
		}
		if nonces[a.Nonce] || a.Nonce == (common.Hash{}) {
			t.Errorf("nonce %s", a.Nonce)
		}
		nonces[a.Nonce] = true
		if r.Payment != nil {
			t.Error("a quote was signed")
		}
	}
	if payments, _ := s.got(); len(payments) != 0 {
		t.Errorf("a quote sent %d payments", len(payments))
	}
}

// Extensions, resource and the chosen requirements come back as they were offered, unknown members and all.
func TestEcho(t *testing.T) {
	s := newSeller(t)
	var offered x402.Requirements
	if err := json.Unmarshal([]byte(strings.Replace(string(must(json.Marshal(s.accepts[0]))), "{", `{"new":{"z":1.0,"a":[]},`, 1)), &offered); err != nil {
		t.Fatal(err)
	}
	s.accepts[0] = offered
	c, _ := newClient(t)
	resp, r, err := c.Do(get(t, s.URL))
	if err != nil {
		t.Fatal(err)
	}
	text(t, resp)
	p, err := x402.DecodePayload(string(r.Payment.Value))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(p.Extensions["weird"]), `{"info":{"b":1.50,"a":"<&>"},"unknown":[null]}`; got != want {
		t.Errorf("extension %s, want %s", got, want)
	}
	if key, ok := p.ResumeKey(); !ok || !strings.Contains(string(r.Offer.Extensions[x402.ExtensionResume]), key) {
		t.Errorf("the resume key was not echoed")
	}
	if !strings.Contains(string(p.Raw), `"new":{"z":1.0,"a":[]}`) {
		t.Errorf("accepted lost a member: %s", p.Raw)
	}
	if p.Resource == nil || p.Resource.Description != "a test" {
		t.Errorf("resource %+v", p.Resource)
	}
}

// While the outcome is not known the same header is sent, byte for byte, and what the server asks to wait is waited.
func TestSameHeaderOn503(t *testing.T) {
	s := newSeller(t)
	s.before = func(w http.ResponseWriter, _ *http.Request, n int) bool {
		switch n {
		case 1:
			w.Header().Set("Retry-After", "2")
		case 2:
			w.Header().Set("Retry-After", s.now().Add(time.Hour).UTC().Format(http.TimeFormat))
			w.Header().Set("Retry-After", "7")
		case 3: // says nothing
		default:
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	c, p := newClient(t)
	var told []int
	c.OnRetry = func(_ *Report, r Retry) { told = append(told, r.Number, r.Status) }
	signed := 0
	c.OnSigned = func(*Report) error { signed++; return nil }
	req := must(http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, io.MultiReader(strings.NewReader("the "), strings.NewReader("body"))))
	resp, r, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	text(t, resp)
	payments, bodies := s.got()
	if len(payments) != 4 || len(slices.Compact(payments)) != 1 || signed != 1 || s.settlements() != 1 {
		t.Errorf("%d payments, signed %d times, taken %d times", len(payments), signed, s.settlements())
	}
	if want := []string{"the body", "the body", "the body", "the body", "the body"}; !slices.Equal(bodies, want) {
		t.Errorf("bodies %q", bodies)
	}
	if want := []time.Duration{2 * time.Second, 7 * time.Second, 4 * time.Second}; !slices.Equal(p.list, want) {
		t.Errorf("waited %v, want %v", p.list, want)
	}
	if want := []int{1, 503, 2, 503, 3, 503}; !slices.Equal(told, want) {
		t.Errorf("the hook heard %v", told)
	}
	if len(r.Attempts) != 5 || !r.Paid() {
		t.Errorf("attempts %v, paid %v", r.Attempts, r.Paid())
	}
}

// A payment whose outcome stays unknown is given up within the bounds, with all that is needed to come back; and then
// the same payment gets what was paid for.
func TestUnknownThenResume(t *testing.T) {
	s := newSeller(t)
	down := true
	s.before = func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		if !down {
			return false
		}
		w.Header().Set("Retry-After", "2")
		w.Header().Set("Link", `<https://other.example/a>; rel="next", </x402/payments/`+paymentID+`>; rel="payment-status"`)
		w.Header().Set("X-Payment-Id", paymentID)
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"code":"payment_pending","payment":"`+paymentID+`"}`)
		return true
	}
	for name, bound := range map[string]func(*Client){
		"number": func(c *Client) { c.MaxRetries = 3 },
		"time":   func(c *Client) { c.MaxRetryTime = 7 * time.Second },
	} {
		t.Run(name, func(t *testing.T) {
			down = true
			c, _ := newClient(t)
			bound(c)
			r, err := without(t, c.Do, get(t, s.URL+"/x"))
			var e *Error
			if !errors.As(err, &e) || e.Code != CodeUnknown {
				t.Fatalf("error %v", err)
			}
			if e.PaymentID != paymentID || e.StatusURL != s.URL+"/x402/payments/"+paymentID || e.RetryAfter != 2*time.Second {
				t.Errorf("payment %q, status %q, retry after %s", e.PaymentID, e.StatusURL, e.RetryAfter)
			}
			if len(r.Attempts) != 5 {
				t.Errorf("%d attempts, want 1 and 4", len(r.Attempts))
			}
			down = false
			again := *c
			again.Key, again.Limits = nil, nil
			resp, r2, err := again.Resume(get(t, r.URL.String()), *r.Payment)
			if err != nil {
				t.Fatal(err)
			}
			if text(t, resp) != "what was paid for" || !r2.Paid() || r2.Payer != r.Payer || r2.Amount != r.Amount || r2.Network.ID != r.Network.ID {
				t.Errorf("resumed: %+v", r2)
			}
			// The answer was given; a third time the server says that the authorization is used.
			_, err = without(t, again.resuming(*r.Payment), get(t, s.URL+"/x"))
			if CodeOf(err) != CodeAnswerLost {
				t.Errorf("sent once more: %v", err)
			}
		})
	}
}

// A connection that drops after the payment was sent leaves the outcome open: the same header goes out again.
func TestDroppedConnection(t *testing.T) {
	for _, served := range []bool{false, true} {
		t.Run(fmt.Sprint("settled before the drop: ", served), func(t *testing.T) {
			s := newSeller(t)
			s.before = func(w http.ResponseWriter, r *http.Request, n int) bool {
				if n > 1 {
					return false
				}
				if served {
					s.take(httptest.NewRecorder(), r, r.Header.Get(x402.HeaderSignature))
				}
				panic(http.ErrAbortHandler)
			}
			c, _ := newClient(t)
			resp, _, err := c.Do(get(t, s.URL))
			payments, _ := s.got()
			if len(payments) != 2 || payments[0] != payments[1] || s.settlements() != 1 {
				t.Errorf("%d payments, %d taken", len(payments), s.settlements())
			}
			if served {
				// This seller gives an answer once, and says so: no new signature may follow.
				if CodeOf(err) != CodeAnswerLost {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			text(t, resp)
		})
	}
}

// A caller that gives up while a payment is on its way is told that its outcome is open.
func TestCancelled(t *testing.T) {
	s := newSeller(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.before = func(_ http.ResponseWriter, r *http.Request, _ int) bool {
		cancel()
		<-r.Context().Done()
		return true
	}
	c, _ := newClient(t)
	r, err := without(t, c.Do, get(t, s.URL).WithContext(ctx))
	if CodeOf(err) != CodeUnknown || !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if len(r.Attempts) != 2 || r.Payment == nil {
		t.Errorf("attempts %v", r.Attempts)
	}
}

// What the server says about a payment decides: refused, still open, or used by an earlier attempt.
func TestRefused(t *testing.T) {
	for _, tc := range []struct {
		name    string
		answer  func(s *seller, w http.ResponseWriter)
		code    Code
		reason  x402.Reason
		retries int
	}{
		{"offer's error", func(s *seller, w http.ResponseWriter) { s.demand(w, "insufficient_funds\x1b[2J") }, CodeRefused, "insufficient_funds?[2J", 0},
		{"receipt", func(s *seller, w http.ResponseWriter) {
			w.Header().Set(x402.HeaderResponse, must(x402.EncodeHeader(x402.SettlementResponse{ErrorReason: x402.ReasonTransactionFailed})))
			s.demand(w, "settlement failed")
		}, CodeRefused, x402.ReasonTransactionFailed, 0},
		{"no offer", func(_ *seller, w http.ResponseWriter) { w.WriteHeader(http.StatusPaymentRequired) }, CodeRefused, "", 0},
		{"nonce used at first sight", func(s *seller, w http.ResponseWriter) { s.demand(w, string(x402.ReasonNonceUsed)) }, CodeRefused, x402.ReasonNonceUsed, 0},
		{"settlement pending", func(s *seller, w http.ResponseWriter) {
			w.Header().Set(x402.HeaderResponse, must(x402.EncodeHeader(x402.SettlementResponse{ErrorReason: "settlement_pending", Transaction: transaction})))
			s.demand(w, "settlement failed")
		}, CodeUnknown, "settlement_pending", 3},
		{"broken server", func(_ *seller, w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }, CodeUnknown, "", 0},
		{"bad gateway", func(_ *seller, w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) }, CodeUnknown, "", 3},
		{"too many requests", func(_ *seller, w http.ResponseWriter) { w.WriteHeader(http.StatusTooManyRequests) }, CodeUnknown, "", 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSeller(t)
			s.before = func(w http.ResponseWriter, _ *http.Request, _ int) bool { tc.answer(s, w); return true }
			c, _ := newClient(t)
			c.MaxRetries = 3
			r, err := without(t, c.Do, get(t, s.URL))
			var e *Error
			if !errors.As(err, &e) || e.Code != tc.code || e.Reason != tc.reason {
				t.Fatalf("error %v, reason %q", err, e.Reason)
			}
			payments, _ := s.got()
			if len(payments) != 1+tc.retries || len(slices.Compact(payments)) != 1 {
				t.Errorf("%d payments", len(payments))
			}
			if strings.ContainsRune(err.Error(), '\x1b') {
				t.Error("the error moves the cursor")
			}
			if r.Paid() {
				t.Error("reported as paid")
			}
		})
	}
}

// An upstream that fails after the payment is an answer, not an error: its status and body are what was paid for.
func TestUpstreamFailure(t *testing.T) {
	for _, status := range []int{402, 404, 500, 503} {
		s := newSeller(t)
		s.serve = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Payment-Status", "refund_pending")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "broken")
		}
		c, _ := newClient(t)
		resp, r, err := c.Do(get(t, s.URL))
		if err != nil {
			t.Fatal(err)
		}
		if got := text(t, resp); got != "broken" || resp.StatusCode != status || !r.Paid() || r.PaymentStatus != "refund_pending" {
			t.Errorf("%d: answer %d %q, paid %v, status %q", status, resp.StatusCode, got, r.Paid(), r.PaymentStatus)
		}
		if payments, _ := s.got(); len(payments) != 1 {
			t.Errorf("%d: %d payments", status, len(payments))
		}
	}
}

// The buyer of a plan gets its token, by header or receipt, and the report does not print it.
func TestAccessToken(t *testing.T) {
	for _, by := range []string{"header", "receipt"} {
		s := newSeller(t)
		s.accepts = append(s.accepts, price(s.network, 40_000, "day"))
		s.settled = func(h http.Header, r *x402.SettlementResponse) {
			if by == "header" {
				h.Set("X-Access-Token", "eyJ.t.s")
			}
			r.Extensions = map[string]json.RawMessage{"access-token": json.RawMessage(`{"info":{"token":"eyJ.t.s"}}`), "other": json.RawMessage(`{}`)}
		}
		c, _ := newClient(t)
		c.Plan = "day"
		resp, r, err := c.Do(get(t, s.URL))
		if err != nil {
			t.Fatal(err)
		}
		text(t, resp)
		if string(r.AccessToken) != "eyJ.t.s" || r.Requirements.Extra.Plan != "day" || r.Amount.Dec() != "40000" {
			t.Errorf("by %s: token %q, plan %q, amount %s", by, string(r.AccessToken), r.Requirements.Extra.Plan, r.Amount.Dec())
		}
		printed := fmt.Sprintf("%v %+v %#v %s %s", *r, *r, *r, must(json.Marshal(r)), must(json.Marshal(r.Settlement)))
		for _, secret := range []string{"eyJ.t.s", string(r.Payment.Value)} {
			if strings.Contains(printed, secret) {
				t.Errorf("by %s: the report prints a secret", by)
			}
		}
		if printed := fmt.Sprintf("%v %+v %#v %s %q %x", *r.Payment, r.Payment, *r.Payment, r.AccessToken, r.AccessToken, r.AccessToken); strings.Contains(printed, "eyJ") || strings.Contains(printed, hexOf([]byte("eyJ"))) {
			t.Errorf("by %s: a secret prints itself: %s", by, printed)
		}
		if len(r.Settlement.Extensions) != 1 {
			t.Errorf("by %s: extensions %v", by, r.Settlement.Extensions)
		}
	}
}

// What need not be paid is not paid, whatever its status.
func TestFree(t *testing.T) {
	for _, status := range []int{200, 404, 503} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		t.Cleanup(srv.Close)
		c, p := newClient(t)
		resp, r, err := c.Do(get(t, srv.URL))
		if err != nil {
			t.Fatal(err)
		}
		text(t, resp)
		if resp.StatusCode != status || r.Payment != nil || r.Paid() || len(r.Attempts) != 1 || len(p.list) != 0 {
			t.Errorf("%d: %+v", status, r)
		}
	}
}

// A payment that can't leave this machine is no open outcome: nobody has it.
func TestNeverSent(t *testing.T) {
	s := newSeller(t)
	c, _ := newClient(t)
	c.MaxRetries = 2
	c.OnSigned = func(*Report) error {
		c.HTTP.CloseIdleConnections()
		s.Close()
		return nil
	}
	r, err := without(t, c.Do, get(t, s.URL))
	if CodeOf(err) != CodeTransport || len(r.Attempts) != 4 {
		t.Errorf("error %v after %d attempts", err, len(r.Attempts))
	}
}

// Hooks see the call in order and can stop it before money is at stake.
func TestHooks(t *testing.T) {
	no := errors.New("no")
	for _, stop := range []string{"", "offer", "signed"} {
		s := newSeller(t)
		c, _ := newClient(t)
		var seen []string
		hook := func(name string) func(*Report) error {
			return func(r *Report) error {
				seen = append(seen, fmt.Sprint(name, " ", r.Payment != nil))
				if name == stop {
					return no
				}
				return nil
			}
		}
		c.OnOffer, c.OnSigned = hook("offer"), hook("signed")
		resp, _, err := c.Do(get(t, s.URL))
		payments, _ := s.got()
		if stop == "" {
			if err != nil || !slices.Equal(seen, []string{"offer false", "signed true"}) {
				t.Errorf("error %v, hooks %v", err, seen)
			}
			text(t, resp)
			continue
		}
		if CodeOf(err) != CodeDeclined || !errors.Is(err, no) || len(payments) != 0 {
			t.Errorf("stopped by %s: error %v, %d payments", stop, err, len(payments))
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
