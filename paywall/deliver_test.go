package paywall

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/token"
	"github.com/caddy-x402/caddy-x402/x402"
)

// counter is what delivery is tested on: a real ledger with an engine, and a server that forwards paid requests to a
// handler. Nothing is settled here: its payments are, as if a settler had said so.
type counter struct {
	t       *testing.T
	path    string
	store   ledger.Store
	engine  *Engine
	gate    *Gate
	tokens  *Tokens
	version int
	paid    atomic.Uint64 // payments made
	told    []string      // what Decided heard
	seen    []Observation
}

func newCounter(t *testing.T) *counter {
	t.Helper()
	c := &counter{t: t, path: filepath.Join(t.TempDir(), "ledger.db"), version: 2}
	store, err := sqlite.Open(t.Context(), c.path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c.store = store
	c.engine = NewEngine(store, Settings{ReconcileEvery: time.Hour, Observe: func(o Observation) {
		if o.Event == "delivery" {
			c.seen = append(c.seen, o)
		}
	}})
	t.Cleanup(func() {
		if err := c.engine.Close(); err != nil {
			t.Error(err)
		}
		_ = store.Close() // some tests have
	})
	key, err := token.ParseKey([]byte("kX9vQ2mWz7Rj4TbN8sLc1HgYf6Pd3AeUo5Vi"))
	if err != nil {
		t.Fatal(err)
	}
	ring, err := token.NewKeyring(key)
	if err != nil {
		t.Fatal(err)
	}
	access, err := token.NewVerifier(ring, token.Access, "here", 0)
	if err != nil {
		t.Fatal(err)
	}
	c.tokens = NewTokens(&token.Issuer{Keyring: ring, Issuer: "here"}, access)
	c.gate = &Gate{Config: Config{
		ErrorStatus: func(err error) int {
			if e, ok := errors.AsType[statusError](err); ok {
				return int(e)
			}
			return http.StatusInternalServerError
		},
		Decided: func(_ *http.Request, outcome, reason string) {
			c.told = append(c.told, strings.TrimSpace(outcome+" "+reason))
		},
		Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	}}
	return c
}

// statusError is an error that says what it is to be answered with, as Caddy's handlers' do.
type statusError int

func (e statusError) Error() string { return http.StatusText(int(e)) }

// delivering is a settled payment that a request holds for so long, and that the upstream is being asked for.
func (c *counter) delivering(method string, hold time.Duration) ledger.Payment {
	c.t.Helper()
	n := c.paid.Add(1)
	id, err := ledger.NewID(randomness, common.Address{1})
	if err != nil {
		c.t.Fatal(err)
	}
	ctx := context.Background()
	p, err := c.store.Claim(ctx, ledger.Payment{
		ID: id, AuthorizationID: x402.AuthorizationID{ChainID: 84532, Payer: common.Address{1}, Nonce: common.BigToHash(uint256.NewInt(n).ToBig())},
		Amount: *uint256.NewInt(10_000), Flow: ledger.FlowUpfront, Binding: ledger.Binding{Route: "r", Method: method, Host: "h", URI: "/"},
	}, ledger.Change{Event: ledger.EventClaim, Actor: actorRequest, Hold: hold})
	if err == nil {
		p, err = c.store.Update(ctx, p.ID, p.Version,
			ledger.Change{Event: ledger.EventSettle, Actor: actorRequest, Transaction: common.Hash{7}},
			ledger.Change{Event: ledger.EventDeliver, Actor: actorRequest, Fence: p.Hold.Fence, Hold: hold})
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// forward serves one request of a client through the counter with next, as Caddy does: who returns an error gets its status.
func (c *counter) forward(method string, p ledger.Payment, next Handler) (served, error) {
	c.t.Helper()
	var returned error
	ended := make(chan struct{}) // closing a server does not wait for who has taken over a connection
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		returned = c.attempt(w, r, next).forward(p)
		if returned != nil {
			w.WriteHeader(c.gate.ErrorStatus(returned))
		}
	}))
	defer s.Close()
	got := ask(c.t, s, method)
	<-ended
	return got, returned
}

func (c *counter) attempt(w http.ResponseWriter, r *http.Request, next Handler) *attempt {
	return &attempt{
		Gate: c.gate, Request: Request{Route: &Route{Name: "r", Scope: "r"}, URL: "http://h/", Audience: "http://h"},
		w: w, r: r, next: next, tokens: c.tokens, engine: c.engine, version: c.version,
	}
}

