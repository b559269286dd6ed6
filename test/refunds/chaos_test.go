package refunds

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/test/stores"
	"github.com/caddy-x402/caddy-x402/x402"
)

const (
	chaosInstances = 2
	chaosPayers    = 8
	// chaosRest is how long everything may take to come to its end when nothing breaks any more.
	chaosRest = 90 * time.Second
)

// chaos is one run.
type chaos struct {
	t         *testing.T
	random    *rand.Rand
	dir       string
	store     stores.Store
	chain     *devnet.Chain
	rpc       []*settlementtest.Proxy
	instances []*instance
	buyers    []*rig.Buyer
	operator  *rig.Buyer
	began     map[common.Address]uint64
	minted    uint64

	mu     sync.Mutex
	served map[string]int  // how often a payment's answer was read
	held   map[string]bool // payments of which somebody was told that they go back
}

// The upstream fails at random, instances are killed every few seconds, their ways to the chain fail, the refund wallet is empty and
// then filled, and one payer is blacklisted: in the end each payment is delivered, or paid back, or the operator was told that it can't
// be; nobody got both, or any of it twice; and all balances are exact to the unit.
func TestChaos(t *testing.T) {
	seconds, err := strconv.Atoi(setting("REFUNDS_SECONDS", "5"))
	if err != nil || seconds < 1 {
		t.Fatal("REFUNDS_SECONDS is no number of seconds: ", err)
	}
	seed, err := strconv.ParseUint(setting("REFUNDS_SEED", strconv.FormatInt(time.Now().UnixNano()%1_000_000, 10)), 10, 64)
	if err != nil {
		t.Fatal("REFUNDS_SEED is no number: ", err)
	}
	list := strings.Split(setting("REFUNDS_STORE", "sqlite"), ",")
	if list[0] == "all" {
		list = slices.Sorted(maps.Keys(stores.All))
	}
	for _, name := range list {
		open := stores.All[name]
		if open == nil {
			t.Fatalf("REFUNDS_STORE: there is no store %q", name)
		}
		t.Run(name, func(t *testing.T) {
			c := newChaos(t, name, seed, open)
			banned := c.buyers[0]
			c.ban(banned)
			c.havoc(time.Duration(seconds) * time.Second)
			c.rest()
			judge(t, c.gather(), banned.Account.Address)
		})
	}
}

func setting(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

func newChaos(t *testing.T, name string, seed uint64, open func(testing.TB, string) stores.Store) *chaos {
	c := &chaos{
		t: t, random: rand.New(rand.NewPCG(seed, 1)), served: map[string]int{}, held: map[string]bool{}, began: map[common.Address]uint64{},
	}
	c.makeDir(name)
	t.Logf("store %s, seed %d, logs in %s", name, seed, c.dir)
	c.store, c.operator = open(t, c.dir), rig.NewBuyer(t, chaosPayers)
	var err error
	if c.chain, err = devnet.Start(t.Context(), devnet.Options{BlockTime: 500 * time.Millisecond, SafeLag: 3, Payers: chaosPayers}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.chain.Close() })
	dice := &luck{random: rand.New(rand.NewPCG(seed, 2))}
	up := rig.NewUpstream(t, dice.upstream)
	for i := range chaosInstances {
		p := settlementtest.NewProxy(t, c.chain.URL())
		addr, admin := rig.FreeAddr(t), rig.FreeAddr(t)
		c.rpc = append(c.rpc, p)
		config := c.caddyfile(p.URL(), addr, admin, up.Addr())
		c.instances = append(c.instances, &instance{Process: rig.NewProcess(t, c.dir, fmt.Sprintf("instance-%d", i), addr, config), admin: admin})
	}
	for i := range chaosPayers {
		b := rig.NewBuyer(t, i)
		b.HTTP.Timeout = 10 * time.Second
		c.buyers = append(c.buyers, b)
		c.began[b.Account.Address] = c.balance(b.Account.Address)
	}
	for _, in := range c.instances {
		if err := in.Launch(); err != nil {
			t.Fatal(err)
		}
	}
	c.ready()
	return c
}

