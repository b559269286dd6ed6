package ledger_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

func subject(flow string) ledger.Payment {
	return ledger.Payment{
		ID: "pay_" + ledger.Shard(common.Address{2}) + "abc",
		AuthorizationID: x402.AuthorizationID{
			ChainID: 8453, Asset: common.Address{1}, Payer: common.Address{2}, Nonce: common.Hash{3},
		},
		PayTo: common.Address{4}, Amount: *uint256.NewInt(5), ValidBefore: 6, HeaderHash: common.Hash{7},
		Binding: ledger.Binding{Route: "r", Plan: "p", Method: "GET", Host: "h", URI: "/u"}, Flow: flow, ClaimBlock: 8,
	}
}

// drawChange makes any change at all, likely enough to fit p.
func drawChange(t *rapid.T, p *ledger.Payment) ledger.Change {
	fence := p.Hold.Fence
	return ledger.Change{
		Event:       rapid.SampledFrom(events).Draw(t, "event"),
		Actor:       rapid.SampledFrom([]string{"request", "reconciler"}).Draw(t, "actor"),
		Reason:      rapid.SampledFrom([]string{"", "why"}).Draw(t, "reason"),
		Fence:       rapid.SampledFrom([]uint64{fence, fence, fence, 0, fence + 1, fence - 1}).Draw(t, "fence"),
		Hold:        rapid.SampledFrom([]time.Duration{0, 1, time.Minute, time.Minute + 1500, -time.Second}).Draw(t, "hold"),
		Transaction: common.Hash{rapid.Byte().Draw(t, "tx")},
		Block:       rapid.Uint64Range(0, 3).Draw(t, "block"),
		BlockHash:   common.Hash{rapid.Byte().Draw(t, "block hash")},
		PlanUntil:   rapid.SampledFrom([]time.Time{{}, start.Add(time.Hour + 1)}).Draw(t, "plan until"),
		ServedBy:    rapid.SampledFrom([]string{"", "pay_other"}).Draw(t, "served by"),
	}
}

// drawLife makes a payment and its trail by a run of changes, and hands each step that was made to check.
func drawLife(t *rapid.T, check func(before, after ledger.Payment, c ledger.Change)) (ledger.Payment, []ledger.Entry) {
	p := subject(rapid.SampledFrom(flows).Draw(t, "flow"))
	now := start
	var trail []ledger.Entry
	var previous common.Hash
	first := rapid.SampledFrom([]ledger.Event{ledger.EventChallenge, ledger.EventClaim, ledger.EventImport}).Draw(t, "first")
	for i := range rapid.IntRange(1, 60).Draw(t, "changes") {
		now = now.Add(rapid.SampledFrom([]time.Duration{0, 1, time.Second, 2 * time.Minute, -time.Second}).Draw(t, "later"))
		c := drawChange(t, &p)
		if i == 0 {
			c.Event = first
		}
		before := p
		if err := ledger.Apply(&p, c, now); err != nil {
			if p != before {
				t.Fatalf("%s was refused (%v), but changed the payment", c.Event, err)
			}
			continue
		}
		check(before, p, c)
		e := ledger.NewEntry(&p, c, previous)
		previous = e.Hash
		trail = append(trail, e)
	}
	return p, trail
}

// ways are the moves of each facet: along the way only.
var ways = map[string][]string{
	"pending": {"claimed", "expired", "cancelled"}, "claimed": {"settling", "settled", "void", "failed"},
	"settling": {"settled", "failed"}, "failed": {"settled"}, "void": {"settled"},
	"none": {"delivering", "undelivered", "pending"}, "delivering": {"delivered", "undelivered"},
	"refund pending": {"refunded", "refund_failed"}, "refund_failed": {"refund pending"},
}

func moved(t *rapid.T, from, to string) {
	if from != to && from != "" && !slices.Contains(ways[from], to) {
		t.Fatalf("a facet moved from %s to %s", from, to)
	}
}

