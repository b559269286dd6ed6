package paywall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
	"github.com/caddy-x402/caddy-x402/token"
	"github.com/caddy-x402/caddy-x402/x402"
)

// access asks the i-th instance for the plan, or for a path, under a name; pairs of header follow.
func (c *cluster) access(i int, path, name string, header ...string) reply {
	return c.ask(i, http.MethodPost, path, "{}", append([]string{"X-Access", name}, header...)...)
}

func challengeOf(t *testing.T, a reply) (r struct{ ChallengeID, RequestID, AccessToken, PaymentID, Code string }) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), &r); err != nil {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return r
}

// Two payers pay one request at the same moment on two instances: each has looked before the other has claimed. One is charged, and the
// other can pay under another name.
func TestTwoInstancesOneAccess(t *testing.T) {
	for _, path := range []string{"/access", "/weather"} {
		c := newCluster(t, 2, Settings{}, meetings(2))
		offer := c.access(0, path, "name")
		plan, price := "", uint64(cent)
		if path == "/access" {
			plan, price = "day", 10*cent
		}
		headers := []string{c.signOffer(offer, 1, plan, nil), c.signOffer(offer, 2, plan, nil)}
		replies := make([]reply, 2)
		var wg sync.WaitGroup
		for i := range replies {
			wg.Go(func() { replies[i] = c.access(i, path, "name", headerSignature, headers[i]) })
		}
		wg.Wait()
		lost := 0
		if replies[0].status == http.StatusOK {
			lost = 1
		}
		if replies[1-lost].status != http.StatusOK || replies[lost].status != http.StatusConflict || challengeOf(t, replies[lost]).Code != CodeInvalidRequest {
			t.Fatalf("%s: %d %s, and %d %s", path, replies[0].status, replies[0].body, replies[1].status, replies[1].body)
		}
		calls := int64(0)
		if plan == "" {
			calls = 1
		}
		c.saw(calls, price)
		// Its signature is as good as before, for what it was signed for; and that is taken.
		if a := c.access(lost, path, "name", headerSignature, headers[lost]); a.status != http.StatusConflict {
			t.Errorf("%s, again: %d %s", path, a.status, a.body)
		}
		c.saw(calls, price)
		if path == "/access" {
			continue
		}
		// Who has paid is not charged again, and gets no second answer where none is kept.
		again := c.access(lost, path, "name", headerSignature, c.signOffer(offer, 2-lost, plan, nil))
		if again.status != http.StatusConflict || challengeOf(t, again).Code != CodeRedeemed {
			t.Errorf("who has paid: %d %s", again.status, again.body)
		}
		c.saw(calls, price)
	}
}

// Of one name is one challenge over all instances; another one's terms are refused; and it is nobody's but its asker's.
func TestTwoInstancesOneChallenge(t *testing.T) {
	c := newCluster(t, 2, Settings{}, nil)
	ids := make([]string, 16)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() { ids[i] = challengeOf(t, c.access(i%2, "/access", "name")).ChallengeID })
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] || !IsChallenge(id) {
			t.Fatalf("the challenges are %v", ids)
		}
	}
	if a := c.access(1, "/weather", "name"); a.status != http.StatusConflict {
		t.Errorf("for another thing: %d %s", a.status, a.body)
	}
	if a := c.access(0, "/access", ""); challengeOf(t, a).RequestID == "" || challengeOf(t, a).ChallengeID == ids[0] {
		t.Errorf("without a name: %d %s", a.status, a.body)
	}
	for _, other := range []string{"", "http-", "pay_x", ids[0] + "0", ids[0][:len(ids[0])-1] + "x", "route" + strings.TrimPrefix(ids[0], "http")} {
		if _, err := c.instances[0].engine.Challenge(t.Context(), other); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("%q is known: %v", other, err)
		}
	}
	s, err := c.instances[1].engine.Challenge(t.Context(), ids[0])
	if err != nil || s.State != ledger.StatePending || s.PlanID != "day" || s.Amount != "100000" || s.PayTo != seller.Hex() {
		t.Errorf("%+v, %v", s, err)
	}
}

// Who has a plan pays nothing for another name, and can't fill the ledger with names.
func TestNamesForNothing(t *testing.T) {
	c := newCluster(t, 1, Settings{}, nil)
	if a := c.access(0, "/access", "first", headerSignature, c.signOffer(c.access(0, "/access", "first"), 1, "day", nil)); a.status != http.StatusOK {
		t.Fatal(a.status, a.body)
	}
	fresh, given := c.sign(0, 1, "day"), 0
	for given < 400 {
		a := c.access(0, "/access", fmt.Sprint("name ", given), headerSignature, fresh)
		if a.status != http.StatusOK {
			if a.status != http.StatusTooManyRequests || challengeOf(t, a).Code != CodeRateLimited {
				t.Errorf("%d %s", a.status, a.body)
			}
			break
		}
		given++
	}
	if given < 32 || given == 400 {
		t.Errorf("%d names were kept for nothing", given)
	}
	c.saw(0, 10*cent)
}

