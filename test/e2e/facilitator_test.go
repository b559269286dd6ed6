package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/facilitator"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// facilitated is a rig whose payments go through a facilitator. It settles with a developer's key.
func facilitated(t *testing.T, o rig.Options, block ...string) (*rig.Rig, *facilitator.Server, rig.Options) {
	t.Helper()
	r := rig.New(t, o)
	f := facilitator.New(t, r.Chain.URL(), devnet.Developer(3).Key)
	o.Settler = "facilitator " + f.URL() + " {\n" + strings.Join(block, "\n") + "\n}"
	r.Load(o)
	return r, f, o
}

// quick lets tests see soon what takes long.
const quick = "settle_timeout 3s\n interval 200ms\n hold_ttl 5s"

// onSettle makes a facilitator answer /settle with answer, and everything else honestly.
func onSettle(f *facilitator.Server, answer func(*facilitator.Call) facilitator.Reply) {
	f.Behave(func(c *facilitator.Call) facilitator.Reply {
		if c.Path == "/settle" {
			return answer(c)
		}
		return c.Honest()
	})
}

// Payments of both versions go through an honest facilitator, which gets the header's JSON byte for byte, and what it may
// know of us.
func TestFacilitatorSettles(t *testing.T) {
	t.Setenv("E2E_FACILITATOR_TOKEN", "hunter2hunter2hunter2")
	r, f, _ := facilitated(t, rig.Options{}, "bearer {env.E2E_FACILITATOR_TOKEN}", "header X-Shop us", "verify")
	b := rig.NewBuyer(t, 1)
	url := r.URL("/weather")
	offer := b.Offer(url)
	v2, v1 := b.Sign(offer, 0), b.SignV1(offer)
	for i, header := range [][2]string{{x402.HeaderSignature, v2}, {x402.HeaderPaymentV1, v1}} {
		if a := b.Get(url, header[0], header[1]); a.Status != http.StatusOK {
			t.Fatalf("%s: %d %s", header[0], a.Status, a.Body)
		}
		if r.Earned() != cent*uint64(i+1) || r.Upstream.Calls() != i+1 {
			t.Errorf("%s: earned %d with %d upstream calls", header[0], r.Earned(), r.Upstream.Calls())
		}
		asked, settled := f.Requests("/verify"), f.Requests("/settle")
		if len(asked) != i+1 || len(settled) != i+1 || !bytes.Equal(asked[i].Body, settled[i].Body) {
			t.Fatalf("%s: %d and %d requests, or they differ", header[0], len(asked), len(settled))
		}
		p, err := x402.DecodePayload(header[1])
		if err != nil {
			t.Fatal(err)
		}
		var body struct {
			Version      int             `json:"x402Version"`
			Payload      json.RawMessage `json:"paymentPayload"`
			Requirements json.RawMessage `json:"paymentRequirements"`
		}
		if err := json.Unmarshal(settled[i].Body, &body); err != nil {
			t.Fatal(err)
		}
		if body.Version != 2-i || !bytes.Equal(body.Payload, p.Raw) {
			t.Errorf("%s: version %d, payload %s", header[0], body.Version, body.Payload)
		}
		if i == 0 && !sameJSONValue(t, body.Requirements, offer.Accepts[0].Raw) {
			t.Errorf("requirements %s, the offer had %s", body.Requirements, offer.Accepts[0].Raw)
		}
		if h := settled[i].Header; h.Get("Authorization") != "Bearer hunter2hunter2hunter2" || h.Get("X-Shop") != "us" {
			t.Errorf("header %v", h)
		}
	}
	if v := f.Requests("/supported"); len(v) == 0 || v[0].Header.Get("Authorization") == "" {
		t.Error("it was not asked what it supports, or by nobody")
	}
}

