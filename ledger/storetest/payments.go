package storetest

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

func testClaim(t *testing.T, open Open) {
	f := setup(t, open)
	p := newPayment(t, 1, 1)
	asked := p
	// None of this is the caller's to say.
	asked.Version, asked.Settlement, asked.Final, asked.Hold.Fence = 5, ledger.Settled, true, 9
	asked.CreatedAt, asked.Reason = f.clock.Now().Add(-time.Hour), "x"
	got, err := f.store().Claim(f.ctx, asked, ledger.Change{Event: ledger.EventVoid, Actor: "request", Hold: time.Minute + 7})
	if err != nil {
		t.Fatal(err)
	}
	now := f.clock.Now().Truncate(time.Microsecond)
	want := p
	want.Binding.URI = "/weather/today?q=%2F&x=%FF" // see ledger.Text
	want.Version, want.Settlement, want.Delivery, want.Refund = 1, ledger.Claimed, ledger.NotDelivered, ledger.NotRefunded
	want.Hold = ledger.Hold{Fence: 1, Until: now.Add(time.Minute)}
	want.CreatedAt, want.UpdatedAt = now, now
	if got != want {
		t.Errorf("claimed %+v\nwant    %+v", got, want)
	}
	if back := f.read(p.ID); back != want {
		t.Errorf("read %+v\nwant %+v", back, want)
	}
	if back, err := f.store().ByAuthorization(f.ctx, p.AuthorizationID); err != nil || back != want {
		t.Errorf("by authorization: %+v, %v", back, err)
	}
	if trail, err := f.store().Audit(f.ctx, p.ID); err != nil || len(trail) != 1 || trail[0].Event != ledger.EventClaim || trail[0].Actor != "request" {
		t.Errorf("trail %+v, %v", trail, err)
	}
}

// I1: one payment per (chain, asset, payer, nonce), for ever. Each part of it tells authorizations apart.
func testClaimTwice(t *testing.T, open Open) {
	f := setup(t, open)
	first := f.claim(newPayment(t, 1, 1), time.Minute)
	again := newPayment(t, 1, 1)
	again.Amount, again.Binding.Route = *uint256.NewInt(1), "cheap"
	refused := func(when string, want ledger.Payment) {
		t.Helper()
		got, err := f.store().Claim(f.ctx, again, ledger.Change{Hold: time.Minute})
		if !errors.Is(err, ledger.ErrExists) || got != want {
			t.Errorf("%s: %+v, %v; want ErrExists with %+v", when, got, err, want)
		}
	}
	refused("at once", first)
	void := f.update(first, ledger.Change{Event: ledger.EventVoid})
	final := f.update(void, ledger.Change{Event: ledger.EventFinal})
	f.clock.Add(10 * 365 * 24 * time.Hour)
	refused("years after its end", final)
	if _, err := f.store().Payment(f.ctx, again.ID); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("the refused claim left a payment: %v", err)
	}
	if got := f.read(first.ID); got != final {
		t.Errorf("the refused claim changed the first: %+v", got)
	}

	for name, change := range map[string]func(*x402.AuthorizationID){
		"chain": func(a *x402.AuthorizationID) { a.ChainID++ }, "asset": func(a *x402.AuthorizationID) { a.Asset[19]++ },
		"payer": func(a *x402.AuthorizationID) { a.Payer[0]++ }, "nonce": func(a *x402.AuthorizationID) { a.Nonce[31]++ },
	} {
		p := newPayment(t, 1, 1)
		change(&p.AuthorizationID)
		payer(&p, p.Payer)
		if _, err := f.store().Claim(f.ctx, p, ledger.Change{}); err != nil {
			t.Errorf("another %s: %v", name, err)
		}
	}

	taken := newPayment(t, 1, 2)
	taken.ID = first.ID
	if _, err := f.store().Claim(f.ctx, taken, ledger.Change{}); err == nil {
		t.Error("an id was given twice")
	}
	taken.ID = ""
	if _, err := f.store().Claim(f.ctx, taken, ledger.Change{}); err == nil {
		t.Error("a payment without an id was claimed")
	}
	taken = newPayment(t, 2, 2)
	taken.ID = newPayment(t, 3, 2).ID
	if _, err := f.store().Claim(f.ctx, taken, ledger.Change{}); !errors.Is(err, ledger.ErrTransition) {
		t.Errorf("claim with an id made for another payer: %v, want ErrTransition", err)
	}
	if got := f.read(first.ID); got != final {
		t.Errorf("the first changed: %+v", got)
	}
}

