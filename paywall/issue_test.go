package paywall

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

// backend is a Granter that answers as its seller likes, and notes what it is asked.
type backend struct {
	answer func(n int, s Sale) (Credential, error)

	mu    sync.Mutex
	sales []Sale
}

func (b *backend) Longest() time.Duration { return 10 * time.Second }

func (b *backend) Grant(_ context.Context, s Sale) (Credential, error) {
	b.mu.Lock()
	b.sales = append(b.sales, s)
	n := len(b.sales)
	b.mu.Unlock()
	return b.answer(n, s)
}

func (b *backend) asked() []Sale {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]Sale(nil), b.sales...)
}

// forgetful gives another credential each time, as backends do that don't heed the key: who gets one twice was not asked twice.
func forgetful(n int, s Sale) (Credential, error) {
	return Credential{Token: fmt.Sprintf("credential-%d-%s", n, s.Payment), Type: "Bearer"}, nil
}

type lateError struct{ error }

func (lateError) Timeout() bool { return true }

// issued is what an answer gives out, and in both places the same.
func issued(t *testing.T, a reply) string {
	t.Helper()
	var s x402.SettlementResponse
	if err := x402.DecodeHeader(a.header.Get(x402.HeaderResponse), 1<<16, &s); err != nil {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	var grant struct {
		Info struct{ Token, TokenType, Plan string }
	}
	if len(s.Extensions) > 0 {
		if err := json.Unmarshal(s.Extensions["access-token"], &grant); err != nil {
			t.Fatal(err)
		}
	}
	if token := a.header.Get(headerAccessToken); grant.Info.TokenType != "custom" && token != grant.Info.Token {
		t.Errorf("the header gives %q, the receipt %q", token, grant.Info.Token)
	}
	return grant.Info.Token
}

// A credential is issued once and given to its payer again and again: to the same header, to a fresh signature, by any instance. It opens
// the gate, goes on to the upstream as it is, and is nowhere in the ledger.
func TestIssuedCredential(t *testing.T) {
	c := emptyCluster(t)
	b := &backend{answer: forgetful}
	c.granter = b
	var authorization atomic.Value
	c.serve = func(_ http.ResponseWriter, r *http.Request) { authorization.Store(r.Header.Get("Authorization")) }
	c.startAll(2, Settings{}, nil)

	header := c.sign(0, 1, "day")
	bought := c.ask(0, http.MethodGet, "/", "", headerSignature, header)
	token := issued(t, bought)
	if bought.status != http.StatusOK || !strings.HasPrefix(token, "credential-1-pay_") {
		t.Fatalf("%d %q %s", bought.status, token, bought.body)
	}
	sale := b.asked()[0]
	if sale.Plan != "day" || sale.Amount != "100000" || sale.RequestID != sale.Payment || sale.ChallengeID != sale.Payment ||
		sale.ResourceID != "default" || sale.Network != "eip155:84532" || sale.TTL != 24*time.Hour || sale.Transaction == [32]byte{} {
		t.Errorf("the issuer was asked %+v", sale)
	}
	for i := range 2 {
		if again := issued(t, c.ask(i, http.MethodGet, "/", "", headerSignature, header)); again != token {
			t.Errorf("instance %d gives the same header %q", i, again)
		}
		if again := issued(t, c.ask(i, http.MethodGet, "/other", "", headerSignature, c.sign(i, 1, ""))); again != token {
			t.Errorf("instance %d gives a fresh signature %q", i, again)
		}
		for range 2 {
			a := c.ask(i, http.MethodGet, "/more", "", "Authorization", "Bearer "+token)
			if a.status != http.StatusOK || authorization.Load() != "Bearer "+token {
				t.Errorf("instance %d takes it with %d; the upstream got %v", i, a.status, authorization.Load())
			}
		}
		if a := c.ask(i, http.MethodGet, "/more", "", "Authorization", "Bearer "+token+"x"); a.status != http.StatusPaymentRequired {
			t.Errorf("another one opens: %d", a.status)
		}
	}
	if n := len(b.asked()); n != 1 {
		t.Errorf("the issuer was asked %d times", n)
	}
	other := issued(t, c.ask(1, http.MethodGet, "/", "", headerSignature, c.sign(1, 2, "day")))
	if other == token || !strings.HasPrefix(other, "credential-2-pay_") {
		t.Errorf("another payer gets %q", other)
	}
	c.saw(c.calls.Load(), 20*cent)
	c.keepsNoSecret(token, other)
}

// Who asks for a plan by its id gets what others issue just so, under the names that it has given. The grant uses nothing up; the credential
// of a counted plan opens what was bought, and no more.
func TestIssuedByID(t *testing.T) {
	c := emptyCluster(t)
	b := &backend{answer: forgetful}
	c.granter, c.requests = b, 2
	c.startAll(2, Settings{}, nil)

	grant := func(i int, name string) (reply, string) {
		t.Helper()
		a := c.access(i, "/access", name, headerSignature, c.signOffer(c.access(i, "/access", name), 1, "day", nil))
		g := challengeOf(t, a)
		if a.status != http.StatusOK || g.RequestID != name || g.ChallengeID == "" || issued(t, a) != g.AccessToken {
			t.Fatalf("%d %s", a.status, a.body)
		}
		return a, g.AccessToken
	}
	a, token := grant(0, "name")
	sale := b.asked()[0]
	if g := challengeOf(t, a); token != "credential-1-"+g.PaymentID || sale.RequestID != "name" || sale.ChallengeID != g.ChallengeID {
		t.Errorf("the grant is %s, and the issuer was asked %+v", a.body, sale)
	}
	if _, again := grant(1, "other"); again != token || len(b.asked()) != 1 {
		t.Errorf("a fresh signature gets %q, and the issuer was asked %d times", again, len(b.asked()))
	}
	for i := range 2 {
		if a := c.ask(i, http.MethodGet, "/", "", "Authorization", "Bearer "+token); a.status != http.StatusOK {
			t.Errorf("instance %d takes it with %d", i, a.status)
		}
	}
	if a := c.ask(0, http.MethodGet, "/", "", "Authorization", "Bearer "+token); a.status != http.StatusPaymentRequired || !strings.Contains(a.body, string(ReasonUsedUp)) {
		t.Errorf("once more: %d %s", a.status, a.body)
	}
	c.saw(2, 10*cent)
}

// keepsNoSecret looks through the files of the ledger.
func (c *cluster) keepsNoSecret(secrets ...string) {
	c.t.Helper()
	files, err := filepath.Glob(c.path + "*")
	if err != nil || len(files) == 0 {
		c.t.Fatal(files, err)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, s := range secrets {
			if bytes.Contains(raw, []byte(s)) {
				c.t.Errorf("%s holds a credential", name)
			}
		}
	}
}

// While the issuer fails the payment stays paid, and its payer is told so, in none of the issuer's words. The same header asks again, or a
// fresh signature, by whatever instance; each time for the same sale. Nothing is paid twice.
func TestIssuerThatFails(t *testing.T) {
	const words = "the issuer's own words"
	c := emptyCluster(t)
	b := new(backend)
	b.answer = func(n int, s Sale) (Credential, error) {
		switch n {
		case 1:
			return Credential{}, errors.New(words)
		case 2:
			return Credential{}, lateError{errors.New(words)}
		case 3:
			return Credential{}, nil // an empty one is none
		}
		return forgetful(n, s)
	}
	c.granter = b
	c.startAll(2, Settings{}, nil)
	header := c.sign(0, 1, "day")
	for i, want := range []struct {
		status int
		code   string
	}{
		{http.StatusBadGateway, CodeIssueFailed}, {http.StatusGatewayTimeout, CodeIssueTimeout}, {http.StatusBadGateway, CodeIssueFailed},
	} {
		a := c.ask(i%2, http.MethodPost, "/", "", headerSignature, header)
		if !isProblem(a, want.status, want.code) || strings.Contains(a.body, words) || a.header.Get("Retry-After") == "" {
			t.Fatalf("%d %v %s", a.status, a.header, a.body)
		}
		var receipt x402.SettlementResponse
		if err := x402.DecodeHeader(a.header.Get(x402.HeaderResponse), 1<<16, &receipt); err != nil || !receipt.Success || receipt.Transaction == "" {
			t.Errorf("the receipt: %+v %v", receipt, err)
		}
		if a.header.Get(headerPaymentStatus) != statusPaid || a.header.Get(headerPaymentID) == "" || a.header.Get(headerAccessToken) != "" {
			t.Errorf("told %v", a.header)
		}
		if s := c.states(); s[ledger.StatePaid] != 1 {
			t.Errorf("the ledger has %v", s)
		}
	}
	c.saw(0, 10*cent)
	fresh := c.ask(1, http.MethodPost, "/", "", headerSignature, c.sign(1, 1, "day"))
	token := issued(t, fresh)
	if fresh.status != http.StatusOK || !strings.HasPrefix(token, "credential-4-pay_") {
		t.Fatalf("%d %q %s", fresh.status, token, fresh.body)
	}
	if again := issued(t, c.ask(0, http.MethodPost, "/", "", headerSignature, header)); again != token {
		t.Errorf("the first header gets %q", again)
	}
	for _, s := range b.asked() {
		if s != b.asked()[0] {
			t.Errorf("asked for another sale: %+v", s)
		}
	}
	c.saw(2, 10*cent)
}

// torn fails writes as a process does that dies: before or after they are made.
type torn struct {
	ledger.Store
	fail func(what string) error
}

func (s *torn) Reserve(ctx context.Context, r ledger.Reservation, over string, ttl time.Duration) (ledger.Reservation, error) {
	if len(r.Answer) > 0 && r.Key == credentialKey(r.Payment) {
		if err := s.fail("keep"); err != nil {
			return r, err
		}
	}
	return s.Store.Reserve(ctx, r, over, ttl)
}

func (s *torn) Update(ctx context.Context, id string, version uint64, cs ...ledger.Change) (ledger.Payment, error) {
	if cs[len(cs)-1].Event == ledger.EventDelivered {
		if err := s.fail("deliver"); err != nil {
			return ledger.Payment{}, err
		}
		p, err := s.Store.Update(ctx, id, version, cs...)
		if broken := s.fail("delivered"); broken != nil {
			return ledger.Payment{}, broken
		}
		return p, err
	}
	return s.Store.Update(ctx, id, version, cs...)
}

// Whatever is lost between the issuer's answer and ours, the payer gets one credential in the end; once it is kept nobody asks again.
func TestCredentialOverCrashes(t *testing.T) {
	for what, asked := range map[string]int{"keep": 2, "deliver": 1, "delivered": 1} {
		t.Run(what, func(t *testing.T) {
			c := emptyCluster(t)
			b := &backend{answer: forgetful}
			c.granter = b
			var once atomic.Bool
			c.startAll(1, Settings{}, func(_ int, s ledger.Store) ledger.Store {
				return &torn{Store: s, fail: func(at string) error {
					if at == what && once.CompareAndSwap(false, true) {
						return errors.New("the connection broke")
					}
					return nil
				}}
			})
			header := c.sign(0, 1, "day")
			if a := c.ask(0, http.MethodGet, "/", "", headerSignature, header); a.status != http.StatusServiceUnavailable || a.header.Get(headerAccessToken) != "" {
				t.Fatalf("%d %v %s", a.status, a.header, a.body)
			}
			token := issued(t, c.ask(0, http.MethodGet, "/", "", headerSignature, header))
			again := issued(t, c.ask(0, http.MethodGet, "/", "", headerSignature, header))
			if token == "" || token != again || len(b.asked()) != asked {
				t.Errorf("given %q, then %q; asked %d times, want %d", token, again, len(b.asked()), asked)
			}
			c.saw(2, 10*cent)
		})
	}
}

// One payment that many requests carry to two instances has its credential issued once.
func TestManyCopiesIssueOnce(t *testing.T) {
	c := emptyCluster(t)
	b := &backend{answer: func(n int, s Sale) (Credential, error) {
		time.Sleep(50 * time.Millisecond)
		return forgetful(n, s)
	}}
	c.granter = b
	c.startAll(2, Settings{}, nil)
	header := c.sign(0, 1, "day")
	var mu sync.Mutex
	tokens := map[string]int{}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if a := c.ask(i%2, http.MethodGet, "/", "", headerSignature, header); a.status == http.StatusOK {
				mu.Lock()
				defer mu.Unlock()
				tokens[issued(t, a)]++
			}
		})
	}
	wg.Wait()
	if len(tokens) != 1 || len(b.asked()) != 1 {
		t.Errorf("given %v; asked %d times", tokens, len(b.asked()))
	}
	c.saw(c.calls.Load(), 10*cent)
}

