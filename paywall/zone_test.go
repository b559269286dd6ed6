package paywall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holiman/uint256"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
)

func zoned(zones ...Zone) func(*Config) {
	return func(c *Config) { c.Zones = zones }
}

// limitedBy checks a 429 of a zone whose window is an hour and has just begun.
func limitedBy(t *testing.T, what string, a reply, by ZoneBy, q int) {
	t.Helper()
	wait, err := strconv.Atoi(a.header.Get("Retry-After"))
	if a.status != http.StatusTooManyRequests || !strings.Contains(a.body, `"rate_limit.exceeded"`) || err != nil || wait < 3500 || wait > 3600 {
		t.Errorf("%s: %d, Retry-After %q: %s", what, a.status, a.header.Get("Retry-After"), a.body)
	}
	policy, state := fmt.Sprintf(`%q;q=%d;w=3600`, by, q), fmt.Sprintf(`%q;r=0;t=`, by)
	if a.header.Get("RateLimit-Policy") != policy || !strings.HasPrefix(a.header.Get("RateLimit"), state) {
		t.Errorf("%s: %q, %q", what, a.header.Get("RateLimit-Policy"), a.header.Get("RateLimit"))
	}
}

// A payer may pay so often, on whatever instance; what is more is refused before anything is charged, and its authorization stays unused:
// where there is no limit the very same header pays. Others don't suffer, and what was paid before is not limited.
func TestPayerZone(t *testing.T) {
	c := newCluster(t, 2, Settings{}, nil, zoned(Zone{By: ByPayer, Name: "z", Requests: 3, Window: time.Hour}))
	var first string
	for i := range 3 {
		header := c.sign(i%2, 1, "")
		a := c.ask(i%2, http.MethodGet, "/x", "", headerSignature, header)
		if a.status != http.StatusOK || !strings.HasPrefix(a.header.Get("RateLimit"), fmt.Sprintf(`"payer";r=%d;t=`, 2-i)) {
			t.Fatalf("payment %d: %d %v %s", i, a.status, a.header, a.body)
		}
		first = header
	}
	unused := c.sign(0, 1, "")
	for i := range c.instances {
		limitedBy(t, "one too many", c.ask(i, http.MethodGet, "/x", "", headerSignature, unused), ByPayer, 3)
	}
	c.saw(3, 3*cent)
	if a := c.ask(0, http.MethodGet, "/x", "", headerSignature, first); a.status == http.StatusTooManyRequests {
		t.Errorf("what was paid before: %d %s", a.status, a.body)
	}
	if a := c.ask(1, http.MethodGet, "/x", "", headerSignature, c.sign(1, 2, "")); a.status != http.StatusOK {
		t.Errorf("another payer: %d %s", a.status, a.body)
	}
	if n := c.states()[ledger.StateDelivered]; n != 4 {
		t.Errorf("%d payments were delivered: %v", n, c.states())
	}
	c.instances = append(c.instances, c.start(2, Settings{}, nil))
	if a := c.ask(2, http.MethodGet, "/x", "", headerSignature, unused); a.status != http.StatusOK {
		t.Errorf("the authorization that was not used: %d %s", a.status, a.body)
	}
	c.saw(5, 5*cent)
}

// Who holds a plan counts as who bought it.
func TestPayerZoneOfTokens(t *testing.T) {
	c := newCluster(t, 2, Settings{}, nil, zoned(Zone{By: ByPayer, Name: "z", Requests: 3, Window: time.Hour}))
	bought := c.ask(0, http.MethodGet, "/x", "", headerSignature, c.sign(0, 1, "day"))
	token := "Bearer " + bought.header.Get(headerAccessToken)
	if bought.status != http.StatusOK || len(token) < 50 {
		t.Fatalf("%d %v %s", bought.status, bought.header, bought.body)
	}
	for i := range 2 {
		a := c.ask(i, http.MethodGet, "/x", "", "Authorization", token)
		if a.status != http.StatusOK || !strings.HasPrefix(a.header.Get("RateLimit"), fmt.Sprintf(`"payer";r=%d;t=`, 1-i)) {
			t.Errorf("request %d: %d %v", i, a.status, a.header)
		}
	}
	for i := range 2 {
		limitedBy(t, "one too many", c.ask(i, http.MethodGet, "/x", "", "Authorization", token), ByPayer, 3)
	}
	c.saw(3, 10*cent)
}

