package paywall

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// losing is a ledger through which nobody can keep a hold.
type losing struct{ ledger.Store }

func (l losing) Update(ctx context.Context, id string, version uint64, changes ...ledger.Change) (ledger.Payment, error) {
	if len(changes) > 0 && changes[0].Event == ledger.EventExtend {
		return ledger.Payment{}, errors.New("not now")
	}
	return l.Store.Update(ctx, id, version, changes...)
}

// A request whose hold has run out while the upstream worked does no harm: what another instance has given up is not sent, and what
// another has served is not served twice.
func TestHeldAnswerOfWhoLostItsHold(t *testing.T) {
	settings := Settings{HoldTTL: 300 * time.Millisecond, ReconcileEvery: 50 * time.Millisecond}
	wrap := func(i int, s ledger.Store) ledger.Store {
		if i == 0 {
			return losing{s}
		}
		return s
	}
	t.Run("given up", func(t *testing.T) {
		c := newFlowCluster(t, ledger.FlowAuthorization, 2, settings, wrap)
		header := c.sign(0, 1, "")
		c.serve = func(w http.ResponseWriter, _ *http.Request) {
			for c.states()[ledger.StateVoid] == 0 {
				time.Sleep(10 * time.Millisecond)
			}
			_, _ = io.WriteString(w, "secret")
		}
		a := c.ask(0, http.MethodPost, "/x", "tea", headerSignature, header)
		if a.status != http.StatusPaymentRequired || strings.Contains(a.body, "secret") {
			t.Errorf("%d %s", a.status, a.body)
		}
		c.saw(1, 0)
		if again := c.ask(1, http.MethodPost, "/x", "tea", headerSignature, header); again.status != http.StatusPaymentRequired {
			t.Errorf("again: %d %s", again.status, again.body)
		}
		c.saw(1, 0)
	})
	t.Run("served by another", func(t *testing.T) {
		c := newFlowCluster(t, ledger.FlowAuthorization, 2, settings, wrap)
		header := c.sign(0, 1, "")
		var wg sync.WaitGroup
		var other reply
		asked, answered := make(chan struct{}), make(chan struct{})
		var calls atomic.Int64
		c.serve = func(w http.ResponseWriter, _ *http.Request) {
			if calls.Add(1) == 1 {
				close(asked)
				<-answered
			}
			_, _ = io.WriteString(w, "answer")
		}
		wg.Go(func() {
			<-asked
			other = c.ask(1, http.MethodGet, "/x", "", headerSignature, header)
			close(answered)
		})
		first := c.ask(0, http.MethodGet, "/x", "", headerSignature, header)
		wg.Wait()
		if other.status != http.StatusOK || first.status == http.StatusOK || strings.Contains(first.body, "answer") {
			t.Errorf("the slow one got %d %s, the other %d %s", first.status, first.body, other.status, other.body)
		}
		c.saw(2, cent)
	})
}

// heldScene is a claimed payment of the flow authorization, which a request holds that the test makes.
func heldScene(t *testing.T, c *counter, method string) ledger.Payment {
	t.Helper()
	n := c.paid.Add(1)
	id, err := ledger.NewID(randomness, common.Address{1})
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.store.Claim(t.Context(), ledger.Payment{
		ID: id, AuthorizationID: x402.AuthorizationID{ChainID: 84532, Payer: common.Address{1}, Nonce: common.Hash{byte(n)}},
		Flow: ledger.FlowAuthorization, ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
		Binding: ledger.Binding{Route: "r", Method: method, Host: "h", URI: "/"},
	}, ledger.Change{Event: ledger.EventClaim, Actor: actorRequest, Hold: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// decided says what became of each transfer.
type decided struct {
	settlement.Settler
	say func() settlement.Outcome
}

func (d decided) Settle(context.Context, settlement.Intent) settlement.Outcome { return d.say() }

func (c *counter) serveFirst(w http.ResponseWriter, method string, p ledger.Payment, say func() settlement.Outcome, next Handler) error {
	a := c.attempt(w, httptest.NewRequestWithContext(c.t.Context(), method, "/", http.NoBody), next)
	a.Route.Flow, a.Route.Held = ledger.FlowAuthorization, 16
	a.payload, a.payee = &x402.Payload{}, &Payee{Settler: decided{say: say}}
	return a.serveFirst(p)
}

func settledOutcome() settlement.Outcome {
	return settlement.Outcome{Status: settlement.Settled, Transaction: common.Hash{7}, Block: 5, BlockHash: common.Hash{8}}
}

// However a handler answers, nothing goes out before it is paid for, and all of it afterwards.
func TestHeldAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		method, body string
		handler      Handler
	}{
		"nothing": {body: "", handler: answer(func(http.ResponseWriter, *http.Request) {})},
		"short":   {body: "short", handler: answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "short") })},
		"long":    {body: strings.Repeat("long", 100), handler: answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("long", 100)) })},
		"in pieces": {body: strings.Repeat("x", 40), handler: answer(func(w http.ResponseWriter, _ *http.Request) {
			for range 40 {
				_, _ = io.WriteString(w, "x")
				_ = http.NewResponseController(w).Flush()
			}
		})},
		"copied": {body: strings.Repeat("y", 40), handler: answer(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, strings.NewReader(strings.Repeat("y", 40)))
		})},
		"HEAD": {method: http.MethodHead, body: "", handler: answer(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5")
			_, _ = io.WriteString(w, strings.Repeat("no", 40))
		})},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCounter(t)
			method := tc.method
			if method == "" {
				method = http.MethodGet
			}
			p, w := heldScene(t, c, method), httptest.NewRecorder()
			say := func() settlement.Outcome {
				if w.Body.Len() > 0 || w.Flushed {
					t.Error("something went out before it was paid for")
				}
				return settledOutcome()
			}
			if err := c.serveFirst(w, method, p, say, tc.handler); err != nil {
				t.Fatal(err)
			}
			if w.Code != http.StatusOK || w.Body.String() != tc.body || w.Header().Get(headerResponse) == "" {
				t.Errorf("%d %q %v", w.Code, w.Body, w.Header())
			}
			c.is(p.ID, ledger.Delivered, ledger.NotRefunded, "")
			if q := c.payment(p.ID); q.Settlement != ledger.Settled || q.Transaction != (common.Hash{7}) {
				t.Errorf("the payment is %+v", q)
			}
			if n := c.engine.answers.taken.Load(); n != 0 {
				t.Errorf("%d bytes of room were not given back", n)
			}
		})
	}
}