func (c *counter) payment(id string) ledger.Payment {
	c.t.Helper()
	p, err := c.store.Payment(context.Background(), id)
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// is checks what the ledger says of a payment.
func (c *counter) is(id string, d ledger.Delivery, r ledger.Refund, reason string) {
	c.t.Helper()
	if p := c.payment(id); p.Delivery != d || p.Refund != r || p.Reason != reason {
		c.t.Errorf("the payment is %s, %s, %q; want %s, %s, %q", p.Delivery, p.Refund, p.Reason, d, r, reason)
	}
}

func answer(h http.HandlerFunc) Handler {
	return func(w http.ResponseWriter, r *http.Request) error { h(w, r); return nil }
}

// However a handler answers, the delivery is on record before the answer goes out, and the receipt goes with it.
func TestDelivery(t *testing.T) {
	for name, tc := range handlers(t) {
		t.Run(name, func(t *testing.T) {
			c := newCounter(t)
			p := c.delivering(http.MethodGet, time.Minute)
			got, err := c.forward(http.MethodGet, p, answer(tc.handler))
			if err != nil || got.err != nil || got.status != tc.status || got.body != tc.body {
				t.Fatalf("%d %.20q %v %v", got.status, got.body, got.err, err)
			}
			c.is(p.ID, ledger.Delivered, ledger.NotRefunded, "")
			if len(c.told) != 1 || c.told[0] != "paid" || len(c.seen) != 1 || c.seen[0].Outcome != "delivered" {
				t.Errorf("told %v, seen %v", c.told, c.seen)
			}
			if name == "the connection taken over" {
				return
			}
			var s x402.SettlementResponse
			if err := x402.DecodeHeader(got.header.Get(x402.HeaderResponse), 1<<16, &s); err != nil || !s.Success ||
				s.Transaction != p.Transaction.Hex() || s.Network != "eip155:84532" || s.Payer != p.Payer.Hex() || s.Amount != "10000" {
				t.Errorf("the receipt is %+v, %v", s, err)
			}
			if h := got.header; h.Get("X-Payment-Id") != p.ID || h.Get("Cache-Control") != "private" || h.Get("X-Payment-Status") != "" || h.Get("X-Late") != "" {
				t.Errorf("the header is %v", h)
			}
		})
	}
}

// The first byte leaves after the record was made, and before the upstream is done.
func TestDeliveryStreams(t *testing.T) {
	c := newCounter(t)
	p := c.delivering(http.MethodGet, time.Minute)
	more := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = c.attempt(w, r, answer(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "first")
			w.(http.Flusher).Flush()
			select {
			case <-more:
			case <-r.Context().Done():
			}
			_, _ = io.WriteString(w, " second")
		})).forward(p)
	}))
	defer s.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	first := make([]byte, 5)
	if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "first" {
		t.Fatal(string(first), err)
	}
	c.is(p.ID, ledger.Delivered, ledger.NotRefunded, "")
	close(more)
	if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != " second" {
		t.Error(string(rest), err)
	}
}

// Hints don't go out before the decision.
func TestDeliveryHints(t *testing.T) {
	c := newCounter(t)
	p := c.delivering(http.MethodGet, time.Minute)
	got, _ := c.forward(http.MethodGet, p, answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		c.is(p.ID, ledger.Delivering, ledger.NotRefunded, "")
		w.WriteHeader(http.StatusOK)
	}))
	if got.hints != 0 || got.status != http.StatusOK || got.header.Get("Link") == "" {
		t.Errorf("%+v", got)
	}
	c.is(p.ID, ledger.Delivered, ledger.NotRefunded, "")
}

// Which answers count as delivered. What does not goes back, and says so; the payment itself succeeded.
func TestDeliveryByStatus(t *testing.T) {
	c := newCounter(t)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		for status, reason := range map[int]string{
			200: "", 201: "", 204: "", 302: "", 304: "", 400: "", 402: "", 404: "", 429: "", 499: "",
			500: "upstream_status_500", 502: "upstream_status_502", 503: "upstream_status_503", 599: "upstream_status_599",
		} {
			for name, next := range map[string]Handler{
				"answers": answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }),
				"returns": func(http.ResponseWriter, *http.Request) error { return statusError(status) },
			} {
				if name == "returns" && status < 400 {
					continue
				}
				p := c.delivering(method, time.Minute)
				got, err := c.forward(method, p, next)
				if got.status != status || (name == "returns") != errors.Is(err, statusError(status)) {
					t.Errorf("%s %s %d: the client sees %d, Caddy %v", method, name, status, got.status, err)
				}
				wantStatus := ""
				if reason == "" {
					c.is(p.ID, ledger.Delivered, ledger.NotRefunded, "")
				} else {
					c.is(p.ID, ledger.Undelivered, ledger.RefundPending, reason)
					wantStatus = "refund_pending"
				}
				var s x402.SettlementResponse
				if err := x402.DecodeHeader(got.header.Get(x402.HeaderResponse), 1<<16, &s); err != nil || !s.Success || got.header.Get("X-Payment-Status") != wantStatus {
					t.Errorf("%s %s %d: %+v, %v, %v", method, name, status, s, err, got.header)
				}
			}
		}
	}
}

