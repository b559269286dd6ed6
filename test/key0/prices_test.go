package key0

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// thing is something that costs what all others cost.
type thing struct {
	name string
	ask  func(t *testing.T, b *rig.Buyer) (x402.PaymentRequired, x402.Requirements)
	pay  func(t *testing.T, b *rig.Buyer, header string) rig.Answer
}

// things are plans and routes, each by its id and where it is.
func (s *shop) things() (list []thing) {
	byID := func(what body) thing {
		what["requestId"] = name()
		id, _ := what["planId"].(string)
		if id == "" {
			id, _ = what["routeId"].(string)
		}
		return thing{
			name: id + " by its id",
			ask: func(t *testing.T, b *rig.Buyer) (x402.PaymentRequired, x402.Requirements) {
				_, o := s.ask(t, b, what)
				return o, o.Accepts[0]
			},
			pay: func(t *testing.T, b *rig.Buyer, header string) rig.Answer {
				return s.post(t, b, what, x402.HeaderSignature, header)
			},
		}
	}
	at := func(path, plan string) thing {
		return thing{
			name: path + " " + plan,
			ask: func(t *testing.T, b *rig.Buyer) (x402.PaymentRequired, x402.Requirements) {
				o := b.Offer(s.URL(path))
				for _, r := range o.Accepts {
					if r.Extra.Plan == plan {
						return o, r
					}
				}
				t.Fatalf("%s offers no %q: %+v", path, plan, o.Accepts)
				return o, x402.Requirements{}
			},
			pay: func(_ *testing.T, b *rig.Buyer, header string) rig.Answer {
				return b.Get(s.URL(path), x402.HeaderSignature, header)
			},
		}
	}
	return []thing{
		byID(body{"planId": "key"}), byID(body{"planId": "pass"}),
		byID(body{"routeId": "one", "resource": call("GET", "/one/a")}), byID(body{"routeId": "two", "resource": call("GET", "/two/a")}),
		at("/one/b", ""), at("/two/b", ""), at("/one/c", "key"), at("/two/c", "pass"),
	}
}

// signed is an authorization that has no terms yet.
type signed struct {
	authorization x402.Authorization
	signature     []byte
}

// sign signs for the price of everything.
func sign(b *rig.Buyer, r x402.Requirements) (s signed) {
	s.authorization, s.signature = b.Authorize(r)
	return s
}

// onTerms puts an authorization under the terms of an offer, whatever it was signed for: nothing that is signed says that.
func onTerms(t *testing.T, o x402.PaymentRequired, r x402.Requirements, s signed) string {
	return rig.Encode(t, o.Pay(r, &s.authorization, s.signature))
}

// onePrice: plans and routes of one price, by their ids and where they are. What was claimed for one opens no other, under whatever terms it
// is sent; and of what is sent to all at once, one gets it.
func onePrice(t *testing.T, s *shop) {
	s.load(t, s.till("refunds off"))
	thief := s.payer(t)
	for _, bought := range s.things() {
		b := s.payer(t)
		o, r := bought.ask(t, b)
		pen := sign(b, r)
		header := onTerms(t, o, r, pen)
		s.spent(t, tillPrice, func() {
			if a := bought.pay(t, b, header); a.Status != http.StatusOK {
				t.Fatalf("%s: %d %v %s", bought.name, a.Status, a.Err, a.Body)
			}
			calls := s.Upstream.Calls()
			s.issuer.questions()
			for _, other := range s.things() {
				if other.name == bought.name {
					continue
				}
				o, r := other.ask(t, thief)
				for how, h := range map[string]string{"as it was": header, "on its own terms": onTerms(t, o, r, pen)} {
					a := other.pay(t, thief, h)
					if a.Err != nil || a.Status != http.StatusPaymentRequired && a.Status != http.StatusConflict || a.Header.Get("X-Access-Token") != "" {
						t.Errorf("what was claimed for %s opens %s, %s: %d %v %s", bought.name, other.name, how, a.Status, a.Err, a.Body)
					}
				}
			}
			if n, asked := s.Upstream.Calls()-calls, s.issuer.questions(); n != 0 || len(asked) != 0 {
				t.Errorf("what was claimed for %s has called the upstream %d times, and the issuer %d times", bought.name, n, len(asked))
			}
		})
	}

	b, list := s.payer(t), s.things()
	headers, answers := make([]string, len(list)), make([]rig.Answer, len(list))
	var pen signed
	for i, it := range list {
		o, r := it.ask(t, b)
		if i == 0 {
			pen = sign(b, r)
		}
		headers[i] = onTerms(t, o, r, pen)
	}
	var wg sync.WaitGroup
	s.spent(t, tillPrice, func() {
		for i, it := range list {
			wg.Go(func() { answers[i] = it.pay(t, b, headers[i]) })
		}
		wg.Wait()
	})
	served, plan, payments := 0, false, map[string]bool{}
	for i, a := range answers {
		switch {
		case a.Status == http.StatusOK:
			served++
			payments[a.Header.Get("X-Payment-Id")] = true
			plan = plan || a.Header.Get("X-Access-Token") != "" || strings.Contains(a.Body, `"AccessGrant"`)
		case a.Status < 400, a.Header.Get("X-Access-Token") != "":
			t.Errorf("%s: %d %v %s", list[i].name, a.Status, a.Err, a.Body)
		}
	}
	// Who has just bought a plan may be served under it by another copy, whose signature proves who asks.
	if served == 0 || served > 1 && !plan || len(payments) != 1 {
		t.Errorf("one signature was good for %d things, by %d payments", served, len(payments))
	}
}
