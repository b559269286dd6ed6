package ledger

import (
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
	"pgregory.net/rapid"
)

// Whatever amounts fill the slots of a pool, they are no more together than its bound; and the bound itself fits.
func TestSlotsHoldTheBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Credit{PerPayer: *uint256.NewInt(rapid.Uint64Range(1, 1<<50).Draw(t, "per payer"))}
		c.Total = *uint256.NewInt(rapid.Uint64Range(1, 1<<60).Draw(t, "total"))
		own, total := c.pools(common.Address{1})
		for _, p := range []pool{own, total} {
			if n := p.need(p.bound); n != p.slots {
				t.Fatalf("the bound %s fills %d of %d slots", p.bound.Dec(), n, p.slots)
			}
			if n := p.need(new(uint256.Int).AddUint64(p.bound, 1)); n <= p.slots {
				t.Fatal("more than the bound fits")
			}
			var sum uint256.Int
			for used := uint64(0); ; {
				amount := uint256.NewInt(rapid.Uint64Range(1, p.bound.Uint64()).Draw(t, "amount"))
				n := p.need(amount)
				if n == 0 {
					t.Fatalf("%s takes no slot", amount.Dec())
				}
				if used += n; used > p.slots {
					break
				}
				if sum.Add(&sum, amount); sum.Gt(p.bound) {
					t.Fatalf("%s were lent of %s", sum.Dec(), p.bound.Dec())
				}
			}
		}
	})
}

// Nothing is lent where no bound is set.
func TestNoCredit(t *testing.T) {
	own, total := new(Credit).pools(common.Address{1})
	for _, p := range []pool{own, total} {
		if n := p.need(uint256.NewInt(1)); n <= p.slots {
			t.Errorf("%d of %d slots of nothing", n, p.slots)
		}
	}
}
