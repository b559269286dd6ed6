package paywall

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holiman/uint256"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/x402"
)

// market is a Pricer whose price moves; what is asked for by X-Units costs as many times that.
type market struct {
	mu    sync.Mutex
	price string
	err   error
	asked int
}

func (m *market) Subject(r *http.Request, _ *Request) (string, error) {
	s := r.Header.Get("X-Units")
	if s == "bad" {
		return "", &PriceError{Detail: "X-Units is bad"}
	}
	return s, nil
}

func (m *market) Price(_ context.Context, subject string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	if subject == "ten" {
		return "10", m.err
	}
	return m.price, m.err
}

func (m *market) set(price string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.price, m.err = price, err
}

// offerFor asks for the price of a path.
func (c *cluster) offerFor(method, path string, header ...string) x402.PaymentRequired {
	c.t.Helper()
	var o x402.PaymentRequired
	a := c.ask(0, method, path, "", header...)
	if err := x402.DecodeHeader(a.header.Get(x402.HeaderRequired), 1<<20, &o); err != nil || a.status != http.StatusPaymentRequired {
		c.t.Fatal(a.status, err, a.body)
	}
	return o
}

// authorize signs what the first way to pay of an offer wants.
func (c *cluster) authorize(n int, q *x402.Requirements) (x402.Authorization, []byte) {
	c.t.Helper()
	amount, err := x402.ParseAtomic(q.Amount)
	if err != nil {
		c.t.Fatal(err)
	}
	auth := x402.Authorization{From: devnet.Payer(n).Address, To: seller, Value: amount}
	auth.ValidBefore = *uint256.NewInt(uint64(time.Now().Add(time.Minute).Unix()))
	if _, err := rand.Read(auth.Nonce[:]); err != nil {
		c.t.Fatal(err)
	}
	sig, err := x402.Sign(auth.Digest(devnet.Network().Domain().Separator()), devnet.Payer(n).Key)
	if err != nil {
		c.t.Fatal(err)
	}
	return auth, sig
}

func (c *cluster) signFirst(n int, o x402.PaymentRequired) string {
	c.t.Helper()
	auth, sig := c.authorize(n, &o.Accepts[0])
	header, err := x402.EncodeHeader(o.Pay(o.Accepts[0], &auth, sig))
	if err != nil {
		c.t.Fatal(err)
	}
	return header
}