// What the upstream says in our name is not passed on.
func TestDeliveryHygiene(t *testing.T) {
	c := newCounter(t)
	p := c.delivering(http.MethodGet, time.Minute)
	got, _ := c.forward(http.MethodGet, p, answer(func(w http.ResponseWriter, _ *http.Request) {
		for _, name := range []string{"Payment-Required", "Payment-Response", "X-Payment-Response", "X-Payment-Id", "X-Payment-Status", "X-Access-Token", "Payment-Signature"} {
			w.Header().Set(name, "forged")
		}
		w.Header().Set("Cache-Control", "public, max-age=60")
		w.Header().Set("X-Own", "kept")
	}))
	for name, values := range got.header {
		if values[0] == "forged" {
			t.Errorf("%s is the upstream's", name)
		}
	}
	if got.header.Get("Cache-Control") != "max-age=60, private" || got.header.Get("X-Own") != "kept" {
		t.Errorf("%v", got.header)
	}
}

// The receipt is in the version that the client speaks.
func TestDeliveryReceiptOfVersion1(t *testing.T) {
	c := newCounter(t)
	c.version = 1
	p := c.delivering(http.MethodGet, time.Minute)
	got, _ := c.forward(http.MethodGet, p, answer(func(http.ResponseWriter, *http.Request) {}))
	var s x402.SettlementResponse
	if err := x402.DecodeHeader(got.header.Get("X-PAYMENT-RESPONSE"), 1<<16, &s); err != nil || !s.Success || s.Network != "base-sepolia" {
		t.Errorf("%+v, %v", s, err)
	}
	if got.header.Get(x402.HeaderResponse) != "" {
		t.Error("a receipt of version 2 as well")
	}
}

// A handler that panics before its answer has delivered nothing; one that panics within it, all that it could.
func TestDeliveryPanics(t *testing.T) {
	c := newCounter(t)
	early, late := c.delivering(http.MethodGet, time.Minute), c.delivering(http.MethodGet, time.Minute)
	got, _ := c.forward(http.MethodGet, early, answer(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	if got.err == nil {
		t.Errorf("the client got %d", got.status)
	}
	c.is(early.ID, ledger.Undelivered, ledger.RefundPending, reasonAborted)
	got, _ = c.forward(http.MethodGet, late, answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}))
	if got.err == nil || got.body != "half" {
		t.Errorf("the client got %q, %v", got.body, got.err)
	}
	c.is(late.ID, ledger.Delivered, ledger.NotRefunded, "")
}

// An answer whose delivery can't be put on record does not go out, whatever way it is made: neither a byte nor a header.
func TestDeliveryThatCannotBeRecorded(t *testing.T) {
	const secret = "what was paid for"
	for name, handler := range map[string]func(http.ResponseWriter) error{
		"body":   func(w http.ResponseWriter) error { _, err := io.WriteString(w, secret); return err },
		"copied": func(w http.ResponseWriter) error { _, err := io.Copy(w, strings.NewReader(secret)); return err },
		"status": func(w http.ResponseWriter) error {
			w.WriteHeader(http.StatusOK)
			_, err := io.WriteString(w, secret)
			return err
		},
		"flush": func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() },
		"taken over": func(w http.ResponseWriter) error {
			conn, _, err := http.NewResponseController(w).Hijack()
			if conn != nil {
				_ = conn.Close()
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCounter(t)
			p := c.delivering(http.MethodGet, time.Minute)
			got, err := c.forward(http.MethodGet, p, func(w http.ResponseWriter, _ *http.Request) error {
				w.Header().Set("X-Secret", secret)
				if err := c.store.Close(); err != nil {
					t.Error(err)
				}
				err := handler(w)
				if !errors.Is(err, errDiscarded) {
					t.Errorf("the handler is told %v", err)
				}
				return err
			})
			if err != nil || got.status != http.StatusServiceUnavailable || strings.Contains(got.body, secret) || got.header.Get("X-Secret") != "" {
				t.Errorf("%d %s %v", got.status, got.body, got.header)
			}
			if got.header.Get("Retry-After") == "" || got.header.Get(x402.HeaderResponse) != "" || !strings.Contains(got.body, p.ID) {
				t.Errorf("the client is not told to come back: %s %v", got.body, got.header)
			}
			if len(c.seen) != 0 {
				t.Errorf("it counts as %v", c.seen)
			}
			again, err := sqlite.Open(t.Context(), c.path, sqlite.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			if q, err := again.Payment(t.Context(), p.ID); err != nil || q.Delivery != ledger.Delivering || q.Refund != ledger.NotRefunded {
				t.Errorf("the payment is %s, %s, %v", q.Delivery, q.Refund, err)
			}
		})
	}
}