// Who asks and pays nothing counts by its address, if that is limited; who pays does too, where payers are not.
func TestClientZone(t *testing.T) {
	c := newCluster(t, 1, Settings{}, nil, zoned(Zone{By: ByClient, Name: "z", Requests: 4, Window: time.Hour}))
	first, second := c.sign(0, 1, ""), c.sign(0, 2, "")
	for i, want := range []int{http.StatusOK, http.StatusPaymentRequired, http.StatusTooManyRequests, http.StatusTooManyRequests} {
		header := []string{headerSignature, first}
		switch i {
		case 1, 2:
			header = nil
		case 3:
			header[1] = second
		}
		if a := c.ask(0, http.MethodGet, "/x", "", header...); a.status != want {
			t.Errorf("request %d: %d %v %s", i, a.status, a.header, a.body)
		}
	}
	c.saw(1, cent)
}

// A payment that is none makes nobody's offers free of the limit on them; and the header that bought a plan is no way around that on its token:
// it brings the token back, which may have got lost, and no more.
func TestZonesHaveNoWayAround(t *testing.T) {
	c := newCluster(t, 1, Settings{}, nil, zoned(
		Zone{By: ByPayer, Name: "z", Requests: 3, Window: time.Hour}, Zone{By: ByClient, Name: "z", Requests: 2, Window: time.Hour},
	))
	offer := c.ask(0, http.MethodGet, "/x", "") // the first of two
	paid, little := c.signOffer(offer, 1, "day", nil), c.signOffer(offer, 2, "", uint256.NewInt(1))
	for i := range 3 {
		a := c.ask(0, http.MethodGet, "/x", "", headerSignature, paid)
		if a.status != http.StatusOK || !strings.HasPrefix(a.header.Get("RateLimit"), fmt.Sprintf(`"payer";r=%d;t=`, 2-i)) {
			t.Errorf("the plan's payment, time %d: %d %v %s", i, a.status, a.header, a.body)
		}
	}
	a := c.ask(0, http.MethodGet, "/x", "", headerSignature, paid)
	limitedBy(t, "the plan's payment", a, ByPayer, 3)
	if a.header.Get(headerAccessToken) == "" || a.header.Get(headerResponse) == "" || a.header.Get(headerPaymentID) == "" {
		t.Errorf("who has paid does not get its token: %v", a.header)
	}
	c.saw(3, 10*cent)
	if a := c.ask(0, http.MethodGet, "/x", "", headerSignature, little); a.status != http.StatusPaymentRequired || !strings.HasPrefix(a.header.Get("RateLimit"), `"client";r=0;t=`) {
		t.Errorf("a payment that is too small: %d %v %s", a.status, a.header, a.body)
	}
	for name, header := range map[string]string{"a payment that is too small": little, "no payment": "", "nothing": "bm90aGluZw=="} {
		limitedBy(t, name, c.ask(0, http.MethodGet, "/x", "", headerSignature, header), ByClient, 2)
	}
}

