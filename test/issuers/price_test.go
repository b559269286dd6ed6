package issuers

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/client"
	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it takes too long")
		}
	}
}

// exchange is the seller's endpoint that knows prices.
type exchange struct {
	*httptest.Server
	mu     sync.Mutex
	price  string
	status int
	asked  []map[string]any
}

func newExchange(t *testing.T) *exchange {
	t.Helper()
	e := &exchange{price: "0.02", status: http.StatusOK}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		var q map[string]any
		_ = json.NewDecoder(r.Body).Decode(&q)
		e.asked = append(e.asked, q)
		w.WriteHeader(e.status)
		_ = json.NewEncoder(w).Encode(map[string]string{"price": e.price, "note": words})
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *exchange) set(price string, status int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.price, e.status = price, status
}

func (e *exchange) questions() []map[string]any {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.asked
}

// A price by the number of units that the client asks for: each is paid for, nothing is sold beyond the bounds, and who has an offer for little
// does not get much.
func TestPriceByUnits(t *testing.T) {
	r := rig.New(t, rig.Options{Site: `
	x402 /units/* {
		price {http.request.header.X-Units} {
			each $0.01
			min $0.01
			max $1.00
		}
		plan day $5.00 {
			ttl 24h
		}
	}
	x402 /tip {
		name tip
		price {query.price} {
			min $0.05
			max $1.00
		}
	}
	x402_service
	reverse_proxy {upstream}
`})
	b := rig.NewBuyer(t, 1)
	three := b.Get(r.URL("/units/x"), "X-Units", "3")
	offer := rig.Offered(t, three)
	if len(offer.Accepts) != 2 || offer.Accepts[0].Amount != "30000" || offer.Accepts[1].Extra.Plan != "day" {
		t.Fatalf("offered %+v", offer.Accepts)
	}
	header := b.Sign(offer, 0)
	if a := b.Get(r.URL("/units/x"), "X-Units", "100", x402.HeaderSignature, header); a.Status != http.StatusPaymentRequired || r.Upstream.Calls() != 0 {
		t.Errorf("a hundred for the price of three: %d", a.Status)
	}
	if a := b.Get(r.URL("/units/x"), "X-Units", "3", x402.HeaderSignature, header); a.Status != http.StatusOK || r.Earned() != 3*cent {
		t.Errorf("three: %d %s, earned %d", a.Status, a.Body, r.Earned())
	}
	for _, units := range []string{"", "0", "-1", "1.5", "101", "1e2", "03", " ", "99999999999999999999", "3, 4", "drei"} {
		a := b.Get(r.URL("/units/x"), "X-Units", units)
		if a.Status != http.StatusBadRequest || !strings.Contains(a.Body, `"code":"price_invalid"`) || a.Header.Get(x402.HeaderRequired) != "" {
			t.Errorf("%q units: %d %s", units, a.Status, a.Body)
		}
	}
	if a := b.Get(r.URL("/units/x"), "X-Units", "1", "X-Units", "100"); a.Status != http.StatusBadRequest {
		t.Errorf("two headers: %d %s", a.Status, a.Body)
	}
	for price, want := range map[string]int{"0.05": 402, "1": 402, "0.049999": 400, "1.000001": 400, "0.1234567": 400, "": 400, "$0.50": 402, "0x1": 400} {
		if a := b.Get(r.URL("/tip?price=" + price)); a.Status != want {
			t.Errorf("a tip of %q: %d %s", price, a.Status, a.Body)
		}
	}
	if r.Upstream.Calls() != 1 {
		t.Errorf("the upstream was called %d times", r.Upstream.Calls())
	}
	// A pass opens it, whatever the units are.
	pass := b.Get(r.URL("/units/x"), "X-Units", "3", x402.HeaderSignature, b.Sign(offer, 1))
	token := pass.Header.Get("X-Access-Token")
	if a := b.Get(r.URL("/units/x"), "X-Units", "100", "Authorization", "Bearer "+token); a.Status != http.StatusOK || token == "" {
		t.Errorf("by a pass: %d %s", a.Status, a.Body)
	}
}

