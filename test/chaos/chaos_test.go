package chaos

import (
	"context"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

const (
	instances = 3
	payers    = 50
	blockTime = time.Second

	// finishing is how long clients may take to get what they want when nothing breaks any more, and settling how long
	// the ledger may take to end all payments after that: as long as a dead instance's lease, and an authorization's life.
	finishing = 90 * time.Second
	settling  = 3 * time.Minute
)

// Whatever is killed, paused or cut off, under load: each transfer belongs to one payment, each payment is served once or can be
// refunded, nobody is charged twice for one thing, and the trails are whole.
func TestChaos(t *testing.T) {
	seconds, err := strconv.Atoi(setting("CHAOS_SECONDS", "60"))
	if err != nil || seconds < 1 {
		t.Fatal("CHAOS_SECONDS is no number of seconds: ", err)
	}
	seed, err := strconv.ParseUint(setting("CHAOS_SEED", strconv.FormatInt(time.Now().UnixNano()%1_000_000, 10)), 10, 64)
	if err != nil {
		t.Fatal("CHAOS_SEED is no number: ", err)
	}
	stores := strings.Split(setting("CHAOS_STORE", "postgres"), ",")
	if stores[0] == "all" {
		stores = []string{"sqlite", "postgres", "redis"}
	}
	for _, store := range stores {
		t.Run(store, func(t *testing.T) {
			open := backends[store]
			if open == nil {
				t.Fatalf("CHAOS_STORE: there is no store %q", store)
			}
			newScene(t, store, seed, open).play(time.Duration(seconds) * time.Second)
		})
	}
}

func setting(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// scene is all that takes part in one run.
type scene struct {
	t         *testing.T
	out       io.Writer
	dir       string
	store     string
	seed      uint64
	chain     *devnet.Chain
	upstream  *upstream
	backend   *backend
	instances []*instance
	payers    []*payer
	mischief  *mischief
	begun     time.Time
	// purses are what everybody had at the beginning.
	purses map[common.Address]*big.Int
	// hastened are the payments that hasten has seen to.
	hastened map[string]bool
}

func newScene(t *testing.T, store string, seed uint64, open func(*testing.T, string, int) *backend) *scene {
	s := &scene{t: t, out: t.Output(), store: store, seed: seed, hastened: make(map[string]bool)}
	s.makeDir()
	s.say("store %s, seed %d, logs in %s", store, seed, s.dir)
	var err error
	if s.chain, err = devnet.Start(t.Context(), devnet.Options{BlockTime: blockTime, Payers: 2 * payers}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.chain.Close() })
	if err := s.chain.Mint(t.Context(), refundWallet.Address, uint256.NewInt(refundMoney)); err != nil {
		t.Fatal(err)
	}
	s.upstream = newUpstream(t, s.dice(1))
	s.backend = open(t, s.dir, instances)
	node, err := ethclient.DialContext(t.Context(), s.chain.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Close)
	s.mischief = &mischief{random: s.dice(2), faults: append(chainFaults(s.chain, node), s.backend.faults...), say: s.say}
	var shops []string
	for i := range instances {
		name, addr := fmt.Sprintf("instance-%d", i), rig.FreeAddr(t)
		e := newEndpoint(t, s.chain.URL(), s.dice(uint64(10+i)))
		in := newInstance(t, s.dir, name, addr, caddyfile(s.backend.config(i), e.URL(), addr, s.upstream.addr()))
		s.instances = append(s.instances, in)
		shops = append(shops, addr)
		s.mischief.faults = append(append(s.mischief.faults, instanceFaults(in)...), endpointFaults(name, e, s.head)...)
	}
	for i := range payers {
		p := newPayer(i, s.dice(uint64(100+i)), shops)
		if i%cheats == 0 {
			p.cheats = &cheat{chain: node, stash: devnet.Payer(payers + i)}
		}
		s.payers = append(s.payers, p)
	}
	if s.purses, err = readPurses(t.Context(), node, s.payers); err != nil {
		t.Fatal(err)
	}
	return s
}

// makeDir makes the folder of this run: what is in it is needed if the run fails.
func (s *scene) makeDir() {
	if dir := os.Getenv("CHAOS_DIR"); dir != "" {
		s.dir = filepath.Join(dir, s.store)
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			s.t.Fatal(err)
		}
		return
	}
	dir, err := os.MkdirTemp("", "chaos-"+s.store+"-")
	if err != nil {
		s.t.Fatal(err)
	}
	s.dir = dir
	s.t.Cleanup(func() {
		if !s.t.Failed() {
			_ = os.RemoveAll(dir)
		}
	})
}

