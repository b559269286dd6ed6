package wallet

import (
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"pgregory.net/rapid"
)

// Nodes take a transaction in place of another one if both of its fees are a tenth higher; it is mined if they are what the
// chain asks for now; and nobody pays more than the ceiling.
func TestRaisedFees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) *big.Int {
			return new(big.Int).SetUint64(rapid.Uint64Range(0, 1<<rapid.IntRange(1, 50).Draw(t, name+"'s magnitude")).Draw(t, name))
		}
		old := fees{tip: draw("tip")}
		old.max = new(big.Int).Add(old.tip, draw("base"))
		now := fees{tip: draw("tip now")}
		now.max = new(big.Int).Add(now.tip, draw("base now"))
		ceiling := draw("ceiling")
		f, err := old.raised(now, ceiling)
		if errors.Is(err, errCeiling) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range []struct{ old, now, got *big.Int }{{old.max, now.max, f.max}, {old.tip, now.tip, f.tip}} {
			least := new(big.Int).Mul(x.old, big.NewInt(11))
			if new(big.Int).Mul(x.got, big.NewInt(10)).Cmp(least) < 0 || x.got.Cmp(x.old) <= 0 || x.got.Cmp(x.now) < 0 {
				t.Fatalf("%s instead of %s, where %s is asked for", x.got, x.old, x.now)
			}
		}
		if f.max.Cmp(ceiling) > 0 || f.tip.Cmp(f.max) > 0 {
			t.Fatalf("tip %s, most %s, ceiling %s", f.tip, f.max, ceiling)
		}
	})
}

// However transactions end: what counts is what they cost, or can cost, in the last hour, and never more than the limit.
func TestCosts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c costs
		now := time.Unix(1_800_000_000, 0)
		limit := big.NewInt(1000)
		type entry struct {
			at  time.Time
			wei int64
		}
		model := make(map[place]entry)
		sum := func() (n int64) {
			for at, e := range model {
				if now.Sub(e.at) >= time.Hour {
					delete(model, at)
					continue
				}
				n += e.wei
			}
			return n
		}
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 1800).Draw(t, "seconds")) * time.Second)
			at := place{common.Address{1}, uint64(i)}
			wei := int64(rapid.IntRange(1, 400).Draw(t, "wei"))
			if rapid.Bool().Draw(t, "reserve") {
				err := c.reserve(now, at, big.NewInt(wei), limit)
				if fits := sum()+wei <= 1000; fits != (err == nil) {
					t.Fatalf("%d on top of %d: %v", wei, sum(), err)
				}
				if err == nil {
					model[at] = entry{now, wei}
				}
				continue
			}
			at.nonce = rapid.Uint64Range(0, uint64(i)).Draw(t, "place")
			var spent *big.Int
			if !rapid.Bool().Draw(t, "nothing") {
				spent = big.NewInt(wei / 4)
			}
			sum()
			c.recent(now)
			c.settle(at, spent)
			if e, ok := model[at]; ok {
				if delete(model, at); spent != nil {
					model[at] = entry{e.at, spent.Int64()}
				}
			}
		}
		if got := c.recent(now); got.Int64() != sum() || len(c.list) != len(model) {
			t.Fatalf("%s in %d entries, want %d in %d", got, len(c.list), sum(), len(model))
		}
	})
}