// ready waits until all instances serve.
func (c *chaos) ready() {
	c.t.Helper()
	for _, in := range c.instances {
		if err := in.Ready(); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *chaos) makeDir(name string) {
	if dir := os.Getenv("REFUNDS_DIR"); dir != "" {
		c.dir = filepath.Join(dir, name)
		if err := os.MkdirAll(c.dir, 0o700); err != nil {
			c.t.Fatal(err)
		}
		return
	}
	dir, err := os.MkdirTemp("", "refunds-"+name+"-")
	if err != nil {
		c.t.Fatal(err)
	}
	c.dir = dir
	c.t.Cleanup(func() {
		if !c.t.Failed() {
			_ = os.RemoveAll(dir)
		}
	})
}

func (c *chaos) caddyfile(rpc, addr, admin, upstream string) string {
	_, port, _ := strings.Cut(addr, ":")
	return fmt.Sprintf(`{
	admin %s
	persist_config off
	auto_https off
	default_bind 127.0.0.1
	log default {
		level INFO
		output stderr
		format json
	}
	%s
	x402 {
		network base-sepolia
		pay_to %s
		rpc %s
		wallet 0x%x 0x%x {
			stuck_after 5s
			max_spend 50
		}
		%s
		store %s
		public_url http://shop.test
		settle_timeout 6s
		hold_ttl 2s
		min_age 3s
		interval 200ms
	}
}
http://shop.test:%s {
	x402 $0.01
	x402_service
	reverse_proxy %s
}
`, admin, subscription, rig.PayTo, rpc, crypto.FromECDSA(devnet.Developer(0).Key), crypto.FromECDSA(devnet.Developer(1).Key), fast(), c.store.Caddyfile, port, upstream)
}

func (c *chaos) balance(of common.Address) uint64 {
	c.t.Helper()
	n, err := c.chain.TokenBalance(context.WithoutCancel(c.t.Context()), of)
	if err != nil {
		c.t.Fatal(err)
	}
	return n.Uint64()
}

// luck decides how the upstream answers.
type luck struct {
	mu     sync.Mutex
	random *rand.Rand
}

func (l *luck) upstream(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	n, slow := l.random.IntN(10), time.Duration(l.random.IntN(50))*time.Millisecond
	l.mu.Unlock()
	if strings.HasPrefix(r.URL.Path, "/broken/") {
		n = 0
	}
	time.Sleep(slow)
	switch {
	case n < 3:
		w.WriteHeader(http.StatusBadGateway)
	case n == 3:
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_ = conn.Close() // no answer at all
		}
	default:
		_, _ = fmt.Fprintln(w, "ok")
	}
}

// ban lets a buyer pay for what fails, and then has it blacklisted: it can't be paid back. Before that there is no money to do so.
func (c *chaos) ban(b *rig.Buyer) {
	c.t.Helper()
	got := make([]rig.Answer, 3)
	var busy sync.WaitGroup
	for i := range got {
		url := fmt.Sprintf("http://%s/broken/%d", c.instances[i%len(c.instances)].Addr, i)
		header := b.Sign(rig.Offered(c.t, b.Get(url, "Host", "shop.test")), 0)
		busy.Go(func() { got[i] = b.Get(url, "Host", "shop.test", x402.HeaderSignature, header) })
	}
	busy.Wait()
	for _, a := range got {
		if a.Status != http.StatusBadGateway {
			c.t.Fatalf("%d %v %s", a.Status, a.Err, a.Body)
		}
	}
	rig.Until(c.t, "nobody says that the refund wallet is empty", func() bool {
		return slices.ContainsFunc(c.instances, func(in *instance) bool { return in.says("wallet_empty") > 0 })
	})
	if err := c.chain.Blacklist(c.t.Context(), b.Account.Address); err != nil {
		c.t.Fatal(err)
	}
}

// havoc lets everybody buy while things break.
func (c *chaos) havoc(lasts time.Duration) {
	ctx, cancel := context.WithTimeout(c.t.Context(), lasts)
	defer cancel()
	var busy sync.WaitGroup
	for i, b := range c.buyers[1:] {
		random := rand.New(rand.NewPCG(c.random.Uint64(), uint64(i)))
		busy.Go(func() { c.shop(ctx, b, random) })
	}
	dice := rand.New(rand.NewPCG(c.random.Uint64(), 0))
	busy.Go(func() { c.kill(ctx, dice) })
	for i, p := range c.rpc {
		random := rand.New(rand.NewPCG(c.random.Uint64(), uint64(i)))
		busy.Go(func() { trouble(ctx, p, random) })
	}
	// At first with too little for what is waiting, and then with enough.
	c.fill(ctx, lasts/4, 35_000)
	c.fill(ctx, lasts/4, 1_000_000_000)
	busy.Wait()
}

func (c *chaos) fill(ctx context.Context, after time.Duration, units uint64) {
	select {
	case <-time.After(after):
	case <-ctx.Done():
	}
	mint(c.t, c.chain, refundWallet.Address, units)
	c.minted += units
}