// Who pays and who cancels at the same moment, on two instances: one of them has it.
func TestPaidOrCancelled(t *testing.T) {
	c := newCluster(t, 2, Settings{}, nil)
	earned := uint64(0)
	for n := range 6 {
		name := string(rune('a' + n))
		offer := c.access(0, "/access", name)
		id, header := challengeOf(t, offer).ChallengeID, c.signOffer(offer, n, "day", nil)
		var paid reply
		var cancelled error
		var wg sync.WaitGroup
		wg.Go(func() { paid = c.access(0, "/access", name, headerSignature, header) })
		wg.Go(func() { _, cancelled = c.instances[1].engine.CancelChallenge(context.WithoutCancel(t.Context()), id) })
		wg.Wait()
		switch {
		case cancelled == nil && paid.status == http.StatusGone && challengeOf(t, paid).Code == CodeChallengeExpired:
		case errors.Is(cancelled, ErrNotPending) && paid.status == http.StatusOK:
			earned += 10 * cent
		default:
			t.Errorf("paid: %d %s; cancelled: %v", paid.status, paid.body, cancelled)
		}
		c.saw(0, earned)
	}
}

// An expired challenge can't be paid, whoever looks; the payment that it has is served for as long as it is one.
func TestChallengeExpires(t *testing.T) {
	c := newCluster(t, 2, Settings{}, nil)
	offer := c.access(0, "/access", "late", "X-Access-TTL", "1ms")
	id := challengeOf(t, offer).ChallengeID
	state := func() ledger.State {
		s, err := c.instances[1].engine.Challenge(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return s.State
	}
	for state() == ledger.StatePending {
		time.Sleep(time.Millisecond)
	}
	if got := state(); got != ledger.StateExpired {
		t.Fatalf("it is %s", got)
	}
	header := c.signOffer(offer, 1, "day", nil)
	for i := range 2 {
		if a := c.access(i, "/access", "late", headerSignature, header); a.status != http.StatusGone {
			t.Errorf("instance %d: %d %s", i, a.status, a.body)
		}
	}
	if _, err := c.instances[0].engine.CancelChallenge(t.Context(), id); !errors.Is(err, ErrNotPending) {
		t.Errorf("cancelling what has expired: %v", err)
	}
	c.saw(0, 0)
	fresh := c.access(1, "/access", "late")
	if challengeOf(t, fresh).ChallengeID == id {
		t.Error("it came back")
	}
	// The old signature was for the old challenge; its name has a new one, which it may pay.
	if a := c.access(1, "/access", "late", headerSignature, header); a.status != http.StatusOK {
		t.Errorf("the new one: %d %s", a.status, a.body)
	}
	c.saw(0, 10*cent)
	if a := c.access(0, "/access", "late", "X-Access-TTL", "1ms", headerSignature, header); a.status != http.StatusOK {
		t.Errorf("again: %d %s", a.status, a.body)
	}
}

// unbound is a ledger that fails once where a payment takes its challenge: its instance might as well have died there.
type unbound struct {
	ledger.Store
	failed atomic.Bool
}

var errLost = errors.New("the ledger is gone")

func (u *unbound) Reserve(ctx context.Context, r ledger.Reservation, over string, ttl time.Duration) (ledger.Reservation, error) {
	_, payment := ledger.ShardOf(r.Payment)
	if len(r.Answer) > 0 && payment && u.failed.CompareAndSwap(false, true) {
		return ledger.Reservation{}, errLost
	}
	return u.Store.Reserve(ctx, r, over, ttl)
}

// A payment that was claimed and has not taken its challenge is gone on with by the same header, and paid once.
func TestChallengeWhoseInstanceDied(t *testing.T) {
	c := newCluster(t, 2, Settings{HoldTTL: 50 * time.Millisecond}, func(i int, s ledger.Store) ledger.Store {
		if i == 1 {
			return s
		}
		return &unbound{Store: s}
	})
	offer := c.access(0, "/access", "name")
	header := c.signOffer(offer, 1, "day", nil)
	a := c.access(0, "/access", "name", headerSignature, header)
	if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || challengeOf(t, a).Code != CodeInternalError {
		t.Fatalf("%d %s", a.status, a.body)
	}
	c.saw(0, 0)
	for end := time.Now().Add(10 * time.Second); ; {
		if a = c.access(1, "/access", "name", headerSignature, header); a.status != http.StatusServiceUnavailable || time.Now().After(end) {
			break
		}
	}
	if g := challengeOf(t, a); a.status != http.StatusOK || g.ChallengeID != challengeOf(t, offer).ChallengeID || g.AccessToken == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	c.saw(0, 10*cent)
}

// What came to nothing gives its name free, and what is alive does not.
func TestSpentPayments(t *testing.T) {
	const used, unused = "pay_used", "pay_unused"
	m := storetest.NewMemory(time.Now, false)
	for id, n := range map[string]uint64{used: 3, unused: 2} {
		n, three := *uint256.NewInt(n), *uint256.NewInt(3)
		d := ledger.Draw{Key: allowanceKey(kindRequests, id), Least: n, Want: n, Limit: three, Until: time.Now().Add(time.Hour)}
		if _, _, err := m.Draw(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	counted := Plan{Name: "counted", Requests: 3, TTL: time.Hour}
	y := &Payee{Network: devnet.Network()}
	of := func(n uint64) []Price { return []Price{{Payee: y, Amount: *uint256.NewInt(n)}} }
	dear, cheap := Plan{Name: "dear", Credit: of(9), Least: of(3)}, Plan{Name: "cheap", Credit: of(9), Least: of(2)}
	d := ledger.Draw{
		Key: allowanceKey(kindCredit, "pay_credit"), Want: *uint256.NewInt(7), Limit: *uint256.NewInt(9), Until: time.Now().Add(time.Hour),
	}
	if _, _, err := m.Draw(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	a := &attempt{
		Gate: &Gate{Config: Config{Now: time.Now}}, Request: Request{Route: &Route{Plans: []Plan{{Name: "a"}, counted, dear, cheap}}},
		engine: &Engine{store: m, revoked: token.NewRevoked()},
	}
	a.engine.revoked.Add("pay_revoked", time.Now().Add(time.Hour), time.Now())
	bought := func(id, plan string) ledger.Payment {
		return ledger.Payment{
			ID: id, AuthorizationID: x402.AuthorizationID{ChainID: y.Network.ChainID, Asset: y.Network.Asset.Address},
			Settlement: ledger.Settled, Delivery: ledger.Delivered, Binding: ledger.Binding{Plan: plan}, PlanUntil: time.Now().Add(time.Hour),
		}
	}
	for name, tc := range map[string]struct {
		p    ledger.Payment
		want bool
	}{
		"claimed":       {ledger.Payment{Settlement: ledger.Claimed}, false},
		"settling":      {ledger.Payment{Settlement: ledger.Settling}, false},
		"paid":          {ledger.Payment{Settlement: ledger.Settled}, false},
		"delivered":     {ledger.Payment{Settlement: ledger.Settled, Delivery: ledger.Delivered}, false},
		"a plan":        {ledger.Payment{Settlement: ledger.Settled, Delivery: ledger.Delivered, Binding: ledger.Binding{Plan: "a"}, PlanUntil: time.Now().Add(time.Hour)}, false},
		"an ended plan": {ledger.Payment{Settlement: ledger.Settled, Delivery: ledger.Delivered, Binding: ledger.Binding{Plan: "a"}, PlanUntil: time.Now().Add(-time.Hour)}, true},
		"a revoked one": {bought("pay_revoked", "a"), true},
		"a used-up one": {bought(used, "counted"), true},
		"one in use":    {bought(unused, "counted"), false},
		"too little":    {bought("pay_credit", "dear"), true},
		"just enough":   {bought("pay_credit", "cheap"), false},
		"one untouched": {bought("pay_new", "counted"), false},
		"failed":        {ledger.Payment{Settlement: ledger.Failed}, true},
		"void":          {ledger.Payment{Settlement: ledger.Void}, true},
		"undelivered":   {ledger.Payment{Settlement: ledger.Settled, Delivery: ledger.Undelivered}, true},
		"refunded":      {ledger.Payment{Settlement: ledger.Settled, Refund: ledger.Refunded}, true},
	} {
		if tc.p.Refund == "" {
			tc.p.Refund = ledger.NotRefunded
		}
		if got, err := a.ended(t.Context(), &tc.p); got != tc.want || err != nil {
			t.Errorf("%s has ended: %v, %v", name, got, err)
		}
	}
}

// Ids lead to keys, and nothing else does.
func FuzzChallengeKeyOf(f *testing.F) {
	id, err := newChallengeID(randomness, challengeKey("h", "name"), true)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{id, "", "http-", "route-" + id[5:], id + "0", strings.ToUpper(id), "pay_" + id} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		key, ok := challengeKeyOf(s)
		if !ok {
			return
		}
		if key == (common.Hash{}) && !strings.Contains(s, strings.Repeat("0", keyedHex)) || len(s) > 6+keyedHex+randomHex {
			t.Errorf("%q leads to %s", s, key)
		}
	})
}

// What clients send back may be anything.
func FuzzEchoedRequest(f *testing.F) {
	for _, s := range []string{`{"info":{"requestId":"a"}}`, `{}`, `null`, `[]`, `{"info":[]}`, `{"info":{"requestId":"\u0000"}}`, ``, `{"info":{"requestId":7}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if id := echoedRequest(b); id != "" && !ValidRequestID(id) {
			t.Errorf("%q gives %q", b, id)
		}
	})
}
