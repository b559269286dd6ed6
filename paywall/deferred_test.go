package paywall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// grouping is a ledger that commits when as many writes wait as are expected to travel together, in one commit after the other.
type grouping struct {
	ledger.Store
	mu      sync.Mutex
	groups  []int
	writes  int
	waiting []chan struct{}
}

func (g *grouping) commit(ctx context.Context) error {
	done := make(chan struct{})
	g.mu.Lock()
	g.writes++
	g.waiting = append(g.waiting, done)
	if len(g.groups) == 0 || len(g.waiting) >= g.groups[0] {
		for _, w := range g.waiting {
			close(w)
		}
		g.waiting = nil
		g.groups = g.groups[min(1, len(g.groups)):]
	}
	g.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *grouping) Claim(ctx context.Context, p ledger.Payment, c ledger.Change) (ledger.Payment, error) {
	if err := g.commit(ctx); err != nil {
		return p, err
	}
	return g.Store.Claim(ctx, p, c)
}

func (g *grouping) Update(ctx context.Context, id string, version uint64, changes ...ledger.Change) (ledger.Payment, error) {
	if err := g.commit(ctx); err != nil {
		return ledger.Payment{}, err
	}
	return g.Store.Update(ctx, id, version, changes...)
}

func (g *grouping) Reserve(ctx context.Context, r ledger.Reservation, over string, ttl time.Duration) (ledger.Reservation, error) {
	if err := g.commit(ctx); err != nil {
		return r, err
	}
	return g.Store.Reserve(ctx, r, over, ttl)
}

// What is asked again without harm is served on credit after two commits: the claim with a slot of the payer, one of the total and the
// authorization; and the delivery. What is not is marked as begun by one between them.
func TestCommitsBeforeTheFirstByte(t *testing.T) {
	for method, groups := range map[string][]int{http.MethodGet: {4, 1}, http.MethodPost: {4, 1, 1}} {
		t.Run(method, func(t *testing.T) {
			var g *grouping
			settings := Settings{ReconcileEvery: time.Hour, HoldTTL: time.Hour}
			c := newFlowCluster(t, ledger.FlowDeferred, 1, settings, func(_ int, s ledger.Store) ledger.Store {
				g = &grouping{Store: s, groups: groups}
				return g
			})
			header := c.sign(0, 1, "")
			writes := 0
			c.serve = func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusOK) // the delivery is on record when this returns
				g.mu.Lock()
				defer g.mu.Unlock()
				if writes = g.writes; len(g.groups) > 0 {
					t.Errorf("%v commits were not needed", g.groups)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			a := c.askFor(ctx, 0, method, "/x", "", headerSignature, header)
			if a.status != http.StatusOK || a.header.Get(headerPaymentStatus) != statusOwed || writes < 5 {
				t.Errorf("%d %v, after %d writes", a.status, a.header, writes)
			}
			waitUntil(t, "the settlement", func() bool { return c.states()[ledger.StateOwed] == 0 })
		})
	}
}

func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come to pass:", what)
		}
	}
}

// Who has the money for one thing, and asks for several at the same moment, is not lent to for all of them.
func TestLendingBesideWhatIsBeingServed(t *testing.T) {
	const poor = 5000 // beyond the payers that have money
	c := newFlowCluster(t, ledger.FlowDeferred, 1, Settings{}, nil)
	if err := c.chain.Mint(t.Context(), devnet.Payer(poor).Address, uint256.NewInt(cent+cent/2)); err != nil {
		t.Fatal(err)
	}
	asked, goOn := make(chan struct{}), make(chan struct{})
	c.serve = func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-goOn
		_, _ = io.WriteString(w, "answer")
	}
	first, second := c.sign(0, poor, ""), c.sign(0, poor, "")
	var one reply
	var wg sync.WaitGroup
	wg.Go(func() { one = c.ask(0, http.MethodGet, "/x", "", headerSignature, first) })
	<-asked
	two := c.ask(0, http.MethodGet, "/y", "", headerSignature, second)
	close(goOn)
	wg.Wait()
	if one.status != http.StatusOK || one.header.Get(headerPaymentStatus) != statusOwed || two.status != http.StatusPaymentRequired {
		t.Errorf("the first: %d %v; the second: %d %v", one.status, one.header, two.status, two.header)
	}
	waitUntil(t, "the settlement", func() bool { return c.states()[ledger.StateOwed] == 0 })
	c.saw(1, cent)
	if e := c.instances[0].engine; len(e.lending) != 0 {
		t.Errorf("it is noted for ever: %v", e.lending)
	}
}

