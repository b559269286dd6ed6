package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
)

const (
	// finishing is how long clients may take to get what they have begun to buy when the time is over, and ending how long
	// the ledger may take after that until nothing is under way any more.
	finishing = 3 * time.Minute
	ending    = 5 * time.Minute
	// listPage is how many payments of the ledger are read at once, and trailEvery of how many one's trail is verified.
	listPage   = 1000
	trailEvery = 20
)

// soakConfig is one long run: many payments, and what must not grow or go wrong meanwhile.
type soakConfig struct {
	lasts    time.Duration // how long clients buy at most
	payments int           // how many payments are enough
	clients  int           // who buy at the same time
	payers   int           // whose accounts they use in turn
	lanes    int           // gas wallets
	block    time.Duration
	every    time.Duration // between two looks at everything, which are shown
	store    string
	json     string
	dir      string
}

func soakConfigFrom(env func(string) string) (c soakConfig, err error) {
	c = soakConfig{store: or(env("SOAK_STORE"), "sqlite"), json: env("SOAK_JSON"), dir: env("SOAK_DIR")}
	seconds, every := 0, 0
	for _, n := range []struct {
		name, otherwise string
		to              *int
	}{
		{"SOAK_SECONDS", "3600", &seconds},
		{"SOAK_PAYMENTS", "1000000", &c.payments},
		{"SOAK_CLIENTS", "1000", &c.clients},
		{"SOAK_PAYERS", "4000", &c.payers},
		{"SOAK_LANES", "2", &c.lanes},
		{"SOAK_EVERY", "15", &every},
	} {
		if *n.to, err = positive(or(env(n.name), n.otherwise)); err != nil {
			return c, fmt.Errorf("%s: %w", n.name, err)
		}
	}
	c.lasts, c.every = time.Duration(seconds)*time.Second, time.Duration(every)*time.Second
	if c.block, err = blockTime(or(env("SOAK_BLOCK"), "1s")); err != nil || c.block == 0 {
		return c, fmt.Errorf("SOAK_BLOCK: whole seconds such as 2s: %w", err)
	}
	if c.payers < c.clients {
		return c, errors.New("SOAK_PAYERS: each client needs one at least")
	}
	return c, nil
}

// soak is all that takes part in the run.
type soak struct {
	soakConfig
	stage   *stage
	files   string // the folder of what is written
	chain   *process
	ledger  store
	books   *follower
	shop    *shop
	crowd   *crowd
	samples []sample
	say     func(format string, args ...any)
}

// runSoak lets clients buy for a long time, and then compares what the chain, the ledger and every client say.
func runSoak(ctx context.Context, c soakConfig, log io.Writer) (r *soakReport, err error) {
	s := &soak{soakConfig: c, say: func(format string, args ...any) { _, _ = fmt.Fprintf(log, format+"\n", args...) }}
	s.say("building Caddy")
	if s.stage, err = setUp(ctx, config{store: c.store, dir: c.dir}); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stage.tearDown()) }()
	if s.files, err = s.stage.folder("soak"); err != nil {
		return nil, err
	}
	if s.chain, s.books, err = startSoakChain(ctx, s.files, &c); err != nil {
		return nil, err
	}
	defer func() {
		s.books.close()
		err = errors.Join(err, s.chain.stop())
	}()
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.shop.close()) }()
	s.crowd = newCrowd(&c, s.shop.addr)
	began := time.Now()
	if err := s.run(ctx, began); err != nil {
		return nil, err
	}
	took := time.Since(began)
	if err := s.rest(ctx); err != nil {
		return nil, err
	}
	return s.report(ctx, took)
}

// soakSite is the configuration of the Caddy under test: all three flows, each for the same price.
const soakSite = `{
	admin {admin}
	persist_config off
	auto_https off
	default_bind 127.0.0.1
	storage file_system {dir}
	log default {
		level WARN
	}
	x402 {
		network base-sepolia
		pay_to {seller}
		rpc {rpc}
		wallet {wallets} {
			max_spend 100000
		}
		credit $0.50 $50
		refunds off
		store {store}
		min_age 10s
	}
}
http://{addr} {
	x402 /upfront* $0.01
	x402 /authorization* {
		price $0.01
		flow authorization
	}
	x402 /deferred* {
		price $0.01
		flow deferred
	}
	x402_service
	reverse_proxy {upstream}
}
`

