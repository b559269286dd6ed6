package key0

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// What the shop's things cost, in atomic units.
const (
	basicPrice   = 100_000
	premiumPrice = 1_000_000
	weatherPrice = 10_000
	jokePrice    = 5_000
)

// site is Key0's own test stack: its plan and its routes, and what its tests lack. {service} is replaced.
const site = `
	x402_service {
		name "Weather Agent"
		description "Weather, jokes and resources"
		provider "Example" https://example.com
		{service}
	}
	x402 {
		name shop
		description "Weather, jokes and resources"
		plan basic $0.10 {
			ttl 1h
		}
		plan premium $1.00 {
			ttl 1h
		}
		price $0.01 {
			name weather
			match {
				path /api/weather/*
			}
			route weather-query GET /api/weather/:city {
				description "Weather of a city"
				param city path string {
					description "The city"
				}
			}
		}
		price $0.005 {
			name joke
			match {
				path /api/joke
			}
			route joke-of-the-day GET /api/joke
		}
		price $0.01 {
			name rest
			match {
				path /api/fail /api/drop /api/echo/* /api/binary
			}
			route fail GET /api/fail
			route drop GET /api/drop
			route echo POST /api/echo/:name
			route binary GET /api/binary
			route cheap-but-dear GET /dear/report
		}
		price $5.00 {
			name dear
			match {
				path /dear/*
			}
		}
		price $0.50 {
			name resource
			match {
				path /api/resource/*
			}
		}
		route status GET /api/status
		unpriced free
	}
	reverse_proxy {upstream}
`

// shop is a site with a store of its own, and a new payer for whoever wants one.
type shop struct {
	*rig.Rig
	options rig.Options
	issuer  *issuer
	payers  atomic.Int64
}

func options(store, service string) rig.Options {
	return rig.Options{
		Store: store, Site: strings.Replace(site, "{service}", service, 1), App: "public_url http://127.0.0.1:{rig_port}", Upstream: weather,
	}
}

func newShop(t *testing.T, store string) *shop {
	o := options(store, "")
	return &shop{Rig: rig.New(t, o), options: o, issuer: newIssuer(t)}
}

// weather is the seller's API.
func weather(w http.ResponseWriter, r *http.Request) {
	answer := map[string]any{
		"planId": r.Header.Get("X-Payment-Plan"), "txHash": r.Header.Get("X-Payment-Transaction"), "payer": r.Header.Get("X-Payment-Payer"),
	}
	w.Header().Set("Content-Type", "application/json")
	var body io.Writer = w
	if r.URL.Path != "/api/binary" && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer z.Close()
		body = z
	}
	switch {
	case strings.HasPrefix(r.URL.Path, "/api/weather/"):
		answer["city"], answer["tempF"], answer["condition"] = strings.TrimPrefix(r.URL.Path, "/api/weather/"), 72, "sunny"
		answer["units"] = r.URL.Query().Get("units")
	case r.URL.Path == "/api/joke":
		answer["joke"] = "Why did the robot pay? It was 402."
	case r.URL.Path == "/api/status":
		answer["status"] = "ok"
	case r.URL.Path == "/api/fail":
		w.WriteHeader(http.StatusInternalServerError)
		answer["error"] = "broken"
	case r.URL.Path == "/api/drop":
		panic(http.ErrAbortHandler)
	case r.URL.Path == "/api/binary":
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(append([]byte{0, 0xff, 1}, make([]byte, len(r.URL.RawQuery)<<20)...)) // a mebibyte for each letter
		return
	default:
		answer["path"] = r.URL.Path
	}
	_ = json.NewEncoder(body).Encode(answer)
}

// payer is a new one, whom no plan of an earlier test covers.
func (s *shop) payer(t *testing.T) *rig.Buyer {
	return rig.NewBuyer(t, int(s.payers.Add(1)))
}

// body is a request to /x402/access.
type body map[string]any

func (s *shop) post(t *testing.T, b *rig.Buyer, what body, header ...string) rig.Answer {
	t.Helper()
	raw, err := json.Marshal(what)
	if err != nil {
		t.Fatal(err)
	}
	return b.Do(t.Context(), http.MethodPost, s.URL("/x402/access"), string(raw), append([]string{"Content-Type", "application/json"}, header...)...)
}

// ask is a post without payment, that is answered with an offer.
func (s *shop) ask(t *testing.T, b *rig.Buyer, what body) (required, x402.PaymentRequired) {
	t.Helper()
	a := patiently(func() rig.Answer { return s.post(t, b, what) })
	if a.Err != nil || a.Status != http.StatusPaymentRequired {
		t.Fatalf("asking for %v: %d %v %s", what, a.Status, a.Err, a.Body)
	}
	return decode[required](t, a), rig.Offered(t, a)
}

