package paywall

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/signer"
	"github.com/caddy-x402/caddy-x402/settlement/wallet"
	"github.com/caddy-x402/caddy-x402/token"
	"github.com/caddy-x402/caddy-x402/x402"
)

const cent = 10_000

// cluster is several instances in one process: each has an engine, a gate, a wallet of the same key and its own connection to
// the same ledger. They know nothing of each other.
type cluster struct {
	t         *testing.T
	chain     *devnet.Chain
	path      string
	tokens    *Tokens
	instances []*instance
	flow      string       // of the route, which then sells no plan
	granter   Granter      // of the plan
	requests  uint64       // of the plan; 0: any number
	pricer    Pricer       // of the route, which then has no price of its own
	calls     atomic.Int64 // of the upstream
	serve     http.HandlerFunc
}

type instance struct {
	store  ledger.Store
	engine *Engine
	server *httptest.Server
}

var seller = common.HexToAddress("0x209693Bc6afc0C5328bA36FaF03C514EF312287C")

// newCluster starts n instances; wrap may change what each sees of the ledger, and change how their gates are made.
func newCluster(t *testing.T, n int, settings Settings, wrap func(i int, s ledger.Store) ledger.Store, change ...func(*Config)) *cluster {
	t.Helper()
	return newFlowCluster(t, "", n, settings, wrap, change...)
}

// newFlowCluster is newCluster for a route of that flow.
func newFlowCluster(t *testing.T, flow string, n int, settings Settings, wrap func(i int, s ledger.Store) ledger.Store, change ...func(*Config)) *cluster {
	t.Helper()
	c := emptyCluster(t)
	c.flow = flow
	c.startAll(n, settings, wrap, change...)
	return c
}

// emptyCluster has no instances yet.
func emptyCluster(t *testing.T) *cluster {
	t.Helper()
	dev, err := devnet.Start(t.Context(), devnet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Close() })
	c := &cluster{t: t, chain: dev, path: filepath.Join(t.TempDir(), "ledger.db"), tokens: testTokens(t)}
	c.serve = func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintf(w, "answer %d", c.calls.Load()) }
	return c
}

func (c *cluster) startAll(n int, settings Settings, wrap func(i int, s ledger.Store) ledger.Store, change ...func(*Config)) {
	c.t.Helper()
	for i := range n {
		c.instances = append(c.instances, c.start(i, settings, wrap, change...))
	}
}

func testTokens(t *testing.T) *Tokens {
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
	return NewTokens(&token.Issuer{Keyring: ring, Issuer: "here"}, access)
}

func (c *cluster) start(i int, settings Settings, wrap func(int, ledger.Store) ledger.Store, change ...func(*Config)) *instance {
	c.t.Helper()
	store, err := sqlite.Open(c.t.Context(), c.path, sqlite.Options{})
	if err != nil {
		c.t.Fatal(err)
	}
	in := &instance{store: store}
	if wrap != nil {
		in.store = wrap(i, store)
	}
	client, err := chain.New(chain.Config{Endpoints: []string{c.chain.URL()}, ChainID: devnet.ChainID, PollInterval: 10 * time.Millisecond})
	if err != nil {
		c.t.Fatal(err)
	}
	key, err := signer.NewLocal(devnet.Developer(0).Key)
	if err != nil {
		c.t.Fatal(err)
	}
	settler, err := wallet.New(wallet.Config{
		Network: devnet.Network(), Signers: []wallet.Signer{key}, Chain: client, Journal: &journal{in.store},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	payee := &Payee{Network: devnet.Network(), PayTo: seller, Settler: settler}
	if c.flow == ledger.FlowDeferred {
		payee.Lending = Lending{PerPayer: *uint256.NewInt(50 * cent), Total: *uint256.NewInt(500 * cent)}
	}
	settings.Payees = []*Payee{payee}
	in.engine = NewEngine(in.store, settings)
	price := func(n uint64) []Price { return []Price{{Payee: payee, Amount: *uint256.NewInt(n)}} }
	plans := []Plan{{Name: "day", TTL: 24 * time.Hour, Requests: c.requests, Prices: price(10 * cent), Granter: c.granter}}
	route := &Route{Name: "r", Scope: "r", Prices: price(cent), Timeout: time.Minute, Plans: plans}
	if c.pricer != nil {
		route.Prices, route.Pricer = nil, c.pricer
	}
	if c.flow != "" {
		route.Flow, route.Plans = c.flow, nil
	}
	config := Config{
		Acquire: func() (*Engine, func(), error) { return in.engine, func() {}, nil }, Payees: []*Payee{payee},
		Tokens: func() (*Tokens, error) { return c.tokens, nil }, Idempotency: Idempotency{Mode: IdempotencyOptional},
	}
	for _, f := range change {
		f(&config)
	}
	pass := &Route{Name: "r", Scope: "r", Timeout: time.Minute, Plans: plans}
	gate, err := NewGate(config, route, pass)
	if err != nil {
		c.t.Fatal(err)
	}
	in.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := Request{Route: route, URL: "http://h" + r.URL.RequestURI(), Host: "h", URI: r.URL.RequestURI(), Client: "c", Audience: "http://h"}
		accessed(r, &q, pass)
		if err := gate.Serve(w, r, q, func(w http.ResponseWriter, r *http.Request) error {
			c.calls.Add(1)
			c.serve(w, r)
			return nil
		}); err != nil {
			c.t.Error(err)
		}
	}))
	c.t.Cleanup(func() {
		in.server.Close()
		if err := errors.Join(in.engine.Close(), settler.Close(), client.Close(), store.Close()); err != nil {
			c.t.Error(err)
		}
	})
	return in
}