// shop buys one thing after another. What is not answered is asked for again with the same header for a while, and then left.
func (c *chaos) shop(ctx context.Context, b *rig.Buyer, random *rand.Rand) {
	for n := 0; ctx.Err() == nil; n++ {
		shop := func() string { return "http://" + c.instances[random.IntN(len(c.instances))].Addr }
		path := fmt.Sprintf("/thing/%d-%d", n, random.IntN(1000))
		method := []string{http.MethodGet, http.MethodPost}[random.IntN(2)]
		asked := b.Do(ctx, method, shop()+path, "", "Host", "shop.test")
		if asked.Err != nil || asked.Status != http.StatusPaymentRequired {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		header := b.Sign(rig.Offered(c.t, asked), 0)
		for range 1 + random.IntN(6) {
			a := b.Do(ctx, method, shop()+path, "", "Host", "shop.test", x402.HeaderSignature, header)
			c.heard(&a)
			if a.Err == nil && a.Status != http.StatusServiceUnavailable {
				break
			}
			time.Sleep(time.Duration(100+random.IntN(400)) * time.Millisecond)
		}
	}
}

// heard notes what a buyer was told.
func (c *chaos) heard(a *rig.Answer) {
	if a.Err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	id := a.Header.Get("X-Payment-Id")
	if a.Status == http.StatusOK {
		c.served[id]++
	}
	if a.Header.Get("X-Payment-Status") == "refund_pending" {
		c.held[id] = true
	}
}

// kill ends instances, one at a time, and starts them again.
func (c *chaos) kill(ctx context.Context, random *rand.Rand) {
	for {
		select {
		case <-time.After(time.Duration(1000+random.IntN(2000)) * time.Millisecond):
		case <-ctx.Done():
			return
		}
		in := c.instances[random.IntN(len(c.instances))]
		in.kill()
		time.Sleep(time.Duration(random.IntN(500)) * time.Millisecond)
		if err := in.Launch(); err != nil {
			c.t.Error(err)
		}
	}
}

// trouble makes an endpoint fail now and then, in all ways that endpoints have.
func trouble(ctx context.Context, p *settlementtest.Proxy, random *rand.Rand) {
	defer p.SetFault(nil)
	var mu sync.Mutex
	dice := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(n)
	}
	for {
		p.SetFault(nil)
		select {
		case <-time.After(time.Duration(500+dice(1500)) * time.Millisecond):
		case <-ctx.Done():
			return
		}
		kind := dice(3)
		p.SetFault(func([]string) settlementtest.Fault {
			switch {
			case dice(10) < 4:
				return settlementtest.Fault{}
			case kind == 0:
				return settlementtest.Fault{Status: http.StatusBadGateway}
			case kind == 1:
				return settlementtest.Fault{DropAnswer: true}
			}
			return settlementtest.Fault{Delay: time.Duration(dice(1500)) * time.Millisecond}
		})
		select {
		case <-time.After(time.Duration(300+dice(1200)) * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

// rest waits until nothing is to be done any more. What the dead have leased is free at once: the test does not wait a minute for it.
func (c *chaos) rest() {
	c.t.Helper()
	store := c.open()
	defer store.Close()
	c.ready()
	rechecked := make(map[string]bool)
	left := ""
	for end := time.Now().Add(chaosRest); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		left = ""
		for _, r := range c.records(store) {
			p := &r.Payment
			waits := p.Settlement == ledger.Settling || p.Settlement == ledger.Settled && p.Open()
			if !waits {
				continue
			}
			left = fmt.Sprintf("%s is %s (%s, %s, %s)", p.ID, p.State(), p.Settlement, p.Delivery, p.Refund)
			if !rechecked[p.ID] {
				rechecked[p.ID] = true
				if err := store.Recheck(c.t.Context(), p.ID, 0); err != nil {
					c.t.Fatal(err)
				}
			}
		}
		if left == "" {
			return
		}
	}
	c.t.Error("it did not come to an end: ", left)
}

func (c *chaos) open() ledger.Store {
	c.t.Helper()
	s, err := c.store.Open(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

func (c *chaos) records(store ledger.Store) (all []ledger.Record) {
	c.t.Helper()
	for after := ""; ; {
		page, err := store.Records(c.t.Context(), after, 500)
		if err != nil {
			c.t.Fatal(err)
		}
		if all = append(all, page...); len(page) < 500 {
			return all
		}
		after = page[len(page)-1].Payment.ID
	}
}

// gather reads what everybody says.
func (c *chaos) gather() *evidence {
	c.t.Helper()
	store := c.open()
	defer store.Close()
	c.alarm(store)
	e := &evidence{
		served: c.served, held: c.held, said: c.ask(c.records(store)), began: c.began, minted: c.minted,
		balances: map[common.Address]uint64{}, untold: map[string]bool{},
	}
	for _, in := range c.instances {
		e.kills += len(in.killed())
		e.waits += in.says("wallet_empty")
		in.kill() // nobody writes any more
	}
	var err error
	if e.movements, err = movements(c.t.Context(), c.chain.URL()); err != nil {
		c.t.Fatal(err)
	}
	for _, who := range append([]common.Address{rig.PayTo, refundWallet.Address}, accounts(c.buyers)...) {
		e.balances[who] = c.balance(who)
	}
	e.records = c.records(store)
	report, err := ledger.Verify(c.t.Context(), store, ledger.VerifyOptions{})
	if err != nil || report.Found > 0 {
		c.t.Errorf("the trails: %+v, %v", report, err)
	}
	for i := range e.records {
		p := &e.records[i].Payment
		if told := c.alertsOf(p.ID); told.log == 0 || told.event == 0 {
			e.untold[p.ID] = !c.killedAfter(p.UpdatedAt)
		}
	}
	return e
}

func accounts(buyers []*rig.Buyer) (list []common.Address) {
	for _, b := range buyers {
		list = append(list, b.Account.Address)
	}
	return list
}