// What has gone to be refunded is not delivered, whatever the issuer says then; and what is delivered does not go back.
func TestNeverBothCredentialAndRefund(t *testing.T) {
	c := emptyCluster(t)
	answer := make(chan struct{})
	b := &backend{answer: func(n int, s Sale) (Credential, error) {
		<-answer
		return forgetful(n, s)
	}}
	c.granter = b
	// A process that can't renew its hold, since it is stopped or cut off: the other one takes it for dead.
	c.startAll(2, Settings{HoldTTL: 300 * time.Millisecond, CollectWithin: 50 * time.Millisecond, ReconcileEvery: 50 * time.Millisecond},
		func(i int, s ledger.Store) ledger.Store {
			if i == 0 {
				return &unrenewed{s}
			}
			return s
		})
	header := c.sign(0, 1, "day")
	done := make(chan reply)
	go func() { done <- c.ask(0, http.MethodGet, "/", "", headerSignature, header) }()
	deadline := time.Now().Add(time.Minute)
	for c.states()[ledger.StateRefundPending] == 0 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	close(answer)
	a := <-done
	if a.status == http.StatusOK || a.header.Get(headerAccessToken) != "" || strings.Contains(a.header.Get(headerResponse), "credential") {
		t.Errorf("%d %v", a.status, a.header)
	}
	for i := range 2 {
		a := c.ask(i, http.MethodGet, "/", "", headerSignature, header)
		if a.status != http.StatusPaymentRequired || a.header.Get(headerPaymentStatus) != statusRefundPending || a.header.Get(headerAccessToken) != "" {
			t.Errorf("instance %d: %d %v", i, a.status, a.header)
		}
	}
	if s := c.states(); s[ledger.StateRefundPending] != 1 || len(s) != 1 {
		t.Errorf("the ledger has %v", s)
	}
	c.saw(0, 10*cent)
}

