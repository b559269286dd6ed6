package doctor_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/management/doctor"
	"github.com/caddy-x402/caddy-x402/x402"
)

var (
	now    = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	payTo  = common.HexToAddress("0x209693Bc6afc0C5328bA36FaF03C514EF312287C")
	gas    = common.HexToAddress("0x1000000000000000000000000000000000000001")
	refund = common.HexToAddress("0x2000000000000000000000000000000000000002")
	paidBy = common.HexToHash("0x01")
)

// world is what the live things answer.
type world struct {
	endpoint  doctor.Endpoint
	token     doctor.Token
	shutOut   common.Address
	wei       map[common.Address]*big.Int
	balance   uint64
	mined     bool
	states    map[string]int64
	keys      []doctor.APIKey
	tokenKey  time.Duration
	metrics   string
	ledger    error
	probe     doctor.Probe
	made      []doctor.Webhook
	probed    map[string]doctor.Probe
	payment   doctor.Payment
	health    string
	card      string
	required  bool // the header is there
	allowed   string
	origin    string // whose pages may pay
	policy    string
	redirects bool
}

func (w *world) Endpoints(context.Context) []doctor.Endpoint { return []doctor.Endpoint{w.endpoint} }

func (w *world) Token(context.Context) (doctor.Token, error) { return w.token, nil }

func (w *world) Blacklisted(_ context.Context, a common.Address) (bool, error) {
	return a == w.shutOut, nil
}

func (w *world) Ether(_ context.Context, a common.Address) (*big.Int, error) {
	if wei := w.wei[a]; wei != nil {
		return wei, nil
	}
	return big.NewInt(1e17), nil
}

func (w *world) Balance(context.Context, common.Address) (uint256.Int, error) {
	return *uint256.NewInt(w.balance), nil
}

func (w *world) Succeeded(context.Context, common.Hash) (bool, error) { return w.mined, nil }

func (w *world) APIKeys(context.Context) ([]doctor.APIKey, error) { return w.keys, nil }

func (w *world) TokenKeyAge(context.Context) (time.Duration, error) { return w.tokenKey, nil }

func (w *world) States(context.Context) (map[string]int64, error) { return w.states, nil }

func (w *world) Metrics(context.Context) (string, error) { return w.metrics, nil }

func (w *world) Webhooks(context.Context) ([]doctor.Webhook, error) { return w.made, nil }

func (w *world) ProbeWebhook(_ context.Context, id string) (doctor.Probe, error) {
	return w.probed[id], nil
}

// ServeHTTP is the site.
func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	switch {
	case w.redirects:
		http.Redirect(rw, r, "https://elsewhere.invalid/", http.StatusMovedPermanently)
	case r.URL.Path == "/health":
		if w.health != "ok" {
			rw.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = fmt.Fprintf(rw, `{"status":%q,"ledger":"ok"}`, w.health)
	case r.URL.Path == "/.well-known/agent.json":
		_, _ = fmt.Fprintf(rw, `{"url":%q}`, w.card)
	case r.Method == http.MethodOptions:
		if w.origin == "*" || w.origin == r.Header.Get("Origin") && w.origin != "" {
			rw.Header().Set("Access-Control-Allow-Origin", w.origin)
		}
		rw.Header().Set("Access-Control-Allow-Headers", w.allowed)
		rw.WriteHeader(http.StatusNoContent)
	default:
		if w.required {
			text, _ := json.Marshal(x402.PaymentRequired{X402Version: 2, Accepts: []x402.Requirements{{
				Scheme: "exact", Network: "eip155:8453", PayTo: payTo.Hex(), Asset: base().Asset.Address.Hex(), Amount: "10000",
			}}})
			rw.Header().Set(x402.HeaderRequired, base64.StdEncoding.EncodeToString(text))
		}
		if w.policy != "" {
			rw.Header().Set("RateLimit-Policy", w.policy)
		}
		rw.WriteHeader(http.StatusPaymentRequired)
	}
}

func base() x402.Network {
	n, _ := x402.LookupNetwork("base")
	return n
}