// A request that was too slow, whose payment another one has taken meanwhile, delivers nothing.
func TestDeliveryThatWasOvertaken(t *testing.T) {
	c := newCounter(t)
	p := c.delivering(http.MethodGet, time.Microsecond)
	var other ledger.Payment
	got, err := c.forward(http.MethodGet, p, answer(func(w http.ResponseWriter, r *http.Request) {
		taken, err := c.store.Update(r.Context(), p.ID, p.Version, ledger.Change{Event: ledger.EventTake, Actor: actorRequest, Hold: time.Minute})
		if err != nil {
			t.Error(err)
		}
		other = taken
		_, _ = io.WriteString(w, "too late")
	}))
	if err != nil || got.status != http.StatusServiceUnavailable || strings.Contains(got.body, "too late") {
		t.Errorf("%d %s %v", got.status, got.body, err)
	}
	if q := c.payment(p.ID); q.Delivery != ledger.Delivering || q.Hold != other.Hold {
		t.Errorf("the other one's payment is %s under %v, want %v", q.Delivery, q.Hold, other.Hold)
	}
}

// A client that has left before the answer got nothing: what can be asked again waits for it, the rest is held for refund.
func TestDeliveryToNobody(t *testing.T) {
	c := newCounter(t)
	for name, handler := range map[string]Handler{
		"answers": answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello?") }),
		"returns": func(_ http.ResponseWriter, r *http.Request) error { return r.Context().Err() },
		"panics":  answer(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
	} {
		t.Run(name, func(t *testing.T) {
			p := c.delivering(http.MethodGet, time.Minute)
			ctx, leave := context.WithCancel(t.Context())
			leave()
			record := httptest.NewRecorder()
			func() {
				defer func() { _ = recover() }()
				_ = c.attempt(record, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil), handler).forward(p)
			}()
			q := c.payment(p.ID)
			if q.Delivery != ledger.Delivering || !q.Hold.Until.IsZero() {
				t.Errorf("the payment is %s, held until %v", q.Delivery, q.Hold.Until)
			}
			if record.Body.Len() != 0 || record.Header().Get("X-Payment-Id") != "" {
				t.Errorf("the answer went out: %s %v", record.Body, record.Header())
			}
		})
	}
}

// What changes something is not called off because its client has left: it is paid for, and done.
func TestDeliveryOfAPostToNobody(t *testing.T) {
	c := newCounter(t)
	p := c.delivering(http.MethodPost, time.Minute)
	ctx, leave := context.WithCancel(t.Context())
	record := httptest.NewRecorder()
	err := c.attempt(record, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", nil), answer(func(w http.ResponseWriter, r *http.Request) {
		leave()
		if err := r.Context().Err(); err != nil {
			t.Error("the call of the upstream ended with its client:", err)
		}
		w.WriteHeader(http.StatusCreated)
	})).forward(p)
	if err != nil || record.Code != http.StatusCreated {
		t.Error(record.Code, err)
	}
	c.is(p.ID, ledger.Delivered, ledger.NotRefunded, "")
}

// The upstream is told who paid, by headers that nobody else can have set, and keeps a client's own Authorization.
func TestForwardTellsWhoPaid(t *testing.T) {
	c := newCounter(t)
	for _, own := range []string{"", "Bearer the-upstream-s-own", "Basic bWU6bWU="} {
		p := c.delivering(http.MethodGet, time.Minute)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		if own != "" {
			r.Header.Set("Authorization", own)
		}
		_ = c.attempt(httptest.NewRecorder(), r, answer(func(_ http.ResponseWriter, r *http.Request) {
			h := r.Header
			for name, want := range map[string]string{
				"X-Payment-Id": p.ID, "X-Payment-Payer": p.Payer.Hex(), "X-Payment-Amount": "10000", "X-Payment-Asset": p.Asset.Hex(),
				"X-Payment-Network": "eip155:84532", "X-Payment-Transaction": p.Transaction.Hex(), "X-Payment-Plan": "",
			} {
				if h.Get(name) != want {
					t.Errorf("%s is %q, want %q", name, h.Get(name), want)
				}
			}
			want := own
			if own == "" {
				want = "Bearer " + h.Get("X-Payment-Token")
			}
			if h.Get("X-Payment-Token") == "" || h.Get("Authorization") != want {
				t.Errorf("Authorization is %q", h.Get("Authorization"))
			}
			if _, err := c.tokens.Access.Verify(h.Get("X-Payment-Token"), time.Now()); err == nil {
				t.Error("the assertion is an access token, too")
			}
		})).forward(p)
	}
}