// unrenewed is a ledger that renews no hold.
type unrenewed struct{ ledger.Store }

func (s *unrenewed) Update(ctx context.Context, id string, version uint64, cs ...ledger.Change) (ledger.Payment, error) {
	if cs[0].Event == ledger.EventExtend {
		return ledger.Payment{}, context.DeadlineExceeded
	}
	return s.Store.Update(ctx, id, version, cs...)
}

// Who leaves while the issuer is asked comes back for what was issued.
func TestBuyerThatLeavesWhileIssuing(t *testing.T) {
	c := emptyCluster(t)
	asked, answer := make(chan struct{}), make(chan struct{})
	b := &backend{answer: func(n int, s Sale) (Credential, error) {
		close(asked)
		<-answer
		return forgetful(n, s)
	}}
	c.granter = b
	c.startAll(1, Settings{}, nil)
	header := c.sign(0, 1, "day")
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() {
		defer close(left)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.instances[0].server.URL+"/", http.NoBody)
		if err != nil {
			t.Error(err)
			return
		}
		r.Header.Set(headerSignature, header)
		if res, err := c.instances[0].server.Client().Do(r); err == nil {
			_ = res.Body.Close()
			t.Error("answered")
		}
	}()
	<-asked
	leave()
	<-left
	close(answer)
	a := c.ask(0, http.MethodGet, "/", "", headerSignature, header)
	if token := issued(t, a); a.status != http.StatusOK || token == "" || len(b.asked()) != 1 {
		t.Errorf("%d %q, asked %d times", a.status, token, len(b.asked()))
	}
	c.saw(1, 10*cent)
}