// Of each way to pay that an offer has, the facilitator gets the very requirements: of plans as well.
func TestFacilitatorGetsWhatWasOffered(t *testing.T) {
	r, f, _ := facilitated(t, rig.Options{Site: `
	x402 $0.01 {
		description "<Weather> & more"
		plan day $0.10 {
			ttl 24h
		}
	}
	reverse_proxy {upstream}
`})
	for i := range 2 {
		b := rig.NewBuyer(t, 1+i)
		offer := b.Offer(r.URL("/"))
		if a := b.Get(r.URL("/"), x402.HeaderSignature, b.Sign(offer, i)); a.Status != http.StatusOK {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		var body struct {
			Requirements json.RawMessage `json:"paymentRequirements"`
		}
		if err := json.Unmarshal(f.Requests("/settle")[i].Body, &body); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(body.Requirements, offer.Accepts[i].Raw) {
			t.Errorf("requirements\n%s\nthe offer had\n%s", body.Requirements, offer.Accepts[i].Raw)
		}
	}
	// Version 1 has its requirements in the body of the 402.
	b := rig.NewBuyer(t, 5)
	var old x402.RequiredV1
	if err := json.Unmarshal([]byte(b.Get(r.URL("/")).Body), &old); err != nil || len(old.Accepts) != 1 {
		t.Fatal(old, err)
	}
	if a := b.Get(r.URL("/"), x402.HeaderPaymentV1, b.SignV1(b.Offer(r.URL("/")))); a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	var body struct {
		Requirements x402.RequirementsV1 `json:"paymentRequirements"`
	}
	if err := json.Unmarshal(f.Requests("/settle")[2].Body, &body); err != nil || !reflect.DeepEqual(body.Requirements, old.Accepts[0]) {
		t.Errorf("requirements %+v, the offer had %+v, %v", body.Requirements, old.Accepts[0], err)
	}
}

func sameJSONValue(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal(a, &x); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &y); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(x) == fmt.Sprint(y)
}

// Whatever a facilitator says that has settled: its payer is served, once, and charged once.
func TestFacilitatorSettledAndLies(t *testing.T) {
	r, f, _ := facilitated(t, rig.Options{App: quick})
	earned, calls := uint64(0), 0
	for name, answer := range map[string]func(*facilitator.Call) facilitator.Reply{
		"drops": func(c *facilitator.Call) facilitator.Reply { _, _ = c.Settle(); return facilitator.Reply{Drop: true} },
		"slow": func(c *facilitator.Call) facilitator.Reply {
			_, _ = c.Send()
			return facilitator.Reply{Delay: time.Minute}
		},
		"no": func(c *facilitator.Call) facilitator.Reply {
			_, _ = c.Settle()
			return c.Refuse("insufficient_funds", common.Hash{})
		},
		"no, with 500": func(c *facilitator.Call) facilitator.Reply {
			_, _ = c.Settle()
			return facilitator.JSON(http.StatusInternalServerError, map[string]any{"success": false, "errorReason": "unexpected_settle_error"})
		},
		"another transaction": func(c *facilitator.Call) facilitator.Reply { _, _ = c.Settle(); return c.Success(common.Hash{1}) },
		"huge": func(c *facilitator.Call) facilitator.Reply {
			_, _ = c.Settle()
			return facilitator.Reply{Body: strings.Repeat("1", 1<<20)}
		},
		"elsewhere": func(c *facilitator.Call) facilitator.Reply {
			_, _ = c.Settle()
			return facilitator.Reply{Status: http.StatusPermanentRedirect, Header: http.Header{"Location": {"http://192.0.2.1/"}}}
		},
	} {
		onSettle(f, answer)
		b := rig.NewBuyer(t, 2)
		url := r.URL("/lies/" + strings.ReplaceAll(name, " ", "-"))
		header := b.Sign(b.Offer(url), 0)
		var a rig.Answer
		waitFor(t, func() bool { // one that answers slowly may outlast the settle_timeout
			a = b.Get(url, x402.HeaderSignature, header)
			return a.Status != http.StatusServiceUnavailable
		})
		earned, calls = earned+cent, calls+1
		if a.Status != http.StatusOK || r.Earned() != earned || r.Upstream.Calls() != calls {
			t.Errorf("%s: %d %s; earned %d of %d, %d of %d upstream calls", name, a.Status, a.Body, r.Earned(), earned, r.Upstream.Calls(), calls)
		}
		f.Behave(nil) // the breaker has seen enough
		if again := b.Get(url, x402.HeaderSignature, header); again.Status != http.StatusPaymentRequired || r.Upstream.Calls() != calls {
			t.Errorf("%s: the second time %d %s", name, again.Status, again.Body)
		}
		if a, _ := b.Buy(r.URL("/honest")); a.Status != http.StatusOK {
			t.Fatalf("%s: then an honest one: %d %s", name, a.Status, a.Body)
		}
		earned, calls = earned+cent, calls+1
	}
}