func (s *scene) dice(n uint64) *rand.Rand { return rand.New(rand.NewPCG(s.seed, n)) }

// head is the newest block.
func (s *scene) head() uint64 {
	n, err := headOf(context.WithoutCancel(s.t.Context()), s.chain.URL())
	if err != nil {
		s.t.Error(err)
	}
	return n
}

// play lets things break for that long, lets everything come to rest, and judges.
func (s *scene) play(lasts time.Duration) {
	for _, in := range s.instances {
		if err := in.start(); err != nil {
			s.t.Fatal(err)
		}
	}
	if s.await(time.Minute, "the instances to listen", s.listening); s.t.Failed() {
		s.t.FailNow()
	}
	s.begun = time.Now()

	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	books, err := s.backend.open(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	defer books.Close()
	anchored := make(chan struct{})
	go func() {
		defer close(anchored)
		if !s.backend.forgets { // what was anchored must not be forgotten
			anchor(ctx, books)
		}
	}()
	shopping, closed := context.WithTimeout(ctx, lasts+finishing)
	defer closed()
	stop := make(chan struct{})
	var customers sync.WaitGroup
	for _, p := range s.payers {
		customers.Go(func() { p.shop(shopping, stop) })
	}
	s.mess(ctx, lasts)
	close(stop)
	s.say("nothing breaks any more; clients finish what they have begun")
	gone := make(chan struct{})
	go func() { customers.Wait(); close(gone) }()
	s.watch(gone)
	s.rest()
	if !s.backend.forgets {
		s.makeGood()
		s.rest()
	}
	cancel()
	<-anchored
	if s.backend.forgets {
		for _, in := range s.instances { // who starts looks back
			in.kill()
			if err := in.start(); err != nil {
				s.t.Fatal(err)
			}
		}
		s.await(settling, "what was forgotten to be found", s.accounted)
		s.await(settling, "all payments to end", func() error { return s.unsettled("") })
		s.report(forgotten(s.gather()))
		return
	}
	s.report(judge(s.gather()))
}

// mess breaks things, and shows the progress meanwhile.
func (s *scene) mess(ctx context.Context, lasts time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, lasts)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); s.mischief.run(ctx) }()
	s.watch(done)
}

const progressEvery = 5 * time.Second

// watch shows the progress until done is closed.
func (s *scene) watch(done <-chan struct{}) {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			s.progress()
		}
	}
}

func (s *scene) progress() {
	wanted, got := 0, 0
	for _, p := range s.payers {
		p.mu.Lock()
		wanted += len(p.intents)
		for _, a := range p.attempts {
			if a.Status == 200 && a.Error == "" {
				got++
			}
		}
		p.mu.Unlock()
	}
	broken, total := s.mischief.now()
	s.say("%4.0f s: %d things wanted, %d paid answers, %d requests to the upstream, %d faults, now %v",
		time.Since(s.begun).Seconds(), wanted, got, len(s.upstream.seen()), total, broken)
}

func (s *scene) say(format string, args ...any) { _, _ = fmt.Fprintf(s.out, format+"\n", args...) }

// rest waits until nothing is under way any more. Time helps: what nobody sent can't be sent when its authorization has
// ended, and the chain's clock can be turned on.
func (s *scene) rest() {
	s.await(settling, "all settlements to end", func() error { return s.unsettled(ledger.Settling) })
	if err := s.chain.AdvanceTime(2 * time.Minute); err != nil {
		s.t.Fatal(err)
	}
	s.await(settling, "all payments to end", func() error { return s.unsettled("") })
	s.await(settling, "all nonces to be used", s.gaps)
}

// debtorsAtOnce is how many debtors pay in the end; the others still owe what they owe.
const debtorsAtOnce = 4

