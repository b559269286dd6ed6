package settlement_test

import (
	"testing"

	"github.com/holiman/uint256"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/settlement"
)

func TestLacks(t *testing.T) {
	newest, three, safe := settlement.Finality{}, settlement.Finality{Confirmations: 3}, settlement.Finality{Safe: true}
	for _, c := range []struct {
		f                       settlement.Finality
		block, head, safe, want uint64
	}{
		{newest, 10, 10, 0, 0},
		{newest, 10, 9, 0, 1}, // whoever told of the head was asked before
		{settlement.Finality{Confirmations: 1}, 10, 10, 0, 0},
		{three, 10, 10, 0, 2},
		{three, 10, 11, 0, 1},
		{three, 10, 12, 0, 0},
		{three, 10, 500, 0, 0},
		{three, 10, 9, 0, 3},
		{three, 10, 10, 10, 0}, // it is safe
		{three, 10, 10, 9, 2},
		{safe, 10, 10, 9, 1},
		{safe, 10, 1000, 4, 6},
		{safe, 10, 10, 10, 0},
		{safe, 10, 1000, 0, 10},
		{settlement.Finality{Confirmations: 3, Safe: true}, 10, 1000, 9, 1},
	} {
		if got := c.f.Lacks(c.block, c.head, c.safe); got != c.want {
			t.Errorf("%s of block %d at %d (safe %d): %d blocks are missing, want %d", c.f, c.block, c.head, c.safe, got, c.want)
		}
	}
}

// After as many blocks as are missing nothing is missing, and before that something is.
func TestLacksIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := settlement.Finality{Confirmations: rapid.Uint64Range(0, 1000).Draw(t, "confirmations")}
		block := rapid.Uint64Range(1, 1e6).Draw(t, "block")
		head := rapid.Uint64Range(1, 1e6).Draw(t, "head")
		n := f.Lacks(block, head, 0)
		if f.Lacks(block, head+n, 0) != 0 {
			t.Fatalf("after %d blocks more are missing", n)
		}
		if n > 0 && f.Lacks(block, head+n-1, 0) == 0 {
			t.Fatalf("after %d blocks nothing is missing any more", n-1)
		}
	})
}

func TestLess(t *testing.T) {
	rising := []settlement.Finality{{}, {Confirmations: 2}, {Confirmations: 3}, {Safe: true}}
	for i, a := range rising {
		for j, b := range rising {
			if got := a.Less(b); got != (i < j) {
				t.Errorf("%s less than %s: %t", a, b, got)
			}
		}
	}
	if one := (settlement.Finality{Confirmations: 1}); rising[0].Less(one) || one.Less(rising[0]) || !one.Newest() {
		t.Error("one confirmation is not the newest block")
	}
}

// The amount decides, to the atomic unit.
func TestDemandsByAmount(t *testing.T) {
	three, safe := settlement.Finality{Confirmations: 3}, settlement.Finality{Safe: true}
	ds := settlement.Demands{
		{Above: *uint256.NewInt(1_000_000), Finality: three}, {Above: *uint256.NewInt(100_000_000), Finality: safe},
	}
	for amount, want := range map[uint64]settlement.Finality{
		0: {}, 1: {}, 1_000_000: {}, 1_000_001: three, 100_000_000: three, 100_000_001: safe, 1 << 63: safe,
	} {
		if got := ds.Of(uint256.NewInt(amount)); got != want {
			t.Errorf("%d: %s, want %s", amount, got, want)
		}
	}
	if got := settlement.Demands(nil).Of(uint256.NewInt(1 << 62)); !got.Newest() {
		t.Errorf("nothing is demanded, and it says %s", got)
	}
	all := settlement.Demands{{Finality: three}}
	if got := all.Of(uint256.NewInt(1)); got != three {
		t.Errorf("%s of the least payment", got)
	}
}
