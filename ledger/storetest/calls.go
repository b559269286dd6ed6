package storetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/ledger"
)

var flows = []string{ledger.FlowUpfront, ledger.FlowAuthorization, ledger.FlowDeferred, ledger.FlowFacilitator, ledger.FlowRefund}

// The calls of the model test, drawn at random, likely enough to be allowed.

func drawDuration(t *rapid.T, what string) time.Duration {
	return time.Duration(rapid.IntRange(0, 60_000_000_000).Draw(t, what))
}

func (r *run) claim(t *rapid.T) op {
	p := newPayment(t, rapid.Uint64Range(1, 3).Draw(t, "payer"), rapid.Uint64Range(1, 8).Draw(t, "nonce"))
	// The same in every replay, and not in the order of their making.
	p.ID = fmt.Sprintf("pay_%s%026d", ledger.Shard(p.Payer), (len(r.ids)+1)*7919%10007)
	p.Amount = *uint256.NewInt(rapid.Uint64Range(1, 2).Draw(t, "amount"))
	p.Binding.Route = rapid.SampledFrom([]string{"weather", "reports"}).Draw(t, "route")
	p.Binding.Plan = rapid.SampledFrom([]string{"", "day"}).Draw(t, "plan")
	p.Flow = rapid.SampledFrom(flows).Draw(t, "flow")
	c := ledger.Change{Actor: "request", Hold: drawDuration(t, "hold")}
	if rapid.IntRange(0, 9).Draw(t, "quarantine") == 0 {
		c.Event, c.Transaction, c.Block = ledger.EventImport, hash(5), 19
	}
	if !slices.Contains(r.ids, p.ID) {
		r.ids = append(r.ids, p.ID)
	}
	return func(s ledger.Store) (any, error) { return s.Claim(r.ctx, p, c) }
}

var modelEvents = []ledger.Event{
	ledger.EventSettle, ledger.EventSettle, ledger.EventSettle, ledger.EventDeliver, ledger.EventDeliver, ledger.EventDelivered,
	ledger.EventDelivered, ledger.EventUndelivered, ledger.EventFail, ledger.EventVoid, ledger.EventFinal,
	ledger.EventTake, ledger.EventExtend, ledger.EventRelease, ledger.EventRefunded, ledger.EventRefundFailed,
	ledger.EventRefundRetry, ledger.EventMadeGood, ledger.EventSend, ledger.EventClaim, ledger.EventExpire, ledger.EventImport,
}

func (r *run) update(t *rapid.T) op {
	id := r.anyID(t)
	p := r.m.rows[id].p
	version := p.Version - rapid.SampledFrom([]uint64{0, 0, 0, 0, 0, 1}).Draw(t, "stale")
	var changes []ledger.Change
	for range rapid.IntRange(1, 3).Draw(t, "changes") {
		changes = append(changes, drawChange(t, &p, r.clock.Now()))
	}
	return func(s ledger.Store) (any, error) { return s.Update(r.ctx, id, version, changes...) }
}

// drawChange makes any change at all, likely enough to fit p.
func drawChange(t *rapid.T, p *ledger.Payment, now time.Time) ledger.Change {
	fence := p.Hold.Fence
	return ledger.Change{
		Event:       rapid.SampledFrom(modelEvents).Draw(t, "event"),
		Actor:       "request",
		Reason:      rapid.SampledFrom([]string{"", "why"}).Draw(t, "reason"),
		Fence:       rapid.SampledFrom([]uint64{fence, fence, fence, 0}).Draw(t, "fence"),
		Hold:        drawDuration(t, "hold"),
		Transaction: hash(p.Version), Block: 18, BlockHash: hash(18),
		PlanUntil: rapid.SampledFrom([]time.Time{{}, now.Add(time.Minute)}).Draw(t, "plan until"),
		ServedBy:  rapid.SampledFrom([]string{"", "pay_other"}).Draw(t, "served by"),
	}
}

func (r *run) record(t *rapid.T) op {
	tx := r.drawTransaction(t)
	return func(s ledger.Store) (any, error) { return nil, s.Record(r.ctx, tx, "request") }
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
	n := rapid.Uint64Range(1, 2).Draw(t, "wallet")
	nonce := r.m.wallets[wallet{84532, account(n)}]
	nonce += rapid.SampledFrom([]uint64{0, 0, 0, 0, 1}).Draw(t, "gap")
	var ids []string
	for range rapid.IntRange(0, 3).Draw(t, "payments") {
		if id := r.anyID(t); !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	tx := newTransaction(n, nonce, r.txs, ids...)
	tx.Hash = hash(1<<40 + r.txs) // those of one time are in the order of their hashes
	return tx
}

func (r *run) advance(t *rapid.T) op {
	wallet, to := account(rapid.Uint64Range(1, 2).Draw(t, "wallet")), rapid.Uint64Range(0, 9).Draw(t, "to")
	return func(s ledger.Store) (any, error) { return nil, s.AdvanceNonce(r.ctx, 84532, wallet, to) }
}

func drawKey(t *rapid.T) common.Hash { return hash(rapid.Uint64Range(1, 3).Draw(t, "key")) }

func (r *run) reserve(t *rapid.T) op {
	v := ledger.Reservation{Key: drawKey(t), Fingerprint: hash(7), Payment: r.anyID(t)}
	if rapid.IntRange(0, 4).Draw(t, "with an answer") == 0 {
		v.Answer = []byte{0, 0xff, '"'}
	}
	over := ""
	if rapid.Bool().Draw(t, "over another") {
		over = r.anyID(t)
	}
	ttl := time.Millisecond + drawDuration(t, "ttl")
	return func(s ledger.Store) (any, error) { return s.Reserve(r.ctx, v, over, ttl) }
}

func (r *run) answer(t *rapid.T) op {
	key, id, ttl := drawKey(t), r.anyID(t), time.Millisecond+drawDuration(t, "ttl")
	if had, ok := r.m.reservations[key]; ok && rapid.IntRange(0, 3).Draw(t, "anybody's") > 0 {
		id = had.Payment
	}
	answer := []byte(rapid.SampledFrom([]string{"one", "\x00two\xff"}).Draw(t, "answer"))
	return func(s ledger.Store) (any, error) {
		if err := s.KeepAnswer(r.ctx, key, id, answer, ttl); err != nil {
			return nil, err
		}
		return s.Reservation(r.ctx, key)
	}
}

func (r *run) revoke(t *rapid.T) op {
	id, until := r.anyID(t), r.clock.Now().Add(drawDuration(t, "until"))
	return func(s ledger.Store) (any, error) { return nil, s.Revoke(r.ctx, id, until) }
}

func (r *run) anchor(*rapid.T) op {
	now := r.clock.Now()
	return func(s ledger.Store) (any, error) { return ledger.NextAnchor(r.ctx, s, now) }
}