// soundShop is a shop on a mainnet, with all as it must be.
func soundShop(t *testing.T) (*doctor.Subject, *world) {
	t.Helper()
	n := base()
	w := &world{
		endpoint: doctor.Endpoint{ChainID: n.ChainID, Dated: true},
		token:    doctor.Token{Separator: n.Domain().Separator(), Decimals: n.Asset.Decimals},
		wei:      map[common.Address]*big.Int{}, balance: 100e6, mined: true, states: map[string]int64{"DELIVERED": 9},
		keys:    []doctor.APIKey{{ID: "ak_1", Mode: "live", CreatedAt: now.Add(-24 * time.Hour)}},
		metrics: `caddy_x402_payments{state="PAID"} 0`, health: "ok", required: true, allowed: "PAYMENT-SIGNATURE", origin: "*", policy: `"client";q=300;w=60`,
		payment: doctor.Payment{Status: http.StatusOK, Network: n.ID, Transaction: paidBy},
	}
	server := httptest.NewTLSServer(w)
	t.Cleanup(server.Close)
	hc := server.Client()
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	w.card = "https://shop.test.net"
	rules := read(t, "../../deploy/observe/alerts.yml")
	deployment := "services:\n  shop:\n    image: caddy-x402:1.2.3\n"
	s := &doctor.Subject{
		Secrets:  []doctor.Secret{{Name: "gas", Placeholder: "{env.GAS}", Print: "a"}, {Name: "refund", Placeholder: "{env.REFUND}", Print: "b"}},
		Logs:     []doctor.Log{{Name: "default", Redacted: true}},
		Networks: []doctor.Network{{Network: n, PayTo: payTo, Endpoints: 2, Settler: "wallet", Plain: true, WarnWei: big.NewInt(1e15), Dearest: *uint256.NewInt(1e6)}},
		Wallets: []doctor.Wallet{
			{Role: "pay_to", Network: n.ID, Address: payTo}, {Role: "gas", Network: n.ID, Address: gas}, {Role: "refund", Address: refund},
		},
		Refunds: doctor.Refunds{On: true, Known: true, Wallet: refund, MinAge: 5 * time.Minute, Interval: time.Minute}, SettleTimeout: 45 * time.Second,
		Store: doctor.Store{Kind: "sqlite", Path: "/data/ledger.db", Files: true}, Instances: 1,
		PublicURL:  "https://shop.test.net",
		Handlers:   []doctor.Handler{{Name: "/x/*", Idempotency: "optional", CORS: true, Limits: []string{"client"}, Upfront: true, Prices: []doctor.Price{{What: "requests", Amount: "$0.01"}}}},
		Service:    true,
		Management: &doctor.Management{KeyMaxAge: 90 * 24 * time.Hour},
		Webhooks:   []doctor.Webhook{{URL: "https://receiver.test.net/hook", Live: true, Prints: []string{"1"}}},
		Metrics:    true, Alerts: &rules, Deployment: &deployment,
	}
	s.Live = &doctor.Asked{
		Now: func() time.Time { return now }, Chains: map[string]doctor.Chain{n.ID: w}, HTTP: &http.Client{
			Transport: to{server, hc.Transport}, CheckRedirect: hc.CheckRedirect,
		},
		PaidURL: "https://shop.test.net/x/1", Ledger: func(context.Context) error { return w.ledger }, Instance: w,
		Probe: func(context.Context, int) (doctor.Probe, error) { return w.probe, nil },
		Pay:   func(context.Context, string) (doctor.Payment, error) { return w.payment, nil },
	}
	return s, w
}