// A client's own token for the upstream, which comes with each of its requests, is looked up once in a while; many that nobody knows are
// slowed down. One that turns out to be a credential opens the gate at once.
func TestClientsOwnToken(t *testing.T) {
	c := emptyCluster(t)
	c.granter = &backend{answer: func(int, Sale) (Credential, error) { return Credential{Token: "own", Type: "Bearer"}, nil }}
	c.startAll(1, Settings{}, nil)
	for i := range 300 {
		if a := c.ask(0, http.MethodGet, "/", "", "Authorization", "Bearer own"); a.status != http.StatusPaymentRequired {
			t.Fatalf("request %d: %d %s", i, a.status, a.body)
		}
	}
	if a := c.ask(0, http.MethodGet, "/", "", "Authorization", "Bearer own", headerSignature, c.sign(0, 1, "day")); a.status != http.StatusOK {
		t.Errorf("a payment: %d %s", a.status, a.body)
	}
	if a := c.ask(0, http.MethodGet, "/", "", "Authorization", "Bearer own"); a.status != http.StatusOK {
		t.Errorf("what was bought: %d %s", a.status, a.body)
	}
	limited := 0
	for i := range 300 {
		if c.ask(0, http.MethodGet, "/", "", "Authorization", fmt.Sprint("Bearer other", i)).status == http.StatusTooManyRequests {
			limited++
		}
	}
	if limited == 0 {
		t.Error("strangers are not slowed down")
	}
}