// ordered makes a request an order: for the plan, or for what its method and path say.
func accessed(r *http.Request, q *Request, pass *Route) {
	name, ok := r.Header["X-Access"]
	if !ok {
		return
	}
	q.Access = &Access{RequestID: name[0], Item: r.URL.Path, TTL: time.Minute, Base: "http://h", Terms: []string{r.Method}}
	if ttl, err := time.ParseDuration(r.Header.Get("X-Access-TTL")); err == nil {
		q.Access.TTL = ttl
	}
	if r.URL.Path == "/access" {
		q.Route, q.Access.Plan, q.Access.Item = pass, true, "day"
	}
}

// journal lets a wallet write into a ledger.
type journal struct{ ledger.Store }

func (j *journal) Record(ctx context.Context, t settlement.Transaction) error {
	err := j.Store.Record(ctx, ledger.Transaction{
		ChainID: t.ChainID, Wallet: t.Wallet, Nonce: t.Nonce, Hash: t.Hash, Raw: t.Raw, Payments: t.Payments,
	}, "wallet")
	switch {
	case errors.Is(err, ledger.ErrNonce):
		return fmt.Errorf("%w: %w", settlement.ErrNonce, err)
	case errors.Is(err, ledger.ErrTransition), errors.Is(err, ledger.ErrNotFound):
		return fmt.Errorf("%w: %w", settlement.ErrNotClaimed, err)
	}
	return err
}

func (j *journal) Advance(ctx context.Context, chainID uint64, wallet common.Address, to uint64) error {
	return j.AdvanceNonce(ctx, chainID, wallet, to)
}

func (j *journal) Transactions(ctx context.Context, payment string) ([]settlement.Transaction, error) {
	list, err := j.Store.Transactions(ctx, payment)
	out := make([]settlement.Transaction, len(list))
	for i, t := range list {
		out[i] = settlement.Transaction{
			ChainID: t.ChainID, Wallet: t.Wallet, Nonce: t.Nonce, Hash: t.Hash, Raw: t.Raw, Payments: t.Payments, CreatedAt: t.CreatedAt,
		}
	}
	return out, err
}

// reply is an answer that was read to its end.
type reply struct {
	status int
	header http.Header
	body   string
}

// ask sends a request to the i-th instance; pairs of header follow.
func (c *cluster) ask(i int, method, path, body string, header ...string) (a reply) {
	return c.askFor(c.t.Context(), i, method, path, body, header...)
}

func (c *cluster) askFor(ctx context.Context, i int, method, path, body string, header ...string) (a reply) {
	r, err := http.NewRequestWithContext(ctx, method, c.instances[i].server.URL+path, bytes.NewReader([]byte(body)))
	if err != nil {
		c.t.Error(err)
		return a
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	res, err := c.instances[i].server.Client().Do(r)
	if err != nil {
		c.t.Error(err)
		return a
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Error(err)
	}
	return reply{res.StatusCode, res.Header, string(text)}
}

// sign signs a payment by the n-th payer for a plan, or for one request, as the i-th instance offers it.
func (c *cluster) sign(i, n int, plan string) string {
	c.t.Helper()
	return c.signFor(i, n, plan, nil)
}

// signFor is sign for another amount than is asked for.
func (c *cluster) signFor(i, n int, plan string, other *uint256.Int) string {
	c.t.Helper()
	return c.signOffer(c.ask(i, http.MethodGet, "/", ""), n, plan, other)
}

// signOffer signs a payment by the n-th payer for what a 402 offers.
func (c *cluster) signOffer(a reply, n int, plan string, other *uint256.Int) string {
	c.t.Helper()
	var o x402.PaymentRequired
	if err := x402.DecodeHeader(a.header.Get(x402.HeaderRequired), 1<<20, &o); err != nil {
		c.t.Fatal(a.status, err, a.body)
	}
	for _, q := range o.Accepts {
		if q.Extra.Plan != plan {
			continue
		}
		amount, err := x402.ParseAtomic(q.Amount)
		if err != nil {
			c.t.Fatal(err)
		}
		if other != nil {
			amount = *other
		}
		auth := x402.Authorization{From: devnet.Payer(n).Address, To: seller, Value: amount}
		auth.ValidBefore.SetUint64(uint64(time.Now().Add(time.Minute).Unix()))
		if _, err := rand.Read(auth.Nonce[:]); err != nil {
			c.t.Fatal(err)
		}
		sig, err := x402.Sign(auth.Digest(devnet.Network().Domain().Separator()), devnet.Payer(n).Key)
		if err != nil {
			c.t.Fatal(err)
		}
		header, err := x402.EncodeHeader(o.Pay(q, &auth, sig))
		if err != nil {
			c.t.Fatal(err)
		}
		return header
	}
	c.t.Fatal("not offered:", plan)
	return ""
}

// saw checks what was earned, and how often the upstream was called.
func (c *cluster) saw(calls int64, earned uint64) {
	c.t.Helper()
	balance, err := c.chain.TokenBalance(c.t.Context(), seller)
	if err != nil {
		c.t.Fatal(err)
	}
	if c.calls.Load() != calls || balance.Uint64() != earned {
		c.t.Errorf("the upstream was called %d times and %d earned, want %d and %d", c.calls.Load(), balance.Uint64(), calls, earned)
	}
}

// states are those of the payments that the ledger has.
func (c *cluster) states() map[ledger.State]int64 {
	c.t.Helper()
	counts, err := c.instances[0].store.Counts(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return counts
}

func isProblem(a reply, status int, code string) bool {
	return a.status == status && strings.Contains(a.body, `"code":"`+code+`"`)
}