func testUpdate(t *testing.T, open Open) {
	f := setup(t, open)
	p := f.claim(newPayment(t, 1, 1), time.Minute)
	f.clock.Add(time.Second)
	settle := ledger.Change{Event: ledger.EventSettle, Actor: "request", Transaction: hash(3), Block: 18, BlockHash: hash(4)}
	got := f.update(p, settle)
	want := p
	if err := ledger.Apply(&want, settle, f.clock.Now()); err != nil {
		t.Fatal(err)
	}
	if got != want || f.read(p.ID) != want {
		t.Errorf("updated %+v\nwant    %+v", got, want)
	}
	for _, version := range []uint64{0, p.Version, want.Version + 1} {
		if _, err := f.store().Update(f.ctx, p.ID, version, settle); !errors.Is(err, ledger.ErrConflict) {
			t.Errorf("update of version %d: %v, want ErrConflict", version, err)
		}
	}
	for name, tt := range map[string]struct {
		change ledger.Change
		want   error
	}{
		"not allowed":         {ledger.Change{Event: ledger.EventFail}, ledger.ErrTransition},
		"another's hold":      {ledger.Change{Event: ledger.EventDeliver, Fence: 9}, ledger.ErrFence},
		"send without record": {ledger.Change{Event: ledger.EventSend}, ledger.ErrTransition},
		"unknown":             {ledger.Change{Event: "nonsense"}, ledger.ErrTransition},
	} {
		if _, err := f.store().Update(f.ctx, p.ID, want.Version, tt.change); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if got := f.read(p.ID); got != want {
		t.Errorf("refused updates changed it: %+v", got)
	}
	if got, err := f.store().Update(f.ctx, p.ID, want.Version); err != nil || got != want {
		t.Errorf("no change at all: %+v, %v", got, err)
	}
}

// Several changes are one step: all or none, an entry for each.
func testUpdateMany(t *testing.T, open Open) {
	f := setup(t, open)
	p := f.claim(newPayment(t, 1, 1), time.Minute)
	settle := ledger.Change{Event: ledger.EventSettle, Actor: "request", Transaction: hash(3), Block: 18}
	deliver := ledger.Change{Event: ledger.EventDeliver, Actor: "request", Fence: 1, Hold: time.Hour}
	if _, err := f.store().Update(f.ctx, p.ID, p.Version, settle, deliver, settle); !errors.Is(err, ledger.ErrTransition) {
		t.Errorf("two of three: %v, want ErrTransition", err)
	}
	if got := f.read(p.ID); got != p {
		t.Errorf("two of three were made: %+v", got)
	}
	got := f.update(p, settle, deliver)
	if got.Version != 3 || got.Delivery != ledger.Delivering || f.read(p.ID) != got {
		t.Errorf("updated %+v", got)
	}
	trail, err := f.store().Audit(f.ctx, p.ID)
	if err != nil || len(trail) != 3 || trail[1].Event != ledger.EventSettle || trail[2].Event != ledger.EventDeliver {
		t.Errorf("trail %+v, %v", trail, err)
	}
}

// The store's clock judges the hold.
func testHold(t *testing.T, open Open) {
	f := setup(t, open)
	p := f.settled(newPayment(t, 1, 1))
	take := ledger.Change{Event: ledger.EventTake, Actor: "request", Hold: time.Minute}
	first := f.update(p, take)
	f.clock.Add(time.Minute - time.Microsecond)
	if _, err := f.store().Update(f.ctx, p.ID, first.Version, take); !errors.Is(err, ledger.ErrFence) {
		t.Errorf("take while held: %v, want ErrFence", err)
	}
	f.clock.Add(time.Microsecond)
	second := f.update(first, take)
	if second.Hold.Fence != first.Hold.Fence+1 {
		t.Errorf("fence %d after %d", second.Hold.Fence, first.Hold.Fence)
	}
	late := ledger.Change{Event: ledger.EventDeliver, Fence: first.Hold.Fence, Hold: time.Minute}
	if _, err := f.store().Update(f.ctx, p.ID, second.Version, late); !errors.Is(err, ledger.ErrFence) {
		t.Errorf("deliver by the overtaken: %v, want ErrFence", err)
	}
	f.read(p.ID)
}

func testCounts(t *testing.T, open Open) {
	f := setup(t, open)
	want := map[ledger.State]int64{}
	check := func() {
		t.Helper()
		got, err := f.store().Counts(f.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Errorf("counts %v, want %v", got, want)
		}
		for s, n := range want {
			if got[s] != n {
				t.Errorf("counts %v, want %v", got, want)
			}
		}
	}
	check()
	p := f.claim(newPayment(t, 1, 1), 0)
	f.claim(newPayment(t, 1, 2), 0)
	want[ledger.StateSettling] = 2
	check()
	p = f.update(p, ledger.Change{Event: ledger.EventSettle})
	want[ledger.StateSettling], want[ledger.StatePaid] = 1, 1
	check()
	f.update(p, ledger.Change{Event: ledger.EventUndelivered})
	delete(want, ledger.StatePaid)
	want[ledger.StateRefundPending] = 1
	check()
}

func testNotFound(t *testing.T, open Open) {
	f := setup(t, open)
	f.claim(newPayment(t, 1, 1), 0)
	other := newPayment(t, 1, 2)
	s := f.store()
	for name, call := range map[string]func() error{
		"Payment":         func() error { _, err := s.Payment(f.ctx, other.ID); return err },
		"Payment of ''":   func() error { _, err := s.Payment(f.ctx, ""); return err },
		"ByAuthorization": func() error { _, err := s.ByAuthorization(f.ctx, other.AuthorizationID); return err },
		"Update": func() error {
			_, err := s.Update(f.ctx, other.ID, 1, ledger.Change{Event: ledger.EventVoid})
			return err
		},
		"Update of version 0": func() error { _, err := s.Update(f.ctx, other.ID, 0); return err },
		"Recheck":             func() error { return s.Recheck(f.ctx, other.ID, time.Second) },
		"Audit":               func() error { _, err := s.Audit(f.ctx, other.ID); return err },
		"Record":              func() error { return s.Record(f.ctx, newTransaction(1, 0, 1, other.ID), "request") },
		"Reservation":         func() error { _, err := s.Reservation(f.ctx, hash(1)); return err },
		"Object":              func() error { _, err := f.store().Object(f.ctx, "key", "a"); return err },
		"Allowance":           func() error { _, err := s.Allowance(f.ctx, hash(1)); return err },
		"KeepAnswer":          func() error { return s.KeepAnswer(f.ctx, hash(1), other.ID, []byte("x"), time.Hour) },
		"LastAnchor":          func() error { _, err := s.LastAnchor(f.ctx); return err },
	} {
		if err := call(); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", name, err)
		}
	}
	if got, err := s.Unserved(f.ctx, newPayment(t, 7, 1), 5); err != nil || len(got) != 0 {
		t.Errorf("unserved of a stranger: %v, %v", got, err)
	}
	if got, err := s.Transactions(f.ctx, other.ID); err != nil || len(got) != 0 {
		t.Errorf("transactions of nothing: %v, %v", got, err)
	}
	if nonce, known, err := s.Nonce(f.ctx, 84532, account(1)); err != nil || known || nonce != 0 {
		t.Errorf("nonce of a stranger: %d, %v, %v", nonce, known, err)
	}
}

