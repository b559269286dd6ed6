package key0

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

func jsonRPC(t *testing.T, s *shop) {
	b := s.payer(t)
	refused(t, s.post(t, b, body{}), http.StatusBadRequest, "")
	id := name()
	what := body{"planId": "basic", "requestId": id, "resourceId": "r1", "clientAgentId": "a", "callbackUrl": "https://example.com"}
	a := s.post(t, b, what)
	r := decode[required](t, a)
	if a.Status != http.StatusPaymentRequired || r.Error != "Payment required" || r.ChallengeID == "" || r.RequestID != id || len(r.Accepts) != 1 {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	if p := r.Accepts[0]; p.Scheme != "exact" || p.Network != "eip155:84532" || p.Amount != "100000" || p.PayTo != rig.PayTo.Hex() || p.Extra.Name != "USDC" || p.Extra.Version != "2" {
		t.Errorf("to be paid is %+v", p)
	}
	if r.Resource.URL != s.URL("/x402/access") || r.Resource.Method != http.MethodPost || r.Resource.Description != "Access to r1" || r.Extensions["key0"] == nil {
		t.Errorf("what is paid for is %s", a.Body)
	}
	if want := `Payment realm="` + s.URL("") + `", accept="exact", challenge="` + r.ChallengeID + `"`; a.Header.Get("Www-Authenticate") != want {
		t.Errorf("WWW-Authenticate is %s, want %s", a.Header.Get("Www-Authenticate"), want)
	}
	offer := rig.Offered(t, a)
	if offer.X402Version != 2 || offer.Accepts[0].Scheme != "exact" || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("the header holds %+v", offer)
	}
	s.spent(t, basicPrice, func() { a = s.post(t, b, what, x402.HeaderSignature, withoutEcho(t, b.Sign(offer, 0))) })
	g := decode[grant](t, a)
	if a.Status != http.StatusOK || g.Type != "AccessGrant" || g.TokenType != "Bearer" || len(g.TxHash) != 66 || g.ChallengeID != r.ChallengeID ||
		g.RequestID != id || g.ResourceID != "r1" || g.PlanID != "basic" || a.Header.Get(x402.HeaderResponse) == "" || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %s %v", a.Status, a.Body, a.Header)
	}
	// A2A's JSON-RPC is not served yet, and says so. Key0 takes the header and answers 404 for all of it (W25).
	refused(t, s.post(t, b, what, "X-A2a-Extensions", "x"), http.StatusNotImplemented, "A2A_NOT_SUPPORTED")
}

func happyPath(t *testing.T, s *shop) {
	b := s.payer(t)
	g, _ := s.wantGrant(t, b, body{"planId": "basic", "requestId": name(), "resourceId": "resource-1"})
	at := s.URL("/api/resource/resource-1")
	if a := b.Get(at, "Authorization", "Bearer "+g.AccessToken); a.Status != http.StatusOK || !strings.Contains(a.Body, "resource-1") {
		t.Errorf("with the token: %d %s", a.Status, a.Body)
	}
	// Key0's seller checks tokens by himself and answers 401. Here the gate does, where the same thing can be paid for: 402.
	for _, header := range [][]string{nil, {"Authorization", "Bearer not.a.token"}, {"Authorization", "Bearer " + g.AccessToken[:len(g.AccessToken)-4] + "AAAA"}} {
		if a := b.Get(at, header...); a.Status != http.StatusPaymentRequired {
			t.Errorf("with %v: %d %s", header, a.Status, a.Body)
		}
	}
}

func happyPathStates(t *testing.T, s *shop) {
	b, id := s.payer(t), name()
	r, offer := s.ask(t, b, body{"planId": "basic", "requestId": id})
	at := s.status(t, r.ChallengeID)
	if at.State != "PENDING" || at.RequestID != id || at.PlanID != "basic" || at.PayTo != rig.PayTo.Hex() || at.Network != "eip155:84532" || at.Amount != "100000" || at.Payment != nil {
		t.Errorf("the challenge is %+v", at)
	}
	g := decode[grant](t, s.post(t, b, body{"planId": "basic", "requestId": id}, x402.HeaderSignature, b.Sign(offer, 0)))
	if !strings.HasPrefix(g.ExplorerURL, "https://sepolia.basescan.org/tx/") || !strings.HasSuffix(g.ExplorerURL, g.TxHash) || g.ResourceEndpoint != s.URL("/") {
		t.Errorf("the grant is %+v", g)
	}
	// The grant goes out once its delivery is on record, so nothing is to be waited for.
	if at = s.status(t, r.ChallengeID); at.State != "DELIVERED" || at.Payment == nil {
		t.Errorf("the challenge is %+v", at)
	}
	if p := s.status(t, g.PaymentID); p.State != "DELIVERED" || p.Transaction != g.TxHash {
		t.Errorf("the payment is %+v", p)
	}
	// Key0's audit trail begins with the challenge. Here it is the payment's, and begins with its claim: a challenge is asked for by anybody,
	// and stays in no book. The trails themselves are tested by test/operator.
}