// debt makes an owed payment of the n-th payer, whose process has died.
func (c *cluster) debt(n int, change ...func(*ledger.Payment)) ledger.Payment {
	c.t.Helper()
	ctx, in := c.t.Context(), c.instances[0]
	payload := payloadOf(c.t, c.sign(0, n, ""))
	id, err := ledger.NewID(randomness, payload.Authorization.From)
	if err != nil {
		c.t.Fatal(err)
	}
	p := ledger.Payment{
		ID: id, AuthorizationID: payload.Authorization.ID(devnet.ChainID, devnet.TokenAddress), PayTo: seller, Amount: payload.Authorization.Value,
		ValidBefore: payload.Authorization.ValidBefore.Uint64(), Flow: ledger.FlowDeferred,
		Binding: ledger.Binding{Route: "r", Method: http.MethodGet, Host: "h", URI: "/"},
	}
	for _, f := range change {
		f(&p)
	}
	err = in.engine.entrust(ctx, id, settlement.Intent{Authorization: payload.Authorization, Signature: payload.Signature}, time.Hour)
	if err == nil {
		p, err = in.store.Claim(ctx, p, ledger.Change{Event: ledger.EventClaim, Actor: actorRequest, Hold: time.Minute})
	}
	if err == nil {
		p, err = in.store.Update(ctx, id, p.Version, repaidSteps(p.Hold.Fence)...)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// What a process that died is owed is collected all at once: its authorizations don't wait for each other until they have expired.
func TestWhatWasLeftBehindTravelsTogether(t *testing.T) {
	quiet := Settings{ReconcileEvery: time.Hour}
	c := newFlowCluster(t, ledger.FlowDeferred, 1, quiet, nil)
	var left []ledger.Payment
	for i := range 40 {
		left = append(left, c.debt(i))
	}
	c.instances = append(c.instances, c.start(1, Settings{ReconcileEvery: 100 * time.Millisecond}, nil))
	blocks := map[uint64]int{}
	waitUntil(t, "the settlement of all", func() bool { return c.states()[ledger.StateDelivered] == 40 })
	for _, p := range left {
		blocks[c.payment(p.ID).Block]++
	}
	if len(blocks) > 3 {
		t.Errorf("they were settled in %d blocks: %v", len(blocks), blocks)
	}
	c.saw(0, 40*cent)
}

// Who owes something elsewhere is not lent to here, and is not refused: here it can't make that good.
func TestDebtOnAnotherNetwork(t *testing.T) {
	c := newFlowCluster(t, ledger.FlowDeferred, 1, Settings{ReconcileEvery: time.Hour}, nil)
	p := c.debt(1, func(p *ledger.Payment) { p.ChainID = 1 })
	if _, err := c.instances[0].store.Update(t.Context(), p.ID, p.Version, ledger.Change{Event: ledger.EventFail, Actor: actorReconciler, Reason: "why"}); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]string{1: "", 2: statusOwed} {
		a := c.ask(0, http.MethodGet, "/x", "", headerSignature, c.sign(0, n, ""))
		if a.status != http.StatusOK || a.header.Get(headerPaymentStatus) != want {
			t.Errorf("payer %d: %d %v, want %q", n, a.status, a.header, want)
		}
	}
}

// Who is not lent to pays up front, as with that flow: the upstream's "not found" is an answer.
func TestNotLentTo(t *testing.T) {
	c := newFlowCluster(t, ledger.FlowDeferred, 1, Settings{}, nil)
	c.instances[0].engine.current().Payees[0].Lending.PerPayer = *uint256.NewInt(1)
	c.serve = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }
	a := c.ask(0, http.MethodGet, "/x", "", headerSignature, c.sign(0, 1, ""))
	if a.status != http.StatusNotFound || a.header.Get(headerPaymentStatus) != "" || a.header.Get(headerResponse) == "" {
		t.Errorf("%d %v", a.status, a.header)
	}
	c.saw(1, cent)
	if s := c.states(); s[ledger.StateDelivered] != 1 {
		t.Errorf("payments: %v", s)
	}
}