// patiently asks again where the connection had come to a server that a reload was about to stop.
func patiently(ask func() rig.Answer) (a rig.Answer) {
	for range 4 {
		if a = ask(); !errors.Is(a.Err, io.EOF) && !errors.Is(a.Err, syscall.ECONNRESET) {
			return a
		}
	}
	return a
}

// buy asks and pays.
func (s *shop) buy(t *testing.T, b *rig.Buyer, what body) (a rig.Answer, header string) {
	t.Helper()
	_, offer := s.ask(t, b, what)
	header = b.Sign(offer, 0)
	return s.post(t, b, what, x402.HeaderSignature, header), header
}

func decode[T any](t *testing.T, a rig.Answer) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.Body), &v); err != nil {
		t.Fatalf("%d %q: %v", a.Status, a.Body, err)
	}
	return v
}

// required is the body of a 402.
type required struct {
	X402Version int `json:"x402Version"`
	Resource    struct {
		URL, Method, Description, MimeType string
	} `json:"resource"`
	Accepts []struct {
		Scheme, Network, Asset, Amount, PayTo string
		MaxTimeoutSeconds                     int
		Extra                                 struct{ Name, Version string }
	} `json:"accepts"`
	Extensions  map[string]json.RawMessage `json:"extensions"`
	ChallengeID string                     `json:"challengeId"`
	RequestID   string                     `json:"requestId"`
	Error       string                     `json:"error"`
}

type grant struct {
	Type, ChallengeID, RequestID, AccessToken, TokenType, ResourceEndpoint, ResourceID, PlanID, TxHash, ExplorerURL string
	ExpiresAt                                                                                                       time.Time
	PaymentID                                                                                                       string
}

type resource struct {
	Type, ChallengeID, RequestID, RouteID, TxHash, ExplorerURL, PaymentID string
	AccessToken, TokenType, ResourceEndpoint                              *string
	Resource                                                              struct {
		Status   int
		Headers  map[string]string
		Body     json.RawMessage
		Encoding string
	}
}

// refusal is an error in Key0's form.
type refusal struct {
	Type, Code, Error, Message string
	Details                    struct {
		Reason, Payment string
		Retryable       bool
	}
}

// status is the answer of /x402/payments/{id}.
type status struct {
	State, RequestID, PlanID, RouteID, Network, Asset, Amount, PayTo, ChallengeID string
	Payment                                                                       json.RawMessage
	Transaction                                                                   string
}

func (s *shop) status(t *testing.T, id string) status {
	t.Helper()
	a := patiently(func() rig.Answer { return rig.NewBuyer(t, 0).Get(s.URL("/x402/payments/" + id)) })
	if a.Status != http.StatusOK {
		t.Fatalf("the status of %s: %d %v %s", id, a.Status, a.Err, a.Body)
	}
	return decode[status](t, a)
}

// wantGrant buys a plan and checks the grant.
func (s *shop) wantGrant(t *testing.T, b *rig.Buyer, what body) (grant, string) {
	t.Helper()
	a, header := s.buy(t, b, what)
	if a.Err != nil || a.Status != http.StatusOK {
		t.Fatalf("buying %v: %d %v %s", what, a.Status, a.Err, a.Body)
	}
	g := decode[grant](t, a)
	if g.Type != "AccessGrant" || g.AccessToken == "" {
		t.Fatalf("the grant is %s", a.Body)
	}
	return g, header
}

// refused fails unless a is an error of this status and code.
func refused(t *testing.T, a rig.Answer, status int, code string) refusal {
	t.Helper()
	if a.Err != nil || a.Status != status {
		t.Fatalf("answered %d %v %s, want %d %s", a.Status, a.Err, a.Body, status, code)
	}
	r := decode[refusal](t, a)
	if r.Code != code || r.Message+r.Error == "" || code != "" && r.Type != "Error" {
		t.Fatalf("refused with %s, want %s", a.Body, code)
	}
	return r
}

// spent runs f, and fails unless the seller has then earned so much more.
func (s *shop) spent(t *testing.T, want uint64, f func()) {
	t.Helper()
	before := s.Earned()
	f()
	if got := s.Earned() - before; got != want {
		t.Errorf("%d atomic units were paid, want %d", got, want)
	}
}

// eventually waits for what another part does in its own time.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("in vain waited for", what)
		}
	}
}

var names atomic.Int64

// name is a request id that nobody has used.
func name() string { return fmt.Sprintf("6ba7b810-9dad-41d1-80b4-%012d", names.Add(1)) }

// call is what a route is called with.
func call(method, path string, rest ...any) body {
	r := body{"method": method, "path": path}
	if len(rest) > 0 {
		r["body"] = rest[0]
	}
	return r
}