// What is large, empty or strange comes back as it was, or is refused; it is never cut.
func testExtremes(t *testing.T, open Open) {
	f := setup(t, open)
	all := newPayment(t, 1, 1)
	all.Amount.SetAllOne()
	all.ValidBefore, all.ClaimBlock, all.ChainID = math.MaxInt64, math.MaxInt64, math.MaxInt64
	all.Binding.URI = strings.Repeat("x", 8<<10) + "'; DROP TABLE payments; --ü"
	nothing := ledger.Payment{ID: newID(t, 1)}
	payer(&nothing, nothing.Payer)
	for name, p := range map[string]ledger.Payment{"all": all, "nothing": nothing} {
		got := f.claim(p, 0)
		if back := f.read(p.ID); back != got || back.Amount != p.Amount || back.Binding != p.Binding || back.AuthorizationID != p.AuthorizationID {
			t.Errorf("%s: read %+v", name, back)
		}
		if back, err := f.store().ByAuthorization(f.ctx, p.AuthorizationID); err != nil || back != got {
			t.Errorf("%s: by authorization %+v, %v", name, back, err)
		}
	}
	huge := newPayment(t, 1, 2)
	huge.ValidBefore = math.MaxUint64
	if got, err := f.store().Claim(f.ctx, huge, ledger.Change{}); err == nil && got.ValidBefore != huge.ValidBefore {
		t.Errorf("valid before %d became %d", huge.ValidBefore, got.ValidBefore)
	}
	f.claim(newPayment(t, 1, 3), 0)
}