// slow is a ledger whose claims take longer than what was lent for them is kept.
type slow struct{ ledger.Store }

func (s slow) Claim(ctx context.Context, p ledger.Payment, c ledger.Change) (ledger.Payment, error) {
	p, err := s.Store.Claim(ctx, p, c)
	p.CreatedAt = p.CreatedAt.Add(time.Minute)
	return p, err
}

// Who was lent to, and claims too late for it, pays up front.
func TestClaimedTooLate(t *testing.T) {
	c := newFlowCluster(t, ledger.FlowDeferred, 1, Settings{}, func(_ int, s ledger.Store) ledger.Store { return slow{s} })
	a := c.ask(0, http.MethodGet, "/x", "", headerSignature, c.sign(0, 1, ""))
	if a.status != http.StatusOK || a.header.Get(headerPaymentStatus) != "" {
		t.Errorf("%d %v", a.status, a.header)
	}
	c.saw(1, cent)
}

// A facilitator is handed a payment as it was offered, whatever the route's flow is by now.
func TestExchangeKeepsTheFlow(t *testing.T) {
	for flow, announced := range map[string]string{
		ledger.FlowUpfront: x402.FlowUpfront, ledger.FlowAuthorization: "", ledger.FlowDeferred: "",
	} {
		for _, now := range []string{ledger.FlowUpfront, ledger.FlowAuthorization, ledger.FlowDeferred} {
			a := &attempt{
				Request: Request{Route: &Route{Name: "r", Flow: now, Timeout: time.Minute}}, payload: &x402.Payload{Version: 2},
				payee: &Payee{Network: devnet.Network(), PayTo: common.Address{9}},
			}
			p := ledger.Payment{PayTo: seller, Amount: *uint256.NewInt(7), Flow: flow, Binding: ledger.Binding{Plan: "day"}}
			r := a.exchange(&p).Requirements
			if r.Extra.PaymentFlow != announced || r.PayTo != seller.Hex() || r.Amount != "7" || r.Extra.Plan != "day" || r.MaxTimeoutSeconds != 60 {
				t.Error(flow, now, fmt.Sprintf("%+v", r))
			}
		}
	}
}

// The stored answer of a payment that is owed says so, and does not call it a success when it has failed.
func TestAnswerOfADebt(t *testing.T) {
	c := newFlowCluster(t, ledger.FlowDeferred, 1, Settings{ReconcileEvery: time.Hour}, nil)
	header := c.sign(0, 1, "")
	ask := func() (reply, x402.SettlementResponse) {
		a := c.ask(0, http.MethodPost, "/x", "tea", headerSignature, header, "Idempotency-Key", "k")
		var r x402.SettlementResponse
		if err := x402.DecodeHeader(a.header.Get(headerResponse), 1<<16, &r); err != nil || a.status != http.StatusOK || a.header.Get(headerPaymentStatus) != statusOwed {
			t.Fatalf("%v: %d %v %s", err, a.status, a.header, a.body)
		}
		return a, r
	}
	c.chain.Stall()
	defer c.chain.Resume()
	first, r := ask()
	if !r.Success {
		t.Errorf("owed: %+v", r)
	}
	p := c.payment(first.header.Get(headerPaymentID))
	waitUntil(t, "the failure", func() bool {
		p = c.payment(p.ID)
		_, err := c.instances[0].store.Update(t.Context(), p.ID, p.Version, ledger.Change{Event: ledger.EventFail, Actor: actorReconciler, Reason: "why"})
		return err == nil
	})
	again, r := ask()
	if again.body != first.body || r.Success || r.ErrorReason != ReasonOwed {
		t.Errorf("failed: %+v %s", r, again.body)
	}
	header = c.sign(0, 1, "")
	if again, r = ask(); again.body != first.body || r.Success {
		t.Errorf("failed, and signed anew: %+v %s", r, again.body)
	}
	c.saw(1, 0)
}

