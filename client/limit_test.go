package client

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/x402"
)

// What the limits don't allow is refused with the code that fits best, and nothing is signed.
func TestLimits(t *testing.T) {
	sepolia := baseSepolia(t)
	base, _ := x402.LookupNetwork("base")
	with := func(r x402.Requirements, change func(*x402.Requirements)) x402.Requirements {
		change(&r)
		return r
	}
	cheap, dear := price(sepolia, 10_000, ""), price(sepolia, 50_001, "")
	for _, tc := range []struct {
		name    string
		accepts []x402.Requirements
		want    Code
		says    string
	}{
		{"exactly the cap", []x402.Requirements{price(sepolia, 50_000, "")}, "", ""},
		{"one unit over the cap", []x402.Requirements{dear}, CodeOverCap, "0.050001 USDC on eip155:84532 is asked for; the limit is 0.05"},
		{"mainnet", []x402.Requirements{price(base, 1, "")}, CodeNetwork, `"eip155:8453"`},
		{"other asset", []x402.Requirements{with(cheap, func(r *x402.Requirements) { r.Asset = payTo })}, CodeAsset, payTo},
		{"mainnet's asset on a testnet", []x402.Requirements{with(cheap, func(r *x402.Requirements) { r.Asset = base.Asset.Address.Hex() })}, CodeAsset, ""},
		{"no asset", []x402.Requirements{with(cheap, func(r *x402.Requirements) { r.Asset = "" })}, CodeAsset, ""},
		{"scheme", []x402.Requirements{with(cheap, func(r *x402.Requirements) { r.Scheme = "upto" })}, CodeNoOffer, `"upto"`},
		{"permit2", []x402.Requirements{with(cheap, func(r *x402.Requirements) { r.Extra.AssetTransferMethod = "permit2" })}, CodeNoOffer, `"permit2"`},
		{"flow", []x402.Requirements{with(cheap, func(r *x402.Requirements) { r.Extra.PaymentFlow = "escrow" })}, CodeNoOffer, `"escrow"`},
		{"hexadecimal amount", []x402.Requirements{with(cheap, func(r *x402.Requirements) { r.Amount = "0x1" })}, CodeNoOffer, ""},
		{"negative amount", []x402.Requirements{with(cheap, func(r *x402.Requirements) { r.Amount = "-1" })}, CodeNoOffer, ""},
		{"amount beyond 2^256", []x402.Requirements{with(cheap, func(r *x402.Requirements) { r.Amount = "1" + strings.Repeat("0", 78) })}, CodeNoOffer, ""},
		{"payTo", []x402.Requirements{with(cheap, func(r *x402.Requirements) { r.PayTo = "merchant" })}, CodeNoOffer, `"merchant"`},
		{"payTo nobody", []x402.Requirements{with(cheap, func(r *x402.Requirements) { r.PayTo = common.Address{}.Hex() })}, CodeNoOffer, ""},
		{"no timeout", []x402.Requirements{with(cheap, func(r *x402.Requirements) { r.MaxTimeoutSeconds = 0 })}, CodeNoOffer, ""},
		{"nothing", []x402.Requirements{}, CodeNoOffer, ""},
		{"the first that fits", []x402.Requirements{price(base, 1, ""), dear, cheap}, "", ""},
		{"the nearest gives the code", []x402.Requirements{dear, price(base, 1, "")}, CodeOverCap, `"eip155:8453"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSeller(t)
			s.versions, s.accepts = 2, tc.accepts
			c, _ := newClient(t)
			resp, r, err := c.Do(get(t, s.URL))
			if CodeOf(err) != tc.want || (err != nil && !strings.Contains(err.Error(), tc.says)) {
				t.Fatalf("error %v, want code %q and %q", err, tc.want, tc.says)
			}
			payments, _ := s.got()
			if tc.want == "" {
				text(t, resp)
				return
			}
			if len(payments) != 0 || r.Authorization != nil || r.Payment != nil || r.Offer == nil {
				t.Errorf("%d payments; authorization %v", len(payments), r.Authorization)
			}
		})
	}
}

// Nobody's money is spent by default.
func TestNoLimits(t *testing.T) {
	s := newSeller(t)
	c, _ := newClient(t)
	c.Limits = nil
	if _, err := without(t, c.Do, get(t, s.URL)); CodeOf(err) != CodeNetwork {
		t.Errorf("error %v", err)
	}
}

// A chain that the protocol has no asset for is paid on when the caller names one, with the domain that is offered.
func TestOwnAsset(t *testing.T) {
	n := x402.Network{ID: x402.CAIP2(31337), ChainID: 31337, Asset: x402.Asset{
		Address: common.HexToAddress("0x00000000000000000000000000000000000000aa"), Symbol: "T", Name: "Test", Version: "9", Decimals: 2,
	}}
	s := newSeller(t)
	s.network, s.accepts = n, []x402.Requirements{price(n, 5, "")}
	c, _ := newClient(t)
	unnamed := n
	unnamed.Asset.Name, unnamed.Asset.Version = "", ""
	var err error
	if c.Limits, err = Limits("0.05", unnamed); err != nil {
		t.Fatal(err)
	}
	resp, _, err := c.Do(get(t, s.URL))
	if err != nil {
		t.Fatal(err)
	}
	text(t, resp)
	s.accepts[0].Extra.Name = ""
	if _, err := without(t, c.Do, get(t, s.URL)); CodeOf(err) != CodeNoOffer {
		t.Errorf("without a domain: %v", err)
	}
}

// Redirects on the same host are followed to the offer; money goes to the URL that asked for it, on the host that was
// asked, and to nobody else.
func TestRedirects(t *testing.T) {
	s := newSeller(t)
	hits := make(chan http.Header, 16)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits <- r.Header
		s.ServeHTTP(w, r)
	}))
	defer other.Close()
	front := newFront(t, s)

	t.Run("same host", func(t *testing.T) {
		c, _ := newClient(t)
		resp, r, err := c.Do(get(t, front.URL+"/here"))
		if err != nil {
			t.Fatal(err)
		}
		text(t, resp)
		if r.URL.Path != "/x" || !r.Paid() {
			t.Errorf("paid at %s", r.URL)
		}
	})
	t.Run("post that becomes get", func(t *testing.T) {
		c, _ := newClient(t)
		req := must(http.NewRequestWithContext(t.Context(), http.MethodPost, front.URL+"/see", strings.NewReader("body")))
		resp, r, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text(t, resp)
		if r.Method != http.MethodGet {
			t.Errorf("paid with %s", r.Method)
		}
	})
	t.Run("offer of another host", func(t *testing.T) {
		c, _ := newClient(t)
		c.HTTP.CheckRedirect = func(*http.Request, []*http.Request) error { return nil }
		r, err := without(t, c.Do, get(t, front.URL+"/away?to="+other.URL))
		if CodeOf(err) != CodeRedirected || r.Authorization != nil {
			t.Errorf("error %v", err)
		}
		<-hits
	})
	t.Run("another host is not even asked", func(t *testing.T) {
		c, _ := newClient(t)
		resp, r, err := c.Do(get(t, front.URL+"/away?to="+other.URL))
		if err != nil || resp.StatusCode != http.StatusFound || len(r.Attempts) != 1 {
			t.Fatalf("error %v", err)
		}
		text(t, resp)
	})
	t.Run("redirect of a payment", func(t *testing.T) {
		for _, to := range []string{other.URL + "/steal", "/x"} {
			for _, status := range []int{302, 307, 308} {
				s.before = func(w http.ResponseWriter, r *http.Request, _ int) bool {
					http.Redirect(w, r, to, status)
					return true
				}
				c, _ := newClient(t)
				c.HTTP.CheckRedirect = func(*http.Request, []*http.Request) error { return nil }
				resp, r, err := c.Do(get(t, s.URL+"/y"))
				if err != nil {
					t.Fatal(err)
				}
				text(t, resp)
				if resp.StatusCode != status || r.Paid() || len(r.Attempts) != 2 {
					t.Errorf("%d to %s: %d", status, to, resp.StatusCode)
				}
			}
		}
	})
	if len(hits) != 0 {
		t.Errorf("another host got a request with %v", <-hits)
	}
}

// newFront is a host whose pages lead to s.
func newFront(t *testing.T, s *seller) *httptest.Server {
	t.Helper()
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/here":
			http.Redirect(w, r, "/x", http.StatusTemporaryRedirect)
		case "/see":
			http.Redirect(w, r, "/x", http.StatusSeeOther)
		case "/away":
			http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusFound)
		default:
			s.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(front.Close)
	return front
}

func TestSameHost(t *testing.T) {
	for _, tc := range []struct {
		from, to string
		want     bool
	}{
		{"http://a.example/x", "http://A.example:80/y", true},
		{"http://a.example", "https://a.example", true},
		{"http://a.example:8080", "https://a.example:8443", true},
		{"https://a.example", "https://a.example:443", true},
		{"https://a.example", "http://a.example", false},
		{"https://a.example", "https://a.example:444", false},
		{"https://a.example", "https://www.a.example", false},
		{"https://a.example", "https://a.example.evil.example", false},
		{"http://a.example", "ftp://a.example", false},
	} {
		from, to := get(t, tc.from).URL, get(t, tc.to).URL
		if got := sameHost(from, to); got != tc.want {
			t.Errorf("%s to %s: %v", tc.from, tc.to, got)
		}
	}
}

// What can't be sent twice, or carries a payment already, is refused before anything is sent.
func TestBadRequests(t *testing.T) {
	s := newSeller(t)
	post := func(body io.Reader) *http.Request {
		return must(http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, body))
	}
	for name, tc := range map[string]struct {
		req    *http.Request
		change func(*http.Request, *Client)
	}{
		"body too long":    {post(io.MultiReader(strings.NewReader("12345"))), func(_ *http.Request, c *Client) { c.MaxBody = 4 }},
		"unreadable body":  {post(io.MultiReader(badReader{})), func(*http.Request, *Client) {}},
		"payment":          {post(nil), func(r *http.Request, _ *Client) { r.Header.Set("PAYMENT-SIGNATURE", "x") }},
		"payment, folded":  {post(nil), func(r *http.Request, _ *Client) { r.Header["x_payment"] = []string{"x"} }},
		"no key":           {post(nil), func(_ *http.Request, c *Client) { c.Key = nil }},
		"no absolute URL":  {post(nil), func(r *http.Request, _ *Client) { r.URL.Host = "" }},
		"no scheme of web": {post(nil), func(r *http.Request, _ *Client) { r.URL.Scheme = "ftp" }},
	} {
		c, _ := newClient(t)
		tc.change(tc.req, c)
		if r, err := without(t, c.Do, tc.req); CodeOf(err) != CodeRequest || r == nil || len(r.Attempts) != 0 {
			t.Errorf("%s: error %v", name, err)
		}
	}
	c, _ := newClient(t)
	for name, p := range map[string]Payment{
		"empty":        {},
		"no payment":   {Header: x402.HeaderSignature, Value: "e30="},
		"other header": {Header: "Authorization", Value: Secret(signedPayment(t, s))},
		"v1's header":  {Header: x402.HeaderPaymentV1, Value: Secret(signedPayment(t, s))},
	} {
		if _, err := without(t, c.resuming(p), get(t, s.URL)); CodeOf(err) != CodeRequest {
			t.Errorf("resume with %s: %v", name, err)
		}
	}
	if payments, _ := s.got(); len(payments) != 0 {
		t.Errorf("%d payments were sent", len(payments))
	}
}

// signedPayment is a payment header that was never sent.
func signedPayment(t *testing.T, s *seller) string {
	t.Helper()
	c, _ := newClient(t)
	var value string
	c.OnSigned = func(r *Report) error { value = string(r.Payment.Value); return io.EOF }
	if _, err := without(t, c.Do, get(t, s.URL)); CodeOf(err) != CodeDeclined || value == "" {
		t.Fatalf("error %v", err)
	}
	return value
}

type badReader struct{}

func (badReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
