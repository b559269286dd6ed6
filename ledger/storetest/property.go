package storetest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/holiman/uint256"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// testModel does the same to the store and to the model: whatever callers do, in whatever order, with a crash
// at any step, the store says what the model says. The model can't hold two payments of one authorization
// (I1) and makes its steps by ledger.Apply (I3); every trail is verified (I5).
func testModel(t *testing.T, open Open) {
	rapid.Check(t, func(rt *rapid.T) {
		c := newClock()
		b := open(t, c.Now)
		defer b.Close()
		r := &run{ctx: t.Context(), clock: c, b: b, m: newModel()}
		rt.Repeat(map[string]func(*rapid.T){
			"claim":   r.act(r.claim),
			"update":  r.act(r.update),
			"record":  r.act(r.record),
			"advance": r.act(r.advance),
			"lease":   r.lease,
			"recheck": r.recheck,
			"time":    func(t *rapid.T) { c.Add(time.Duration(rapid.IntRange(1, 90_000).Draw(t, "ms")) * time.Millisecond) },
			"list":    r.list,
			"":        r.checkOne,
		})
		b.Crash()
		r.check(rt, r.m)
	})
}

// run is one run of the model beside the store.
type run struct {
	ctx   context.Context
	clock *clock
	b     Backend
	m     *model
	ids   []string
	txs   uint64
}

// step is a call that writes: it does the same to a model and to a store, and compares the answers. Both are
// given so that the store may be one that is crashing.
type step func(m *model, s ledger.Store) error

// act makes an action of a step: mostly it is made and must be answered as the model answers it; else the
// store crashes within, and must then stand before the step or after it.
func (r *run) act(draw func(*rapid.T) step) func(*rapid.T) {
	return func(t *rapid.T) {
		do := draw(t)
		if do == nil {
			t.Skip("nothing to do it to")
		}
		steps := rapid.IntRange(-80, 15).Draw(t, "crash after")
		if steps < 0 {
			if err := do(r.m, r.b.Store()); err != nil {
				t.Fatalf("%v", err)
			}
			return
		}
		before, after := r.m, r.m.clone()
		var err error
		inside := r.b.CrashDuring(steps, func(s ledger.Store) { err = do(after, s) })
		if err != nil && !inside {
			t.Fatalf("%v", err)
		}
		r.m = after
		if inside && r.diff(after) != nil {
			r.m = before
		}
		r.check(t, r.m)
	}
}

func (r *run) anyID(t *rapid.T) string {
	if len(r.ids) == 0 {
		return ""
	}
	return rapid.SampledFrom(r.ids).Draw(t, "payment")
}

func (r *run) claim(t *rapid.T) step {
	p := newPayment(t, rapid.Uint64Range(1, 3).Draw(t, "payer"), rapid.Uint64Range(1, 8).Draw(t, "nonce"))
	// The same in every replay, and not in the order of their making.
	p.ID = fmt.Sprintf("pay_%s%026d", ledger.Shard(p.Payer), (len(r.ids)+1)*7919%10007)
	p.Amount = *uint256.NewInt(rapid.Uint64Range(1, 2).Draw(t, "amount"))
	p.Binding.Route = rapid.SampledFrom([]string{"weather", "reports"}).Draw(t, "route")
	p.Binding.Plan = rapid.SampledFrom([]string{"", "day"}).Draw(t, "plan")
	p.Flow = rapid.SampledFrom([]string{ledger.FlowUpfront, ledger.FlowAuthorization, ledger.FlowDeferred}).Draw(t, "flow")
	c := ledger.Change{Actor: "request", Hold: time.Duration(rapid.IntRange(0, 60_000_000_000).Draw(t, "hold"))}
	now := r.clock.Now()
	return func(m *model, s ledger.Store) error {
		want, wantErr := m.claim(p, c, now)
		got, err := s.Claim(r.ctx, p, c)
		if wantErr == nil {
			r.ids = append(r.ids, p.ID)
		}
		if err := sameOutcome(err, wantErr); err != nil {
			return fmt.Errorf("claim: %w", err)
		}
		if got != want {
			return fmt.Errorf("claimed %+v\nwant    %+v", got, want)
		}
		return nil
	}
}

var modelEvents = []ledger.Event{
	ledger.EventSettle, ledger.EventSettle, ledger.EventSettle, ledger.EventDeliver, ledger.EventDeliver, ledger.EventDelivered,
	ledger.EventDelivered, ledger.EventUndelivered, ledger.EventFail, ledger.EventVoid, ledger.EventFinal,
	ledger.EventTake, ledger.EventExtend, ledger.EventRelease, ledger.EventRefunded, ledger.EventRefundFailed,
	ledger.EventRefundRetry, ledger.EventSend, ledger.EventClaim, ledger.EventExpire,
}

