package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

var (
	start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

	settlements = []ledger.Settlement{
		ledger.Pending, ledger.Claimed, ledger.Settling, ledger.Settled, ledger.Failed, ledger.Void,
		ledger.Expired, ledger.Cancelled,
	}
	deliveries = []ledger.Delivery{ledger.NotDelivered, ledger.Delivering, ledger.Delivered, ledger.Undelivered}
	refunds    = []ledger.Refund{ledger.NotRefunded, ledger.RefundPending, ledger.Refunded, ledger.RefundFailed}
	flows      = []string{ledger.FlowUpfront, ledger.FlowAuthorization, ledger.FlowDeferred, ledger.FlowFacilitator, ledger.FlowRefund}
	events     = []ledger.Event{
		ledger.EventChallenge, ledger.EventClaim, ledger.EventSend, ledger.EventSettle, ledger.EventFail, ledger.EventVoid,
		ledger.EventExpire, ledger.EventCancel, ledger.EventFinal, ledger.EventTake, ledger.EventExtend,
		ledger.EventRelease, ledger.EventDeliver, ledger.EventDelivered, ledger.EventUndelivered,
		ledger.EventRefunded, ledger.EventRefundFailed, ledger.EventRefundRetry, ledger.EventImport, ledger.EventMadeGood,
	}
)

// facets is where a payment stands, and where a step leads.
type facets struct {
	settlement ledger.Settlement
	delivery   ledger.Delivery
	refund     ledger.Refund
}

func (f facets) payment(flow string) ledger.Payment {
	return ledger.Payment{
		ID: "pay_x", Version: 7, Flow: flow, Settlement: f.settlement, Delivery: f.delivery, Refund: f.refund,
		Hold: ledger.Hold{Fence: 3, Until: start.Add(time.Minute)},
	}
}

func everywhere(visit func(facets)) {
	for _, s := range settlements {
		for _, d := range deliveries {
			for _, r := range refunds {
				visit(facets{s, d, r})
			}
		}
	}
}

// expected is the state machine written a second time, as a table of what each event needs and where it leads, for
// a change that proves the hold. ok is false where the step must be refused.
func expected(e ledger.Event, flow string, f facets) (to facets, ok bool) {
	to = f
	is := func(s ...ledger.Settlement) bool { return slices.Contains(s, f.settlement) }
	facilitated := flow == ledger.FlowFacilitator || flow == ledger.FlowRefund
	canServe := f.settlement == ledger.Settled || flow != ledger.FlowUpfront && is(ledger.Claimed, ledger.Settling)
	notServed := f.delivery == ledger.NotDelivered || f.delivery == ledger.Delivering
	switch e {
	case ledger.EventClaim:
		to.settlement = ledger.Claimed
		return to, is(ledger.Pending)
	case ledger.EventSend:
		to.settlement = ledger.Settling
		return to, is(ledger.Claimed, ledger.Settling)
	case ledger.EventSettle:
		to.settlement = ledger.Settled
		switch {
		case facilitated:
		case f.delivery == ledger.Undelivered, is(ledger.Failed, ledger.Void) && f.delivery != ledger.Delivered:
			to.delivery, to.refund = ledger.Undelivered, ledger.RefundPending
		}
		return to, is(ledger.Claimed, ledger.Settling, ledger.Failed, ledger.Void)
	case ledger.EventFail:
		to.settlement = ledger.Failed
		return to, is(ledger.Claimed, ledger.Settling)
	case ledger.EventVoid:
		to.settlement = ledger.Void
		return to, is(ledger.Claimed)
	case ledger.EventExpire:
		to.settlement = ledger.Expired
		return to, is(ledger.Pending)
	case ledger.EventCancel:
		to.settlement = ledger.Cancelled
		return to, is(ledger.Pending)
	case ledger.EventFinal:
		return to, is(ledger.Settled, ledger.Failed, ledger.Void)
	case ledger.EventExtend, ledger.EventRelease:
		return to, true
	case ledger.EventDeliver:
		to.delivery = ledger.Delivering
		return to, notServed && canServe && f.refund == ledger.NotRefunded && !facilitated
	case ledger.EventDelivered:
		to.delivery = ledger.Delivered
		return to, f.delivery == ledger.Delivering && (flow != ledger.FlowAuthorization || is(ledger.Settled)) && !facilitated
	case ledger.EventUndelivered:
		to.delivery = ledger.Undelivered
		if f.settlement == ledger.Settled {
			to.refund = ledger.RefundPending
		}
		return to, notServed && canServe && !facilitated
	case ledger.EventRefunded:
		to.refund = ledger.Refunded
		return to, f.refund == ledger.RefundPending
	case ledger.EventRefundFailed:
		to.refund = ledger.RefundFailed
		return to, f.refund == ledger.RefundPending
	case ledger.EventRefundRetry:
		to.refund = ledger.RefundPending
		return to, f.refund == ledger.RefundFailed
	}
	return to, false // challenge: only from nothing; take: the hold is held
}