// Whatever a facilitator says that has not settled: nobody is served and nobody is told to pay anew, neither with the same
// authorization nor with a new one, while the old one can still be executed. Once it is, its payer is served for it.
func TestFacilitatorLiesAboutSuccess(t *testing.T) {
	for name, answer := range map[string]func(*facilitator.Call) facilitator.Reply{
		"yes": func(c *facilitator.Call) facilitator.Reply { return c.Success(common.Hash{1}) },
		"no":  func(c *facilitator.Call) facilitator.Reply { return c.Refuse("insufficient_funds", common.Hash{}) },
		"used": func(c *facilitator.Call) facilitator.Reply {
			return c.Refuse("invalid_exact_evm_nonce_already_used", common.Hash{})
		},
		"pending": func(c *facilitator.Call) facilitator.Reply { return c.Refuse("settlement_pending", common.Hash{2}) },
		"500": func(*facilitator.Call) facilitator.Reply {
			return facilitator.Reply{Status: 500, Body: `{"error":"x"}`}
		},
		"drops": func(*facilitator.Call) facilitator.Reply { return facilitator.Reply{Drop: true} },
	} {
		t.Run(name, func(t *testing.T) {
			r, f, _ := facilitated(t, rig.Options{App: strings.Replace(quick, "3s", "1s", 1)})
			calls := make(chan *facilitator.Call, 16)
			onSettle(f, func(c *facilitator.Call) facilitator.Reply {
				calls <- c
				return answer(c)
			})
			b := rig.NewBuyer(t, 1)
			url := r.URL("/lied")
			first, second := b.Sign(b.Offer(url), 0), b.Sign(b.Offer(url), 0)
			for _, header := range []string{first, second, first} {
				putOff(t, b.Get(url, x402.HeaderSignature, header))
			}
			if r.Upstream.Calls() != 0 || r.Earned() != 0 {
				t.Fatalf("%d upstream calls, earned %d", r.Upstream.Calls(), r.Earned())
			}
			// Now it uses what it has in its hands.
			if _, err := (<-calls).Send(); err != nil {
				t.Fatal(err)
			}
			waitFor(t, func() bool { return r.Earned() == cent })
			var a rig.Answer
			waitFor(t, func() bool {
				a = b.Get(url, x402.HeaderSignature, second)
				return a.Status != http.StatusServiceUnavailable
			})
			if a.Status != http.StatusOK || r.Upstream.Calls() != 1 || r.Earned() != cent {
				t.Errorf("%d %s, %d upstream calls, earned %d", a.Status, a.Body, r.Upstream.Calls(), r.Earned())
			}
		})
	}
}

// What a facilitator never settles ends with its authorization: then its payer is told to sign anew, and was charged nothing.
func TestFacilitatorNeverSettles(t *testing.T) {
	r, f, _ := facilitated(t, rig.Options{App: strings.Replace(quick, "3s", "1s", 1)})
	onSettle(f, func(c *facilitator.Call) facilitator.Reply { return c.Refuse("unexpected_settle_error", common.Hash{}) })
	b := rig.NewBuyer(t, 1)
	url := r.URL("/never")
	header := b.Sign(b.Offer(url), 0)
	putOff(t, b.Get(url, x402.HeaderSignature, header))
	if err := r.Chain.AdvanceTime(10 * time.Minute); err != nil {
		t.Fatal(err)
	}
	var a rig.Answer
	waitFor(t, func() bool {
		a = b.Get(url, x402.HeaderSignature, header)
		return a.Status != http.StatusServiceUnavailable
	})
	if a.Status != http.StatusPaymentRequired || r.Upstream.Calls() != 0 || r.Earned() != 0 {
		t.Errorf("%d %s, %d upstream calls, earned %d", a.Status, a.Body, r.Upstream.Calls(), r.Earned())
	}
}

// The next facilitator is asked where the first can't be reached or refuses, and the payer notices nothing.
func TestFacilitatorsInOrder(t *testing.T) {
	r := rig.New(t, rig.Options{})
	first := facilitator.New(t, r.Chain.URL(), devnet.Developer(3).Key)
	second := facilitator.New(t, r.Chain.URL(), devnet.Developer(4).Key)
	r.Load(rig.Options{Settler: "facilitator http://" + rig.FreeAddr(t) + " " + first.URL() + " {\n then " + second.URL() + "\n}"})
	onSettle(first, func(c *facilitator.Call) facilitator.Reply { return c.Refuse("unexpected_settle_error", common.Hash{}) })
	b := rig.NewBuyer(t, 1)
	if a, _ := b.Buy(r.URL("/")); a.Status != http.StatusOK || r.Earned() != cent {
		t.Fatalf("%d %s, earned %d", a.Status, a.Body, r.Earned())
	}
	if x, y := len(first.Requests("/settle")), len(second.Requests("/settle")); x != 1 || y != 1 {
		t.Errorf("%d and %d requests", x, y)
	}
}