// Whatever is asked of a payment, in whatever order: it is delivered at most once, refunded at most once and never
// both (I3), its facets go one way, and what is paid stays open until it is delivered or waits for its
// refund (I4).
func TestAnyChangesKeepTheInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var delivered, refunded int
		drawLife(t, func(a, b ledger.Payment, c ledger.Change) {
			moved(t, string(a.Settlement), string(b.Settlement))
			moved(t, string(a.Delivery), string(b.Delivery))
			word := func(r ledger.Refund) string { return strings.Replace(string(r), "pending", "refund pending", 1) }
			if a.Refund != ledger.NotRefunded || b.Refund != ledger.RefundPending {
				moved(t, word(a.Refund), word(b.Refund))
			}
			if a.Delivery != ledger.Delivered && b.Delivery == ledger.Delivered {
				delivered++
			}
			if a.Refund != ledger.Refunded && b.Refund == ledger.Refunded {
				refunded++
			}
			switch {
			case delivered+refunded > 1:
				t.Fatalf("delivered %d times, refunded %d times", delivered, refunded)
			case b.Delivery == ledger.Delivered && b.Refund != ledger.NotRefunded:
				t.Fatalf("delivered, and refund %s", b.Refund)
			case b.State() == ledger.StatePaid && !b.Open():
				t.Fatal("paid, and nobody looks after it")
			case b.Settlement == ledger.Settled && b.Delivery == ledger.Undelivered && b.Refund == ledger.NotRefunded:
				t.Fatal("paid and not delivered, and nobody refunds it")
			case b.Version != a.Version+1, b.Hold.Fence < a.Hold.Fence:
				t.Fatalf("version %d -> %d, fence %d -> %d", a.Version, b.Version, a.Hold.Fence, b.Hold.Fence)
			}
		})
	})
}

// rehash is what a forger would do: make the entry's hash right again.
func rehash(e *ledger.Entry) {
	e.Hash = common.Hash{}
	b, _ := json.Marshal(e)
	e.Hash = sha256.Sum256(b)
}

// A trail that Apply and NewEntry made is accepted, also after a round trip through JSON; any entry
// missing, doubled, in another place, with any field changed or from another payment, is not.
func TestVerifyAudit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, trail := drawLife(t, func(_, _ ledger.Payment, _ ledger.Change) {})
		if err := ledger.VerifyAudit(&p, trail); err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(trail)
		if err != nil {
			t.Fatal(err)
		}
		var again []ledger.Entry
		if err := json.Unmarshal(b, &again); err != nil {
			t.Fatal(err)
		}
		if err := ledger.VerifyAudit(&p, again); err != nil {
			t.Fatalf("after JSON: %v", err)
		}
		reject := func(what string, bad []ledger.Entry) {
			t.Helper()
			if err := ledger.VerifyAudit(&p, bad); !errors.Is(err, ledger.ErrAudit) {
				t.Fatalf("%s: %v, want ErrAudit", what, err)
			}
		}
		reject("no trail", nil)
		i := rapid.IntRange(0, len(trail)-1).Draw(t, "entry")
		reject("removed", slices.Delete(slices.Clone(trail), i, i+1))
		reject("doubled", slices.Insert(slices.Clone(trail), i, trail[i]))
		if j := rapid.IntRange(0, len(trail)-1).Draw(t, "other"); j != i {
			bad := slices.Clone(trail)
			bad[i], bad[j] = bad[j], bad[i]
			reject("swapped", bad)
		}
		for _, field := range leaves(reflect.ValueOf(&trail[i]).Elem()) {
			bad := slices.Clone(trail)
			mutate(field.of(reflect.ValueOf(&bad[i]).Elem()))
			reject("changed "+field.name, bad)
			if rehash(&bad[i]); i < len(trail)-1 && field.name != ".Hash" {
				reject("forged "+field.name, bad)
			}
		}
	})
}

// A payment that differs from what its trail tells in any field at all is noticed.
func TestVerifyAuditOfAnotherPayment(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, trail := drawLife(t, func(_, _ ledger.Payment, _ ledger.Change) {})
		for _, field := range leaves(reflect.ValueOf(&p).Elem()) {
			bad := p
			mutate(field.of(reflect.ValueOf(&bad).Elem()))
			if err := ledger.VerifyAudit(&bad, trail); !errors.Is(err, ledger.ErrAudit) {
				t.Fatalf("changed %s: %v, want ErrAudit", field.name, err)
			}
		}
	})
}

type leaf struct {
	name  string
	index []int
}

func (l leaf) of(v reflect.Value) reflect.Value { return v.FieldByIndex(l.index) }