func idempotentChallenge(t *testing.T, s *shop) {
	b, id := s.payer(t), name()
	first, _ := s.ask(t, b, body{"planId": "basic", "requestId": id})
	for range 2 {
		again, _ := s.ask(t, b, body{"planId": "basic", "requestId": id})
		if again.ChallengeID != first.ChallengeID || again.Accepts[0] != first.Accepts[0] {
			t.Errorf("the same request has the challenges %+v and %+v", first, again)
		}
	}
	other, _ := s.ask(t, b, body{"planId": "basic", "requestId": name()})
	if other.ChallengeID == first.ChallengeID {
		t.Error("two requests have one challenge")
	}
}

func cancelChallenge(t *testing.T, s *shop) {
	b := s.payer(t)
	what := body{"planId": "basic", "requestId": name()}
	r, offer := s.ask(t, b, what)
	cancel := func(want int, state string) {
		t.Helper()
		a := b.Do(t.Context(), http.MethodDelete, s.URL("/x402/payments/"+r.ChallengeID), "")
		if a.Status != want || decode[status](t, a).State != state {
			t.Errorf("cancelling: %d %s, want %d %s", a.Status, a.Body, want, state)
		}
	}
	cancel(http.StatusOK, "CANCELLED")
	cancel(http.StatusOK, "CANCELLED")
	s.spent(t, 0, func() {
		refused(t, s.post(t, b, what, x402.HeaderSignature, b.Sign(offer, 0)), http.StatusGone, "CHALLENGE_EXPIRED")
	})
	if at := s.status(t, r.ChallengeID); at.State != "CANCELLED" {
		t.Errorf("the challenge is %+v", at)
	}
	again, offer := s.ask(t, b, what)
	if again.ChallengeID == r.ChallengeID || s.status(t, again.ChallengeID).State != "PENDING" {
		t.Errorf("after it was cancelled: %+v", again)
	}
	// What is paid can't be cancelled, and a stranger's guess is nobody's challenge.
	if a := s.post(t, b, what, x402.HeaderSignature, b.Sign(offer, 0)); a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	r = again
	cancel(http.StatusConflict, "DELIVERED")
	guess := again.ChallengeID[:len(again.ChallengeID)-4] + "0000"
	refused(t, b.Do(t.Context(), http.MethodDelete, s.URL("/x402/payments/"+guess), ""), http.StatusNotFound, "CHALLENGE_NOT_FOUND")
}

// expiry: Key0's tests remove the index of a request, or write the state EXPIRED, since nothing else does (W13). Here time does.
func expiry(t *testing.T, s *shop) {
	s.Load(options(s.options.Store, "challenge_ttl 1s"))
	b := s.payer(t)
	what := body{"planId": "basic", "requestId": name()}
	r, offer := s.ask(t, b, what)
	header := b.Sign(offer, 0)
	eventually(t, "the challenge to expire", func() bool { return s.status(t, r.ChallengeID).State == "EXPIRED" })
	s.spent(t, 0, func() {
		late := patiently(func() rig.Answer { return s.post(t, b, what, x402.HeaderSignature, header) })
		refused(t, late, http.StatusGone, "CHALLENGE_EXPIRED")
	})
	if at := s.status(t, r.ChallengeID); at.State != "EXPIRED" {
		t.Errorf("the challenge is %+v", at)
	}
	s.Load(s.options)
	b.HTTP.CloseIdleConnections()
	again, offer := s.ask(t, b, what)
	if again.ChallengeID == r.ChallengeID {
		t.Error("an expired challenge came back")
	}
	header = b.Sign(offer, 0)
	g := patiently(func() rig.Answer { return s.post(t, b, what, x402.HeaderSignature, header) })
	if g.Status != http.StatusOK || decode[grant](t, g).ChallengeID != again.ChallengeID {
		t.Errorf("the new one: %d %s", g.Status, g.Body)
	}
}

