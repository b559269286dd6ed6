package redis

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/ledger"
)

func drawHash(t *rapid.T) common.Hash {
	return common.BytesToHash(rapid.SliceOfN(rapid.Byte(), 0, 32).Draw(t, "hash"))
}

func drawAddress(t *rapid.T) common.Address {
	return common.BytesToAddress(rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "address"))
}

func drawTime(t *rapid.T) time.Time {
	if rapid.Bool().Draw(t, "zero") {
		return time.Time{}
	}
	return time.UnixMicro(rapid.Int64Range(-1<<40, 1<<52).Draw(t, "time")).UTC()
}

func drawText(t *rapid.T) string { return string(rapid.SliceOf(rapid.Byte()).Draw(t, "text")) }

func drawPayment(t *rapid.T) ledger.Payment {
	var p ledger.Payment
	p.ID, p.Version = "pay_"+drawText(t), rapid.Uint64().Draw(t, "version")
	p.ChainID, p.Asset, p.Payer, p.Nonce = rapid.Uint64().Draw(t, "chain"), drawAddress(t), drawAddress(t), drawHash(t)
	p.PayTo, p.HeaderHash = drawAddress(t), drawHash(t)
	p.Amount = *new(uint256.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 32).Draw(t, "amount"))
	p.ValidBefore, p.ClaimBlock = rapid.Uint64().Draw(t, "valid before"), rapid.Uint64().Draw(t, "block")
	p.Binding = ledger.Binding{Route: drawText(t), Plan: drawText(t), Method: rapid.SampledFrom([]string{"", "GET", "X"}).Draw(t, "method"), Host: drawText(t), URI: drawText(t)}
	p.Flow = rapid.SampledFrom([]string{ledger.FlowDeferred, "other", ""}).Draw(t, "flow")
	p.Settlement = ledger.Settlement(rapid.SampledFrom(append(settlements, "", "new")).Draw(t, "settlement"))
	p.Delivery, p.Refund = ledger.Delivery(rapid.SampledFrom(deliveries).Draw(t, "delivery")), ledger.Refund(rapid.SampledFrom(refunds).Draw(t, "refund"))
	p.Reason, p.Transaction, p.Block, p.BlockHash = drawText(t), drawHash(t), rapid.Uint64().Draw(t, "block"), drawHash(t)
	p.Final, p.Hold = rapid.Bool().Draw(t, "final"), ledger.Hold{Fence: rapid.Uint64().Draw(t, "fence"), Until: drawTime(t)}
	p.PlanUntil, p.ServedBy = drawTime(t), drawText(t)
	p.CreatedAt, p.UpdatedAt, p.SettledAt, p.DeliveredAt = drawTime(t), drawTime(t), drawTime(t), drawTime(t)
	return p
}

// What is written is read back, every bit of it.
func TestValues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &stored{payment: drawPayment(t), check: rapid.Int64Range(0, 1<<53).Draw(t, "check")}
		for range rapid.IntRange(0, 3).Draw(t, "refs") {
			s.refs = append(s.refs, ref{rapid.Uint64().Draw(t, "chain"), drawAddress(t), drawHash(t)})
		}
		var want []ledger.Entry
		var previous common.Hash
		for v := range uint64(rapid.IntRange(0, 3).Draw(t, "entries")) {
			p := drawPayment(t)
			p.ID, p.Version = s.payment.ID, v+1
			e := ledger.NewEntry(&p, ledger.Change{
				Event: ledger.Event(drawText(t)), Actor: drawText(t), Reason: drawText(t), Transaction: drawHash(t),
				Block: rapid.Uint64().Draw(t, "block"), BlockHash: drawHash(t), PlanUntil: drawTime(t), ServedBy: drawText(t),
			}, previous)
			previous = e.Hash
			s.trail = appendEntry(s.trail, &e, "12345678")
			want = append(want, e)
		}
		got, err := parse(s.value())
		if err != nil || got.payment != s.payment || got.check != s.check || !slices.Equal(got.refs, s.refs) || len(got.mark) != 0 {
			t.Fatalf("read %+v (%v)\nwant %+v", got, err, s)
		}
		if trail, err := got.story(); err != nil || !slices.Equal(trail, want) {
			t.Fatalf("read %+v (%v)\nwant %+v", trail, err, want)
		}
	})
}

// What somebody else has written is an error, and never more than that.
func FuzzParse(f *testing.F) {
	p := ledger.Payment{ID: "pay_a", Amount: *uint256.NewInt(math.MaxUint64), Settlement: ledger.Claimed, Delivery: ledger.NotDelivered, Refund: ledger.NotRefunded}
	e := ledger.NewEntry(&p, ledger.Change{Event: ledger.EventClaim}, common.Hash{})
	s := &stored{payment: p, trail: appendEntry(nil, &e, "12345678")}
	f.Add(s.value())
	f.Add("")
	f.Fuzz(func(t *testing.T, v string) {
		s, err := parse(v)
		if err == nil {
			_, err = s.entries()
		}
		if err != nil && !errors.Is(err, errDamaged) {
			t.Errorf("%v, want errDamaged", err)
		}
		_, _ = parseMark([]byte(v))
		_, _ = parseSent(v, ref{})
		_, _ = parseReservation(common.Hash{}, v)
		_, _ = parseAllowance(common.Hash{}, v)
		_, _ = parseObject("key", "a", v)
	})
}

// The order of parts is the order of ids, and every id is in a part.
func TestPartitions(t *testing.T) {
	last := -1
	for _, a := range alphabet {
		for _, b := range alphabet {
			part, ok := partitionOf("pay_" + string(a) + string(b) + "x")
			if !ok || part < last || part > last+1 || part >= partitions {
				t.Fatalf("%c%c is in part %d, %v, after %d", a, b, part, ok, last)
			}
			last = part
		}
	}
	if last != partitions-1 {
		t.Errorf("the last part is %d", last)
	}
	for _, id := range []string{"", "pay_", "pay_a", "pay_aa", "pay_1ax", "pay_AAx", "x", "pay_\xff\xffx"} {
		if part, ok := partitionOf(id); ok {
			t.Errorf("%q is in part %d", id, part)
		}
	}
}