// Every event from every state leads where the table says, or is refused and leaves the payment as it was.
func TestApplyEveryEventFromEveryState(t *testing.T) {
	for _, e := range append(slices.Clone(events), "nonsense", "") {
		for _, flow := range flows {
			t.Run(fmt.Sprintf("%s/%s", e, flow), func(t *testing.T) {
				everywhere(func(f facets) {
					p := f.payment(flow)
					before := p
					err := ledger.Apply(&p, ledger.Change{Event: e, Fence: 3, Hold: time.Minute}, start.Add(time.Second))
					want, ok := expected(e, flow, f)
					got := facets{p.Settlement, p.Delivery, p.Refund}
					switch {
					case ok && err != nil:
						t.Errorf("%v: refused: %v", f, err)
					case ok && (got != want || p.Version != 8 || !p.UpdatedAt.Equal(start.Add(time.Second))):
						t.Errorf("%v: led to %v in version %d at %v, want %v", f, got, p.Version, p.UpdatedAt, want)
					case !ok && p != before:
						t.Errorf("%v: refused, but changed the payment", f)
					case !ok && !errors.Is(err, ledger.ErrTransition) && !errors.Is(err, ledger.ErrFence):
						t.Errorf("%v: error %v, want ErrTransition or ErrFence", f, err)
					}
				})
			})
		}
	}
}

func TestApplyCreates(t *testing.T) {
	for _, tt := range []struct {
		event ledger.Event
		want  ledger.Settlement
		state ledger.State
	}{
		{ledger.EventChallenge, ledger.Pending, ledger.StatePending},
		{ledger.EventClaim, ledger.Claimed, ledger.StateSettling},
	} {
		p := ledger.Payment{ID: "pay_x"}
		if err := ledger.Apply(&p, ledger.Change{Event: tt.event, Hold: time.Minute}, start); err != nil {
			t.Fatal(err)
		}
		want := ledger.Payment{
			ID: "pay_x", Version: 1, Settlement: tt.want, Delivery: ledger.NotDelivered, Refund: ledger.NotRefunded,
			Hold: ledger.Hold{Fence: 1, Until: start.Add(time.Minute)}, CreatedAt: start, UpdatedAt: start,
		}
		if p != want || p.State() != tt.state {
			t.Errorf("%s made %+v (%s), want %+v", tt.event, p, p.State(), want)
		}
	}
}

// Only what creates a payment can be its first step.
func TestApplyNeedsAPayment(t *testing.T) {
	for _, e := range events[2:] {
		if e == ledger.EventImport {
			continue // that creates one
		}
		if e == ledger.EventTake || e == ledger.EventExtend || e == ledger.EventRelease {
			continue // a hold is no facet
		}
		p := ledger.Payment{ID: "pay_x"}
		if err := ledger.Apply(&p, ledger.Change{Event: e}, start); !errors.Is(err, ledger.ErrTransition) {
			t.Errorf("%s of nothing: %v, want ErrTransition", e, err)
		}
	}
}