// Who sends the header of a debt again is told that it owes, not that nothing was charged and it may sign anew.
func TestHeaderOfADebt(t *testing.T) {
	c := newFlowCluster(t, ledger.FlowDeferred, 1, Settings{ReconcileEvery: time.Hour}, nil)
	c.serve = func(http.ResponseWriter, *http.Request) {
		if err := c.chain.Blacklist(context.WithoutCancel(t.Context()), devnet.Payer(1).Address); err != nil {
			t.Error(err)
		}
	}
	header := c.sign(0, 1, "")
	p := c.payment(c.ask(0, http.MethodGet, "/x", "", headerSignature, header).header.Get(headerPaymentID))
	waitUntil(t, "the failure", func() bool { p = c.payment(p.ID); return p.Owes() })
	a := c.ask(0, http.MethodGet, "/x", "", headerSignature, header)
	if a.status != http.StatusPaymentRequired || !strings.Contains(a.body, string(ReasonOwed)) || a.header.Get(headerPaymentID) != p.ID {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
}

// Who loses its hold while the upstream works has lost its credit: its answer does not go out, and costs nothing.
func TestServedWithoutAHold(t *testing.T) {
	settings := Settings{HoldTTL: 200 * time.Millisecond, ReconcileEvery: time.Hour}
	c := newFlowCluster(t, ledger.FlowDeferred, 1, settings, func(_ int, s ledger.Store) ledger.Store { return losing{s} })
	header := c.sign(0, 1, "")
	c.serve = func(w http.ResponseWriter, _ *http.Request) {
		p, err := c.instances[0].store.ByAuthorization(t.Context(), payloadOf(t, header).Authorization.ID(devnet.ChainID, devnet.TokenAddress))
		waitUntil(t, "the end of the hold", func() bool { return err == nil && !p.Held(c.instances[0].store.Now()) })
		_, _ = io.WriteString(w, "secret")
	}
	a := c.ask(0, http.MethodGet, "/x", "", headerSignature, header)
	if a.status != http.StatusServiceUnavailable || strings.Contains(a.body, "secret") {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	c.saw(1, 0)
	c.serve = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") }
	a = c.ask(0, http.MethodGet, "/x", "", headerSignature, header)
	if a.status != http.StatusOK || a.header.Get(headerPaymentStatus) != "" {
		t.Errorf("again, up front: %d %v %s", a.status, a.header, a.body)
	}
	c.saw(2, cent)
}

// limbo is a ledger through which nobody can keep a hold, and that does not say what became of deliveries, which may come in later.
type limbo struct {
	losing
	mu      sync.Mutex
	version uint64 // on which the last one was to be made
}

func (l *limbo) Update(ctx context.Context, id string, version uint64, changes ...ledger.Change) (ledger.Payment, error) {
	if len(changes) > 0 && changes[len(changes)-1].Event == ledger.EventDelivered {
		l.mu.Lock()
		defer l.mu.Unlock()
		if p, err := l.Payment(ctx, id); err != nil || p.Held(l.Now()) {
			l.version = version
			return p, errors.New("the connection was lost")
		}
	}
	return l.losing.Update(ctx, id, version, changes...)
}

// Who is told that nothing was delivered is not charged by a write that comes in afterwards.
func TestDeliveryInLimbo(t *testing.T) {
	var l *limbo
	settings := Settings{HoldTTL: 300 * time.Millisecond, ReconcileEvery: time.Hour}
	c := newFlowCluster(t, ledger.FlowDeferred, 1, settings, func(_ int, s ledger.Store) ledger.Store {
		l = &limbo{losing: losing{s}}
		return l
	})
	header := c.sign(0, 1, "")
	if a := c.ask(0, http.MethodGet, "/x", "", headerSignature, header); a.status != http.StatusServiceUnavailable {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	p, err := c.instances[0].store.ByAuthorization(t.Context(), payloadOf(t, header).Authorization.ID(devnet.ChainID, devnet.TokenAddress))
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || l.version == 0 || p.Version <= l.version {
		t.Errorf("%v: the payment has version %d; what is on its way was made for %d", err, p.Version, l.version)
	}
}