// Payments that are refused are few; then no new one from that address is looked at, a good one neither. What was paid is not new, and an offer
// costs nothing. Another instance learns of it with the next that it refuses.
func TestRefusedZone(t *testing.T) {
	c := newCluster(t, 2, Settings{}, nil, zoned(Zone{By: ByRefused, Name: "z", Requests: 3, Window: time.Hour}))
	paid := c.sign(0, 1, "")
	if a := c.ask(0, http.MethodGet, "/x", "", headerSignature, paid); a.status != http.StatusOK || a.header.Get("RateLimit") != "" {
		t.Fatalf("%d %v %s", a.status, a.header, a.body)
	}
	good, little := c.sign(0, 2, ""), c.signFor(0, 2, "", uint256.NewInt(1))
	for i := range 3 {
		if a := c.ask(0, http.MethodGet, "/x", "", headerSignature, little); a.status != http.StatusPaymentRequired {
			t.Errorf("refusal %d: %d %s", i, a.status, a.body)
		}
	}
	limitedBy(t, "a bad one", c.ask(0, http.MethodGet, "/x", "", headerSignature, little), ByRefused, 3)
	limitedBy(t, "a good one", c.ask(0, http.MethodGet, "/x", "", headerSignature, good), ByRefused, 3)
	if a := c.ask(1, http.MethodGet, "/x", "", headerSignature, little); a.status != http.StatusPaymentRequired {
		t.Errorf("another instance: %d %s", a.status, a.body)
	}
	limitedBy(t, "another instance", c.ask(1, http.MethodGet, "/x", "", headerSignature, little), ByRefused, 3)
	if a := c.ask(0, http.MethodGet, "/x", "", headerSignature, paid); a.status == http.StatusTooManyRequests {
		t.Errorf("what was paid: %d %s", a.status, a.body)
	}
	if a := c.ask(0, http.MethodGet, "/x", ""); a.status != http.StatusPaymentRequired {
		t.Errorf("an offer: %d %s", a.status, a.body)
	}
	c.saw(1, cent)
}

// Tokens that our keys did not sign are few, from one address; then no new payment from there is looked at. A good one opens the gate all the
// same, and so does what was paid before. One that is the upstream's is no guess.
func TestForgedTokens(t *testing.T) {
	c := newCluster(t, 1, Settings{}, nil, zoned(Zone{By: ByRefused, Name: "z", Requests: 2, Window: time.Hour}))
	paid := c.sign(0, 1, "day")
	bought := c.ask(0, http.MethodGet, "/x", "", headerSignature, paid)
	good := bought.header.Get(headerAccessToken)
	parts := strings.Split(good, ".")
	if bought.status != http.StatusOK || len(parts) != 3 {
		t.Fatalf("%d %v %s", bought.status, bought.header, bought.body)
	}
	forged := "Bearer " + parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2]))
	for range 3 {
		if a := c.ask(0, http.MethodGet, "/x", "", "Authorization", "Bearer the.upstream's.own"); a.status != http.StatusPaymentRequired {
			t.Errorf("a token that is not ours: %d %s", a.status, a.body)
		}
	}
	for i := range 2 {
		if a := c.ask(0, http.MethodGet, "/x", "", "Authorization", forged); a.status != http.StatusPaymentRequired || !strings.Contains(a.body, string(ReasonTokenInvalid)) {
			t.Errorf("forgery %d: %d %s", i, a.status, a.body)
		}
	}
	limitedBy(t, "a third", c.ask(0, http.MethodGet, "/x", "", "Authorization", forged), ByRefused, 2)
	limitedBy(t, "a new payment", c.ask(0, http.MethodGet, "/x", "", "Authorization", forged, headerSignature, c.sign(0, 2, "")), ByRefused, 2)
	if a := c.ask(0, http.MethodGet, "/x", "", "Authorization", forged, headerSignature, paid); a.status != http.StatusOK {
		t.Errorf("what was paid, beside a forgery: %d %s", a.status, a.body)
	}
	if a := c.ask(0, http.MethodGet, "/x", "", "Authorization", "Bearer "+good); a.status != http.StatusOK {
		t.Errorf("a good token: %d %s", a.status, a.body)
	}
	c.saw(3, 10*cent)
}