// open starts Caddy.
func (s *soak) open(ctx context.Context) (err error) {
	o := &shop{system: partOurs}
	if s.ledger, err = s.stage.newStore(ctx, s.files); err != nil {
		return err
	}
	o.ends = append(o.ends, s.ledger.end)
	if o.admin, err = freeAddr(ctx); err != nil {
		return errors.Join(err, o.close())
	}
	keys, env := "", []string(nil)
	for i := range s.lanes {
		name := "SOAK_KEY_" + strconv.Itoa(i)
		keys += " {env." + name + "}"
		env = append(env, name+"="+hexutil.Encode(crypto.FromECDSA(devnet.Developer(i).Key)))
	}
	p, err := s.stage.launchCaddy(ctx, "caddy", soakSite, s.files, env,
		"{admin}", o.admin, "{rpc}", "http://"+s.chain.addr, "{seller}", payTo.Hex(), "{store}", s.ledger.line, "{wallets}", keys)
	if err != nil {
		return errors.Join(err, o.close())
	}
	o.addr, o.processes = p.addr, append(o.processes, p)
	s.shop = o
	return nil
}

// run lets the crowd buy until the time is over or it has bought enough, and looks at everything meanwhile.
func (s *soak) run(ctx context.Context, began time.Time) error {
	shopping, cancel := context.WithTimeout(ctx, s.lasts+finishing)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.crowd.shop(shopping)
	}()
	defer func() { cancel(); <-done }()
	over := time.NewTimer(s.lasts)
	defer over.Stop()
	next := time.NewTicker(s.every)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-done:
			return nil
		case <-over.C:
			s.crowd.close()
		case <-next.C:
			if err := s.look(ctx, time.Since(began)); err != nil {
				return err
			}
		}
	}
}

// rest waits until nothing is under way any more. What never ends is found by the judge.
func (s *soak) rest(ctx context.Context) error {
	books, err := s.ledger.open(ctx)
	if err != nil {
		return fmt.Errorf("the ledger: %w", err)
	}
	defer func() { _ = books.Close() }()
	for deadline := time.Now().Add(ending); ; {
		counts, err := books.Counts(ctx)
		if err != nil {
			return fmt.Errorf("the ledger: %w", err)
		}
		n := counts[ledger.StatePending] + counts[ledger.StateSettling] + counts[ledger.StatePaid] + counts[ledger.StateOwed]
		if n == 0 || time.Now().After(deadline) {
			return nil
		}
		s.say("nobody buys any more; %d payments are under way", n)
		if !wait(ctx, time.Now().Add(s.every/3)) {
			return ctx.Err()
		}
	}
}

// report ends Caddy, and compares.
func (s *soak) report(ctx context.Context, took time.Duration) (*soakReport, error) {
	caddy, over := s.shop.processes[0], time.Now()
	if err := errors.Join(caddy.alive(), caddy.stop()); err != nil {
		return nil, err
	}
	if err := s.books.follow(ctx); err != nil {
		return nil, err
	}
	j := newSoakJudge(s.crowd.bought(), over)
	for i := range s.books.transfers {
		j.transfer(&s.books.transfers[i])
	}
	s.say("reading the ledger")
	if err := s.readLedger(ctx, j); err != nil {
		return nil, err
	}
	r := &soakReport{
		Machine: thisMachine(ctx), Store: s.store, Seconds: round(took.Seconds(), 1), Block: s.block.Seconds(), Clients: s.clients, Payers: s.payers,
		Wallets: s.lanes, Verdict: j.verdict(), Samples: s.samples, Ledger: s.ledgerSize(), Refusals: s.crowd.refusals(),
		Flat: flatness(s.samples),
	}
	r.PerSecond = round(float64(r.Verdict.Transfers)/took.Seconds(), 1)
	r.Latency = latenciesOf(s.crowd.times())
	var err error
	if r.Transactions, err = s.books.transactions(ctx, s.lanes); err != nil {
		return nil, err
	}
	return r, s.books.balanced(ctx, &r.Verdict)
}

// readLedger tells the judge every payment, and verifies the trails of some.
func (s *soak) readLedger(ctx context.Context, j *soakJudge) error {
	books, err := s.ledger.open(ctx)
	if err != nil {
		return fmt.Errorf("the ledger: %w", err)
	}
	defer func() { _ = books.Close() }()
	for q := (ledger.Query{Limit: listPage}); ; {
		page, err := books.List(ctx, q)
		if err != nil {
			return fmt.Errorf("reading the ledger: %w", err)
		}
		for i := range page {
			j.payment(&page[i])
			if by := page[i].ServedBy; by != "" {
				earlier, err := books.Payment(ctx, by)
				if err != nil {
					return fmt.Errorf("reading the ledger: %w", err)
				}
				j.instead(&page[i], &earlier)
			}
			if j.v.Payments%trailEvery != 0 {
				continue
			}
			trail, err := books.Audit(ctx, page[i].ID)
			if err != nil {
				return fmt.Errorf("reading the ledger: %w", err)
			}
			j.trail(&page[i], trail)
		}
		if len(page) < listPage {
			return nil
		}
		last := &page[len(page)-1]
		q.Before = ledger.Mark{At: last.CreatedAt, Payment: last.ID}
	}
}