// While no facilitator can be reached nothing is claimed, and the same authorization is good when one can.
func TestFacilitatorUnreachable(t *testing.T) {
	r, f, o := facilitated(t, rig.Options{App: quick})
	down := o
	down.Settler = "facilitator http://" + rig.FreeAddr(t)
	r.Load(down)
	b := rig.NewBuyer(t, 1)
	url := r.URL("/")
	header := b.Sign(b.Offer(url), 0)
	putOff(t, b.Get(url, x402.HeaderSignature, header))
	r.Load(o)
	var a rig.Answer
	waitFor(t, func() bool {
		a = b.Get(url, x402.HeaderSignature, header)
		return a.Status != http.StatusServiceUnavailable
	})
	if a.Status != http.StatusOK || r.Earned() != cent || len(f.Requests("/settle")) != 1 {
		t.Errorf("%d %s, earned %d, %d requests", a.Status, a.Body, r.Earned(), len(f.Requests("/settle")))
	}
}

// A payment that a wallet has begun is ended by a facilitator, and the other way round.
func TestFacilitatorAndWalletTakeTurns(t *testing.T) {
	r, f, o := facilitated(t, rig.Options{App: strings.Replace(quick, "3s", "1s", 1)})
	wallet := o
	wallet.Settler = ""
	b := rig.NewBuyer(t, 1)
	url := r.URL("/turns")
	for i, order := range [][2]rig.Options{{o, wallet}, {wallet, o}} {
		r.Load(order[0])
		r.Chain.Stall()
		header := b.Sign(b.Offer(url), 0)
		putOff(t, b.Get(url, x402.HeaderSignature, header))
		r.Load(order[1])
		r.Chain.Resume()
		var a rig.Answer
		waitFor(t, func() bool {
			a = b.Get(url, x402.HeaderSignature, header)
			return a.Status != http.StatusServiceUnavailable
		})
		if a.Status != http.StatusOK || r.Earned() != cent*uint64(i+1) || r.Upstream.Calls() != i+1 {
			t.Errorf("%d: %d %s, earned %d, %d upstream calls", i, a.Status, a.Body, r.Earned(), r.Upstream.Calls())
		}
	}
	_ = f
}

// Many payers, and a facilitator that does whatever comes to its mind: each payment is made once and served once, or neither.
func TestFacilitatorAtRandom(t *testing.T) {
	r, f, _ := facilitated(t, rig.Options{App: strings.Replace(quick, "3s", "1s", 1)})
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 1))
	onSettle(f, func(c *facilitator.Call) facilitator.Reply {
		mu.Lock()
		mood, settles := random.IntN(8), random.IntN(2) == 0
		mu.Unlock()
		if mood > 5 {
			return c.Honest()
		}
		if settles {
			_, _ = c.Send()
		}
		return []facilitator.Reply{
			{Drop: true},
			c.Success(common.Hash{byte(mood), 9}),
			c.Refuse("unexpected_settle_error", common.Hash{}),
			c.Refuse("settlement_pending", common.Hash{byte(mood), 8}),
			{Status: http.StatusConflict},
			{Delay: time.Minute},
		}[mood]
	})
	const payers, each = 6, 3
	var served atomic.Uint64
	var paying sync.WaitGroup
	for i := range payers {
		b := rig.NewBuyer(t, 10+i)
		paying.Go(func() {
			for n := range each {
				url := r.URL(fmt.Sprintf("/random/%d/%d", i, n))
				header := b.Sign(b.Offer(url), 0)
				for end := time.Now().Add(time.Minute); ; {
					a := b.Get(url, x402.HeaderSignature, header)
					if a.Status == http.StatusOK {
						served.Add(1)
						break
					}
					if a.Status != http.StatusServiceUnavailable || time.Now().After(end) {
						t.Errorf("%d %v %s", a.Status, a.Err, a.Body)
						break
					}
					time.Sleep(50 * time.Millisecond)
				}
			}
		})
	}
	paying.Wait()
	if n := served.Load(); n != payers*each || r.Earned() != cent*n || r.Upstream.Calls() != int(n) {
		t.Errorf("%d of %d were served, earned %d, %d upstream calls", n, payers*each, r.Earned(), r.Upstream.Calls())
	}
}