// makeGood lets some debtors pay what they owe.
func (s *scene) makeGood() {
	records, _, err := readLedger(s.t.Context(), s.backend)
	if err != nil {
		s.t.Fatal(err)
	}
	now, err := s.chain.Now(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	ahead := time.Until(now)
	all := debtors(records)
	ctx, cancel := context.WithTimeout(s.t.Context(), finishing)
	defer cancel()
	var busy sync.WaitGroup
	n := 0
	for _, p := range s.payers {
		debts := all[p.account.Address]
		if len(debts) == 0 || n == debtorsAtOnce {
			continue
		}
		n++
		p.now = func() time.Time { return time.Now().Add(ahead) }
		busy.Go(func() {
			if err := p.makeGood(ctx, debts); err != nil {
				s.t.Error(err)
			}
		})
	}
	s.say("%d payers owe something; %d of them make it good", len(all), n)
	busy.Wait()
}

// gaps is an error while a wallet has recorded more than was mined.
func (s *scene) gaps() error {
	_, gas, err := readLedger(s.t.Context(), s.backend)
	if err != nil {
		return err
	}
	chain, err := readChain(s.t.Context(), s.chain.URL())
	if err != nil {
		return err
	}
	for _, w := range gas {
		if on := chain.wallets[w.Address]; on.sent < w.NextNonce {
			return fmt.Errorf("of %d transactions of %s %d are mined", w.NextNonce, w.Address, on.sent)
		}
	}
	return nil
}

// unsettled is an error while payments wait: for what is given, or for anything.
func (s *scene) unsettled(only ledger.Settlement) error {
	records, _, err := readLedger(s.t.Context(), s.backend)
	if err != nil {
		return err
	}
	if only == "" {
		if err := s.hasten(records); err != nil {
			return err
		}
	}
	count := waiting(records)
	if only != "" {
		count = map[string]int{string(only): count[string(only)]}
	}
	for what, n := range count {
		if n > 0 {
			return fmt.Errorf("%d of %d payments are %s", n, len(records), what)
		}
	}
	return nil
}

// hasten has what is to be paid back looked at now: nobody waits here for what the dead have leased.
func (s *scene) hasten(records []ledger.Record) error {
	store, err := s.backend.open(s.t.Context())
	if err != nil {
		return err
	}
	defer store.Close()
	for i := range records {
		p := &records[i].Payment
		if p.Refund != ledger.RefundPending || s.hastened[p.ID] {
			continue
		}
		if err := store.Recheck(s.t.Context(), p.ID, 0); err != nil {
			return err
		}
		s.hastened[p.ID] = true
	}
	return nil
}

func (s *scene) listening() error {
	for _, in := range s.instances {
		if err := in.listening(); err != nil {
			return err
		}
	}
	return nil
}

// await waits until ready gives nil, and shows what it is waiting for. What is never ready is found by the judge.
func (s *scene) await(most time.Duration, what string, ready func() error) {
	deadline, next := time.Now().Add(most), time.Now().Add(progressEvery)
	for {
		err := ready()
		if err == nil {
			return
		}
		now := time.Now()
		if now.After(deadline) {
			s.t.Errorf("waiting for %s took too long: %v", what, err)
			return
		}
		if now.After(next) {
			next = now.Add(progressEvery)
			s.say("waiting for %s: %v", what, err)
		}
		time.Sleep(250 * time.Millisecond)
	}
}

// gather reads what everybody says.
func (s *scene) gather() *evidence {
	ctx := s.t.Context()
	for _, in := range s.instances {
		in.kill() // nobody writes any more
	}
	chain, err := readChain(ctx, s.chain.URL())
	if err != nil {
		s.t.Fatal("reading the chain: ", err)
	}
	node, err := ethclient.DialContext(ctx, s.chain.URL())
	if err != nil {
		s.t.Fatal(err)
	}
	defer node.Close()
	purses, err := readPurses(ctx, node, s.payers)
	if err != nil {
		s.t.Fatal(err)
	}
	records, gas, err := readLedger(ctx, s.backend)
	if err != nil {
		s.t.Fatal(err)
	}
	verified, err := verify(ctx, s.backend)
	if err != nil {
		s.t.Fatal(err)
	}
	return &evidence{
		verified: verified, records: records, chain: chain, wallets: gas, forwards: s.upstream.seen(), payers: s.payers,
		before: s.purses, after: purses,
	}
}