// Where the ledger knows that the money is there, nobody is told that nothing was charged.
func TestHeldAnswerThatTheLedgerKnowsIsPaid(t *testing.T) {
	c := newCounter(t)
	p, w := heldScene(t, c, http.MethodPost), httptest.NewRecorder()
	say := func() settlement.Outcome {
		q := c.payment(p.ID)
		if _, err := c.store.Update(t.Context(), p.ID, q.Version, ledger.Change{Event: ledger.EventSettle, Actor: actorReconciler, Transaction: common.Hash{7}}); err != nil {
			t.Error(err)
		}
		return settlement.Outcome{Status: settlement.Failed, Reason: x402.ReasonTransactionFailed}
	}
	err := c.serveFirst(w, http.MethodPost, p, say, answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "served") }))
	if err != nil || w.Body.String() != "served" {
		t.Errorf("%v, %d %s", err, w.Code, w.Body)
	}
	c.is(p.ID, ledger.Delivered, ledger.NotRefunded, "")
}

// While nobody knows the outcome, the answer is kept and the settler asked again, as long as a settlement may take.
func TestHeldAnswerOutlastsAnUnknownOutcome(t *testing.T) {
	c := newCounter(t)
	p, w := heldScene(t, c, http.MethodPost), httptest.NewRecorder()
	asked := 0
	say := func() settlement.Outcome {
		if asked++; asked < 3 {
			return settlement.Outcome{Err: errors.New("nobody answers")}
		}
		return settledOutcome()
	}
	err := c.serveFirst(w, http.MethodPost, p, say, answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "served") }))
	if err != nil || w.Body.String() != "served" || asked != 3 {
		t.Errorf("%v, %d %s, asked %d times", err, w.Code, w.Body, asked)
	}
	c.is(p.ID, ledger.Delivered, ledger.NotRefunded, "")
}

// What the upstream refuses goes back where somebody has executed the payment meanwhile, and the answer says so.
func TestRefusedByTheUpstreamAndExecutedByAnother(t *testing.T) {
	c := newCounter(t)
	p, w := heldScene(t, c, http.MethodPost), httptest.NewRecorder()
	never := func() settlement.Outcome { t.Error("it was settled"); return settlement.Outcome{} }
	err := c.serveFirst(w, http.MethodPost, p, never, answer(func(w http.ResponseWriter, _ *http.Request) {
		q := c.payment(p.ID)
		if _, err := c.store.Update(t.Context(), p.ID, q.Version, ledger.Change{Event: ledger.EventSettle, Actor: actorReconciler, Transaction: common.Hash{7}}); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	if err != nil || w.Code != http.StatusNotFound || w.Header().Get(headerPaymentStatus) != statusRefundPending || w.Header().Get(headerResponse) == "" {
		t.Errorf("%v, %d %v", err, w.Code, w.Header())
	}
	c.is(p.ID, ledger.Undelivered, ledger.RefundPending, "upstream_status_404")
}

// An answer that was paid for and whose delivery can't be put on record does not go out.
func TestHeldAnswerThatCannotBeRecorded(t *testing.T) {
	c := newCounter(t)
	p, w := heldScene(t, c, http.MethodGet), httptest.NewRecorder()
	say := func() settlement.Outcome {
		if err := c.store.Close(); err != nil {
			t.Error(err)
		}
		return settledOutcome()
	}
	err := c.serveFirst(w, http.MethodGet, p, say, answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Secret", "secret")
		_, _ = io.WriteString(w, "secret")
	}))
	if err != nil || w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "secret") || w.Header().Get("X-Secret") != "" {
		t.Errorf("%v, %d %v %s", err, w.Code, w.Header(), w.Body)
	}
}