// newMarket is a cluster whose route has a price that moves, and a clock that can be put forward.
func newMarket(t *testing.T, n int) (c *cluster, m *market, later *atomic.Int64) {
	t.Helper()
	c, m, later = emptyCluster(t), &market{price: "0.01"}, new(atomic.Int64)
	c.pricer = m
	c.startAll(n, Settings{}, nil, func(g *Config) {
		g.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	return c, m, later
}

// A price that moves between the offer and the payment is the one that was offered, for as long as the offer says, on every instance, and
// though nobody knows the price of now. After that it is the price of now.
func TestOfferIsHonoured(t *testing.T) {
	c, m, later := newMarket(t, 2)
	first := c.offerFor(http.MethodGet, "/")
	if len(first.Accepts) != 2 || first.Accepts[0].Amount != "10000" || first.Accepts[1].Extra.Plan != "day" {
		t.Fatalf("offered %+v", first.Accepts)
	}
	m.set("0.02", nil)
	if a := c.ask(1, http.MethodGet, "/", "", headerSignature, c.signFirst(1, first)); a.status != http.StatusOK {
		t.Errorf("the offer of another price: %d %s", a.status, a.body)
	}
	m.set("", errors.New("down"))
	if a := c.ask(0, http.MethodGet, "/", "", headerSignature, c.signFirst(2, first)); a.status != http.StatusOK {
		t.Errorf("while nobody knows the price: %d %s", a.status, a.body)
	}
	c.saw(2, 2*cent)
	m.set("0.02", nil)
	later.Store(int64(61 * time.Second))
	a := c.ask(0, http.MethodGet, "/", "", headerSignature, c.signFirst(3, first))
	if a.status != http.StatusPaymentRequired || !strings.Contains(a.body, string(x402.ReasonNoMatchingRequirements)) || !strings.Contains(a.body, `"20000"`) {
		t.Errorf("an offer of the past: %d %s", a.status, a.body)
	}
	later.Store(0)
	if a := c.ask(0, http.MethodGet, "/", "", headerSignature, c.signFirst(3, c.offerFor(http.MethodGet, "/"))); a.status != http.StatusOK {
		t.Errorf("the offer of now: %d %s", a.status, a.body)
	}
	c.saw(3, 4*cent)
}

// An offer is good for the request that it was made for, and no other: what it asked for, by whatever its price depends on, may cost more.
func TestOfferIsForOneThing(t *testing.T) {
	c, m, _ := newMarket(t, 1)
	o := c.offerFor(http.MethodGet, "/a?x=1", "X-Units", "one")
	m.set("0.05", nil)
	refusedBy := func(what string, a reply, amount string) {
		t.Helper()
		if a.status != http.StatusPaymentRequired || !strings.Contains(a.body, `"`+amount+`"`) {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	header := c.signFirst(1, o)
	refusedBy("more of it", c.ask(0, http.MethodGet, "/a?x=1", "", headerSignature, header, "X-Units", "ten"), "10000000")
	refusedBy("without its header", c.ask(0, http.MethodGet, "/a?x=1", "", headerSignature, header), "50000")
	refusedBy("another path", c.ask(0, http.MethodGet, "/b?x=1", "", headerSignature, header, "X-Units", "one"), "50000")
	refusedBy("another query", c.ask(0, http.MethodGet, "/a?x=2", "", headerSignature, header, "X-Units", "one"), "50000")
	refusedBy("another method", c.ask(0, http.MethodPost, "/a?x=1", "", headerSignature, header, "X-Units", "one"), "50000")

	// Forged: a lower price, a later end, another offer's key, nothing at all.
	var entry struct {
		Info   map[string]string `json:"info"`
		Schema json.RawMessage   `json:"schema"`
	}
	if err := json.Unmarshal(o.Extensions[x402.ExtensionResume], &entry); err != nil || entry.Info["quote"] == "" {
		t.Fatalf("%s %v", o.Extensions[x402.ExtensionResume], err)
	}
	raw, err := quoteEncoding.DecodeString(entry.Info["quote"])
	if err != nil {
		t.Fatal(err)
	}
	forge := func(info map[string]string) string {
		forged := o
		e := entry
		e.Info = info
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		forged.Extensions = map[string]json.RawMessage{x402.ExtensionResume: text}
		return c.signFirst(1, forged)
	}
	other, err := x402.NewResumeKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		changed := append([]byte(nil), raw...)
		changed[i] ^= 1
		a := c.ask(0, http.MethodGet, "/a?x=1", "", "X-Units", "one", headerSignature, forge(map[string]string{"key": entry.Info["key"], "quote": quoteEncoding.EncodeToString(changed)}))
		refusedBy("forged", a, "50000")
	}
	refusedBy("another key", c.ask(0, http.MethodGet, "/a?x=1", "", "X-Units", "one", headerSignature, forge(map[string]string{"key": other, "quote": entry.Info["quote"]})), "50000")
	refusedBy("no quote", c.ask(0, http.MethodGet, "/a?x=1", "", "X-Units", "one", headerSignature, forge(map[string]string{"key": entry.Info["key"]})), "50000")
	c.saw(0, 0)
	if a := c.ask(0, http.MethodGet, "/a?x=1", "", "X-Units", "one", headerSignature, header); a.status != http.StatusOK {
		t.Errorf("the request that it was made for: %d %s", a.status, a.body)
	}
	c.saw(1, cent)
}

// What was paid for little is not served with much: who leaves before the answer may come back for what was paid for, by whatever way, and for
// nothing dearer.
func TestPaidForIsWhatIsServed(t *testing.T) {
	const path = "/x"
	for way, c := range map[string]struct {
		with   []string
		status int
	}{
		"its header":     {nil, http.StatusPaymentRequired},
		"its key":        {[]string{headerIdempotencyKey, "key"}, http.StatusUnprocessableEntity},
		"its request id": {[]string{"X-Access", "name"}, http.StatusConflict},
	} {
		t.Run(way, func(t *testing.T) { leaveAndReturn(t, path, c.with, c.status) })
	}
}

// leaveAndReturn pays for one unit, with some header, leaves, and comes back for ten.
func leaveAndReturn(t *testing.T, path string, with []string, want int) {
	c, _, _ := newMarket(t, 1)
	answer, reached := c.serve, make(chan struct{})
	c.serve = func(_ http.ResponseWriter, r *http.Request) {
		close(reached)
		<-r.Context().Done()
	}
	units := func(n string, more ...string) []string {
		return append(append([]string{"X-Units", n}, with...), more...)
	}
	paid := c.signOffer(c.ask(0, http.MethodGet, path, "", units("one")...), 1, "", nil)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() {
		defer close(left)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.instances[0].server.URL+path, http.NoBody)
		if err != nil {
			t.Error(err)
			return
		}
		for h := units("one", headerSignature, paid); len(h) > 0; h = h[2:] {
			r.Header.Add(h[0], h[1])
		}
		if res, err := c.instances[0].server.Client().Do(r); err == nil {
			_ = res.Body.Close()
			t.Errorf("nobody left: %d", res.StatusCode)
		}
	}()
	<-reached
	c.serve = answer
	leave()
	<-left
	fresh := c.signFirst(1, c.offerFor(http.MethodGet, path, "X-Units", "ten"))
	if with == nil {
		fresh = paid
	}
	if a := c.ask(0, http.MethodGet, path, "", units("ten", headerSignature, fresh)...); a.status != want {
		t.Errorf("for ten: %d %s, want %d", a.status, a.body, want)
	}
	c.saw(1, cent)
	if a := c.ask(0, http.MethodGet, path, "", units("one", headerSignature, paid)...); a.status != http.StatusOK {
		t.Errorf("for one: %d %s", a.status, a.body)
	}
	c.saw(2, cent)
}

// Clients of version 1 echo nothing: they pay the price of now.
func TestVersion1PaysThePriceOfNow(t *testing.T) {
	c, m, _ := newMarket(t, 1)
	pay := func(o x402.PaymentRequired) reply {
		auth, sig := c.authorize(1, &o.Accepts[0])
		header, err := x402.EncodeHeader(x402.PayloadV1{
			X402Version: 1, Scheme: "exact", Network: "base-sepolia", Payload: x402.ExactPayload{Signature: sig, Authorization: auth},
		})
		if err != nil {
			t.Fatal(err)
		}
		return c.ask(0, http.MethodGet, "/", "", headerSignatureV1, header)
	}
	o := c.offerFor(http.MethodGet, "/")
	m.set("0.02", nil)
	if a := pay(o); a.status != http.StatusPaymentRequired {
		t.Errorf("the price of before: %d %s", a.status, a.body)
	}
	c.saw(0, 0)
	if a := pay(c.offerFor(http.MethodGet, "/")); a.status != http.StatusOK {
		t.Errorf("the price of now: %d %s", a.status, a.body)
	}
	c.saw(1, 2*cent)
}

// Where nobody knows the price, nobody is asked to pay, and nobody is served.
func TestNoPrice(t *testing.T) {
	c, m, _ := newMarket(t, 1)
	o := c.offerFor(http.MethodGet, "/")
	m.set("", errors.New("the endpoint's own words"))
	a := c.ask(0, http.MethodGet, "/", "")
	if !isProblem(a, http.StatusServiceUnavailable, codePriceUnavailable) || strings.Contains(a.body, "own words") || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	delete(o.Extensions, x402.ExtensionResume)
	if a := c.ask(0, http.MethodGet, "/", "", headerSignature, c.signFirst(1, o)); !isProblem(a, http.StatusServiceUnavailable, codePriceUnavailable) {
		t.Errorf("a payment: %d %s", a.status, a.body)
	}
	for _, price := range []string{"", "free", "0", "-1", "0.0000001", "1e3"} {
		m.set(price, nil)
		if a := c.ask(0, http.MethodGet, "/", ""); !isProblem(a, http.StatusServiceUnavailable, codePriceUnavailable) {
			t.Errorf("price %q: %d %s", price, a.status, a.body)
		}
	}
	m.set("0.01", nil)
	if a := c.ask(0, http.MethodGet, "/", "", "X-Units", "bad"); !isProblem(a, http.StatusBadRequest, codePriceInvalid) || !strings.Contains(a.body, "X-Units is bad") {
		t.Errorf("a bad request: %d %s", a.status, a.body)
	}
	c.saw(0, 0)
}

// A price that stays is offered as before: without a date, and with nobody asked.
func TestPricesThatStayAreNotQuoted(t *testing.T) {
	c := newCluster(t, 1, Settings{}, nil)
	if o := c.offerFor(http.MethodGet, "/"); strings.Contains(string(o.Extensions[x402.ExtensionResume]), "quote") {
		t.Errorf("offered %s", o.Extensions[x402.ExtensionResume])
	}
}

// What is called by its id has the price that its offer says, too.
func TestMovingPriceByID(t *testing.T) {
	c, m, _ := newMarket(t, 2)
	offer := c.access(0, "/x", "name")
	m.set("0.05", nil)
	if a := c.access(1, "/x", "name", headerSignature, c.signOffer(offer, 1, "", nil)); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
	c.saw(1, cent)
	m.set("", errors.New("down"))
	if a := c.access(0, "/x", "another"); a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, codePriceUnavailable) {
		t.Errorf("nobody knows the price: %d %s", a.status, a.body)
	}
}

// What a request costs is known where nobody pays for it at once, too: who has paid ahead must not get what moves for nothing.
func TestRequestPrices(t *testing.T) {
	y := &Payee{Network: devnet.Network(), PayTo: seller}
	y.Prepare()
	static := &Route{Name: "s", Prices: []Price{{Payee: y, Amount: *uint256.NewInt(cent)}}}
	m := &market{price: "0.02"}
	moves := &Route{Name: "m", Pricer: m}
	g, err := NewGate(Config{Payees: []*Payee{y}, Tokens: func() (*Tokens, error) { return testTokens(t), nil }}, static, moves)
	if err != nil {
		t.Fatal(err)
	}
	costs := func(r *Route) (uint64, error) {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		list, err := (&attempt{Gate: g, Request: Request{Route: r}, r: q}).requestPrices()
		if err != nil || len(list) != 1 || list[0].Payee != y {
			return 0, err
		}
		return list[0].Amount.Uint64(), nil
	}
	if n, err := costs(static); n != cent || err != nil {
		t.Errorf("it costs %d, %v", n, err)
	}
	if n, err := costs(moves); n != 2*cent || err != nil {
		t.Errorf("what moves costs %d, %v", n, err)
	}
	m.set("", errors.New("down"))
	if _, err := costs(moves); err == nil {
		t.Error("it costs nothing while nobody knows the price")
	}
}

// A quote is read as it was written, and nothing else is one.
func TestQuote(t *testing.T) {
	a := &attempt{Gate: &Gate{Config: Config{Now: time.Now}}, Request: Request{Route: &Route{Name: "r"}, Host: "h", URI: "/"}, tokens: testTokens(t)}
	a.r, _ = http.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
	rapid.Check(t, func(t *rapid.T) {
		amount := rapid.StringMatching(`[0-9]{1,20}(\.[0-9]{1,18})?`).Draw(t, "amount")
		end := rapid.Int64Range(0, 1<<40).Draw(t, "end")
		subject := rapid.String().Draw(t, "subject")
		text := a.sealQuote(subject, amount, end, "key")
		gotAmount, gotEnd, sum, ok := parseQuote(text)
		if !ok || gotAmount != amount || gotEnd != end || len(text) > x402.MaxQuoteBytes {
			t.Fatalf("%q gives %q %d %v", text, gotAmount, gotEnd, ok)
		}
		ring := a.tokens.Issuer.Keyring
		if !ring.CheckMAC(purposeQuote, a.quoted(subject, amount, end, "key"), sum, time.Now()) ||
			ring.CheckMAC(purposeQuote, a.quoted(subject, amount+"0", end, "key"), sum, time.Now()) {
			t.Fatal("the MAC is not that of what it says")
		}
	})
}

func FuzzParseQuote(f *testing.F) {
	f.Add("")
	f.Add(strings.Repeat("A", 60))
	f.Add("AQ" + strings.Repeat("_", 70))
	f.Fuzz(func(t *testing.T, text string) {
		amount, end, sum, ok := parseQuote(text)
		if !ok {
			return
		}
		if amount == "" || end < 0 || len(sum) != quoteMAC {
			t.Fatalf("%q gives %q %d %x", text, amount, end, sum)
		}
	})
}