// leaves lists the fields of a struct, down to times, hashes and plain values.
func leaves(v reflect.Value) []leaf {
	var got []leaf
	for i := range v.NumField() {
		f := v.Field(i)
		name := "." + v.Type().Field(i).Name
		if f.Kind() != reflect.Struct || f.Type() == reflect.TypeFor[time.Time]() {
			got = append(got, leaf{name, []int{i}})
			continue
		}
		for _, l := range leaves(f) {
			got = append(got, leaf{name + l.name, append([]int{i}, l.index...)})
		}
	}
	return got
}

func mutate(v reflect.Value) {
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		*x = x.Add(time.Microsecond)
	case *common.Hash:
		x[31] ^= 1
	case *common.Address:
		x[19] ^= 1
	case *uint256.Int:
		x.AddUint64(x, 1)
	case *uint64:
		*x++
	case *bool:
		*x = !*x
	default: // a string, named or not
		v.SetString(v.String() + "x")
	}
}

func TestNewID(t *testing.T) {
	payer := common.Address{2}
	seen := map[string]bool{}
	for i := range 256 {
		id, err := ledger.NewID(strings.NewReader(strings.Repeat(string(rune(i%128)), 15)+string([]byte{byte(i)})), payer)
		if err != nil {
			t.Fatal(err)
		}
		if len(id) != 32 || !strings.HasPrefix(id, "pay_") || strings.Trim(id[4:], "abcdefghijklmnopqrstuvwxyz234567") != "" {
			t.Errorf("id %q", id)
		}
		if seen[id] {
			t.Errorf("id %q again", id)
		}
		seen[id] = true
	}
	if id, err := ledger.NewID(strings.NewReader("too little"), payer); err == nil {
		t.Errorf("id %q of a source that ended", id)
	}
}

// What is not the caller's to set is not taken from the caller.
func TestCreateTakesOnlyTheSubject(t *testing.T) {
	p := subject(ledger.FlowUpfront)
	p.Version, p.Settlement, p.Delivery, p.Refund = 9, ledger.Settled, ledger.Delivered, ledger.Refunded
	p.Final, p.Hold.Fence, p.SettledAt, p.ServedBy, p.Reason = true, 9, start, "x", "y"
	got, e, err := ledger.Create(p, ledger.Change{Event: ledger.EventVoid, Hold: time.Minute}, start)
	if err != nil {
		t.Fatal(err)
	}
	want := subject(ledger.FlowUpfront)
	want.Version, want.Settlement, want.Delivery, want.Refund = 1, ledger.Claimed, ledger.NotDelivered, ledger.NotRefunded
	want.Hold = ledger.Hold{Fence: 1, Until: start.Add(time.Minute)}
	want.CreatedAt, want.UpdatedAt = start, start
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if err := ledger.VerifyAudit(&got, []ledger.Entry{e}); err != nil {
		t.Error(err)
	}
	if _, _, err := ledger.Create(ledger.Payment{}, ledger.Change{}, start); !errors.Is(err, ledger.ErrTransition) {
		t.Errorf("a payment without an id: %v", err)
	}
}

// Changes are made all or none, and Settling is reached by Send alone.
func TestAdvance(t *testing.T) {
	p, e, err := ledger.Create(subject(ledger.FlowUpfront), ledger.Change{}, start)
	if err != nil {
		t.Fatal(err)
	}
	void, deliver := ledger.Change{Event: ledger.EventVoid}, ledger.Change{Event: ledger.EventDeliver}
	if _, _, err := ledger.Advance(p, e.Hash, start, void, deliver); !errors.Is(err, ledger.ErrTransition) {
		t.Errorf("void, deliver: %v", err)
	}
	if _, _, err := ledger.Advance(p, e.Hash, start, ledger.Change{Event: ledger.EventSend}); !errors.Is(err, ledger.ErrTransition) {
		t.Errorf("send: %v", err)
	}
	sent, se, err := ledger.Send(p, e.Hash, start, &ledger.Transaction{Hash: common.Hash{1}}, "request")
	if err != nil || sent.Settlement != ledger.Settling {
		t.Fatalf("settlement %s, error %v", sent.Settlement, err)
	}
	done, entries, err := ledger.Advance(sent, se.Hash, start, ledger.Change{Event: ledger.EventSettle}, deliver)
	if err != nil {
		t.Fatal(err)
	}
	if err := ledger.VerifyAudit(&done, append([]ledger.Entry{e, se}, entries...)); err != nil {
		t.Error(err)
	}
}