// A price that the seller's endpoint knows. What was offered is honoured though the price has moved, also by a stock client and after a reload;
// while the endpoint does not answer nobody is served, nor charged.
func TestPriceOfAnEndpoint(t *testing.T) {
	e := newExchange(t)
	o := rig.Options{Site: fmt.Sprintf(`
	x402 {
		price {
			pricer http %s/price {
				timeout 500ms
				cache 1s
				header X-Quality
				auth bearer %s
			}
			min $0.01
			max $1.00
		}
	}
	x402_service
	reverse_proxy {upstream}
`, e.URL, secret)}
	r := rig.New(t, o)
	b := rig.NewBuyer(t, 1)
	offer := b.Offer(r.URL("/a?x=1"))
	if offer.Accepts[0].Amount != "20000" {
		t.Fatalf("offered %+v", offer.Accepts)
	}
	if q := e.questions()[0]; q["method"] != "GET" || q["uri"] != "/a?x=1" || q["url"] != r.URL("/a?x=1") || q["headers"] != nil {
		t.Errorf("the endpoint was asked %v", q)
	}
	e.set("0.50", http.StatusOK)
	r.Load(o) // what is cached is gone
	if moved := b.Offer(r.URL("/a?x=1")); moved.Accepts[0].Amount != "500000" {
		t.Fatalf("offered %+v", moved.Accepts)
	}
	if a := b.Get(r.URL("/a?x=1"), x402.HeaderSignature, b.Sign(offer, 0)); a.Status != http.StatusOK || r.Earned() != 2*cent {
		t.Errorf("by the offer of before: %d %s, earned %d", a.Status, a.Body, r.Earned())
	}
	stock := client.Client{HTTP: b.HTTP, Key: devnet.Payer(2).Key, Limits: []client.Limit{{
		Network: devnet.Network(), Max: *uint256.NewInt(100 * cent),
	}}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.URL("/b"), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Quality", "best")
	res, report, err := stock.Do(req)
	if err != nil || res.StatusCode != http.StatusOK || !report.Paid() || r.Earned() != 52*cent {
		t.Fatalf("a client: %v %+v, earned %d", err, report, r.Earned())
	}
	_ = res.Body.Close()
	last := e.questions()[len(e.questions())-1]
	if fmt.Sprint(last["headers"]) != "map[X-Quality:[best]]" || len(e.questions()) != 3 {
		t.Errorf("asked %d times, the last time %v", len(e.questions()), last)
	}

	for what, f := range map[string]func(){
		"broken":       func() { e.set("0.02", http.StatusInternalServerError) },
		"too dear":     func() { e.set("1.01", http.StatusOK) },
		"too cheap":    func() { e.set("0.001", http.StatusOK) },
		"free":         func() { e.set("0", http.StatusOK) },
		"nonsense":     func() { e.set("1,00", http.StatusOK) },
		"not in time":  func() { e.mu.Lock() },
		"not there":    e.Close,
		"too exact":    func() { e.set("0.0200001", http.StatusOK) },
		"not anything": func() { e.set("", http.StatusOK) },
	} {
		if what == "not there" {
			continue
		}
		f()
		a := b.Get(r.URL("/c/" + strings.ReplaceAll(what, " ", "-")))
		if what == "not in time" {
			e.mu.Unlock()
		}
		if a.Status != http.StatusServiceUnavailable || !strings.Contains(a.Body, `"code":"price_unavailable"`) || strings.Contains(a.Body, "4711") {
			t.Errorf("%s: %d %s", what, a.Status, a.Body)
		}
	}
	e.Close()
	if a := b.Get(r.URL("/c")); a.Status != http.StatusServiceUnavailable {
		t.Errorf("nobody there: %d %s", a.Status, a.Body)
	}
	if a := b.Get(r.URL("/a?x=1"), x402.HeaderSignature, b.Sign(offer, 0)); a.Status != http.StatusOK {
		t.Errorf("by an offer that is still good, while nobody knows the price: %d %s", a.Status, a.Body)
	}
	if r.Upstream.Calls() != 3 {
		t.Errorf("the upstream was called %d times", r.Upstream.Calls())
	}
}
