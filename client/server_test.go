package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/x402"
)

const (
	payTo       = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
	transaction = "0xabababababababababababababababababababababababababababababababab"
	paymentID   = "pay_3kTMd0S1"
)

// seller is a server that sells as the protocol says: it verifies what it is sent with the protocol's own
// rules, takes each authorization once, and gives the answer of a taken one once.
type seller struct {
	*httptest.Server
	t       *testing.T
	network x402.Network
	accepts []x402.Requirements
	// versions that the 402 speaks: 1, 2 or 3 for both.
	versions int
	// before answers a payment instead of the seller, for as long as it says so. n counts payments from 1.
	before func(w http.ResponseWriter, r *http.Request, n int) bool
	// serve is the upstream behind it.
	serve http.HandlerFunc
	// settled adds to the answer of a paid request.
	settled func(h http.Header, s *x402.SettlementResponse)
	now     func() time.Time

	mu       sync.Mutex
	used     map[common.Hash]bool
	payments []string // headers that came, name and value
	bodies   []string // of all requests
	unpaid   int
}

func baseSepolia(t *testing.T) x402.Network {
	t.Helper()
	n, ok := x402.LookupNetwork("base-sepolia")
	if !ok {
		t.Fatal("base-sepolia is not known")
	}
	return n
}

func price(n x402.Network, amount uint64, plan string) x402.Requirements {
	return x402.NewRequirements(n, common.HexToAddress(payTo), uint256.NewInt(amount), time.Minute, x402.FlowUpfront, plan)
}

func newSeller(t *testing.T) *seller {
	t.Helper()
	n := baseSepolia(t)
	s := &seller{
		t: t, network: n, accepts: []x402.Requirements{price(n, 10_000, "")}, versions: 3, used: make(map[common.Hash]bool),
		now: time.Now,
	}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *seller) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.bodies = append(s.bodies, string(body))
	s.mu.Unlock()
	name, value := x402.HeaderSignature, r.Header.Get(x402.HeaderSignature)
	if value == "" {
		name, value = x402.HeaderPaymentV1, r.Header.Get(x402.HeaderPaymentV1)
	}
	if value == "" {
		s.mu.Lock()
		s.unpaid++
		s.mu.Unlock()
		s.demand(w, "Payment required")
		return
	}
	s.mu.Lock()
	s.payments = append(s.payments, name+": "+value)
	n := len(s.payments)
	s.mu.Unlock()
	if s.before != nil && s.before(w, r, n) {
		return
	}
	s.take(w, r, value)
}

// demand writes a 402 of the versions that are spoken.
func (s *seller) demand(w http.ResponseWriter, text string) {
	key, err := x402.NewResumeKey(rand.Reader)
	if err != nil {
		s.t.Error(err)
	}
	offer := x402.NewOffer(s.accepts, x402.ResourceInfo{URL: s.URL + "/x", Description: "a test"},
		map[string]json.RawMessage{"weird": json.RawMessage(`{"info":{"b":1.50,"a":"<&>"},"unknown":[null]}`)}, text, key)
	body := []byte("{}")
	if s.versions&1 != 0 {
		body, err = offer.Body()
		if err != nil {
			s.t.Error(err)
		}
	}
	if s.versions&2 != 0 {
		header, err := offer.Header()
		if err != nil {
			s.t.Error(err)
		}
		w.Header().Set(x402.HeaderRequired, header)
	}
	w.WriteHeader(http.StatusPaymentRequired)
	_, _ = w.Write(body)
}

// take verifies a payment, takes it and serves.
func (s *seller) take(w http.ResponseWriter, r *http.Request, value string) {
	p, err := x402.DecodePayload(value)
	if err != nil {
		s.demand(w, string(x402.ReasonOf(err)))
		return
	}
	i, err := x402.Select(s.accepts, p)
	if err != nil {
		s.demand(w, string(x402.ReasonOf(err)))
		return
	}
	amount, _ := x402.ParseAtomic(s.accepts[i].Amount)
	terms := x402.Terms{Network: s.network, PayTo: common.HexToAddress(payTo), Amount: amount, MinRemaining: 15 * time.Second, MaxValidity: time.Hour}
	needsChain, err := p.Verify(terms, p.Identify(s.network.Domain().Separator()), s.now())
	if err == nil && needsChain {
		err = x402.Refuse(x402.ReasonSignature, "not the payer's")
	}
	s.mu.Lock()
	if err == nil && s.used[p.Authorization.Nonce] {
		err = x402.Refuse(x402.ReasonNonceUsed, "used")
	}
	if err == nil {
		s.used[p.Authorization.Nonce] = true
	}
	s.mu.Unlock()
	if err != nil {
		s.demand(w, string(x402.ReasonOf(err)))
		return
	}
	receipt := x402.SettlementResponse{
		Success: true, Payer: p.Authorization.From.Hex(), Transaction: transaction, Network: p.Network, Amount: amount.Dec(),
	}
	if s.settled != nil {
		s.settled(w.Header(), &receipt)
	}
	encoded, err := x402.EncodeHeader(receipt)
	if err != nil {
		s.t.Error(err)
	}
	w.Header().Set(map[int]string{1: x402.HeaderResponseV1, 2: x402.HeaderResponse}[p.Version], encoded)
	w.Header().Set("X-Payment-Id", paymentID)
	if s.serve != nil {
		s.serve(w, r)
		return
	}
	_, _ = io.WriteString(w, "what was paid for")
}

func (s *seller) got() (payments, bodies []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.payments...), append([]string(nil), s.bodies...)
}

// settlements counts the authorizations that were taken.
func (s *seller) settlements() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.used)
}

func testKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := crypto.ToECDSA(crypto.Keccak256([]byte("a key for tests")))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// pauses are the waits that a client asked for; none is slept.
type pauses struct {
	mu   sync.Mutex
	now  time.Time
	list []time.Duration
}

func (p *pauses) wait(ctx context.Context, d time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, d)
	p.now = p.now.Add(d)
	return ctx.Err()
}

func (p *pauses) clock() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

// newClient may spend 0.05 on the known test networks.
func newClient(t *testing.T) (*Client, *pauses) {
	t.Helper()
	limits, err := Limits("0.05", Testnets()...)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	p := &pauses{now: time.Now()}
	return &Client{HTTP: &http.Client{Transport: transport}, Key: testKey(t), Limits: limits, Now: p.clock, wait: p.wait}, p
}

func get(t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func text(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

type call = func(*http.Request) (*http.Response, *Report, error)

// without makes a call that must not bring a response.
func without(t *testing.T, do call, req *http.Request) (*Report, error) {
	t.Helper()
	resp, r, err := do(req)
	if resp != nil {
		_ = resp.Body.Close()
		t.Errorf("a response: %d", resp.StatusCode)
	}
	return r, err
}

func (c *Client) resuming(p Payment) call {
	return func(req *http.Request) (*http.Response, *Report, error) { return c.Resume(req, p) }
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }
