package key0

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"testing"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// refundWallet has nothing at the beginning.
var refundWallet = devnet.Payer(5000)

func refundKey() string { return fmt.Sprintf("0x%x", crypto.FromECDSA(refundWallet.Key)) }

// undelivered is a plan that was paid and could not be given out.
type undelivered struct {
	*rig.Buyer
	what              body
	header, challenge string
	had               uint64
}

// owed sells a plan whose token can't be issued.
func (s *shop) owed(t *testing.T) *undelivered {
	t.Helper()
	u := &undelivered{Buyer: s.payer(t), what: body{"planId": "key", "requestId": name()}}
	u.had = s.Balance(u.Account.Address).Uint64()
	r, offer := s.ask(t, u.Buyer, u.what)
	u.challenge, u.header = r.ChallengeID, u.Sign(offer, 0)
	s.unissued(t, s.post(t, u.Buyer, u.what, x402.HeaderSignature, u.header), http.StatusBadGateway, "TOKEN_ISSUE_FAILED")
	return u
}

// waits is how often a refund has found the wallet empty.
func (s *shop) waits(t *testing.T) (n int) {
	t.Helper()
	a := patiently(func() rig.Answer { return rig.NewBuyer(t, 0).Get(s.URL("/metrics")) })
	m := regexp.MustCompile(`caddy_x402_refund_waits_total\{.*reason="wallet_empty".*\} (\d+)`).FindStringSubmatch(a.Body)
	if a.Status != http.StatusOK {
		t.Fatalf("the metrics: %d %v", a.Status, a.Err)
	}
	if m != nil {
		n, _ = strconv.Atoi(m[1])
	}
	return n
}

// refunds are Key0's four: one that is PAID and old enough goes back, three of them go back together, and what can't go back is told. Key0 writes
// the first states into its store; here the issuer fails. There an empty wallet makes REFUND_FAILED, which nobody picks up again (W22);
// here it is waited for, and what no waiting mends is REFUND_FAILED.
func refunds(t *testing.T, s *shop) {
	s.load(t, s.till("refund "+refundKey()+" {\ninterval 1s\n}", "min_age 3s", "interval 200ms", "max_stale 2s"))
	s.issuer.now("fail")
	t.Cleanup(func() { s.issuer.now("") })
	before := s.waits(t)
	list := make([]*undelivered, 4)
	s.spent(t, 5*tillPrice, func() {
		for i := range list {
			list[i] = s.owed(t)
		}
		banned := s.owed(t)
		if err := s.Chain.Blacklist(t.Context(), banned.Account.Address); err != nil {
			t.Fatal(err)
		}
		for _, u := range list {
			eventually(t, "what could not be issued to be held for refund", func() bool { return s.status(t, u.challenge).State == "REFUND_PENDING" })
		}
		eventually(t, "somebody to see that there is no money", func() bool { return s.waits(t) > before })
		for _, u := range list {
			if at, has := s.status(t, u.challenge).State, s.Balance(u.Account.Address).Uint64(); at != "REFUND_PENDING" || has != u.had-tillPrice {
				t.Errorf("without money it is %s, and its payer has %d of %d", at, has, u.had)
			}
		}
		if err := s.Chain.Mint(t.Context(), refundWallet.Address, uint256.NewInt(100*tillPrice)); err != nil {
			t.Fatal(err)
		}
		for _, u := range list {
			eventually(t, "a refund", func() bool { return s.status(t, u.challenge).State == "REFUNDED" })
			if has := s.Balance(u.Account.Address).Uint64(); has != u.had {
				t.Errorf("its payer has %d of %d", has, u.had)
			}
		}
		eventually(t, "the operator to be told", func() bool { return s.status(t, banned.challenge).State == "REFUND_FAILED" })
		if has := s.Balance(banned.Account.Address).Uint64(); has != banned.had-tillPrice {
			t.Errorf("who is blacklisted has %d of %d", has, banned.had)
		}
	}) // what was earned stays where it is
	// Nobody gets both: the issuer is not even asked any more.
	s.issuer.now("")
	s.issuer.questions()
	for _, u := range list {
		a := s.post(t, u.Buyer, u.what, x402.HeaderSignature, u.header)
		if r := refused(t, a, http.StatusPaymentRequired, "PAYMENT_FAILED"); r.Details.Payment == "" || a.Header.Get("X-Access-Token") != "" {
			t.Errorf("after its refund: %s", a.Body)
		}
	}
	if n := len(s.issuer.questions()); n > 0 {
		t.Errorf("the issuer was asked %d times for what was paid back", n)
	}
}
