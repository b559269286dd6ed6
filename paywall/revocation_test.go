package paywall

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
	"github.com/caddy-x402/caddy-x402/token"
)

// turnstile is a gate that sells a plan, with a clock that the test moves, and a ledger that it opens or not.
type turnstile struct {
	t       *testing.T
	gate    *Gate
	route   *Route
	tokens  *Tokens
	revoked *token.Revoked

	mu     sync.Mutex
	now    time.Time
	engine *Engine // nil: the ledger can't be opened
	served int
}

func (u *turnstile) clock() time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.now
}

func (u *turnstile) pass(d time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.now = u.now.Add(d)
}

func newTurnstile(t *testing.T) *turnstile {
	t.Helper()
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
	u := &turnstile{t: t, revoked: token.NewRevoked(), now: time.Unix(1_800_000_000, 0)}
	access.Heed(u.revoked)
	u.tokens = NewTokens(&token.Issuer{Keyring: ring, Issuer: "here", Now: u.clock}, access)
	u.tokens.Revoked, u.tokens.MaxStale = u.revoked, 30*time.Second
	payee := &Payee{Network: devnet.Network(), PayTo: seller}
	price := []Price{{Payee: payee, Amount: *uint256.NewInt(cent)}}
	u.route = &Route{Name: "r", Scope: "r", Prices: price, Timeout: time.Minute, Plans: []Plan{{Name: "day", TTL: 24 * time.Hour, Prices: price}}}
	u.gate, err = NewGate(Config{
		Acquire: func() (*Engine, func(), error) {
			if u.engine == nil {
				return nil, nil, errors.New("the ledger can't be opened")
			}
			return u.engine, func() {}, nil
		},
		Payees: []*Payee{payee}, Tokens: func() (*Tokens, error) { return u.tokens, nil }, Now: u.clock,
	}, u.route)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// open opens a ledger in memory.
func (u *turnstile) open(store ledger.Store) {
	u.t.Helper()
	u.engine = NewEngine(store, Settings{ReconcileEvery: time.Hour, Now: u.clock, Revoked: u.revoked})
	u.t.Cleanup(func() {
		if err := u.engine.Close(); err != nil {
			u.t.Error(err)
		}
	})
}

func (u *turnstile) token(payment string) string {
	u.t.Helper()
	c := token.Claims{X402: token.Purchase{Plan: "day", Route: "r", Network: "eip155:84532", Asset: "0x1", Amount: "1", Resource: "http://h"}}
	c.Subject, c.ID = "0x857b06519E91e3A54538791bDbb0E22373e36b66", payment
	text, err := u.tokens.Issuer.Issue(token.Access, c, 24*time.Hour)
	if err != nil {
		u.t.Fatal(err)
	}
	return text
}

// wants presents a token and checks the status, and what the answer says.
func (u *turnstile) wants(text string, status int, says string) {
	u.t.Helper()
	r := httptest.NewRequestWithContext(u.t.Context(), http.MethodGet, "http://h/x", nil)
	r.Header.Set("Authorization", "Bearer "+text)
	w, before := httptest.NewRecorder(), u.served
	q := Request{Route: u.route, URL: "http://h/x", Host: "h", URI: "/x", Audience: "http://h"}
	if err := u.gate.Serve(w, r, q, func(http.ResponseWriter, *http.Request) error { u.served++; return nil }); err != nil {
		u.t.Fatal(err)
	}
	if w.Code != status || !strings.Contains(w.Body.String(), says) || (u.served > before) != (status == http.StatusOK) {
		u.t.Errorf("%d %s, want %d %s; served: %v", w.Code, w.Body, status, says, u.served > before)
	}
	if status == http.StatusServiceUnavailable && w.Header().Get("Retry-After") == "" {
		u.t.Error("nobody is told when to come back")
	}
}

// A token is taken as long as it is known that it was not revoked, as of max_stale ago.
func TestTokensWithoutNews(t *testing.T) {
	u := newTurnstile(t)
	text, other := u.token("pay_1"), u.token("pay_2")
	unknown := func() { t.Helper(); u.wants(text, http.StatusServiceUnavailable, codeStale) }
	unknown() // nobody has ever heard
	u.revoked.Heard(u.clock())
	u.wants(text, http.StatusOK, "")
	u.pass(30 * time.Second)
	u.wants(text, http.StatusOK, "")
	u.pass(1)
	unknown()
	u.wants("hello", http.StatusPaymentRequired, "Payment required") // who has none is told the price
	u.revoked.Heard(u.clock())
	u.wants(text, http.StatusOK, "")
	u.revoked.Add("pay_1", u.clock().Add(time.Hour), u.clock())
	u.wants(text, http.StatusPaymentRequired, string(ReasonTokenRevoked))
	u.wants(other, http.StatusOK, "")
}

// Where nobody has opened the ledger yet, the first request with a token does, and hears what was revoked before it is served.
func TestFirstTokenOpensTheLedger(t *testing.T) {
	for _, order := range []string{"the good one first", "the revoked one first"} {
		u := newTurnstile(t)
		good, bad := u.token("pay_1"), u.token("pay_2")
		u.wants(good, http.StatusServiceUnavailable, codeStale)
		m := storetest.NewMemory(u.clock, false)
		if err := m.Revoke(t.Context(), "pay_2", u.clock().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		u.open(m)
		if order == "the good one first" {
			u.wants(good, http.StatusOK, "")
		}
		u.wants(bad, http.StatusPaymentRequired, string(ReasonTokenRevoked))
		u.wants(good, http.StatusOK, "")
	}
}

// asked is a ledger that tells where it was asked from, and may not answer.
type asked struct {
	ledger.Store
	mu    sync.Mutex
	from  []uint64
	fails error
	takes func() // what happens while it answers
}

func (s *asked) Revoked(ctx context.Context, after uint64, limit int) ([]ledger.Revocation, error) {
	s.mu.Lock()
	s.from = append(s.from, after)
	err := s.fails
	s.mu.Unlock()
	if s.takes != nil {
		s.takes()
	}
	if err != nil {
		return nil, err
	}
	return s.Store.Revoked(ctx, after, limit)
}

// Who listens asks for what is new, and for everything once the ledger was away: the one that answers then may know less than the
// one before. It has heard as of when it began to ask.
func TestListener(t *testing.T) {
	u := newTurnstile(t)
	store := &asked{Store: storetest.NewMemory(u.clock, false)}
	e := &Engine{store: store, settings: Settings{Now: u.clock}.withDefaults(), revoked: u.revoked}
	revoke := func(ids ...string) {
		t.Helper()
		for _, id := range ids {
			if err := store.Revoke(t.Context(), id, u.clock().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var l listener
	listen := func(fails error, want ...uint64) {
		t.Helper()
		store.from, store.fails = nil, fails
		l.listen(t.Context(), e)
		if !slices.Equal(store.from, want) {
			t.Errorf("asked from %v, want %v", store.from, want)
		}
	}
	revoke("pay_1", "pay_2")
	listen(nil, 0)
	listen(nil, 2)
	revoke("pay_3")
	listen(nil, 2)
	for _, id := range []string{"pay_1", "pay_2", "pay_3"} {
		if !u.revoked.Has(id) {
			t.Errorf("nobody has heard of %s", id)
		}
	}
	heard := u.clock()
	u.pass(10 * time.Second)
	listen(errors.New("away"), 3)
	if silence, _ := u.revoked.Silence(u.clock()); silence != 10*time.Second {
		t.Errorf("silent for %s since %s", silence, heard)
	}
	listen(errors.New("away"), 0)
	listen(nil, 0)
	if silence, _ := u.revoked.Silence(u.clock()); silence != 0 {
		t.Errorf("silent for %s", silence)
	}
	store.takes = func() { u.pass(2 * time.Second) }
	listen(nil, 3)
	if silence, _ := u.revoked.Silence(u.clock()); silence != 2*time.Second {
		t.Errorf("an answer that took 2 s counts as of %s ago", silence)
	}
	store.takes = nil
	var ids []string
	for i := range listenPage {
		ids = append(ids, "more_"+string(rune('a'+i%26))+string(rune('a'+i/26)))
	}
	revoke(ids...)
	listen(nil, 3, 3+listenPage)
}

// What is revoked here is refused here at once; what the ledger can't write down is not revoked.
func TestRevokePlan(t *testing.T) {
	u := newTurnstile(t)
	m := storetest.NewMemory(u.clock, false)
	u.open(m)
	text := u.token("pay_1")
	u.wants(text, http.StatusOK, "")
	if err := u.engine.Revoke(t.Context(), "pay_1", u.clock().Add(24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	u.wants(text, http.StatusPaymentRequired, string(ReasonTokenRevoked))
	if got, err := m.Revoked(t.Context(), 0, 10); err != nil || len(got) != 1 || got[0].ID != "pay_1" {
		t.Errorf("the ledger has %+v, %v", got, err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := u.engine.Revoke(t.Context(), "pay_2", u.clock().Add(time.Hour)); err == nil || u.revoked.Has("pay_2") {
		t.Errorf("revoked without the ledger: %v", err)
	}
}