// badPayments are authorizations and headers that pay nothing.
func badPayments(t *testing.T, s *shop) {
	b := s.payer(t)
	what := body{"planId": "basic", "requestId": name()}
	_, offer := s.ask(t, b, what)
	s.spent(t, 0, func() {
		for file, change := range map[string]func(*x402.Authorization){
			"expired-authorization": func(a *x402.Authorization) { a.ValidBefore = *uint256.NewInt(1) },
			"wrong-amount":          func(a *x402.Authorization) { a.Value = *uint256.NewInt(1) },
			"wrong-recipient":       func(a *x402.Authorization) { a.To = common.HexToAddress("0x000000000000000000000000000000000000dEaD") },
		} {
			r := refused(t, s.post(t, b, what, x402.HeaderSignature, b.Sign(offer, 0, change)), http.StatusPaymentRequired, "PAYMENT_FAILED")
			if r.Details.Reason == "" || !strings.HasPrefix(r.Message, "Payment verification failed: ") {
				t.Errorf("%s is refused with %+v", file, r)
			}
		}
		for _, header := range []string{"%%%", base64.StdEncoding.EncodeToString([]byte("not JSON")), base64.RawURLEncoding.EncodeToString([]byte("<<??>>"))} {
			r := refused(t, s.post(t, b, what, x402.HeaderSignature, header), http.StatusBadRequest, "INVALID_REQUEST")
			if !strings.HasPrefix(r.Message, "Invalid PAYMENT-SIGNATURE header: must be base64url-encoded JSON") {
				t.Errorf("%s is refused with %+v", header, r)
			}
		}
		for _, shape := range []string{`{}`, `{"x402Version":2,"payload":{}}`, `[1]`} {
			if a := s.post(t, b, what, x402.HeaderSignature, base64.StdEncoding.EncodeToString([]byte(shape))); a.Status < 400 || a.Status >= 500 {
				t.Errorf("%s: %d %s", shape, a.Status, a.Body)
			}
		}
	})
	if a := b.Do(t.Context(), http.MethodPost, s.URL("/x402/access"), `{"planId":`); a.Status != http.StatusBadRequest {
		t.Errorf("half a body: %d %s", a.Status, a.Body)
	}
	refused(t, s.post(t, b, body{"planId": "basic", "routeId": "weather-query"}), http.StatusBadRequest, "")
	refused(t, s.post(t, b, body{"planId": "basic", "requestId": strings.Repeat("x", 201)}), http.StatusBadRequest, "INVALID_REQUEST")
	// Key0's clients write base64url.
	header := strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(b.Sign(offer, 0))
	if a := s.post(t, b, what, x402.HeaderSignature, header); a.Status != http.StatusOK {
		t.Errorf("in base64url: %d %s", a.Status, a.Body)
	}
}