// The hold: who was overtaken can do nothing, who was not may go on even when its time is over.
func TestApplyHold(t *testing.T) {
	const ours, overtaken = 3, 2
	until := start.Add(time.Minute)
	for _, tt := range []struct {
		name  string
		event ledger.Event
		fence uint64
		at    time.Time
		hold  ledger.Hold // afterwards
		err   error
	}{
		{"take while held", ledger.EventTake, 0, until.Add(-1000), ledger.Hold{}, ledger.ErrFence},
		{"take when over", ledger.EventTake, 0, until, ledger.Hold{Fence: 4, Until: until.Add(time.Hour)}, nil},
		{"extend", ledger.EventExtend, ours, start, ledger.Hold{Fence: 3, Until: start.Add(time.Hour)}, nil},
		{"extend late", ledger.EventExtend, ours, until.Add(1000), ledger.Hold{Fence: 3, Until: until.Add(time.Hour + 1000)}, nil},
		{"extend overtaken", ledger.EventExtend, overtaken, start, ledger.Hold{}, ledger.ErrFence},
		{"extend without a fence", ledger.EventExtend, 0, until, ledger.Hold{}, ledger.ErrFence},
		{"release", ledger.EventRelease, ours, start, ledger.Hold{Fence: 3}, nil},
		{"release overtaken", ledger.EventRelease, overtaken, start, ledger.Hold{}, ledger.ErrFence},
		{"deliver", ledger.EventDeliver, ours, start, ledger.Hold{Fence: 3, Until: start.Add(time.Hour)}, nil},
		{"deliver overtaken", ledger.EventDeliver, overtaken, start, ledger.Hold{}, ledger.ErrFence},
		{"delivered", ledger.EventDelivered, ours, start, ledger.Hold{Fence: 3}, nil},
		{"delivered overtaken", ledger.EventDelivered, overtaken, start, ledger.Hold{}, ledger.ErrFence},
		{"undelivered", ledger.EventUndelivered, ours, start, ledger.Hold{Fence: 3}, nil},
		{"undelivered overtaken", ledger.EventUndelivered, overtaken, until, ledger.Hold{}, ledger.ErrFence},
		{"undelivered by nobody while held", ledger.EventUndelivered, 0, start, ledger.Hold{}, ledger.ErrFence},
		{"undelivered by nobody when over", ledger.EventUndelivered, 0, until, ledger.Hold{Fence: 3}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := facets{ledger.Settled, ledger.Delivering, ledger.NotRefunded}.payment(ledger.FlowUpfront)
			before := p
			err := ledger.Apply(&p, ledger.Change{Event: tt.event, Fence: tt.fence, Hold: time.Hour}, tt.at)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if tt.err != nil && p != before {
				t.Error("refused, but changed the payment")
			}
			if tt.err == nil && p.Hold != tt.hold {
				t.Errorf("hold %+v, want %+v", p.Hold, tt.hold)
			}
		})
	}
}

// What is to be served without being paid is served under a hold that has not run out, or not at all: what was lent for it may be
// another's since. What is paid, or held back until it is, may still be served by who was slow and not overtaken.
func TestApplyAfterTheHold(t *testing.T) {
	everywhere(func(f facets) {
		for _, flow := range []string{ledger.FlowUpfront, ledger.FlowAuthorization, ledger.FlowDeferred} {
			for _, e := range []ledger.Event{ledger.EventExtend, ledger.EventDeliver, ledger.EventDelivered, ledger.EventUndelivered, ledger.EventRelease} {
				c := ledger.Change{Event: e, Fence: 3, Hold: time.Minute}
				intime, late := f.payment(flow), f.payment(flow)
				want := ledger.Apply(&intime, c, start)
				unpaid := flow == ledger.FlowDeferred && (f.settlement == ledger.Claimed || f.settlement == ledger.Settling)
				if unpaid && want == nil && e != ledger.EventUndelivered && e != ledger.EventRelease {
					want = ledger.ErrFence
				}
				if err := ledger.Apply(&late, c, start.Add(time.Minute)); (err == nil) != (want == nil) {
					t.Errorf("%s of %s, %v: %v, want %v", e, flow, f, err, want)
				}
			}
		}
	})
}

