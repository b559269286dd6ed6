package paywall

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

// meeting is a ledger whose first claims wait for each other: each has looked what the payer has before any is made.
type meeting struct {
	ledger.Store
	gate *sync.WaitGroup
	left *atomic.Int64
}

func (m *meeting) Claim(ctx context.Context, p ledger.Payment, c ledger.Change) (ledger.Payment, error) {
	if m.left.Add(-1) >= 0 {
		m.gate.Done()
		m.gate.Wait()
	}
	return m.Store.Claim(ctx, p, c)
}

// meetings makes the first n claims, of whatever instance, meet.
func meetings(n int) func(int, ledger.Store) ledger.Store {
	var gate sync.WaitGroup
	var left atomic.Int64
	gate.Add(n)
	left.Store(int64(n))
	return func(_ int, s ledger.Store) ledger.Store { return &meeting{s, &gate, &left} }
}

// Two requests of one payer buy the same plan at the same moment on two instances, each of which has looked what the payer has
// before the other has claimed: one is sent, and both are served under its plan.
func TestTwoInstancesSellOnePlan(t *testing.T) {
	c := newCluster(t, 2, Settings{}, meetings(2))
	headers := []string{c.sign(0, 1, "day"), c.sign(1, 1, "day")}
	replies := make([]reply, 2)
	var wg sync.WaitGroup
	for i := range replies {
		wg.Go(func() { replies[i] = c.ask(i, http.MethodGet, "/x", "", headerSignature, headers[i]) })
	}
	wg.Wait()
	token := replies[0].header.Get(headerAccessToken)
	for i, a := range replies {
		if a.status != http.StatusOK || token == "" || a.header.Get(headerAccessToken) != token {
			t.Errorf("instance %d: %d %v %s", i, a.status, a.header, a.body)
		}
	}
	c.saw(2, 10*cent)
	if s := c.states(); s[ledger.StateDelivered] != 1 || s[ledger.StateVoid] != 1 {
		t.Errorf("payments: %v", s)
	}
	// The one that gave way leads to the same plan, on either instance, by its own header.
	for i, h := range headers {
		if a := c.ask(1-i, http.MethodGet, "/x", "", headerSignature, h); a.status != http.StatusOK || a.header.Get(headerAccessToken) != token {
			t.Errorf("again, of instance %d: %d %s", i, a.status, a.body)
		}
	}
	c.saw(4, 10*cent)
}

// A reservation is worth nothing once its payment came to nothing: whoever comes next buys the plan.
func TestPlanReservationOfTheDead(t *testing.T) {
	c := newCluster(t, 2, Settings{HoldTTL: 50 * time.Millisecond}, nil)
	w := want{key: digest("plan", chainText(84532), string(payerOf(1)), "r", "day", "h"), ttl: planTTL}
	for name, end := range map[string]func(p ledger.Payment) []ledger.Change{
		"void":    func(ledger.Payment) []ledger.Change { return []ledger.Change{{Event: ledger.EventVoid}} },
		"failed":  func(ledger.Payment) []ledger.Change { return []ledger.Change{{Event: ledger.EventFail}} },
		"claimed": func(ledger.Payment) []ledger.Change { return nil },
		"undelivered": func(p ledger.Payment) []ledger.Change {
			return []ledger.Change{{Event: ledger.EventSettle}, {Event: ledger.EventUndelivered, Fence: p.Hold.Fence}}
		},
		"ended": func(p ledger.Payment) []ledger.Change {
			return []ledger.Change{
				{Event: ledger.EventSettle},
				{Event: ledger.EventDeliver, Fence: p.Hold.Fence, Hold: time.Second},
				{Event: ledger.EventDelivered, Fence: p.Hold.Fence, PlanUntil: time.Now().Add(-time.Minute)},
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := c.claimed(t, 1, "day")
			if changes := end(p); len(changes) > 0 {
				if _, err := c.instances[0].store.Update(t.Context(), p.ID, p.Version, changes...); err != nil {
					t.Fatal(err)
				}
			}
			// Whatever plan was bought before is forgotten by all but the reservation.
			r, err := c.instances[0].store.Reservation(t.Context(), w.key)
			over := ""
			if err == nil {
				over = r.Payment
			}
			if _, err := c.instances[0].store.Reserve(t.Context(), ledger.Reservation{Key: w.key, Payment: p.ID}, over, time.Hour); err != nil {
				t.Fatal(err)
			}
			a := &attempt{Gate: &Gate{Config: Config{Now: time.Now}}, engine: c.instances[0].engine}
			a.payload = payloadOf(t, c.sign(0, 1, "day"))
			a.wants = []want{w}
			q := c.claimed(t, 1, "day")
			for p := c.payment(p.ID); p.Held(c.instances[0].store.Now()); { // its holder is gone
				time.Sleep(time.Millisecond)
			}
			if other, err := a.reserve(t.Context(), &q); other != nil || err != nil {
				t.Errorf("the reservation is still that of %v, %v", other, err)
			}
		})
	}
}