// When too much is held already, an answer is paid for early, and nothing of it is held.
func TestHeldAnswersWithoutRoom(t *testing.T) {
	c := newCounter(t)
	c.engine.answers.most = 3
	p, w := heldScene(t, c, http.MethodGet), httptest.NewRecorder()
	paidEarly := false
	say := func() settlement.Outcome { paidEarly = true; return settledOutcome() }
	err := c.serveFirst(w, http.MethodGet, p, say, answer(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "1234")
		if !paidEarly {
			t.Error("it was held all the same")
		}
		_, _ = io.WriteString(w, "5678")
	}))
	if err != nil || w.Body.String() != "12345678" {
		t.Errorf("%v, %d %s", err, w.Code, w.Body)
	}
	if n := c.engine.answers.taken.Load(); n != 0 {
		t.Errorf("%d bytes of room were not given back", n)
	}
}

// Handlers that fail charge nothing: whoever handles the error answers, and the header says so.
func TestHeldAnswerOfAHandlerThatFails(t *testing.T) {
	never := func() settlement.Outcome { t.Error("it was settled"); return settlement.Outcome{} }
	for name, tc := range map[string]struct {
		handler Handler
		reason  string
		code    string // of the refusal that is answered, if it is ours
	}{
		"returns": {handler: func(http.ResponseWriter, *http.Request) error { return statusError(502) }, reason: "upstream_status_502"},
		"panics":  {handler: answer(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), reason: reasonAborted},
		"panics within": {handler: answer(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "half")
			panic(http.ErrAbortHandler)
		}), reason: reasonAborted},
		"cut off": {handler: answer(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			_, _ = io.WriteString(w, "half")
		}), reason: reasonCutOff, code: codeBadUpstream},
		"upgrades": {handler: answer(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusSwitchingProtocols)
			if _, _, err := http.NewResponseController(w).Hijack(); err == nil {
				t.Error("the connection was taken over")
			}
		}), reason: reasonUpgraded, code: codeBadUpstream},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCounter(t)
			p, w := heldScene(t, c, http.MethodPost), httptest.NewRecorder()
			var err error
			func() {
				defer func() { _ = recover() }()
				err = c.serveFirst(w, http.MethodPost, p, never, tc.handler)
			}()
			if w.Body.Len() != 0 || w.Header().Get(headerResponse) != "" {
				t.Errorf("%v %s", w.Header(), w.Body)
			}
			if r, ok := errors.AsType[*refusal](err); ok != (tc.code != "") || ok && r.code != tc.code {
				t.Errorf("the error is %v", err)
			}
			c.is(p.ID, ledger.Undelivered, ledger.NotRefunded, tc.reason)
			if q := c.payment(p.ID); q.State() != ledger.StateVoid {
				t.Errorf("the payment is %s", q.State())
			}
		})
	}
}

// Who makes the upstream work for nothing is slowed down.
func TestUpstreamWorkForNothingIsLimited(t *testing.T) {
	c := newCounter(t)
	refuse := func() settlement.Outcome {
		return settlement.Outcome{Status: settlement.Failed, Reason: x402.ReasonInsufficientBalance}
	}
	for range allowance/refusedUnits + 8 {
		p := heldScene(t, c, http.MethodGet)
		err := c.serveFirst(httptest.NewRecorder(), http.MethodGet, p, refuse, answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "work") }))
		if r, ok := errors.AsType[*refusal](err); !ok || r.status != http.StatusPaymentRequired {
			t.Fatal(err)
		}
		c.is(p.ID, ledger.Undelivered, ledger.NotRefunded, string(x402.ReasonInsufficientBalance))
	}
	if _, ok := c.engine.limits.begin(clientKey(""), time.Now()); ok {
		t.Error("the client may go on as it likes")
	}
}

func TestWantsStream(t *testing.T) {
	for name, tc := range map[string]struct {
		method string
		header http.Header
		want   bool
	}{
		"nothing":            {},
		"everything":         {header: http.Header{"Accept": {"*/*"}}},
		"events":             {header: http.Header{"Accept": {"text/event-stream"}}, want: true},
		"events, with care":  {header: http.Header{"Accept": {" Text/Event-Stream ; q=1"}}, want: true},
		"events or JSON":     {header: http.Header{"Accept": {"application/json, text/event-stream"}}},
		"events, then JSON":  {header: http.Header{"Accept": {"text/event-stream", "application/json"}}},
		"upgrade":            {header: http.Header{"Connection": {"keep-alive, Upgrade"}, "Upgrade": {"websocket"}}, want: true},
		"h2c":                {header: http.Header{"Connection": {"Upgrade, HTTP2-Settings"}, "Upgrade": {"h2c"}}},
		"upgrade, not meant": {header: http.Header{"Upgrade": {"websocket"}}},
		"connect":            {method: http.MethodConnect, want: true},
	} {
		r := &http.Request{Method: tc.method, Header: tc.header}
		if got := wantsStream(r); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