// A credential that is no bearer token is given in the receipt alone; and what can't stand in a header does not.
func TestCredentialThatIsNoToken(t *testing.T) {
	c := emptyCluster(t)
	whole := `{"user":"ü","password":"p"}`
	c.granter = &backend{answer: func(int, Sale) (Credential, error) { return Credential{Token: whole, Type: "custom"}, nil }}
	c.startAll(1, Settings{}, nil)
	a := c.ask(0, http.MethodGet, "/", "", headerSignature, c.sign(0, 1, "day"))
	if got := issued(t, a); got != whole || a.header.Get(headerAccessToken) != "" {
		t.Errorf("%d %q %v", a.status, got, a.header)
	}
	for _, tc := range []struct {
		c  Credential
		ok bool
	}{
		{Credential{"abc", "Bearer"}, true},
		{Credential{"a b", "ApiKey"}, true},
		{Credential{"a\r\nX: y", "Bearer"}, false},
		{Credential{"ü", "Bearer"}, false},
		{Credential{" a", "Bearer"}, false},
		{Credential{"", "Bearer"}, false},
		{Credential{"{}", "custom"}, false},
	} {
		if tc.c.carriable() != tc.ok {
			t.Errorf("%q: %v", tc.c.Token, !tc.ok)
		}
	}
	if s := fmt.Sprintf("%v %+v %#v", Credential{"s3cret", "Bearer"}, Credential{"s3cret", "Bearer"}, Credential{"s3cret", "Bearer"}); strings.Contains(s, "s3cret") {
		t.Error("it prints as", s)
	}
}

// What a buyer calls its purchase first is what its issuer hears each time, whichever way the buyer comes back.
func TestOrderStays(t *testing.T) {
	c := emptyCluster(t)
	b := new(backend)
	b.answer = func(n int, s Sale) (Credential, error) {
		if n < 3 {
			return Credential{}, errors.New("not yet")
		}
		return forgetful(n, s)
	}
	c.startAll(1, Settings{}, nil)
	e := c.instances[0].engine
	plan := &Plan{Name: "day", TTL: time.Hour, Granter: b}
	gate := &Gate{Config: Config{Tokens: func() (*Tokens, error) { return c.tokens, nil }, Now: time.Now, Logger: e.current().Logger}}
	p := &ledger.Payment{ID: "pay_x"}
	p.Binding.Plan = "day"
	for i, o := range []*Access{{Plan: true, RequestID: "http-1"}, nil, {Plan: true, RequestID: "http-2", ResourceID: "r"}} {
		a := &attempt{Gate: gate, Request: Request{Route: &Route{Plans: []Plan{*plan}}, Access: o}, engine: e, tokens: c.tokens}
		if _, err := a.credential(t.Context(), p); (err == nil) != (i == 2) {
			t.Fatal(i, err)
		}
	}
	for _, s := range b.asked() {
		if s.Order != (Order{RequestID: "http-1", ChallengeID: "pay_x", ResourceID: "default"}) {
			t.Errorf("asked with %+v", s.Order)
		}
	}
}

// Under a key the answer is stored without what was issued, which comes from where it is kept: a repetition gets the same. And a purchase whose
// issuer failed goes on under its key.
func TestIssuedUnderAKey(t *testing.T) {
	c := emptyCluster(t)
	b := new(backend)
	b.answer = func(n int, s Sale) (Credential, error) {
		if n == 1 {
			return Credential{}, errors.New("not yet")
		}
		return forgetful(n, s)
	}
	c.granter = b
	c.startAll(2, Settings{}, nil)
	header := c.sign(0, 1, "day")
	ask := func(i int, header string) reply {
		return c.ask(i, http.MethodPost, "/", "body", headerSignature, header, headerIdempotencyKey, "key-1")
	}
	if a := ask(0, header); !isProblem(a, http.StatusBadGateway, CodeIssueFailed) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	first := ask(0, header)
	token := issued(t, first)
	if first.status != http.StatusOK || token == "" || first.body != "answer 1" {
		t.Fatalf("%d %q %s", first.status, token, first.body)
	}
	for i, h := range []string{header, c.sign(1, 1, "day")} {
		again := ask(i, h)
		if again.status != http.StatusOK || again.body != "answer 1" || again.header.Get(headerReplayed) == "" || issued(t, again) != token {
			t.Errorf("again: %d %v %s", again.status, again.header, again.body)
		}
	}
	if n := len(b.asked()); n != 2 {
		t.Errorf("asked %d times", n)
	}
	c.saw(1, 10*cent)
	c.keepsNoSecret(token)
}