func (r *run) update(t *rapid.T) step {
	id := r.anyID(t)
	row, ok := r.m.rows[id]
	if !ok {
		return nil
	}
	version := row.p.Version - rapid.SampledFrom([]uint64{0, 0, 0, 0, 0, 1}).Draw(t, "stale")
	var changes []ledger.Change
	fence := row.p.Hold.Fence
	for range rapid.IntRange(1, 3).Draw(t, "changes") {
		changes = append(changes, ledger.Change{
			Event:       rapid.SampledFrom(modelEvents).Draw(t, "event"),
			Actor:       "request",
			Reason:      rapid.SampledFrom([]string{"", "why"}).Draw(t, "reason"),
			Fence:       rapid.SampledFrom([]uint64{fence, fence, fence, 0}).Draw(t, "fence"),
			Hold:        time.Duration(rapid.IntRange(0, 60_000_000_000).Draw(t, "hold")),
			Transaction: hash(uint64(len(r.ids))), Block: 18, BlockHash: hash(18),
			PlanUntil: rapid.SampledFrom([]time.Time{{}, r.clock.Now().Add(time.Minute)}).Draw(t, "plan until"),
			ServedBy:  rapid.SampledFrom([]string{"", "pay_other"}).Draw(t, "served by"),
		})
	}
	now := r.clock.Now()
	return func(m *model, s ledger.Store) error {
		want, wantErr := m.update(id, version, changes, now)
		got, err := s.Update(r.ctx, id, version, changes...)
		if err := sameOutcome(err, wantErr); err != nil {
			return fmt.Errorf("update: %w", err)
		}
		if got != want {
			return fmt.Errorf("updated %+v\nwant    %+v", got, want)
		}
		return nil
	}
}

func (r *run) record(t *rapid.T) step {
	tx := r.drawTransaction(t)
	now := r.clock.Now()
	return func(m *model, s ledger.Store) error {
		wantErr := m.record(tx, now)
		if err := sameOutcome(s.Record(r.ctx, tx, "request"), wantErr); err != nil {
			return fmt.Errorf("record of %+v: %w", tx, err)
		}
		return nil
	}
}