// A window begins with the first request, and the next one with the first after its end: nothing of the one before is left over.
func TestZoneWindows(t *testing.T) {
	var clock atomic.Int64
	clock.Store(noon.UnixNano())
	now := func() time.Time { return time.Unix(0, clock.Load()) }
	store := storetest.NewMemory(now, false)
	l := newLeaser(store, func() *slog.Logger { return slog.New(slog.DiscardHandler) })
	defer l.close()
	z := Zone{By: ByClient, Name: "z", Requests: 40, Window: time.Minute}
	for window := range 3 {
		granted := 0
		for range 50 {
			s, err := l.take(t.Context(), z.due("site", "somebody", now()), 0)
			switch {
			case err == nil:
				granted++
			case !errors.Is(err, errUsedUp):
				t.Fatal(err)
			case s.until.Sub(now()) <= 0 || s.until.Sub(now()) > time.Minute:
				t.Fatalf("window %d ends at %s, and it is %s", window, s.until, now())
			}
			clock.Add(int64(time.Second))
		}
		if granted != 40 {
			t.Errorf("window %d: %d requests", window, granted)
		}
		clock.Add(int64(15 * time.Second))
	}
	if _, err := l.take(t.Context(), z.due("site", "another", now()), 0); err != nil {
		t.Error(err)
	}
	if a, b := z.due("site", "a", now()), z.due("another", "a", now()); a.key == b.key {
		t.Error("two sites share a count")
	}
}

// However requests are spread over instances, no more than the limit pass in a window, and alone an instance lets all of them pass.
func TestZonesHoldOverInstances(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := storetest.NewMemory(func() time.Time { return noon }, false)
		z := Zone{By: ByPayer, Name: "z", Requests: rapid.Uint64Range(1, 100).Draw(t, "limit"), Window: time.Hour}
		instances := make([]*leaser, rapid.IntRange(1, 3).Draw(t, "instances"))
		for i := range instances {
			instances[i] = newLeaser(store, func() *slog.Logger { return slog.New(slog.DiscardHandler) })
		}
		defer func() {
			for _, l := range instances {
				l.close()
			}
		}()
		asked, granted := rapid.Uint64Range(1, 200).Draw(t, "requests"), uint64(0)
		for range asked {
			l := instances[rapid.IntRange(0, len(instances)-1).Draw(t, "instance")]
			switch _, err := l.take(context.Background(), z.due("site", "somebody", noon), 0); {
			case err == nil:
				granted++
			case !errors.Is(err, errUsedUp):
				t.Fatal(err)
			}
		}
		if granted > z.Requests || len(instances) == 1 && granted != min(asked, z.Requests) {
			t.Fatalf("%d of %d requests passed over %d instances, where %d may", granted, asked, len(instances), z.Requests)
		}
	})
}

// uncounted is a ledger that draws nothing.
type uncounted struct{ ledger.Store }

func (uncounted) Draw(context.Context, ledger.Draw) (uint256.Int, ledger.Allowance, error) {
	return uint256.Int{}, ledger.Allowance{}, errors.New("the ledger does not answer")
}

// Where nothing can be counted nobody is refused for it.
func TestZonesWithoutLedger(t *testing.T) {
	zones := zoned(
		Zone{By: ByPayer, Requests: 1, Window: time.Hour}, Zone{By: ByClient, Requests: 1, Window: time.Hour}, Zone{By: ByRefused, Requests: 1, Window: time.Hour},
	)
	c := newCluster(t, 1, Settings{}, func(_ int, s ledger.Store) ledger.Store { return uncounted{s} }, zones)
	for range 2 {
		if a := c.ask(0, http.MethodGet, "/x", ""); a.status != http.StatusPaymentRequired {
			t.Errorf("%d %s", a.status, a.body)
		}
		if a := c.ask(0, http.MethodGet, "/x", "", headerSignature, c.sign(0, 1, "")); a.status != http.StatusOK || a.header.Get("RateLimit") != "" {
			t.Errorf("%d %v %s", a.status, a.header, a.body)
		}
	}
	c.saw(2, 2*cent)
}
