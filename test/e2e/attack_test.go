package e2e

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// shop sells several things, some at the same price, on two hosts.
const shop = `
	x402 /cheap/* $0.01
	x402 /twin/* $0.01
	x402 /dear/* $1.00
	x402 /plans/* {
		plan day $0.10 {
			ttl 24h
		}
		plan night $0.10 {
			ttl 12h
		}
		plan year $5.00 {
			ttl 8760h
		}
	}
	x402_service
	reverse_proxy {upstream}
}
http://localhost:{rig_port} {
	x402 /cheap/* $0.01
	x402 /plans/* {
		plan day $0.10 {
			ttl 24h
		}
	}
	reverse_proxy {upstream}
`

// witness remembers what the upstream and the seller have seen.
type witness struct {
	r      *rig.Rig
	calls  int
	earned uint64
}

func watch(r *rig.Rig) *witness { return &witness{r, r.Upstream.Calls(), r.Earned()} }

// nothing checks that the upstream was not called and nothing was earned since.
func (w *witness) nothing(t *testing.T, what string) {
	t.Helper()
	w.seen(t, what, 0, 0)
}

// seen checks what was seen since, and forgets it.
func (w *witness) seen(t *testing.T, what string, calls int, earned uint64) {
	t.Helper()
	c, e := w.r.Upstream.Calls(), w.r.Earned()
	if c-w.calls != calls || e-w.earned != earned {
		t.Errorf("%s: the upstream was called %d times and %d earned, want %d and %d", what, c-w.calls, e-w.earned, calls, earned)
	}
	w.calls, w.earned = c, e
}

// refused checks for a 402 with that reason and with an offer of ours.
func refused(t *testing.T, what string, a rig.Answer, reason x402.Reason) {
	t.Helper()
	if a.Err != nil || a.Status != http.StatusPaymentRequired {
		t.Errorf("%s: %d %v %s", what, a.Status, a.Err, a.Body)
		return
	}
	o := rig.Offered(t, a)
	if o.Error != string(reason) {
		t.Errorf("%s: refused as %q, want %q", what, o.Error, reason)
	}
	for _, r := range o.Accepts {
		if r.PayTo != rig.PayTo.Hex() || r.Asset != devnet.TokenAddress.Hex() || r.Network != devnet.Network().ID {
			t.Errorf("%s: the offer became %+v", what, r)
		}
	}
}

// altered is the first way to pay, changed as a forger likes.
func altered(o x402.PaymentRequired, change func(*x402.Requirements)) x402.PaymentRequired {
	r := o.Accepts[0]
	r.Raw = nil
	change(&r)
	o.Accepts = []x402.Requirements{r}
	return o
}

// What the client sends as accepted only selects: whoever writes its own terms into it, and signs them well, buys nothing.
func TestForgedAccepted(t *testing.T) {
	r := rig.New(t, rig.Options{Site: shop})
	b := rig.NewBuyer(t, 1)
	own := devnet.Payer(2).Address
	w := watch(r)
	url := r.URL("/cheap/x")
	for name, forged := range map[string]struct {
		change func(*x402.Requirements)
		sign   func(*x402.Authorization)
		reason x402.Reason
	}{
		"own payTo": {func(q *x402.Requirements) { q.PayTo = own.Hex() }, nil, x402.ReasonNoMatchingRequirements},
		"our payTo, own recipient": {
			nil, func(a *x402.Authorization) { a.To = own }, x402.ReasonRecipientMismatch,
		},
		"own payTo, our recipient": {
			func(q *x402.Requirements) { q.PayTo = own.Hex() },
			func(a *x402.Authorization) { a.To = rig.PayTo }, x402.ReasonNoMatchingRequirements,
		},
		"price 1":             {func(q *x402.Requirements) { q.Amount = "1" }, nil, x402.ReasonNoMatchingRequirements},
		"our price, value 1":  {nil, func(a *x402.Authorization) { a.Value.SetOne() }, x402.ReasonValueMismatch},
		"value 0":             {nil, func(a *x402.Authorization) { a.Value.Clear() }, x402.ReasonValueMismatch},
		"more than the price": {nil, func(a *x402.Authorization) { a.Value.SetUint64(cent + 1) }, x402.ReasonValueMismatch},
		"another asset":       {func(q *x402.Requirements) { q.Asset = own.Hex() }, nil, x402.ReasonNoMatchingRequirements},
		"another network":     {func(q *x402.Requirements) { q.Network = "eip155:8453" }, nil, x402.ReasonNetworkMismatch},
		"a network of version 1": {
			func(q *x402.Requirements) { q.Network = "base-sepolia" }, nil, x402.ReasonNetworkMismatch,
		},
		"another scheme":      {func(q *x402.Requirements) { q.Scheme = "upto" }, nil, x402.ReasonInvalidScheme},
		"a plan that is none": {func(q *x402.Requirements) { q.Extra.Plan = "day" }, nil, x402.ReasonNoMatchingRequirements},
		"another domain":      {func(q *x402.Requirements) { q.Extra.Name = "USD Coin" }, nil, x402.ReasonSignature},
		"for a year": {
			func(q *x402.Requirements) { q.MaxTimeoutSeconds = 365 * 24 * 3600 }, nil, x402.ReasonValidBefore,
		},
		"another's money": {nil, func(a *x402.Authorization) { a.From = own }, x402.ReasonSignature},
	} {
		o := b.Offer(url)
		if forged.change != nil {
			o = altered(o, forged.change)
		}
		var change []func(*x402.Authorization)
		if forged.sign != nil {
			change = append(change, forged.sign)
		}
		refused(t, name, b.Get(url, x402.HeaderSignature, b.Sign(o, 0, change...)), forged.reason)
		w.nothing(t, name)
	}
}

