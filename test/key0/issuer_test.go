package key0

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// till is a second site of the shop, on which everything has one price, and a plan's credential is the seller's own to issue.
const (
	till = `
	metrics /metrics
	x402_service
	x402 {
		name till
		price $0.01 {
			name one
			match {
				path /one/*
			}
			route one GET /one/:x
		}
		price $0.01 {
			name two
			match {
				path /two/*
			}
			route two GET /two/:x
		}
		plan key $0.01 {
			ttl 1h
			issuer {issuer}/internal/issue-token {
				auth bearer ` + issuerSecret + `
				timeout 2s
				retries 0
				field product weather
			}
		}
		plan pass $0.01 {
			ttl 1h
		}
		unpriced free
	}
	reverse_proxy {upstream}
`
	tillPrice    = 10_000
	issuerSecret = "s3cret-of-the-issuer"
	issuerWords  = "the backend's own words about customer 4711"
)

// till gives the options of the second site; app stands in the global option x402.
func (s *shop) till(refund string, app ...string) rig.Options {
	o := s.options
	o.Site = strings.Replace(till, "{issuer}", s.issuer.URL, 1)
	o.Refund = refund
	o.App += "\n" + strings.Join(app, "\n")
	return o
}

// load gives the shop another configuration, and its own again when the test is over.
func (s *shop) load(t *testing.T, o rig.Options) {
	t.Helper()
	s.Load(o)
	t.Cleanup(func() { s.Load(s.options) })
}

// issuer is what Key0 calls ISSUE_TOKEN_API. It issues a new credential each time that it is asked.
type issuer struct {
	*httptest.Server
	mu    sync.Mutex
	does  string // "": it issues; "fail", "sleep"
	asked []question
}

type question struct {
	key, proof string
	body       map[string]any
}

func newIssuer(t *testing.T) *issuer {
	i := new(issuer)
	i.Server = httptest.NewServer(i)
	t.Cleanup(i.Close)
	return i
}

// now makes it issue, fail or sleep from now on.
func (i *issuer) now(does string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.does = does
}

// questions are those since the last call.
func (i *issuer) questions() []question {
	i.mu.Lock()
	defer i.mu.Unlock()
	asked := i.asked
	i.asked = nil
	return asked
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := question{key: r.Header.Get("Idempotency-Key"), proof: r.Header.Get("Authorization")}
	raw, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(raw, &q.body)
	i.mu.Lock()
	i.asked = append(i.asked, q)
	does, n := i.does, len(i.asked)
	i.mu.Unlock()
	switch does {
	case "fail":
		http.Error(w, issuerWords, http.StatusInternalServerError)
	case "sleep":
		<-r.Context().Done()
	default:
		_, _ = fmt.Fprintf(w, `{"token":"credential-%d-of-%s","tokenType":"Bearer"}`, n, q.key)
	}
}

// unissued fails unless a says that its plan is paid and can't be given out yet.
func (s *shop) unissued(t *testing.T, a rig.Answer, status int, code string) {
	t.Helper()
	r := refused(t, a, status, code)
	if !r.Details.Retryable || r.Details.Payment == "" || a.Header.Get("X-Payment-Status") != "paid" || a.Header.Get(x402.HeaderResponse) == "" {
		t.Errorf("its payer is told %s %v", a.Body, a.Header)
	}
	if strings.Contains(a.Body, "4711") {
		t.Errorf("its payer is told what the issuer says: %s", a.Body)
	}
	if p := s.status(t, r.Details.Payment); p.State != "PAID" || p.Transaction == "" {
		t.Errorf("the payment is %+v", p)
	}
}

// tokenIssuanceFailure: Key0 answers 500, and charges whoever tries again anew (W12). Here the same header, or a fresh signature of the
// same payer, gets what was paid for.
func tokenIssuanceFailure(t *testing.T, s *shop) {
	s.load(t, s.till("refunds off"))
	s.issuer.questions()
	b := s.payer(t)
	what := body{"planId": "key", "requestId": name(), "resourceId": "resource-1"}
	r, offer := s.ask(t, b, what)
	header := b.Sign(offer, 0)
	var g grant
	s.spent(t, tillPrice, func() {
		for _, trouble := range []struct {
			does, code string
			status     int
		}{{"fail", "TOKEN_ISSUE_FAILED", http.StatusBadGateway}, {"sleep", "TOKEN_ISSUE_TIMEOUT", http.StatusGatewayTimeout}} {
			s.issuer.now(trouble.does)
			s.unissued(t, s.post(t, b, what, x402.HeaderSignature, header), trouble.status, trouble.code)
			if at := s.status(t, r.ChallengeID); at.State != "PAID" {
				t.Errorf("the challenge is %+v", at)
			}
		}
		s.issuer.now("")
		a := s.post(t, b, what, x402.HeaderSignature, header)
		if g = decode[grant](t, a); a.Status != http.StatusOK || g.ChallengeID != r.ChallengeID || !strings.HasPrefix(g.AccessToken, "credential-3-of-") {
			t.Fatalf("once the issuer answers: %d %s", a.Status, a.Body)
		}
		_, offer := s.ask(t, b, what)
		for how, h := range map[string]string{"the same header": header, "a fresh signature": b.Sign(offer, 0)} {
			if again := decode[grant](t, s.post(t, b, what, x402.HeaderSignature, h)); again.AccessToken != g.AccessToken {
				t.Errorf("%s gets %+v, after %+v", how, again, g)
			}
		}
	})
	if at := s.status(t, r.ChallengeID); at.State != "DELIVERED" {
		t.Errorf("the challenge is %+v", at)
	}
	asked := s.issuer.questions()
	for _, q := range asked {
		if q.key != g.PaymentID || q.proof != "Bearer "+issuerSecret {
			t.Errorf("the issuer is asked under %s by %s, for %s", q.key, q.proof, g.PaymentID)
		}
		for name, want := range map[string]any{
			"requestId": r.RequestID, "challengeId": r.ChallengeID, "resourceId": "resource-1", "planId": "key", "txHash": g.TxHash,
			"unitAmount": "$0.01", "walletAddress": b.Account.Address.Hex(), "product": "weather",
		} {
			if q.body[name] != want {
				t.Errorf("the issuer is told %s = %v, want %v", name, q.body[name], want)
			}
		}
	}
	if len(asked) != 3 {
		t.Errorf("the issuer was asked %d times", len(asked))
	}
	if a := b.Get(s.URL("/one/x"), "Authorization", "Bearer "+g.AccessToken); a.Status != http.StatusOK {
		t.Errorf("the credential opens nothing: %d %s", a.Status, a.Body)
	}
}
