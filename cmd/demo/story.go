package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/client"
	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/x402"
)

// The way that is paid for, and another one under the same matcher.
const (
	paidPath  = "/weather/rome"
	otherPath = "/weather/oslo"
)

// story is what happened so far.
type story struct {
	*paper
	*stage
	http *http.Client

	before  balances
	demand  answer // the 402
	offer   x402.PaymentRequired
	report  *client.Report // of the payment
	paid    answer
	receipt receipt
	token   string // of the plan
	key     string // of the management API
}

func newStory(p *paper, s *stage) *story {
	return &story{paper: p, stage: s, http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}}
}

// step is a part of the story with a heading.
type step struct {
	title string
	tell  func(*story, context.Context) error
}

var steps = []step{
	{"A seller puts Caddy in front of an API", (*story).open},
	{"What everybody has before", (*story).count},
	{"A request without payment: 402", (*story).ask},
	{"The offer", (*story).read},
	{"The buyer signs", (*story).pay},
	{"The same request, paid: 200", (*story).receive},
	{"The transaction", (*story).mined},
	{"What the upstream saw", (*story).arrived},
	{"The assertion, checked as an upstream would", (*story).verify},
	{"The ledger", (*story).recorded},
	{"What everybody has after", (*story).recount},
	{"The same payment once more: refused", (*story).replay},
	{"A plan: paid once, used by its token", (*story).subscribe},
	{"The chain is gone: the token still opens", (*story).cutOff},
	{"The seller looks after the shop", (*story).operate},
	{"The log", (*story).logged},
}

// tell tells each step, up to the first that does not hold.
func (s *story) tell(ctx context.Context, steps []step) error {
	s.strong("caddy-x402: one payment, from the 402 to the upstream")
	s.say("A local chain, a seller's API, Caddy with this module and a buyer run in this process. Nothing leaves this machine, and the money is worth nothing.")
	for _, it := range steps {
		s.begin(it.title)
		if err := it.tell(s, ctx); err != nil {
			return fmt.Errorf("step %d (%s): %w", s.steps, it.title, err)
		}
		if err := s.end(); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) open(context.Context) error {
	s.field("chain", "%s, chain id %d, in this process", s.chain.URL(), devnet.ChainID)
	s.field("", "%s, a wire to it for Caddy", s.wire.url())
	s.field("USDC", "%s", devnet.TokenAddress)
	s.field("upstream", "http://%s answers with the request that it got", s.upstream.addr())
	s.field("Caddy", "http://%s, and for the seller http://%s, with", s.addr, s.ops)
	s.field("", "%s:", s.caddyfileFile())
	s.say("")
	s.code(s.caddyfile)
	return nil
}

// balances are what the three accounts have, in atomic units and in wei.
type balances struct {
	buyer, seller, gas *uint256.Int
}

func (s *story) balances(ctx context.Context) (b balances, err error) {
	if b.buyer, err = s.chain.TokenBalance(ctx, buyer.Address); err != nil {
		return b, fmt.Errorf("the buyer's balance: %w", err)
	}
	if b.seller, err = s.chain.TokenBalance(ctx, seller); err != nil {
		return b, fmt.Errorf("the seller's balance: %w", err)
	}
	if b.gas, err = s.chain.Balance(ctx, gas.Address); err != nil {
		return b, fmt.Errorf("the gas wallet's balance: %w", err)
	}
	return b, nil
}

func (s *story) show(b balances) {
	s.field("buyer", "%s  %s USDC", buyer.Address, x402.FormatAmount(b.buyer, 6))
	s.field("seller", "%s  %s USDC", seller, x402.FormatAmount(b.seller, 6))
	s.field("gas wallet", "%s  %s ETH", gas.Address, x402.FormatAmount(b.gas, 18))
}

func (s *story) count(ctx context.Context) (err error) {
	if s.before, err = s.balances(ctx); err != nil {
		return err
	}
	s.show(s.before)
	s.check(s.before.seller.IsZero(), "the seller has earned nothing yet")
	return nil
}

// answer is a response that was read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
	took   time.Duration
}

// get asks for url; pairs of header names and values follow.
func (s *story) get(ctx context.Context, url string, header ...string) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return answer{}, fmt.Errorf("asking %s: %w", url, err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return s.do(r)
}

func (s *story) do(r *http.Request) (answer, error) {
	began := time.Now()
	res, err := s.http.Do(r)
	if err != nil {
		return answer{}, fmt.Errorf("asking %s: %w", r.URL, err)
	}
	defer func() { _ = res.Body.Close() }()
	return readAll(res, began)
}

func readAll(res *http.Response, began time.Time) (answer, error) {
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}, fmt.Errorf("reading an answer: %w", err)
	}
	return answer{status: res.StatusCode, header: res.Header, body: body, took: time.Since(began)}, nil
}

// offered decodes the offer in the header of a 402.
func (a *answer) offered() (o x402.PaymentRequired, err error) {
	err = x402.DecodeHeader(a.header.Get(x402.HeaderRequired), x402.MaxHeaderBytes, &o)
	return o, err
}

func (a *answer) json(v any) error {
	if err := json.Unmarshal(a.body, v); err != nil {
		return fmt.Errorf("reading the JSON of an answer: %w", err)
	}
	return nil
}

// units is a price in atomic units.
func units(price string) uint256.Int {
	v, err := x402.ParseAmount(price, 6)
	if err != nil {
		return uint256.Int{} // no price is zero, so the claim about it fails
	}
	return v
}

// network is the chain as the configuration's name has it.
func network() x402.Network {
	n, _ := x402.LookupNetwork("base-sepolia")
	return n
}