// Terms that do not say what is bought may be rewritten; the money still moves first, whatever flow the client dreams of.
func TestForgedTermsThatDoNotMatter(t *testing.T) {
	r := rig.New(t, rig.Options{Site: shop})
	b := rig.NewBuyer(t, 1)
	w := watch(r)
	url := r.URL("/cheap/x")
	for name, change := range map[string]func(*x402.Requirements){
		"flow":    func(q *x402.Requirements) { q.Extra.PaymentFlow = x402.FlowAuthorization },
		"timeout": func(q *x402.Requirements) { q.MaxTimeoutSeconds = 60 },
		"case":    func(q *x402.Requirements) { q.PayTo = "0x" + common.Bytes2Hex(rig.PayTo[:]) },
	} {
		a := b.Get(url, x402.HeaderSignature, b.Sign(altered(b.Offer(url), change), 0))
		if a.Status != http.StatusOK {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
		w.seen(t, name, 1, cent)
	}
}

// A payment buys what it was claimed for. The authorization itself does not say what that is, so it is the claim that
// keeps it from buying anything else: another plan, another route, at whatever price.
func TestPaymentBuysOneThing(t *testing.T) {
	r := rig.New(t, rig.Options{Site: shop})
	b := rig.NewBuyer(t, 1)
	w := watch(r)
	plans := b.Offer(r.URL("/plans/x"))
	day, night, year := plans.Accepts[0], plans.Accepts[1], plans.Accepts[2]
	if day.Extra.Plan != "day" || night.Extra.Plan != "night" || year.Extra.Plan != "year" || day.Amount != night.Amount {
		t.Fatalf("the plans are offered as %+v", plans.Accepts)
	}
	a, sig := b.Authorize(day)
	offer := func(url string, q x402.Requirements) rig.Answer {
		return b.Get(url, x402.HeaderSignature, rig.Encode(t, plans.Pay(q, &a, sig)))
	}
	refused(t, "a dearer plan", offer(r.URL("/plans/x"), year), x402.ReasonValueMismatch)
	refused(t, "the price of a request", offer(r.URL("/cheap/x"), b.Offer(r.URL("/cheap/x")).Accepts[0]), x402.ReasonValueMismatch)
	w.nothing(t, "before")

	if got := offer(r.URL("/plans/x"), day); got.Status != http.StatusOK || r.Upstream.Last().Header.Get("X-Payment-Plan") != "day" {
		t.Fatalf("the plan itself: %d %s", got.Status, got.Body)
	}
	w.seen(t, "the plan itself", 1, 10*cent)
	refused(t, "a plan of the same price", offer(r.URL("/plans/x"), night), x402.ReasonNonceUsed)
	refused(t, "a dearer plan, afterwards", offer(r.URL("/plans/x"), year), x402.ReasonNonceUsed)
	refused(t, "a request, afterwards", offer(r.URL("/cheap/x"), b.Offer(r.URL("/cheap/x")).Accepts[0]), x402.ReasonNonceUsed)
	w.nothing(t, "after")
}

// The signature of the cheap route opens neither the dear one nor one of the same price.
func TestPaymentOpensOneRoute(t *testing.T) {
	r := rig.New(t, rig.Options{Site: shop})
	b := rig.NewBuyer(t, 1)
	w := watch(r)
	cheap, dear, twin := r.URL("/cheap/x"), r.URL("/dear/x"), r.URL("/twin/x")
	o := b.Offer(cheap)
	a, sig := b.Authorize(o.Accepts[0])
	header := rig.Encode(t, o.Pay(o.Accepts[0], &a, sig))
	forged := b.Offer(dear)
	refused(t, "dear", b.Get(dear, x402.HeaderSignature, header), x402.ReasonNoMatchingRequirements)
	refused(t, "dear, forged", b.Get(dear, x402.HeaderSignature, rig.Encode(t, forged.Pay(forged.Accepts[0], &a, sig))), x402.ReasonValueMismatch)
	refused(t, "dear, version 1", b.Get(dear, x402.HeaderPaymentV1, rig.Encode(t, map[string]any{
		"x402Version": 1, "scheme": "exact", "network": devnet.Network().V1Name,
		"payload": x402.ExactPayload{Signature: sig, Authorization: a},
	})), x402.ReasonValueMismatch)
	w.nothing(t, "before")
	if got := b.Get(cheap, x402.HeaderSignature, header); got.Status != http.StatusOK {
		t.Fatalf("cheap: %d %s", got.Status, got.Body)
	}
	w.seen(t, "cheap", 1, cent)
	for name, url := range map[string]string{"dear": dear, "twin": twin, "cheap": cheap} {
		refused(t, name+", afterwards", b.Get(url, x402.HeaderSignature, header), x402.ReasonNonceUsed)
	}
	w.nothing(t, "after")
}

// A payment that is paid and not yet served waits for the request that it was claimed for: the same header opens no other
// host, address or method, and a fresh signature for another route is a purchase of its own.
func TestUnservedPaymentWaitsForItsRequest(t *testing.T) {
	r := rig.New(t, rig.Options{Site: shop})
	b := rig.NewBuyer(t, 1)
	w := watch(r)
	url := r.URL("/cheap/x?q=1")
	header := b.Sign(b.Offer(url), 0)
	r.Chain.Stall()
	leave(t, r, b, http.MethodGet, url, "", x402.HeaderSignature, header)
	r.Chain.Resume()
	waitFor(t, func() bool { return r.Earned() == w.earned+cent })
	waitFor(t, func() bool { // settled in the ledger, too
		return b.Get(r.URL("/twin/x"), x402.HeaderSignature, header).Status == http.StatusPaymentRequired
	})
	w.seen(t, "left", 0, cent)

	ctx := context.WithoutCancel(t.Context())
	_, port := splitAddr(t, r.Addr)
	for name, a := range map[string]rig.Answer{
		"host":     b.Get(url, "Host", "localhost:"+port, x402.HeaderSignature, header),
		"path":     b.Get(r.URL("/cheap/y?q=1"), x402.HeaderSignature, header),
		"query":    b.Get(r.URL("/cheap/x?q=2"), x402.HeaderSignature, header),
		"no query": b.Get(r.URL("/cheap/x"), x402.HeaderSignature, header),
		"method":   b.Do(ctx, http.MethodPost, url, "", x402.HeaderSignature, header),
		"HEAD":     b.Do(ctx, http.MethodHead, url, "", x402.HeaderSignature, header),
		"route":    b.Get(r.URL("/twin/x"), x402.HeaderSignature, header),
		"version":  b.Get(url, x402.HeaderPaymentV1, header),
	} {
		if a.Err != nil || a.Status != http.StatusPaymentRequired {
			t.Errorf("another %s: %d %v %s", name, a.Status, a.Err, a.Body)
		}
	}
	w.nothing(t, "elsewhere")
	if a, _ := b.Buy(r.URL("/twin/x")); a.Status != http.StatusOK {
		t.Errorf("the other route: %d %s", a.Status, a.Body)
	}
	w.seen(t, "the other route", 1, cent)
	if a := b.Get(url, x402.HeaderSignature, header); a.Status != http.StatusOK {
		t.Errorf("the request itself: %d %s", a.Status, a.Body)
	}
	w.seen(t, "the request itself", 1, 0)
}

// An authorization that ends before it could be settled is refused, however well it is signed.
func TestShortAuthorization(t *testing.T) {
	r := rig.New(t, rig.Options{Site: shop})
	b := rig.NewBuyer(t, 1)
	w := watch(r)
	url := r.URL("/cheap/x")
	header := b.Sign(b.Offer(url), 0, func(a *x402.Authorization) {
		a.ValidBefore.SetUint64(uint64(time.Now().Add(5 * time.Second).Unix()))
	})
	refused(t, "five seconds", b.Get(url, x402.HeaderSignature, header), x402.ReasonValidBefore)
	w.nothing(t, "five seconds")
}