func (r *run) drawTransaction(t *rapid.T) ledger.Transaction {
	if len(r.m.sent) > 0 && rapid.IntRange(0, 2).Draw(t, "like one before") == 0 {
		tx := rapid.SampledFrom(r.m.sent).Draw(t, "before")
		if rapid.Bool().Draw(t, "another hash") {
			r.txs++
			tx.Hash = hash(1<<40 + r.txs)
		}
		tx.Payments = slices.Clone(tx.Payments)
		slices.Reverse(tx.Payments)
		return tx
	}
	r.txs++
	wallet := rapid.Uint64Range(1, 2).Draw(t, "wallet")
	nonce := r.m.wallets[account(wallet)]
	nonce += rapid.SampledFrom([]uint64{0, 0, 0, 0, 1}).Draw(t, "gap")
	var ids []string
	for range rapid.IntRange(0, 3).Draw(t, "payments") {
		if id := r.anyID(t); id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return newTransaction(wallet, nonce, 1<<40+r.txs, ids...)
}

func (r *run) advance(t *rapid.T) step {
	wallet, to := account(rapid.Uint64Range(1, 2).Draw(t, "wallet")), rapid.Uint64Range(0, 9).Draw(t, "to")
	return func(m *model, s ledger.Store) error {
		m.advance(wallet, to)
		return s.AdvanceNonce(r.ctx, 84532, wallet, to)
	}
}

// recheck and lease are not crashed within: whether one that was not answered was made can't be seen, and
// makes no more than a delay.
func (r *run) recheck(t *rapid.T) {
	id := r.anyID(t)
	if _, ok := r.m.rows[id]; !ok {
		t.Skip("nothing to recheck")
	}
	after := time.Duration(rapid.IntRange(0, 60_000).Draw(t, "after")) * time.Millisecond
	if err := r.b.Store().Recheck(r.ctx, id, after); err != nil {
		t.Fatalf("recheck: %v", err)
	}
	if p := r.m.rows[id].p; p.Open() {
		r.m.putOff(id, r.clock.Now().Add(after))
	}
}

func (r *run) lease(t *rapid.T) {
	limit, ttl := rapid.IntRange(0, 4).Draw(t, "limit"), time.Duration(rapid.IntRange(0, 60).Draw(t, "ttl"))*time.Second
	now := r.clock.Now()
	due := r.m.due(now)
	got, err := r.b.Store().Lease(r.ctx, limit, ttl)
	if err != nil || len(got) != min(limit, len(due)) {
		t.Fatalf("leased %d of %d due, at most %d: %v", len(got), len(due), limit, err)
	}
	seen := map[string]bool{}
	for i, p := range got {
		had := r.m.rows[p.ID]
		isDue := slices.ContainsFunc(due, func(d row) bool { return d.p.ID == p.ID })
		switch {
		case !isDue, p != had.p, seen[p.ID]:
			t.Fatalf("leased %+v, which is not due or not so", p)
		case !had.check.Equal(due[i].check):
			t.Fatalf("leased as number %d what is due since %v, not since %v", i, had.check, due[i].check)
		}
		seen[p.ID] = true
	}
	for id := range seen {
		r.m.putOff(id, now.Add(ttl))
	}
}

// list compares what the lists say.
func (r *run) list(t *rapid.T) {
	s, now := r.b.Store(), r.clock.Now()
	limit := rapid.IntRange(0, 5).Draw(t, "limit")
	if id := r.anyID(t); r.m.rows[id].p.ID != "" {
		like := r.m.rows[id].p
		want := r.m.list(func(p ledger.Payment) bool { return p.Unserved() && alike(p, like) })
		got, err := s.Unserved(r.ctx, like, limit)
		if err != nil || !slices.Equal(got, want[:min(limit, len(want))]) {
			t.Fatalf("unserved %v (%v), want %v", ids(got), err, ids(want))
		}
	}
	for _, route := range []string{"weather", "reports"} {
		payer := account(rapid.Uint64Range(1, 3).Draw(t, "payer"))
		plans := r.m.list(func(p ledger.Payment) bool {
			return p.Payer == payer && p.Binding.Route == route && p.Delivery == ledger.Delivered && p.PlanUntil.After(now)
		})
		got, err := s.LivePlans(r.ctx, payer, route, "api.example.com", 100)
		slices.SortFunc(got, func(a, b ledger.Payment) int {
			return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
		})
		if err != nil || !slices.Equal(got, plans) {
			t.Fatalf("plans %v (%v), want %v", ids(got), err, ids(plans))
		}
	}
}

// alike says what Unserved asks of two payments.
func alike(a, b ledger.Payment) bool {
	return a.Payer == b.Payer && a.ChainID == b.ChainID && a.Asset == b.Asset && a.Amount == b.Amount &&
		a.Binding.Route == b.Binding.Route && a.Binding.Plan == b.Binding.Plan && a.Binding.Host == b.Binding.Host
}

func (r *run) checkOne(t *rapid.T) {
	if id := r.anyID(t); r.m.rows[id].p.ID != "" {
		if err := r.diffOne(r.m, id); err != nil {
			t.Fatalf("%v", err)
		}
	}
}

func (r *run) check(t *rapid.T, m *model) {
	t.Helper()
	if err := r.diff(m); err != nil {
		t.Fatalf("%v", err)
	}
}

// diff says in what the store differs from m.
func (r *run) diff(m *model) error {
	counts := map[ledger.State]int64{}
	for _, id := range r.ids {
		if err := r.diffOne(m, id); err != nil {
			return err
		}
		if row, ok := m.rows[id]; ok {
			counts[row.p.State()]++
		}
	}
	got, err := r.b.Store().Counts(r.ctx)
	if err != nil || !maps.Equal(got, counts) {
		return fmt.Errorf("counts %v (%v), want %v", got, err, counts)
	}
	for _, n := range []uint64{1, 2} {
		next, known, err := r.b.Store().Nonce(r.ctx, 84532, account(n))
		want, wantKnown := m.wallets[account(n)]
		if err != nil || next != want || known != wantKnown {
			return fmt.Errorf("nonce %d, %v (%v), want %d, %v", next, known, err, want, wantKnown)
		}
	}
	return nil
}

func (r *run) diffOne(m *model, id string) error {
	s := r.b.Store()
	want, ok := m.rows[id]
	got, err := s.Payment(r.ctx, id)
	if !ok {
		return sameOutcome(err, ledger.ErrNotFound)
	}
	if err != nil || got != want.p {
		return fmt.Errorf("payment %+v (%v)\nwant    %+v", got, err, want.p)
	}
	trail, err := s.Audit(r.ctx, id)
	if err != nil || len(trail) != want.trail {
		return fmt.Errorf("trail of %d (%v), want %d", len(trail), err, want.trail)
	}
	if err := ledger.VerifyAudit(&got, trail); err != nil {
		return err
	}
	txs, err := s.Transactions(r.ctx, id)
	var sent []ledger.Transaction
	for _, tx := range m.sent {
		if slices.Contains(tx.Payments, id) {
			sent = append(sent, tx)
		}
	}
	if err != nil || len(txs) != len(sent) || len(txs) > 0 && !reflect.DeepEqual(txs, sent) {
		return fmt.Errorf("transactions %+v (%v), want %+v", txs, err, sent)
	}
	back, err := s.ByAuthorization(r.ctx, got.AuthorizationID)
	if err != nil || back != got {
		return fmt.Errorf("by authorization %+v (%v), want %+v", back, err, got)
	}
	return nil
}