// to sends all requests to a server, whatever their address is.
type to struct {
	server *httptest.Server
	next   http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t to) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Host = strings.TrimPrefix(t.server.URL, "https://")
	return t.next.RoundTrip(r)
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.FromSlash(file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A shop that is sound passes everything, and nothing is left out.
func TestASoundShopPasses(t *testing.T) {
	s, _ := soundShop(t)
	r := doctor.Run(t.Context(), s, doctor.Options{Depth: doctor.Pay})
	for _, i := range r.Items {
		if i.Status != doctor.OK || i.Found == "" || i.Why != "" {
			t.Errorf("%+v", i)
		}
	}
	if !r.OK || len(r.Failed()) > 0 || r.Counts[doctor.OK] != len(doctor.Items()) {
		t.Errorf("%v", r.Counts)
	}
}

// without takes a word out of the rules.
func without(s *doctor.Subject, word string) {
	s.Alerts = new(strings.ReplaceAll(*s.Alerts, word, "x"))
}

// Each item is broken, by itself, and named; and so no item is there that nothing could break.
func TestEachBrokenItemIsNamed(t *testing.T) {
	for _, item := range doctor.Items() {
		if len(breaks[item.ID]) == 0 {
			t.Errorf("nothing breaks %s", item.ID)
		}
		for i, f := range breaks[item.ID] {
			t.Run(fmt.Sprintf("%s/%d", item.ID, i+1), func(t *testing.T) {
				s, w := soundShop(t)
				f(s, w)
				r := doctor.Run(t.Context(), s, doctor.Options{Depth: doctor.Pay})
				for _, got := range r.Items {
					broken := got.Status == doctor.Fail || got.Status == doctor.Warn
					switch {
					case got.ID != item.ID && broken:
						t.Errorf("%s fell with it: %+v", got.ID, got)
					case got.ID == item.ID && (!broken || got.Found == "" || got.Why == "" || got.Do == ""):
						t.Errorf("%+v", got)
					}
				}
			})
		}
	}
}

// Without being asked to, nothing is asked, and nothing is bought.
func TestNothingIsAskedUnlessItIsWanted(t *testing.T) {
	s, _ := soundShop(t)
	live := s.Live
	s.Live = nil
	if r := doctor.Run(t.Context(), s, doctor.Options{}); !r.OK || r.Counts[doctor.Skipped] == 0 {
		t.Errorf("%v %v", r.Failed(), r.Counts)
	}
	s.Live = live
	s.Live.Pay = func(context.Context, string) (doctor.Payment, error) {
		t.Error("it has paid")
		return doctor.Payment{}, nil
	}
	if r := doctor.Run(t.Context(), s, doctor.Options{Depth: doctor.Live}); !r.OK || r.Counts[doctor.Skipped] != 1 {
		t.Errorf("%v %v", r.Failed(), r.Counts)
	}
	// What was asked for and can't be found out has failed.
	s.Live = nil
	if r := doctor.Run(t.Context(), s, doctor.Options{Depth: doctor.Live, Only: []string{"store.writes"}}); r.OK || len(r.Items) != 1 {
		t.Errorf("%+v", r)
	}
}

// A Caddy that does not answer fails what only it can tell, and nothing else.
func TestNoInstance(t *testing.T) {
	s, _ := soundShop(t)
	s.Live.Instance = nil
	r := doctor.Run(t.Context(), s, doctor.Options{Depth: doctor.Live})
	if want := []string{"refund.states", "apikeys.live", "apikeys.age", "metrics.read"}; !slices.Equal(r.Failed(), want) {
		t.Errorf("%v", r.Failed())
	}
}

// A client with a payment follows no redirect, so a site that redirects is not reached.
func TestRedirectedSite(t *testing.T) {
	s, w := soundShop(t)
	w.redirects = true
	r := doctor.Run(t.Context(), s, doctor.Options{Depth: doctor.Live, Only: []string{"public_url.reached"}})
	if !slices.Equal(r.Failed(), []string{"public_url.reached"}) {
		t.Errorf("%+v", r.Items)
	}
}

// What is not as in the shop above, and is sound all the same or needs somebody to think about it.
func TestOtherShops(t *testing.T) {
	for name, c := range map[string]struct {
		item   string
		depth  doctor.Depth
		change func(*doctor.Subject, *world)
		want   doctor.Status
	}{
		"payers alone are counted, and not told before they pay": {"limits.told", doctor.Live, func(s *doctor.Subject, w *world) {
			s.Handlers[0].Limits, w.policy = []string{"payer"}, ""
		}, doctor.Skipped},
		"nothing is charged before it is delivered": {"refund.on", doctor.Config, func(s *doctor.Subject, _ *world) {
			s.Refunds.On, s.Handlers[0].Upfront = false, false
		}, doctor.OK},
		"the API may have made a webhook": {"webhooks.endpoint", doctor.Config, func(s *doctor.Subject, _ *world) { s.Webhooks = nil }, doctor.Warn},
		"nothing can have made one": {"webhooks.endpoint", doctor.Config, func(s *doctor.Subject, _ *world) {
			s.Webhooks, s.Management = nil, nil
		}, doctor.Fail},
		"the API has made one": {"webhooks.endpoint", doctor.Live, func(s *doctor.Subject, w *world) {
			s.Webhooks, w.made = nil, []doctor.Webhook{{ID: "we_1", URL: "https://made.test.net", Live: true}}
		}, doctor.OK},
		"what it has made is for test networks": {"webhooks.endpoint", doctor.Live, func(s *doctor.Subject, w *world) {
			s.Webhooks, w.made = nil, []doctor.Webhook{{ID: "we_1", URL: "https://made.test.net"}}
		}, doctor.Fail},
		"it has made one, and that is told of what was settled": {"events.told", doctor.Live, func(s *doctor.Subject, w *world) {
			s.Webhooks, w.made = nil, []doctor.Webhook{{ID: "we_1", URL: "https://made.test.net", Live: true, Events: []string{"payment.settled"}}}
		}, doctor.OK},
		"a buyer's key is old": {"apikeys.age", doctor.Live, func(_ *doctor.Subject, w *world) {
			w.keys = append(w.keys, doctor.APIKey{ID: "ak_2", Mode: "live", Consumer: true})
		}, doctor.OK},
		"a successor is there": {"apikeys.age", doctor.Live, func(_ *doctor.Subject, w *world) {
			w.keys = append(w.keys, doctor.APIKey{ID: "ak_2", Mode: "live", Superseded: true})
		}, doctor.OK},
		"facilitators pay": {"wallet.gas", doctor.Live, func(s *doctor.Subject, _ *world) {
			s.Wallets, s.Networks[0].Settler, s.Networks[0].Plain = s.Wallets[:1], "facilitator", false
		}, doctor.Skipped},
	} {
		t.Run(name, func(t *testing.T) {
			s, w := soundShop(t)
			c.change(s, w)
			r := doctor.Run(t.Context(), s, doctor.Options{Depth: c.depth, Only: []string{c.item}})
			if len(r.Items) != 1 || r.Items[0].Status != c.want {
				t.Errorf("%+v", r.Items)
			}
		})
	}
}

func TestImages(t *testing.T) {
	for text, sound := range map[string]bool{
		"FROM caddy:2.11.9-builder AS build\nFROM build\nFROM caddy@sha256:abc": true,
		"ARG V=2\nFROM caddy:${V}-alpine":                                       true,
		"containers:\n  - image: \"caddy-x402:v1\" # ours":                      true,
		"  - name: shop\n    image: caddy-x402":                                 false,
		"FROM --platform=linux/amd64 caddy:latest AS x":                         false,
		"image: caddy-x402:stable":                                              false,
	} {
		s, _ := soundShop(t)
		s.Deployment = &text
		if r := doctor.Run(t.Context(), s, doctor.Options{Only: []string{"image.pinned"}}); r.OK != sound {
			t.Errorf("%q: %+v", text, r.Items)
		}
	}
}

func TestWeakness(t *testing.T) {
	for secret, weak := range map[string]bool{
		"short":                             true,
		strings.Repeat("a", 64):             true,
		strings.Repeat("ab", 32):            true,
		"changeme-changeme-changeme-xyz123": true,
		"9vQ2kXr7LwPz4TnYb8HcJd6MfGs1AeUo":  false,
		"0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80": false,
	} {
		if got := doctor.Weakness(secret); (got != "") != weak {
			t.Errorf("%q: %q", secret, got)
		}
	}
}