// Under one key the same request is made many times on two instances, with signatures of its own each: one transfer, one call,
// one answer.
func TestTwoInstancesOneKey(t *testing.T) {
	const each = 10
	c := newCluster(t, 2, Settings{}, meetings(2))
	replies := make([]reply, 2*each)
	headers := make([]string, len(replies))
	for i := range headers {
		headers[i] = c.sign(i%2, 1, "")
	}
	var wg sync.WaitGroup
	for i := range replies {
		wg.Go(func() {
			replies[i] = c.ask(i%2, http.MethodPost, "/x", "body", headerSignature, headers[i], headerIdempotencyKey, "key")
		})
	}
	wg.Wait()
	originals := 0
	for i, a := range replies {
		switch {
		case a.status == http.StatusOK && a.body == "answer 1":
			if a.header.Get(headerReplayed) == "" {
				originals++
			}
		case isProblem(a, http.StatusConflict, codeInProgress):
		default:
			t.Errorf("request %d: %d %s", i, a.status, a.body)
		}
	}
	if originals != 1 {
		t.Errorf("%d answers are no replays", originals)
	}
	c.saw(1, cent)
	// Each header leads to the same answer, on the other instance too.
	for i, h := range headers {
		a := c.ask(1-i%2, http.MethodPost, "/x", "body", headerSignature, h, headerIdempotencyKey, "key")
		if a.status != http.StatusOK || a.body != "answer 1" || a.header.Get(headerReplayed) != "true" {
			t.Errorf("header %d again: %d %s", i, a.status, a.body)
		}
	}
	c.saw(1, cent)
}

// An answer that another instance is still giving is waited for.
func TestAnswerOfAnotherInstance(t *testing.T) {
	c := newCluster(t, 2, Settings{}, nil)
	started, release := make(chan struct{}), make(chan struct{})
	c.serve = func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("first "))
		_ = http.NewResponseController(w).Flush()
		close(started)
		<-release
		_, _ = w.Write([]byte("second"))
	}
	header, again := c.sign(0, 1, ""), c.sign(1, 1, "")
	var first, second reply
	var wg sync.WaitGroup
	wg.Go(func() {
		first = c.ask(0, http.MethodPost, "/x", "b", headerSignature, header, headerIdempotencyKey, "k")
	})
	<-started // it is delivered, and not yet stored
	wg.Go(func() {
		second = c.ask(1, http.MethodPost, "/x", "b", headerSignature, again, headerIdempotencyKey, "k")
	})
	time.AfterFunc(200*time.Millisecond, func() { close(release) })
	wg.Wait()
	if first.body != "first second" || second.body != first.body || second.header.Get(headerReplayed) != "true" {
		t.Errorf("%d %q, then %d %q", first.status, first.body, second.status, second.body)
	}
	c.saw(1, cent)
}

// claimed is a claim of the n-th payer for a plan, under a short hold.
func (c *cluster) claimed(t *testing.T, n int, plan string) ledger.Payment {
	t.Helper()
	payload := payloadOf(t, c.sign(0, n, plan))
	id, err := ledger.NewID(randomness, payload.Authorization.From)
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.instances[0].store.Claim(t.Context(), ledger.Payment{
		ID: id, AuthorizationID: payload.Authorization.ID(devnet.ChainID, devnet.TokenAddress), Flow: ledger.FlowUpfront,
		Binding: ledger.Binding{Route: "r", Plan: plan, Method: http.MethodGet, Host: "h", URI: "/"},
	}, ledger.Change{Event: ledger.EventClaim, Actor: actorRequest, Hold: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (c *cluster) payment(id string) ledger.Payment {
	c.t.Helper()
	p, err := c.instances[0].store.Payment(c.t.Context(), id)
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

func payloadOf(t *testing.T, header string) *x402.Payload {
	t.Helper()
	p, err := x402.DecodePayload(header)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func payerOf(n int) []byte { return devnet.Payer(n).Address.Bytes() }