// What is over can't be taken: there is nothing to deliver.
func TestApplyTakeOfTheServed(t *testing.T) {
	everywhere(func(f facets) {
		p := f.payment(ledger.FlowUpfront)
		err := ledger.Apply(&p, ledger.Change{Event: ledger.EventTake, Hold: time.Minute}, start.Add(time.Hour))
		over := f.delivery == ledger.Delivered || f.delivery == ledger.Undelivered || f.refund != ledger.NotRefunded
		if over != errors.Is(err, ledger.ErrTransition) {
			t.Errorf("%v: error %v", f, err)
		}
	})
}

// The fields that each event is said to write, and their values.
func TestApplyFields(t *testing.T) {
	at := start.Add(time.Second)
	c := ledger.Change{
		Fence: 3, Reason: "why", Transaction: common.Hash{1}, Block: 2, BlockHash: common.Hash{3},
		PlanUntil: start.Add(time.Hour), ServedBy: "pay_y",
	}
	for _, tt := range []struct {
		event ledger.Event
		from  facets
		want  func(p *ledger.Payment)
	}{
		{ledger.EventSettle, facets{ledger.Settling, ledger.NotDelivered, ledger.NotRefunded}, func(p *ledger.Payment) {
			p.Settlement, p.SettledAt = ledger.Settled, at
			p.Transaction, p.Block, p.BlockHash = common.Hash{1}, 2, common.Hash{3}
		}},
		{ledger.EventFinal, facets{ledger.Settled, ledger.Delivered, ledger.NotRefunded}, func(p *ledger.Payment) {
			p.Final = true
			p.Transaction, p.Block, p.BlockHash = common.Hash{1}, 2, common.Hash{3}
		}},
		{ledger.EventFinal, facets{ledger.Failed, ledger.NotDelivered, ledger.NotRefunded}, func(p *ledger.Payment) {
			p.Final = true
		}},
		{ledger.EventFail, facets{ledger.Settling, ledger.NotDelivered, ledger.NotRefunded}, func(p *ledger.Payment) {
			p.Settlement, p.Reason, p.Hold.Until = ledger.Failed, "why", time.Time{}
		}},
		{ledger.EventVoid, facets{ledger.Claimed, ledger.NotDelivered, ledger.NotRefunded}, func(p *ledger.Payment) {
			p.Settlement, p.Reason, p.ServedBy, p.Hold.Until = ledger.Void, "why", "pay_y", time.Time{}
		}},
		{ledger.EventDelivered, facets{ledger.Settled, ledger.Delivering, ledger.NotRefunded}, func(p *ledger.Payment) {
			p.Delivery, p.DeliveredAt, p.PlanUntil, p.Hold.Until = ledger.Delivered, at, start.Add(time.Hour), time.Time{}
		}},
		{ledger.EventUndelivered, facets{ledger.Settled, ledger.Delivering, ledger.NotRefunded}, func(p *ledger.Payment) {
			p.Delivery, p.Refund, p.Reason, p.Hold.Until = ledger.Undelivered, ledger.RefundPending, "why", time.Time{}
		}},
		{ledger.EventRefundFailed, facets{ledger.Settled, ledger.Undelivered, ledger.RefundPending}, func(p *ledger.Payment) {
			p.Refund, p.Reason = ledger.RefundFailed, "why"
		}},
	} {
		t.Run(string(tt.event), func(t *testing.T) {
			got := tt.from.payment(ledger.FlowUpfront)
			want := got
			tt.want(&want)
			want.Version, want.UpdatedAt = 8, at
			c := c
			c.Event = tt.event
			if err := ledger.Apply(&got, c, at); err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// Money that arrives after all for a payment that was given up makes it open again.
func TestSettleAfterTheEnd(t *testing.T) {
	p := facets{ledger.Failed, ledger.NotDelivered, ledger.NotRefunded}.payment(ledger.FlowUpfront)
	p.Final = true
	if p.Open() {
		t.Fatal("a final failure is open")
	}
	if err := ledger.Apply(&p, ledger.Change{Event: ledger.EventSettle}, start); err != nil {
		t.Fatal(err)
	}
	if !p.Open() || p.Final || p.State() != ledger.StateRefundPending {
		t.Errorf("open %v, final %v, state %s", p.Open(), p.Final, p.State())
	}
}

// What was delivered and not paid is owed until another payment has made it good, once.
func TestMadeGood(t *testing.T) {
	everywhere(func(f facets) {
		p := f.payment(ledger.FlowDeferred)
		before := p
		err := ledger.Apply(&p, ledger.Change{Event: ledger.EventMadeGood, ServedBy: "pay_y"}, start)
		owed := f.delivery == ledger.Delivered && (f.settlement == ledger.Failed || f.settlement == ledger.Void)
		if owed != before.Owes() || owed != (err == nil) || !owed && p != before {
			t.Fatalf("%v: owes %v, error %v", f, before.Owes(), err)
		}
		if !owed {
			return
		}
		if p.ServedBy != "pay_y" || p.Owes() || f.refund == ledger.NotRefunded && p.State() != ledger.StateDelivered {
			t.Errorf("%v: %+v is %s", f, p, p.State())
		}
		if err := ledger.Apply(&p, ledger.Change{Event: ledger.EventMadeGood, ServedBy: "pay_z"}, start); err == nil {
			t.Errorf("%v: it was made good twice", f)
		}
	})
}

func TestStateWords(t *testing.T) {
	none, nr := ledger.NotDelivered, ledger.NotRefunded
	for _, tt := range []struct {
		f    facets
		want ledger.State
		open [2]bool // not final, final
	}{
		{facets{ledger.Pending, none, nr}, ledger.StatePending, [2]bool{true, false}},
		{facets{ledger.Claimed, none, nr}, ledger.StateSettling, [2]bool{true, false}},
		{facets{ledger.Settling, ledger.Delivering, nr}, ledger.StateSettling, [2]bool{true, false}},
		{facets{ledger.Settling, ledger.Delivered, nr}, ledger.StateOwed, [2]bool{true, false}},
		{facets{ledger.Failed, ledger.Delivered, nr}, ledger.StateOwed, [2]bool{true, false}},
		{facets{ledger.Failed, none, nr}, ledger.StateFailed, [2]bool{true, false}},
		{facets{ledger.Void, ledger.Undelivered, nr}, ledger.StateVoid, [2]bool{true, false}},
		{facets{ledger.Expired, none, nr}, ledger.StateExpired, [2]bool{false, false}},
		{facets{ledger.Cancelled, none, nr}, ledger.StateCancelled, [2]bool{false, false}},
		{facets{ledger.Settled, none, nr}, ledger.StatePaid, [2]bool{true, true}},
		{facets{ledger.Settled, ledger.Delivering, nr}, ledger.StatePaid, [2]bool{true, true}},
		{facets{ledger.Settled, ledger.Delivered, nr}, ledger.StateDelivered, [2]bool{true, false}},
		{facets{ledger.Settled, ledger.Undelivered, ledger.RefundPending}, ledger.StateRefundPending, [2]bool{true, true}},
		{facets{ledger.Settled, ledger.Undelivered, ledger.Refunded}, ledger.StateRefunded, [2]bool{true, false}},
		{facets{ledger.Settled, ledger.Undelivered, ledger.RefundFailed}, ledger.StateRefundFailed, [2]bool{true, false}},
	} {
		p := tt.f.payment(ledger.FlowDeferred)
		if got := p.State(); got != tt.want || !slices.Contains(ledger.States(), got) {
			t.Errorf("%v: state %s, want %s", tt.f, got, tt.want)
		}
		for i, final := range []bool{false, true} {
			p.Final = final
			if p.Open() != tt.open[i] {
				t.Errorf("%v, final %v: open %v", tt.f, final, p.Open())
			}
		}
	}
}

// What was settled for another server is over when its block is safe: nobody here delivers it, or refunds it, or is served with it.
func TestFacilitated(t *testing.T) {
	p := facets{ledger.Failed, ledger.NotDelivered, ledger.NotRefunded}.payment(ledger.FlowFacilitator)
	for _, e := range []ledger.Event{ledger.EventSettle, ledger.EventFinal} {
		if !p.Open() || p.Unserved() || !p.Facilitated() {
			t.Errorf("before %s: open %v, unserved %v", e, p.Open(), p.Unserved())
		}
		if err := ledger.Apply(&p, ledger.Change{Event: e}, start); err != nil {
			t.Fatal(err)
		}
	}
	if p.State() != ledger.StateSettled || p.Open() || !p.Closed() || p.Refund != ledger.NotRefunded || p.Delivery != ledger.NotDelivered {
		t.Errorf("it ended as %s, open %v: %+v", p.State(), p.Open(), p)
	}
	lost := ledger.Payment{ID: "pay_x", Flow: ledger.FlowFacilitator}
	if err := ledger.Apply(&lost, ledger.Change{Event: ledger.EventImport}, start); err != nil {
		t.Fatal(err)
	}
	if lost.State() != ledger.StateSettled || lost.Refund != ledger.NotRefunded {
		t.Errorf("one that was found again is %s: %+v", lost.State(), lost)
	}
}

// The transfer that pays a payment back is over when its block is safe, and is never a sale: whatever became of it.
func TestTransferBack(t *testing.T) {
	everywhere(func(f facets) {
		if p := f.payment(ledger.FlowRefund); p.State() != ledger.StateRefund || p.Unserved() || !p.PaysBack() || p.Facilitated() {
			t.Errorf("%v: %s, unserved %v", f, p.State(), p.Unserved())
		}
	})
	p := facets{ledger.Failed, ledger.NotDelivered, ledger.NotRefunded}.payment(ledger.FlowRefund)
	for _, e := range []ledger.Event{ledger.EventSettle, ledger.EventFinal} {
		if !p.Open() || p.Closed() {
			t.Errorf("before %s: open %v", e, p.Open())
		}
		if err := ledger.Apply(&p, ledger.Change{Event: e}, start); err != nil {
			t.Fatal(err)
		}
	}
	if p.Open() || !p.Closed() || p.Refund != ledger.NotRefunded || p.Delivery != ledger.NotDelivered {
		t.Errorf("it ended open %v: %+v", p.Open(), p)
	}
}

func TestUnserved(t *testing.T) {
	everywhere(func(f facets) {
		p := f.payment(ledger.FlowUpfront)
		want := slices.Contains(settlements[1:4], f.settlement) && slices.Contains(deliveries[:2], f.delivery) && f.refund == ledger.NotRefunded
		if p.Unserved() != want {
			t.Errorf("%v: unserved %v", f, p.Unserved())
		}
	})
}

// Times survive every store: UTC, in whole microseconds, without a monotonic reading.
func TestApplyKeepsMicroseconds(t *testing.T) {
	zone := time.FixedZone("elsewhere", 3600)
	p := ledger.Payment{ID: "pay_x"}
	c := ledger.Change{Event: ledger.EventClaim, Hold: time.Second + 999}
	if err := ledger.Apply(&p, c, start.Add(1999).In(zone)); err != nil {
		t.Fatal(err)
	}
	if want := start.Add(1000); p.CreatedAt != want || p.UpdatedAt != want || p.Hold.Until != want.Add(time.Second) {
		t.Errorf("created %v, updated %v, held until %v", p.CreatedAt, p.UpdatedAt, p.Hold.Until)
	}
	p.Settlement, p.Delivery = ledger.Settled, ledger.Delivering
	c = ledger.Change{Event: ledger.EventDelivered, Fence: 1, PlanUntil: start.Add(1001).In(zone)}
	if err := ledger.Apply(&p, c, start); err != nil {
		t.Fatal(err)
	}
	if p.PlanUntil != start.Add(1000) {
		t.Errorf("plan until %v", p.PlanUntil)
	}
}