func doubleSpend(t *testing.T, s *shop) {
	b := s.payer(t)
	first, second := body{"planId": "basic", "requestId": name()}, body{"planId": "basic", "requestId": name()}
	_, offer := s.ask(t, b, first)
	s.ask(t, b, second)
	header := b.Sign(offer, 0)
	s.spent(t, basicPrice, func() {
		if a := s.post(t, b, first, x402.HeaderSignature, header); a.Status != http.StatusOK {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		refused(t, s.post(t, b, second, x402.HeaderSignature, header), http.StatusConflict, "INVALID_REQUEST")
		refused(t, s.post(t, b, body{"planId": "premium"}, x402.HeaderSignature, header), http.StatusPaymentRequired, "PAYMENT_FAILED")
		// What the client says that it was signed for does not matter: it is used.
		refused(t, s.post(t, b, second, x402.HeaderSignature, withoutEcho(t, header)), http.StatusPaymentRequired, "PAYMENT_FAILED")
		// Nor does it in which case its digits are: Key0 takes a hash in another spelling for another one (W16).
		refused(t, s.post(t, b, second, x402.HeaderSignature, inCapitals(t, withoutEcho(t, header))), http.StatusPaymentRequired, "PAYMENT_FAILED")
	})
}

// inCapitals is the same payment with other hexadecimal digits.
func inCapitals(t *testing.T, header string) string {
	t.Helper()
	var m map[string]json.RawMessage
	if err := x402.DecodeHeader(header, 1<<20, &m); err != nil {
		t.Fatal(err)
	}
	m["payload"] = regexp.MustCompile(`0x[0-9a-fA-F]+`).ReplaceAllFunc(m["payload"], func(hex []byte) []byte {
		return append([]byte("0x"), bytes.ToUpper(hex[2:])...)
	})
	return rig.Encode(t, m)
}

// withoutEcho is a payment header as Key0's clients write it, which don't send extensions back.
func withoutEcho(t *testing.T, header string) string {
	t.Helper()
	var m map[string]json.RawMessage
	if err := x402.DecodeHeader(header, 1<<20, &m); err != nil {
		t.Fatal(err)
	}
	delete(m, "extensions")
	delete(m, "resource")
	return rig.Encode(t, m)
}

func alreadyRedeemed(t *testing.T, s *shop) {
	b, stranger := s.payer(t), s.payer(t)
	what := body{"planId": "basic", "requestId": name()}
	g, header := s.wantGrant(t, b, what)
	s.spent(t, 0, func() {
		_, offer := s.ask(t, b, what)
		for how, h := range map[string]string{"the same header": header, "a new authorization": b.Sign(offer, 0)} {
			a := s.post(t, b, what, x402.HeaderSignature, h)
			again := decode[grant](t, a)
			if a.Status != http.StatusOK || again.ChallengeID != g.ChallengeID || again.AccessToken != g.AccessToken || again.TxHash != g.TxHash {
				t.Errorf("%s: %d %s, want %+v", how, a.Status, a.Body, g)
			}
		}
		// Key0 gives the grant to whoever knows the request id (W20). Here that is answered with the offer, of the same challenge: who has
		// paid signs once more, and nothing is charged; who has not is told so.
		r, offer := s.ask(t, stranger, what)
		if r.ChallengeID != g.ChallengeID || strings.Contains(r.Error, g.AccessToken) {
			t.Errorf("without a payment: %+v", r)
		}
		refused(t, s.post(t, stranger, what, x402.HeaderSignature, stranger.Sign(offer, 0)), http.StatusConflict, "INVALID_REQUEST")
	})
}

func concurrentPurchases(t *testing.T, s *shop) {
	var wg sync.WaitGroup
	grants := make([]grant, 2)
	s.spent(t, 2*basicPrice, func() {
		for i := range grants {
			b := s.payer(t)
			wg.Go(func() {
				what := body{"planId": "basic", "requestId": name()}
				_, offer := s.ask(t, b, what)
				grants[i] = decode[grant](t, s.post(t, b, what, x402.HeaderSignature, b.Sign(offer, 0)))
			})
		}
		wg.Wait()
	})
	a, b := grants[0], grants[1]
	if a.ChallengeID == b.ChallengeID || a.AccessToken == b.AccessToken || a.PaymentID == b.PaymentID || a.AccessToken == "" || b.AccessToken == "" {
		t.Errorf("the grants are %+v", grants)
	}
	// Key0 sends a transaction for each. Here two that come at once may share one, so their hashes may be equal.
	for _, g := range grants {
		if at := s.status(t, g.ChallengeID); at.State != "DELIVERED" {
			t.Errorf("a challenge is %+v", at)
		}
	}
}

func concurrentSameChallenge(t *testing.T, s *shop) {
	what := body{"planId": "basic", "requestId": name()}
	const payers = 6
	answers := make([]rig.Answer, payers)
	var wg sync.WaitGroup
	// Key0 lets both settle, and one of them pays for nothing (W19). Here one payer pays, and the others are refused uncharged.
	s.spent(t, basicPrice, func() {
		headers := make([]string, payers)
		buyers := make([]*rig.Buyer, payers)
		for i := range payers {
			buyers[i] = s.payer(t)
			_, offer := s.ask(t, buyers[i], what)
			headers[i] = buyers[i].Sign(offer, 0)
		}
		for i := range payers {
			wg.Go(func() { answers[i] = s.post(t, buyers[i], what, x402.HeaderSignature, headers[i]) })
		}
		wg.Wait()
	})
	granted := 0
	for _, a := range answers {
		if a.Status == http.StatusOK {
			granted++
			if at := s.status(t, decode[grant](t, a).ChallengeID); at.State != "DELIVERED" {
				t.Errorf("the challenge is %+v", at)
			}
			continue
		}
		refused(t, a, http.StatusConflict, "INVALID_REQUEST")
	}
	if granted != 1 {
		t.Errorf("%d were given the grant", granted)
	}
}
